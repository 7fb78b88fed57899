//! One token: session, login, key objects, and the two operations. Blocking.
//!
//! A wrapped key is: version (1), length of `CKA_ID` (1 byte), `CKA_ID`, length of the IV (1 byte), IV, AES-GCM ciphertext
//! with a tag of 16 bytes. The associated data is the encryption context. An object label may stand for several keys
//! with different ids, as rotation leaves them: new data keys are wrapped under the greatest id.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use saker_keyring::{Denial, GeneratedKey, Outage, PlainKey, WrappedKey};
use zeroize::Zeroizing;

use super::{
    module::Module,
    verdict::{self, Failure},
};
use crate::secret_file;

/// A token as its thread has it.
pub(super) struct Token {
    module: Arc<Module>,
    label: String,
    pin_file: PathBuf,
    session: Option<Open>,
    refused_pin: Option<RefusedPin>,
}

struct Open {
    session: Session,
    /// The library's initialisation that it belongs to.
    generation: u64,
}

/// A PIN that the token refused. It is not tried again as it is: after a few times a token locks itself.
struct RefusedPin {
    pin: Zeroizing<String>,
    /// Whether the token itself remembers that a wrong PIN was entered: once it no longer does, somebody has logged in or
    /// set a PIN, and this one may be right now.
    token_remembers: bool,
}

/// A key object of the label.
struct Key {
    handle: ObjectHandle,
    id: Vec<u8>,
}

impl Token {
    pub(super) fn new(module: Arc<Module>, label: &str, pin_file: &Path) -> Self {
        Self {
            module,
            label: label.to_owned(),
            pin_file: pin_file.to_owned(),
            session: None,
            refused_pin: None,
        }
    }

    /// A new data key, drawn and wrapped on the token.
    pub(super) fn generate(&mut self, object: &str, associated: &[u8]) -> Result<GeneratedKey, Failure> {
        self.attempt(|session| {
            let key = newest(keys(session, object)?)?;
            let mut bytes = Zeroizing::new([0_u8; PlainKey::BYTES]);
            session.generate_random_slice(bytes.as_mut())?;
            let mut iv = [0_u8; IV_BYTES];
            session.generate_random_slice(&mut iv)?;
            let ciphertext = seal(session, key.handle, &mut iv, associated, bytes.as_ref())?;
            let wrapped = encode(&key.id, &iv, &ciphertext).ok_or(Failure::Outage(Outage::BadAnswer))?;
            let plain = PlainKey::take(bytes.as_mut()).ok_or(Failure::Outage(Outage::BadAnswer))?;
            Ok(GeneratedKey { plain, wrapped })
        })
    }

    /// A data key that [`Self::generate`] wrapped.
    pub(super) fn decrypt(&mut self, object: &str, wrapped: &[u8], associated: &[u8]) -> Result<PlainKey, Failure> {
        let Some(wrapped) = decode(wrapped) else {
            return Err(Failure::Denied(Denial::InvalidCiphertext));
        };
        self.attempt(|session| {
            let key = keys(session, object)?
                .into_iter()
                .find(|key| key.id == wrapped.id)
                .ok_or(Failure::Denied(Denial::NotFound))?;
            let mut iv = wrapped.iv.to_vec();
            let gcm = GcmParams::new(&mut iv, associated, TAG_BITS.into()).map_err(Failure::from)?;
            match session.decrypt(&Mechanism::AesGcm(gcm), key.handle, wrapped.ciphertext) {
                Ok(plain) => {
                    let mut plain = Zeroizing::new(plain);
                    PlainKey::take(&mut plain).ok_or(Failure::Outage(Outage::BadAnswer))
                }
                Err(error) if verdict::may_be_ciphertext(&error) => Err(why_not(session, key.handle, error)),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Does `work` in a session, and once more in a new one if the session turns out to be lost.
    fn attempt<T>(&mut self, work: impl Fn(&Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let first = self.once(&work);
        if let Err(Failure::Lost(_) | Failure::LoggedOut | Failure::Library(_) | Failure::Absent) = first {
            return self.once(&work);
        }
        first
    }

    fn once<T>(&mut self, work: impl Fn(&Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let module = Arc::clone(&self.module);
        let mut seen = 0;
        let outcome = module.with(|context, generation| {
            seen = generation;
            if self.session.as_ref().is_some_and(|open| open.generation != generation) {
                self.session = None;
            }
            let open = match self.session.take() {
                Some(open) => open,
                None => Open {
                    session: self.open(context)?,
                    generation,
                },
            };
            let outcome = work(&open.session);
            // A session in which something failed may be left in the middle of an operation: the next call has a new one.
            if outcome.is_ok() {
                self.session = Some(open);
            }
            outcome
        });
        match outcome {
            Err(Failure::Library(_)) => module.renew(seen)?,
            Err(Failure::Absent) => module.look_again(seen)?,
            Ok(_) | Err(_) => {}
        }
        outcome
    }

    fn open(&mut self, context: &Pkcs11) -> Result<Session, Failure> {
        let slot = self.slot(context)?;
        let session = context.open_ro_session(slot)?;
        self.log_in(context, slot, &session)?;
        Ok(session)
    }

    fn slot(&self, context: &Pkcs11) -> Result<Slot, Failure> {
        let mut found = None;
        for slot in context.get_slots_with_token()? {
            // A token that is just being pulled has no label any more.
            let Ok(info) = context.get_token_info(slot) else {
                continue;
            };
            if info.label() == self.label {
                if found.is_some() {
                    tracing::warn!(
                        token = self.label,
                        "several PKCS#11 tokens have this label; give each its own"
                    );
                    return Err(Failure::Denied(Denial::InvalidState));
                }
                found = Some(slot);
            }
        }
        found.ok_or(Failure::Absent)
    }

    fn log_in(&mut self, context: &Pkcs11, slot: Slot, session: &Session) -> Result<(), Failure> {
        let pin = self.pin()?;
        let remembers = || context.get_token_info(slot).map(|info| info.user_pin_count_low());
        if let Some(refused) = &self.refused_pin
            && refused.pin == pin
            && (!refused.token_remembers || remembers()?)
        {
            return Err(Failure::Pin);
        }
        let outcome = session.login(UserType::User, Some(&AuthPin::from(pin.as_str())));
        match outcome {
            // Logging in counts for all sessions of the process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused_pin = None;
                Ok(())
            }
            Err(error) => {
                let failure = Failure::from(error);
                if failure == Failure::Pin {
                    tracing::warn!(
                        token = self.label,
                        "the PKCS#11 token refuses the PIN; it is not tried again until the PIN file changes"
                    );
                    let token_remembers = remembers().unwrap_or(false);
                    self.refused_pin = Some(RefusedPin { pin, token_remembers });
                }
                Err(failure)
            }
        }
    }

    fn pin(&self) -> Result<Zeroizing<String>, Failure> {
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(path = %self.pin_file.display(), %error, "the PKCS#11 PIN file cannot be used");
            Failure::Outage(Outage::Failed)
        };
        secret_file::read(&self.pin_file, PIN_BYTES_MAX).map_err(|error| refused(&error))
    }
}

/// All AES keys with this label.
fn keys(session: &Session, object: &str) -> Result<Vec<Key>, Failure> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(object.as_bytes().to_vec()),
    ];
    let handles = session.find_objects(&template)?;
    if handles.is_empty() {
        return Err(Failure::Denied(Denial::NotFound));
    }
    let mut keys: Vec<Key> = Vec::with_capacity(handles.len());
    for handle in handles {
        let mut id = Vec::new();
        for attribute in session.get_attributes(handle, &[AttributeType::Id])? {
            if let Attribute::Id(bytes) = attribute {
                id = bytes;
            }
        }
        // Two keys that nothing tells apart: which of them opens what would be chance.
        if id.len() > ID_BYTES_MAX || keys.iter().any(|key| key.id == id) {
            tracing::warn!(
                object,
                "PKCS#11 keys of one label need ids (CKA_ID) of their own, of at most 64 bytes"
            );
            return Err(Failure::Denied(Denial::InvalidState));
        }
        keys.push(Key { handle, id });
    }
    Ok(keys)
}

/// The key with the greatest id: a longer one is greater, as a number without leading zeros.
fn newest(keys: Vec<Key>) -> Result<Key, Failure> {
    keys.into_iter()
        .max_by(|left, right| (left.id.len(), &left.id).cmp(&(right.id.len(), &right.id)))
        .ok_or(Failure::Denied(Denial::NotFound))
}

/// Encrypts on the token, which may put an IV of its own in the place of ours.
fn seal(
    session: &Session,
    key: ObjectHandle,
    iv: &mut [u8; IV_BYTES],
    associated: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, Failure> {
    let gcm = GcmParams::new(iv, associated, TAG_BITS.into())?;
    let mechanism = Mechanism::AesGcm(gcm);
    Ok(session.encrypt(&mechanism, key, plain)?)
}

/// The token refused a ciphertext without saying that it is the ciphertext. If it opens what it seals itself, the key and
/// the token are sound and it is.
fn why_not(session: &Session, key: ObjectHandle, error: Error) -> Failure {
    let mut iv = [0_u8; IV_BYTES];
    let own = (|| {
        session.generate_random_slice(&mut iv)?;
        let sealed = seal(session, key, &mut iv, &[], &[0; PlainKey::BYTES])?;
        let gcm = GcmParams::new(&mut iv, &[], TAG_BITS.into())?;
        session.decrypt(&Mechanism::AesGcm(gcm), key, &sealed)?;
        Ok(())
    })();
    match own {
        // A key that may no longer encrypt cannot be tried so; the token answered, and did not open.
        Ok(()) | Err(Failure::Denied(Denial::Disabled)) => Failure::Denied(Denial::InvalidCiphertext),
        Err(Failure::Outage(_)) => error.into(),
        Err(failure) => failure,
    }
}

struct Wrapped<'a> {
    id: &'a [u8],
    iv: &'a [u8],
    ciphertext: &'a [u8],
}

fn encode(id: &[u8], iv: &[u8], ciphertext: &[u8]) -> Option<WrappedKey> {
    let mut bytes = vec![WRAPPED_VERSION, u8::try_from(id.len()).ok()?];
    bytes.extend_from_slice(id);
    bytes.push(u8::try_from(iv.len()).ok()?);
    bytes.extend_from_slice(iv);
    bytes.extend_from_slice(ciphertext);
    WrappedKey::new(bytes)
}

fn decode(bytes: &[u8]) -> Option<Wrapped<'_>> {
    let (&[WRAPPED_VERSION, id_bytes], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    let (id, rest) = rest.split_at_checked(usize::from(id_bytes))?;
    let (&iv_bytes, rest) = rest.split_first()?;
    let (iv, ciphertext) = rest.split_at_checked(usize::from(iv_bytes))?;
    let sound = iv.len() == IV_BYTES && ciphertext.len() == PlainKey::BYTES + TAG_BYTES;
    sound.then_some(Wrapped { id, iv, ciphertext })
}

/// First byte of a wrapped key, so that the format can change.
const WRAPPED_VERSION: u8 = 1;
/// The length for which GCM is defined without hashing.
const IV_BYTES: usize = 12;
/// The longest tag.
const TAG_BITS: u64 = 128;
const TAG_BYTES: usize = 16;
/// Longest `CKA_ID`; makers' tools write up to 32.
const ID_BYTES_MAX: usize = 64;
/// Longest PIN; tokens take up to 255.
const PIN_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wrapped_keys_are_read_back(
            id in prop::collection::vec(any::<u8>(), 0..=ID_BYTES_MAX),
            iv in any::<[u8; IV_BYTES]>(),
            ciphertext in prop::collection::vec(any::<u8>(), 48),
        ) {
            let wrapped = encode(&id, &iv, &ciphertext).unwrap();
            let read = decode(wrapped.as_bytes()).unwrap();
            prop_assert_eq!((read.id, read.iv, read.ciphertext), (&id[..], &iv[..], &ciphertext[..]));
            for length in 0..wrapped.as_bytes().len() {
                prop_assert!(decode(&wrapped.as_bytes()[..length]).is_none());
            }
        }
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(read) = decode(&bytes) {
                prop_assert_eq!(read.iv.len(), IV_BYTES);
            }
        }
    }
}
