//! One encryption zone's keys in memory, and the right to use them.
//!
//! What it is for: [`Zone`] holds the unwrapped zone keys while the customer's root key may be used; a [`Lease`] is
//! what readers and writers carry. Locking a zone takes effect at once and for good: it waits for calls that are inside
//! the cipher (microseconds), zeroes the keys, and every lease given before stays dead even after the zone was unlocked
//! again. What it deliberately does not do: it asks no key service and decides nothing; see
//! [`LeaseMachine`](crate::LeaseMachine).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    AddKeyError, FileIdentity, OpenError, PlainKey, RewrapError, SealedHeader, UnlockError, Unverified, ZoneId,
    ZoneKeyVersion, ZoneLocked, header,
};

/// One encryption zone's keys in memory; starts locked. Shared as `Arc<Zone>`.
pub struct Zone {
    id: ZoneId,
    inner: RwLock<Inner>,
}

struct Inner {
    /// How often the zone was locked.
    generation: u64,
    keys: Option<ZoneKeys>,
}

/// The right to use a zone's keys, until the zone is locked. Cheap to clone; check it as often as you like.
#[derive(Clone)]
pub struct Lease {
    zone: Arc<Zone>,
    generation: u64,
}

/// Zone keys by version; zeroed on drop.
pub(crate) struct ZoneKeys(BTreeMap<ZoneKeyVersion, PlainKey>);

impl Zone {
    /// The zone `id`, locked.
    #[must_use]
    pub fn locked(id: ZoneId) -> Arc<Self> {
        Arc::new(Self {
            id,
            inner: RwLock::new(Inner {
                generation: 0,
                keys: None,
            }),
        })
    }

    /// Puts the zone's keys in place; the highest version seals from now on. An unlocked zone gets the new keys instead
    /// of the ones it has (a rotation), and its leases live on.
    ///
    /// # Errors
    /// [`UnlockError`] if there is no key, or two with one version; the zone is as before.
    pub fn unlock(&self, keys: Vec<(ZoneKeyVersion, PlainKey)>) -> Result<(), UnlockError> {
        let mut by_version = BTreeMap::new();
        for (version, key) in keys {
            if by_version.insert(version, key).is_some() {
                return Err(UnlockError::DuplicateVersion { zone: self.id, version });
            }
        }
        if by_version.is_empty() {
            return Err(UnlockError::NoKeys { zone: self.id });
        }
        self.inner.write().unwrap_or_else(PoisonError::into_inner).keys = Some(ZoneKeys(by_version));
        Ok(())
    }

    /// Drops and zeroes every zone key. When this returns, no lease given before opens or seals anything, ever.
    pub fn lock(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.keys = None;
        inner.generation += 1;
    }

    /// Whether the zone's keys are in memory.
    #[must_use]
    pub fn is_unlocked(&self) -> bool {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).keys.is_some()
    }

    /// The zone's id.
    #[must_use]
    pub fn id(&self) -> ZoneId {
        self.id
    }

    /// How often the zone was locked; a lease is good for one generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// The right to use the zone's keys.
    ///
    /// # Errors
    /// [`ZoneLocked`] if it is locked.
    pub fn lease(self: &Arc<Self>) -> Result<Lease, ZoneLocked> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if inner.keys.is_none() {
            return Err(ZoneLocked { zone: self.id });
        }
        Ok(Lease {
            zone: Arc::clone(self),
            generation: inner.generation,
        })
    }
}

impl Lease {
    /// Whether the lease is alive.
    ///
    /// # Errors
    /// [`ZoneLocked`] if the zone was locked since the lease was given.
    pub fn check(&self) -> Result<(), ZoneLocked> {
        self.with_keys(|_| ())
    }

    /// The zone.
    #[must_use]
    pub fn zone(&self) -> ZoneId {
        self.zone.id
    }

    /// The newest version of the zone's key, which wraps new data keys.
    ///
    /// # Errors
    /// [`ZoneLocked`] if the zone was locked since the lease was given.
    pub fn current_version(&self) -> Result<ZoneKeyVersion, ZoneLocked> {
        self.with_keys(|keys| keys.current().map(|(version, _)| version))?
            .ok_or(ZoneLocked { zone: self.zone.id })
    }

    /// Adds a key to the unlocked zone, under this lease alone: if the zone was locked since, even if it was unlocked
    /// again, nothing changes. The highest version seals from now on. Leases live on.
    ///
    /// # Errors
    /// [`AddKeyError`]; the zone is as before.
    pub fn add_key(&self, version: ZoneKeyVersion, key: PlainKey) -> Result<(), AddKeyError> {
        let mut inner = self.zone.inner.write().unwrap_or_else(PoisonError::into_inner);
        let zone = self.zone.id;
        if inner.generation != self.generation {
            return Err(AddKeyError::Locked(ZoneLocked { zone }));
        }
        let Some(keys) = &mut inner.keys else {
            return Err(AddKeyError::Locked(ZoneLocked { zone }));
        };
        if keys.0.contains_key(&version) {
            return Err(AddKeyError::DuplicateVersion { zone, version });
        }
        keys.0.insert(version, key);
        Ok(())
    }

    /// Drops and zeroes the keys of the versions before `version`, which has to be there. What they wrap does not open
    /// any more.
    ///
    /// # Errors
    /// [`ZoneLocked`] if the zone was locked since the lease was given, or does not have that version; all keys stay.
    pub fn drop_keys_below(&self, version: ZoneKeyVersion) -> Result<(), ZoneLocked> {
        let mut inner = self.zone.inner.write().unwrap_or_else(PoisonError::into_inner);
        let locked = ZoneLocked { zone: self.zone.id };
        if inner.generation != self.generation {
            return Err(locked);
        }
        let keys = inner.keys.as_mut().filter(|keys| keys.0.contains_key(&version));
        keys.ok_or(locked)?.0.retain(|other, _| *other >= version);
        Ok(())
    }

    /// Wraps the data key in `header` anew: by this zone's newest key instead of `old`'s. This is how a file gets a
    /// newer zone key version (`old` of the same zone) or moves to another zone; its body stays as it is.
    ///
    /// The old header still opens under the old zone key: overwrite it, and shred the old key to make that final.
    ///
    /// # Errors
    /// [`RewrapError`] if the old header does not verify as `expected` under `old`, or either zone is locked.
    pub fn rewrap_header(
        &self,
        old: &Self,
        expected: FileIdentity,
        header: &Unverified,
    ) -> Result<SealedHeader, RewrapError> {
        let header = header.as_bytes();
        let opened = old
            .with_keys(|keys| header::open_unless_moved(old.zone(), keys, expected, header))
            .map_err(OpenError::Locked)??;
        let fresh = self
            .with_keys(|keys| header::rewrap(self.zone(), keys, &opened, header))
            .map_err(crate::SealError::Locked)??;
        Ok(SealedHeader::new(fresh.to_vec()))
    }

    /// Runs `work` with the zone's keys if the lease is alive. The zone cannot be locked meanwhile, so `work` is short:
    /// one header, one frame, one record.
    pub(crate) fn with_keys<T>(&self, work: impl FnOnce(&ZoneKeys) -> T) -> Result<T, ZoneLocked> {
        let inner = self.zone.inner.read().unwrap_or_else(PoisonError::into_inner);
        match &inner.keys {
            Some(keys) if inner.generation == self.generation => Ok(work(keys)),
            _ => Err(ZoneLocked { zone: self.zone.id }),
        }
    }
}

impl ZoneKeys {
    pub(crate) fn current(&self) -> Option<(ZoneKeyVersion, &PlainKey)> {
        self.0.last_key_value().map(|(version, key)| (*version, key))
    }
    pub(crate) fn version(&self, version: ZoneKeyVersion) -> Option<&PlainKey> {
        self.0.get(&version)
    }
    #[cfg(test)]
    pub(crate) fn for_test(keys: Vec<(ZoneKeyVersion, PlainKey)>) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone")
            .field("id", &self.id)
            .field("unlocked", &self.is_unlocked())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("zone", &self.zone.id)
            .field("generation", &self.generation)
            .finish()
    }
}

impl fmt::Debug for ZoneKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ZoneKeys([redacted])")
    }
}
