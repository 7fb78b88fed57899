//! What is stored of a zone: its root key's name and its wrapped keys. Nothing here is secret.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    EncryptionContext, GeneratedKey, KeyPurpose, KeyServiceError, Outage, PlainKey, RootKeyId, SealedValue, Unverified,
    WrappedKey, ZoneId, ZoneKeyVersion, cipher,
};

/// A zone as it is stored: enough to ask its key service for the zone's keys.
///
/// A database's record is sealed in the catalog under the platform zone, as metadata values are. The platform zone's own
/// record cannot be: it is the one value that is stored in the clear, as [`Self::to_bootstrap_value`] makes it. It
/// holds only wrapped keys. Who alters it gains nothing: the key service authenticates each wrapped key and its context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// The zone.
    pub zone: ZoneId,
    /// The root key that wraps its keys.
    pub root: RootKeyId,
    /// What the wrapped keys are bound to at the key service.
    pub context: EncryptionContext,
    /// Its keys by version.
    pub versions: Vec<(ZoneKeyVersion, WrappedKey)>,
    /// What tells each key from every other one. Records of version 1 have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<ZoneKeyVersion, KeyCheck>,
}

/// Tells a zone key from every other key, and nothing else about it: a key service that gives back another key than it
/// wrapped is noticed before anything is opened or sealed with it.
///
/// HMAC-SHA-256 under the zone key of a label, the zone and the version. A zone key has 256 random bits, so nobody finds
/// it from this.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCheck([u8; KeyCheck::BYTES]);

impl KeyCheck {
    /// Length, in bytes.
    pub const BYTES: usize = 32;

    /// The check value of `key` as a key of this zone and version.
    #[must_use]
    pub fn of(key: &PlainKey, zone: ZoneId, version: ZoneKeyVersion) -> Self {
        let mut message = CHECK_LABEL.to_vec();
        message.extend_from_slice(zone.as_bytes());
        message.extend_from_slice(&version.number().to_le_bytes());
        Self(cipher::mac(key.expose_bytes(), &message))
    }
}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are not a zone's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ZoneRecordError {
    /// The bytes were altered or cut.
    #[error("the zone record is damaged: its checksum does not match")]
    Damaged,
    /// The bytes are of another format, or of a version that this program does not know.
    #[error("not a zone record of version 1 or 2")]
    Format,
    /// A text or list is too long to be stored.
    #[error("the zone record's {field} has {length} entries or bytes; the limit is {length_max}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        length: usize,
        /// The limit.
        length_max: usize,
    },
}

impl ZoneRecord {
    /// Most versions of a zone's key: a rotation a day for over a decade.
    pub const VERSIONS_MAX: usize = 4_096;
    /// Longest text in a record, in bytes.
    pub const TEXT_BYTES_MAX: usize = 2_048;

    /// Takes in a key that the key service made for this zone, with its check value.
    pub fn add(&mut self, version: ZoneKeyVersion, key: &GeneratedKey) {
        self.versions.push((version, key.wrapped.clone()));
        self.checks
            .insert(version, KeyCheck::of(&key.plain, self.zone, version));
    }

    /// Whether what the key service unwrapped is the zone's key of this version.
    ///
    /// # Errors
    /// [`Outage::WrongKey`] if it is another one; the key must not be used then.
    pub fn recognise(&self, version: ZoneKeyVersion, key: &PlainKey) -> Result<(), KeyServiceError> {
        match self.checks.get(&version) {
            Some(check) if cipher::equal(&check.0, &KeyCheck::of(key, self.zone, version).0).is_err() => {
                Err(KeyServiceError::Unavailable {
                    root: self.root.clone(),
                    outage: Outage::WrongKey,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The record as bytes; `docs/formats.md` has the layout. A record without check values is written as version 1.
    ///
    /// # Errors
    /// [`ZoneRecordError::TooLong`] beyond the limits.
    pub fn encode(&self) -> Result<Vec<u8>, ZoneRecordError> {
        let checked = self
            .versions
            .iter()
            .any(|(version, _)| self.checks.contains_key(version));
        let mut bytes = MAGIC.to_vec();
        bytes.push(if checked { CHECKED } else { UNCHECKED });
        bytes.extend_from_slice(self.zone.as_bytes());
        for (field, text) in [
            ("root key name", self.root.as_str()),
            ("cluster id", &self.context.cluster),
            ("database id", &self.context.database),
            ("purpose", self.context.purpose.as_str()),
        ] {
            within(field, text.len(), Self::TEXT_BYTES_MAX)?;
            put(&mut bytes, text.as_bytes());
        }
        within("key versions", self.versions.len(), Self::VERSIONS_MAX)?;
        put_length(&mut bytes, self.versions.len());
        for (version, wrapped) in &self.versions {
            bytes.extend_from_slice(&version.number().to_le_bytes());
            put(&mut bytes, wrapped.as_bytes());
            if checked {
                put(&mut bytes, self.checks.get(version).map_or(&[], |check| &check.0));
            }
        }
        let checksum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(checksum.as_ref());
        Ok(bytes)
    }

    /// Reads what [`Self::encode`] made.
    ///
    /// # Errors
    /// [`ZoneRecordError`] if it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ZoneRecordError> {
        use ZoneRecordError::Format;
        let checked = match bytes.strip_prefix(MAGIC).and_then(<[u8]>::first) {
            Some(&UNCHECKED) => false,
            Some(&CHECKED) => true,
            Some(_) | None => return Err(Format),
        };
        let (body, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(ZoneRecordError::Damaged)?;
        if digest::digest(&digest::SHA256, body).as_ref() != checksum {
            return Err(ZoneRecordError::Damaged);
        }
        let mut rest = body.get(MAGIC.len() + 1..).ok_or(Format)?;
        let zone = ZoneId::from_bytes(*take_array::<16>(&mut rest)?);
        let root = take_text(&mut rest)?.parse().map_err(|_| Format)?;
        let cluster = take_text(&mut rest)?.to_owned();
        let database = take_text(&mut rest)?.to_owned();
        let purpose = match take_text(&mut rest)? {
            text if text == KeyPurpose::ZoneKey.as_str() => KeyPurpose::ZoneKey,
            text if text == KeyPurpose::Validation.as_str() => KeyPurpose::Validation,
            _ => return Err(Format),
        };
        let count = usize::from(u16::from_le_bytes(*take_array::<2>(&mut rest)?));
        if count > Self::VERSIONS_MAX {
            return Err(Format);
        }
        let mut versions = Vec::with_capacity(count);
        let mut checks = BTreeMap::new();
        for _ in 0..count {
            let version = ZoneKeyVersion::new(u32::from_le_bytes(*take_array::<4>(&mut rest)?));
            let wrapped = WrappedKey::new(take(&mut rest, WrappedKey::BYTES_MAX)?.to_vec()).ok_or(Format)?;
            versions.push((version, wrapped));
            if checked {
                let check = match take(&mut rest, KeyCheck::BYTES)? {
                    [] => None,
                    check => Some(KeyCheck(check.try_into().map_err(|_| Format)?)),
                };
                if checks.insert(version, check).is_some() {
                    return Err(Format);
                }
            }
        }
        let checks: BTreeMap<_, _> = checks
            .into_iter()
            .filter_map(|(version, check)| Some((version, check?)))
            .collect();
        // Each record has one encoding: one without check values is of version 1.
        if !rest.is_empty() || checked == checks.is_empty() {
            return Err(Format);
        }
        Ok(Self {
            zone,
            root,
            context: EncryptionContext {
                cluster,
                database,
                purpose,
            },
            versions,
            checks,
        })
    }

    /// The record as the one value that the metadata store takes unsealed: the platform zone's, which everything else
    /// is opened with. It holds only wrapped keys.
    ///
    /// # Errors
    /// [`ZoneRecordError::TooLong`] beyond the limits.
    pub fn to_bootstrap_value(&self) -> Result<SealedValue, ZoneRecordError> {
        self.encode().map(SealedValue::new)
    }

    /// Reads what [`Self::to_bootstrap_value`] made.
    ///
    /// # Errors
    /// [`ZoneRecordError`] if it is anything else.
    pub fn from_bootstrap_value(value: &Unverified) -> Result<Self, ZoneRecordError> {
        Self::decode(value.as_bytes())
    }
}

fn within(field: &'static str, length: usize, length_max: usize) -> Result<(), ZoneRecordError> {
    if length > length_max {
        return Err(ZoneRecordError::TooLong {
            field,
            length,
            length_max,
        });
    }
    Ok(())
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    put_length(bytes, part.len());
    bytes.extend_from_slice(part);
}

#[expect(
    clippy::expect_used,
    reason = "every length was checked against a limit below 65,536"
)]
fn put_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(
        &u16::try_from(length)
            .expect("lengths are within the limits")
            .to_le_bytes(),
    );
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], ZoneRecordError> {
    let (array, after) = rest.split_first_chunk::<N>().ok_or(ZoneRecordError::Format)?;
    *rest = after;
    Ok(array)
}

fn take<'a>(rest: &mut &'a [u8], bytes_max: usize) -> Result<&'a [u8], ZoneRecordError> {
    let length = usize::from(u16::from_le_bytes(*take_array::<2>(rest)?));
    let (part, after) = rest.split_at_checked(length).ok_or(ZoneRecordError::Format)?;
    if length > bytes_max {
        return Err(ZoneRecordError::Format);
    }
    *rest = after;
    Ok(part)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, ZoneRecordError> {
    std::str::from_utf8(take(rest, ZoneRecord::TEXT_BYTES_MAX)?).map_err(|_| ZoneRecordError::Format)
}

const MAGIC: &[u8; 7] = b"SAKERZR";
/// Version bytes: without and with check values.
const UNCHECKED: u8 = 1;
const CHECKED: u8 = 2;
const CHECK_LABEL: &[u8] = b"saker zone key check 1";
const CHECKSUM_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random_key;

    fn record() -> ZoneRecord {
        let second = ZoneKeyVersion::new(2);
        let zone = ZoneId::from_bytes([7; 16]);
        ZoneRecord {
            checks: [(second, KeyCheck::of(&random_key(), zone, second))].into(),
            zone: ZoneId::from_bytes([7; 16]),
            root: "arn:aws:kms:us-east-1:000000000000:key/1234".parse().unwrap(),
            context: EncryptionContext {
                cluster: "c".into(),
                database: "d".repeat(ZoneRecord::TEXT_BYTES_MAX),
                purpose: KeyPurpose::ZoneKey,
            },
            versions: vec![
                (ZoneKeyVersion::FIRST, WrappedKey::new(vec![1; 100]).unwrap()),
                (
                    ZoneKeyVersion::new(2),
                    WrappedKey::new(vec![2; WrappedKey::BYTES_MAX]).unwrap(),
                ),
            ],
        }
    }

    #[test]
    fn a_record_comes_back_and_any_alteration_is_noticed() {
        let record = record();
        let value = record.to_bootstrap_value().unwrap().into_unverified();
        assert_eq!(ZoneRecord::from_bootstrap_value(&value).unwrap(), record);
        let bytes = value.as_bytes();
        for at in 0..bytes.len() {
            let mut altered = bytes.to_vec();
            altered[at] ^= 1;
            assert!(ZoneRecord::decode(&altered).is_err(), "byte {at}");
            assert!(ZoneRecord::decode(&bytes[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn another_key_than_the_one_that_was_taken_in_is_not_recognised() {
        let mut record = record();
        let version = ZoneKeyVersion::new(3);
        let made = GeneratedKey {
            plain: random_key(),
            wrapped: WrappedKey::new(vec![3; 100]).unwrap(),
        };
        record.add(version, &made);
        record.recognise(version, &made.plain).unwrap();
        let wrong = KeyServiceError::Unavailable {
            root: record.root.clone(),
            outage: Outage::WrongKey,
        };
        for _ in 0..20 {
            assert_eq!(record.recognise(version, &random_key()), Err(wrong.clone()));
        }
        // A key that was swapped with that of another version or zone is not it either.
        assert_eq!(
            record.recognise(ZoneKeyVersion::new(2), &made.plain),
            Err(wrong.clone())
        );
        let read = ZoneRecord::decode(&record.encode().unwrap()).unwrap();
        assert_eq!(read, record);
        read.recognise(version, &made.plain).unwrap();
        let of = |zone: u8, version| KeyCheck::of(&made.plain, ZoneId::from_bytes([zone; 16]), version);
        assert_eq!(of(7, version), record.checks[&version]);
        assert_ne!(of(8, version), record.checks[&version]);
        assert_ne!(of(7, ZoneKeyVersion::new(4)), record.checks[&version]);
        // Records of before there were check values.
        record.checks.clear();
        record.recognise(version, &random_key()).unwrap();
        assert_eq!(ZoneRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }

    /// What a damaged length field could ask for, with a checksum that is right.
    #[test]
    fn no_length_field_is_believed() {
        let bytes = record().encode().unwrap();
        let body = &bytes[..bytes.len() - CHECKSUM_BYTES];
        for at in MAGIC.len() + 17..body.len() - 1 {
            let mut altered = body.to_vec();
            altered[at] = 0xff;
            altered[at + 1] = 0xff;
            let checksum = digest::digest(&digest::SHA256, &altered);
            altered.extend_from_slice(checksum.as_ref());
            let _may_differ_but_never_panics = ZoneRecord::decode(&altered);
        }
    }

    #[test]
    fn limits_hold() {
        let mut long = record();
        long.context.database.push('d');
        assert_eq!(
            long.encode(),
            Err(ZoneRecordError::TooLong {
                field: "database id",
                length: 2_049,
                length_max: 2_048
            })
        );
        let mut many = record();
        let wrapped = many.versions[0].1.clone();
        many.versions = (1_u32..)
            .take(ZoneRecord::VERSIONS_MAX)
            .map(|number| (ZoneKeyVersion::new(number), wrapped.clone()))
            .collect();
        assert_eq!(ZoneRecord::decode(&many.encode().unwrap()).unwrap(), many);
        many.versions.push((ZoneKeyVersion::new(9_999), wrapped));
        assert!(matches!(
            many.encode(),
            Err(ZoneRecordError::TooLong {
                field: "key versions",
                ..
            })
        ));
    }
}
