//! What an error of AWS KMS means: a definite no (locks at once) or an outage (served through for the grace period).
//!
//! The rule where AWS leaves room: only what the owner of the key says about the key or about our right to use it is a
//! no. What is broken between here and there, our own expired session and an external key store that KMS cannot reach
//! are outages; they lock too, once the grace period ends.

use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use saker_keyring::{Denial, KeyServiceError, Outage, RootKeyId};

/// A definite no, or no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Denied(Denial),
    Unavailable(Outage),
}

/// Turns the SDK's error about `root` into keyring's.
pub(super) fn key_service_error<E>(root: &RootKeyId, error: &SdkError<E, HttpResponse>) -> KeyServiceError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match of_sdk_error(error) {
        Verdict::Denied(denial) => KeyServiceError::Denied {
            root: root.clone(),
            denial,
        },
        Verdict::Unavailable(outage) => KeyServiceError::Unavailable {
            root: root.clone(),
            outage,
        },
    }
}

fn of_sdk_error<E>(error: &SdkError<E, HttpResponse>) -> Verdict
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(context) => classify(
            context.err().code(),
            context.err().message(),
            context.raw().status().as_u16(),
        ),
        SdkError::ResponseError(context) => classify(None, None, context.raw().status().as_u16()),
        SdkError::TimeoutError(_) => Verdict::Unavailable(Outage::Timeout),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) if connector.is_timeout() => Verdict::Unavailable(Outage::Timeout),
            Some(connector) if connector.is_io() => Verdict::Unavailable(Outage::Unreachable),
            // Everything else that stops a request before it leaves: above all, credentials.
            _ => of_credentials(error),
        },
        SdkError::ConstructionFailure(_) | _ => of_credentials(error),
    }
}

/// The request never left, as a rule because there were no credentials for it. If a role had to be assumed and STS
/// answered with a no, its owner has taken our access away.
fn of_credentials(error: &(dyn std::error::Error + 'static)) -> Verdict {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(refusal) = cause.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>() {
            return match of_sdk_error(refusal) {
                // STS knows nothing of the key: whatever it denies is access.
                Verdict::Denied(_) => Verdict::Denied(Denial::AccessDenied),
                outage @ Verdict::Unavailable(_) => outage,
            };
        }
        next = cause.source();
    }
    tracing::warn!(
        cause = %aws_sdk_kms::error::DisplayErrorContext(error),
        "no AWS credentials for the key service; check kms.aws.profile, kms.aws.credentials_file or the environment"
    );
    Verdict::Unavailable(Outage::Failed)
}

/// What AWS's error `code` (with its `message` and the HTTP `status`) means.
pub(super) fn classify(code: Option<&str>, message: Option<&str>, status: u16) -> Verdict {
    use Verdict::{Denied, Unavailable};
    match code.unwrap_or_default() {
        "DisabledException" => Denied(Denial::Disabled),
        "KMSInvalidStateException" => of_state(message.unwrap_or_default()),
        "NotFoundException" => Denied(Denial::NotFound),
        "InvalidCiphertextException" | "IncorrectKeyException" => Denied(Denial::InvalidCiphertext),
        "InvalidKeyUsageException" => Denied(Denial::InvalidState),
        // The clock of this node is off, or the request waited too long: says nothing about access.
        "InvalidSignatureException" | "SignatureDoesNotMatch" if is_about_time(message.unwrap_or_default()) => {
            Unavailable(Outage::Failed)
        }
        "RequestExpired" | "RequestTimeTooSkewed" => Unavailable(Outage::Failed),
        // Our session ran out and was not renewed in time; its renewal is what gets the yes or no.
        "ExpiredToken" | "ExpiredTokenException" => Unavailable(Outage::Failed),
        "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired" => Denied(Denial::AccessDenied),
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Unavailable(Outage::Throttled),
        "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "InternalFailure"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        // A custom or external key store is away; KMS itself has not been told to refuse.
        | "CloudHsmClusterNotActiveException"
        | "CustomKeyStoreInvalidStateException" => Unavailable(Outage::Failed),
        _ => of_status(status),
    }
}

/// No code that says anything: a proxy's or an unparsable answer. The status must do.
fn of_status(status: u16) -> Verdict {
    match status {
        401 | 403 => Verdict::Denied(Denial::AccessDenied),
        407 => Verdict::Unavailable(Outage::Unreachable),
        408 | 504 => Verdict::Unavailable(Outage::Timeout),
        429 => Verdict::Unavailable(Outage::Throttled),
        500..=599 => Verdict::Unavailable(Outage::Failed),
        _ => Verdict::Unavailable(Outage::BadAnswer),
    }
}

/// `KMSInvalidStateException` has many meanings, told apart only by its message. Under an external key store it is also
/// how KMS passes on the no of the external key's owner (AWS KMS developer guide, "Troubleshooting external key stores").
fn of_state(message: &str) -> Verdict {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "pending deletion",
        "pendingdeletion",
        "pending replica deletion",
        "pendingreplicadeletion",
    ]) {
        Verdict::Denied(Denial::PendingDeletion)
    } else if says(&["external key is not enabled", "external key is disabled"]) {
        Verdict::Denied(Denial::Disabled)
    } else if says(&["could not find the external key"]) {
        Verdict::Denied(Denial::NotFound)
    } else if says(&["denied access to the operation"]) {
        Verdict::Denied(Denial::AccessDenied)
    } else if says(&["external key does not support the requested operation"]) {
        Verdict::Denied(Denial::InvalidState)
    } else if says(&[
        "key store",
        "keystore",
        "xks",
        "external key",
        "cloudhsm",
        "unavailable",
        "did not respond",
    ]) {
        Verdict::Unavailable(Outage::Failed)
    } else if says(&["disabled"]) {
        Verdict::Denied(Denial::Disabled)
    } else {
        Verdict::Denied(Denial::InvalidState)
    }
}

fn is_about_time(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["signature expired", "signature not yet current", "skew"]
        .iter()
        .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_meaning() {
        use Denial::{AccessDenied, Disabled, InvalidCiphertext, InvalidState, NotFound, PendingDeletion};
        use Outage::{BadAnswer, Failed, Throttled, Timeout, Unreachable};
        let denied = [
            ("DisabledException", "arn is disabled.", 400, Disabled),
            (
                "KMSInvalidStateException",
                "arn:aws:kms:x is pending deletion.",
                400,
                PendingDeletion,
            ),
            (
                "KMSInvalidStateException",
                "key is in state PendingReplicaDeletion",
                400,
                PendingDeletion,
            ),
            ("KMSInvalidStateException", "arn is disabled.", 400, Disabled),
            ("KMSInvalidStateException", "arn is pending import.", 400, InvalidState),
            ("KMSInvalidStateException", "", 400, InvalidState),
            (
                "KMSInvalidStateException",
                "The external key store proxy rejected the request because the external key is not enabled in the \
                 external key manager.",
                400,
                Disabled,
            ),
            (
                "KMSInvalidStateException",
                "The external key store proxy rejected the request because it could not find the external key.",
                400,
                NotFound,
            ),
            (
                "KMSInvalidStateException",
                "The external key store proxy denied access to the operation. Verify that the user and the external \
                 key are both authorized for this operation, and try the request again.",
                400,
                AccessDenied,
            ),
            (
                "KMSInvalidStateException",
                "The external key store proxy rejected the request because the external key does not support the \
                 requested operation.",
                400,
                InvalidState,
            ),
            ("NotFoundException", "Key 'arn' does not exist", 400, NotFound),
            ("InvalidCiphertextException", "", 400, InvalidCiphertext),
            ("IncorrectKeyException", "", 400, InvalidCiphertext),
            ("InvalidKeyUsageException", "", 400, InvalidState),
            ("AccessDeniedException", "User: x is not authorized", 400, AccessDenied),
            ("UnrecognizedClientException", "", 400, AccessDenied),
            ("InvalidClientTokenId", "", 403, AccessDenied),
            (
                "InvalidSignatureException",
                "The request signature we calculated does not match",
                400,
                AccessDenied,
            ),
            ("", "", 403, AccessDenied),
            ("", "", 401, AccessDenied),
        ];
        for (code, message, status, denial) in denied {
            assert_eq!(
                classify(Some(code), Some(message), status),
                Verdict::Denied(denial),
                "{code} {message}"
            );
        }
        let unavailable = [
            (
                "KMSInvalidStateException",
                "KMS cannot communicate with the external key store proxy",
                400,
                Failed,
            ),
            (
                "KMSInvalidStateException",
                "The custom key store is disconnected",
                400,
                Failed,
            ),
            ("KMSInvalidStateException", "arn is unavailable.", 400, Failed),
            (
                "KMSInvalidStateException",
                "The external key store proxy is in an unhealthy state.",
                400,
                Failed,
            ),
            (
                "KMSInvalidStateException",
                "AWS KMS cannot interpret the response from the external key store proxy.",
                400,
                Failed,
            ),
            (
                "InvalidSignatureException",
                "Signature expired: 2026 is now earlier than 2027",
                400,
                Failed,
            ),
            (
                "ExpiredTokenException",
                "The security token included in the request is expired",
                400,
                Failed,
            ),
            ("ThrottlingException", "Rate exceeded", 400, Throttled),
            ("LimitExceededException", "", 400, Throttled),
            ("KMSInternalException", "", 500, Failed),
            ("DependencyTimeoutException", "", 503, Failed),
            ("KeyUnavailableException", "", 500, Failed),
            ("", "", 500, Failed),
            ("", "", 502, Failed),
            ("", "", 504, Timeout),
            ("", "", 429, Throttled),
            ("", "", 407, Unreachable),
            ("", "", 200, BadAnswer),
            ("SomethingNew", "", 400, BadAnswer),
        ];
        for (code, message, status, outage) in unavailable {
            assert_eq!(
                classify(Some(code), Some(message), status),
                Verdict::Unavailable(outage),
                "{code} {message}"
            );
        }
        assert_eq!(classify(None, None, 403), Verdict::Denied(AccessDenied));
    }
}
