//! What an error of a PKCS#11 library means: a definite no, an outage, or a lost session that is worth another try.

use cryptoki::error::{Error, RvError};
use saker_keyring::{Denial, KeyServiceError, Outage, RootKeyId};

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The HSM said no.
    Denied(Denial),
    /// The HSM could not be asked.
    Outage(Outage),
    /// The session, the login or an object handle is gone: with a new session the call may succeed. If not, it is this.
    Lost(Outage),
    /// Not logged in although we were: a new session logs in again.
    LoggedOut,
    /// The library no longer knows the token, or that it was initialised: doing so again may help.
    Library(Outage),
    /// No token has the label. Some libraries learn of new tokens only when they are initialised.
    Absent,
    /// The PIN was refused. Never tried again as it is.
    Pin,
}

impl Failure {
    pub(super) fn about(self, root: &RootKeyId) -> KeyServiceError {
        let root = root.clone();
        match self {
            Self::Denied(denial) => KeyServiceError::Denied { root, denial },
            Self::Outage(outage) | Self::Lost(outage) | Self::Library(outage) => {
                KeyServiceError::Unavailable { root, outage }
            }
            Self::Absent => KeyServiceError::Unavailable {
                root,
                outage: Outage::Unreachable,
            },
            Self::LoggedOut | Self::Pin => KeyServiceError::Denied {
                root,
                denial: Denial::AccessDenied,
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error::Pkcs11(code, function) = error else {
            // A function that the library lacks, a length that makes no sense.
            return Self::Outage(Outage::Failed);
        };
        let failure = of_code(code);
        tracing::debug!(%code, %function, ?failure, "PKCS#11 call failed");
        failure
    }
}

fn of_code(code: RvError) -> Failure {
    use RvError as Rv;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not listed says nothing definite about the key"
    )]
    match code {
        Rv::PinIncorrect
        | Rv::PinInvalid
        | Rv::PinLenRange
        | Rv::PinExpired
        | Rv::PinLocked
        | Rv::UserPinNotInitialized => Failure::Pin,
        Rv::UserNotLoggedIn => Failure::LoggedOut,
        // CKA_ENCRYPT or CKA_DECRYPT is false.
        Rv::KeyFunctionNotPermitted => Failure::Denied(Denial::Disabled),
        Rv::ActionProhibited | Rv::FunctionRejected => Failure::Denied(Denial::AccessDenied),
        // Not an AES key, or a token without AES-GCM.
        Rv::KeyTypeInconsistent | Rv::KeySizeRange | Rv::MechanismInvalid | Rv::MechanismParamInvalid => {
            Failure::Denied(Denial::InvalidState)
        }
        Rv::EncryptedDataInvalid | Rv::EncryptedDataLenRange | Rv::SignatureInvalid => {
            Failure::Denied(Denial::InvalidCiphertext)
        }
        // The object was there a moment ago: the next look tells whether it is gone.
        Rv::KeyHandleInvalid | Rv::ObjectHandleInvalid => Failure::Lost(Outage::Failed),
        Rv::SessionHandleInvalid | Rv::SessionClosed | Rv::OperationActive | Rv::OperationNotInitialized => {
            Failure::Lost(Outage::Failed)
        }
        Rv::DeviceError => Failure::Library(Outage::Failed),
        Rv::CryptokiNotInitialized => Failure::Library(Outage::Failed),
        Rv::TokenNotPresent | Rv::TokenNotRecognized | Rv::DeviceRemoved | Rv::SlotIdInvalid => {
            Failure::Library(Outage::Unreachable)
        }
        Rv::SessionCount => Failure::Outage(Outage::Throttled),
        _ => Failure::Outage(Outage::Failed),
    }
}

/// Whether a decryption that failed so may have failed because the ciphertext does not verify: libraries differ in
/// what they call that.
pub(super) fn may_be_ciphertext(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::DataInvalid
                | RvError::DataLenRange
                | RvError::ArgumentsBad
                | RvError::VendorDefined(_),
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_and_an_outage_are_told_apart() {
        let root: RootKeyId = "pkcs11:token=t;object=o".parse().unwrap();
        let denied = [
            (RvError::PinIncorrect, Denial::AccessDenied),
            (RvError::PinLocked, Denial::AccessDenied),
            (RvError::UserNotLoggedIn, Denial::AccessDenied),
            (RvError::ActionProhibited, Denial::AccessDenied),
            (RvError::KeyFunctionNotPermitted, Denial::Disabled),
            (RvError::KeyTypeInconsistent, Denial::InvalidState),
            (RvError::MechanismInvalid, Denial::InvalidState),
            (RvError::EncryptedDataInvalid, Denial::InvalidCiphertext),
        ];
        for (code, denial) in denied {
            let error = of_code(code).about(&root);
            assert_eq!(
                error,
                KeyServiceError::Denied {
                    root: root.clone(),
                    denial
                },
                "{code}"
            );
        }
        let unavailable = [
            (RvError::TokenNotPresent, Outage::Unreachable),
            (RvError::DeviceRemoved, Outage::Unreachable),
            (RvError::SessionHandleInvalid, Outage::Failed),
            (RvError::DeviceError, Outage::Failed),
            (RvError::GeneralError, Outage::Failed),
            (RvError::HostMemory, Outage::Failed),
            (RvError::SessionCount, Outage::Throttled),
        ];
        for (code, outage) in unavailable {
            let error = of_code(code).about(&root);
            assert_eq!(
                error,
                KeyServiceError::Unavailable {
                    root: root.clone(),
                    outage
                },
                "{code}"
            );
        }
    }
}
