//! What is stored of a zone: its root key's name and its wrapped keys. Nothing here is secret.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{EncryptionContext, KeyPurpose, RootKeyId, SealedValue, Unverified, WrappedKey, ZoneId, ZoneKeyVersion};

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
}

/// Why bytes are not a zone's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ZoneRecordError {
    /// The bytes were altered or cut.
    #[error("the zone record is damaged: its checksum does not match")]
    Damaged,
    /// The bytes are of another format, or of a version that this program does not know.
    #[error("not a zone record of version 1")]
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

    /// The record as bytes; `docs/formats.md` has the layout.
    ///
    /// # Errors
    /// [`ZoneRecordError::TooLong`] beyond the limits.
    pub fn encode(&self) -> Result<Vec<u8>, ZoneRecordError> {
        let mut bytes = MAGIC.to_vec();
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
        if !bytes.starts_with(MAGIC) {
            return Err(Format);
        }
        let (body, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(ZoneRecordError::Damaged)?;
        if digest::digest(&digest::SHA256, body).as_ref() != checksum {
            return Err(ZoneRecordError::Damaged);
        }
        let mut rest = body.get(MAGIC.len()..).ok_or(Format)?;
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
        for _ in 0..count {
            let version = ZoneKeyVersion::new(u32::from_le_bytes(*take_array::<4>(&mut rest)?));
            let wrapped = WrappedKey::new(take(&mut rest, WrappedKey::BYTES_MAX)?.to_vec()).ok_or(Format)?;
            versions.push((version, wrapped));
        }
        if !rest.is_empty() {
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

const MAGIC: &[u8; 8] = b"SAKERZR\x01";
const CHECKSUM_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ZoneRecord {
        ZoneRecord {
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

    /// What a damaged length field could ask for, with a checksum that is right.
    #[test]
    fn no_length_field_is_believed() {
        let bytes = record().encode().unwrap();
        let body = &bytes[..bytes.len() - CHECKSUM_BYTES];
        for at in MAGIC.len() + 16..body.len() - 1 {
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
        many.versions = vec![many.versions[0].clone(); ZoneRecord::VERSIONS_MAX];
        assert_eq!(ZoneRecord::decode(&many.encode().unwrap()).unwrap(), many);
        many.versions.push(many.versions[0].clone());
        assert!(matches!(
            many.encode(),
            Err(ZoneRecordError::TooLong {
                field: "key versions",
                ..
            })
        ));
    }
}
