//! The loaded library. A process can have each only once, whoever uses it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, TryLockError, Weak},
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
};
use saker_keyring::Outage;

use super::verdict::Failure;

/// A library, loaded and initialised at its first use.
pub(super) struct Module {
    path: PathBuf,
    loaded: RwLock<Option<Loaded>>,
}

struct Loaded {
    context: Pkcs11,
    /// Grows with each initialisation: sessions of an earlier one are gone.
    generation: u64,
    /// When it was last initialised in search of a token.
    looked: Option<Instant>,
}

impl Module {
    /// The library at `path`, the same for all who ask for it.
    pub(super) fn shared(path: &Path) -> Arc<Self> {
        static MODULES: Mutex<BTreeMap<PathBuf, Weak<Module>>> = Mutex::new(BTreeMap::new());
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(path).and_then(Weak::upgrade) {
            return module;
        }
        let module = Arc::new(Self {
            path: path.to_owned(),
            loaded: RwLock::default(),
        });
        modules.insert(path.to_owned(), Arc::downgrade(&module));
        module
    }

    /// Does `work` with the library, which is not initialised anew meanwhile.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Pkcs11, u64) -> Result<T, Failure>) -> Result<T, Failure> {
        loop {
            {
                let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(loaded) = loaded.as_ref() {
                    return work(&loaded.context, loaded.generation);
                }
            }
            self.load()?;
        }
    }

    /// Initialises the library anew, which gets it over a connection that it lost. Left out if another thread did so
    /// after `generation`, or is in the library now: it must not be pulled from under a call.
    pub(super) fn renew(&self, generation: u64) -> Result<(), Failure> {
        self.renew_unless(generation, |_| false)
    }

    /// Initialises the library anew so that it sees tokens that came since. Other tokens' sessions end with that, so it
    /// is done at most every [`LOOK_AGAIN`] however often a token is missed.
    pub(super) fn look_again(&self, generation: u64) -> Result<(), Failure> {
        let now = Instant::now();
        self.renew_unless(generation, |known| {
            let lately = |looked: Instant| now.saturating_duration_since(looked) < LOOK_AGAIN;
            if known.looked.is_some_and(lately) {
                return true;
            }
            known.looked = Some(now);
            false
        })
    }

    fn renew_unless(&self, generation: u64, is_left_out: impl FnOnce(&mut Loaded) -> bool) -> Result<(), Failure> {
        let mut loaded = match self.loaded.try_write() {
            Ok(loaded) => loaded,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        if let Some(known) = loaded.as_mut().filter(|known| known.generation == generation) {
            if is_left_out(known) {
                return Ok(());
            }
            // What it says to this does not matter: it is initialised again or its error is found then.
            let _said = known.context.clone().finalize();
            initialise(&known.context)?;
            known.generation += 1;
        }
        Ok(())
    }

    fn load(&self) -> Result<(), Failure> {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if loaded.is_none() {
            let context = Pkcs11::new(&self.path).map_err(|error| {
                tracing::warn!(module = %self.path.display(), %error, "the PKCS#11 library cannot be loaded");
                Failure::Outage(Outage::Failed)
            })?;
            initialise(&context)?;
            *loaded = Some(Loaded {
                context,
                generation: 1,
                looked: None,
            });
        }
        Ok(())
    }
}

fn initialise(context: &Pkcs11) -> Result<(), Failure> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, Function::Initialize)) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "the PKCS#11 library cannot be initialised");
            Err(Failure::Outage(Outage::Failed))
        }
    }
}

/// Time between two initialisations in search of a token.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
