//! What an answer of Vault or OpenBao means: a definite no (locks at once) or an outage (served through for the grace
//! period).
//!
//! The server tells most refusals of Transit by text under status 400. Known texts are matched by their unchanging parts;
//! an unknown refusal about a key is taken as a denial, since the server answered and did not give the key.

use saker_keyring::{Denial, Outage};

/// A definite no, or no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Denied(Denial),
    Unavailable(Outage),
}

/// What `status` with the texts in `errors` means; `None` for success.
pub(super) fn of_answer(status: u16, errors: &str) -> Option<Verdict> {
    use Verdict::{Denied, Unavailable};
    Some(match status {
        200 | 204 => return None,
        400 => of_text(errors),
        // Policy, a token that ended or was revoked, another namespace: the server does not tell them apart.
        401 | 403 => Denied(Denial::AccessDenied),
        // The mount or the namespace is gone. Without the server's own text it may be some other server's answer.
        404 if errors.is_empty() => Unavailable(Outage::BadAnswer),
        404 => Denied(Denial::NotFound),
        // A standby that forwards nothing points to the active node; the token is not carried there.
        300..=399 => Unavailable(Outage::Unreachable),
        407 => Unavailable(Outage::Unreachable),
        408 | 504 => Unavailable(Outage::Timeout),
        429 => Unavailable(Outage::Throttled),
        // 412: a standby is behind. 472, 473: a standby's own states. 5xx: sealed (503) or failed.
        412 | 472 | 473 | 500..=599 => Unavailable(Outage::Failed),
        _ => Unavailable(Outage::BadAnswer),
    })
}

fn of_text(errors: &str) -> Verdict {
    use Verdict::{Denied, Unavailable};
    let errors = errors.to_ascii_lowercase();
    let says = |part: &str| errors.contains(part);
    if errors.is_empty() {
        return Unavailable(Outage::BadAnswer);
    }
    if says("key not found") || says("no such key") {
        return Denied(Denial::NotFound);
    }
    if says("soft-deleted") || says("soft deleted") {
        return Denied(Denial::Disabled);
    }
    // Before `ciphertext`: the version is known and was ruled out by the key's owner (min_decryption_version).
    if says("disallowed by policy") {
        return Denied(Denial::InvalidState);
    }
    if says("message authentication failed")
        || says("invalid ciphertext")
        || says("unable to decrypt")
        || says("cipher:")
        || says("chacha20poly1305")
        || says("could not decode base64")
    {
        return Denied(Denial::InvalidCiphertext);
    }
    if says("sealed") {
        return Unavailable(Outage::Failed);
    }
    // Another type of key, a derived key without its context, anything about the key that this list does not know.
    Denied(Denial::InvalidState)
}

/// What an answer to a login means: the server knows nothing of the key there, so that whatever it denies is access.
pub(super) fn of_login(status: u16, errors: &str) -> Option<Verdict> {
    match of_answer(status, errors)? {
        // An auth method that is gone is as definite as a role that is.
        Verdict::Denied(_) => Some(Verdict::Denied(Denial::AccessDenied)),
        outage @ Verdict::Unavailable(_) => Some(outage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Denial::{AccessDenied, Disabled, InvalidCiphertext, InvalidState, NotFound};

    #[test]
    fn every_answer_has_its_meaning() {
        let denied = [
            (403, "permission denied", AccessDenied),
            (403, "1 error occurred:\n\t* permission denied\n\n", AccessDenied),
            (403, "", AccessDenied),
            (400, "encryption key not found", NotFound),
            (
                404,
                "no handler for route \"t/decrypt/k\". route entry not found.",
                NotFound,
            ),
            (404, "namespace not found", NotFound),
            (400, "refusing to use soft-deleted key", Disabled),
            (
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
                InvalidState,
            ),
            (400, "cipher: message authentication failed", InvalidCiphertext),
            (400, "invalid ciphertext: version is too new", InvalidCiphertext),
            (400, "invalid ciphertext: no prefix", InvalidCiphertext),
            (400, "invalid ciphertext length", InvalidCiphertext),
            (400, "invalid ciphertext: could not decode base64", InvalidCiphertext),
            (
                400,
                "'associated_data' provided for non-AEAD cipher suite rsa-2048",
                InvalidState,
            ),
            (400, "missing 'context' for key derivation", InvalidState),
            (400, "something new", InvalidState),
        ];
        for (status, text, denial) in denied {
            assert_eq!(
                of_answer(status, text),
                Some(Verdict::Denied(denial)),
                "{status} {text}"
            );
        }
        let unavailable = [
            (503, "Vault is sealed", Outage::Failed),
            (503, "", Outage::Failed),
            (500, "internal error", Outage::Failed),
            (502, "", Outage::Failed),
            (472, "", Outage::Failed),
            (473, "", Outage::Failed),
            (412, "", Outage::Failed),
            (
                429,
                "request path \"t/decrypt/k\": rate limit quota exceeded",
                Outage::Throttled,
            ),
            (504, "", Outage::Timeout),
            (408, "", Outage::Timeout),
            (307, "", Outage::Unreachable),
            (407, "", Outage::Unreachable),
            (404, "", Outage::BadAnswer),
            (400, "", Outage::BadAnswer),
            (418, "", Outage::BadAnswer),
        ];
        for (status, text, outage) in unavailable {
            assert_eq!(
                of_answer(status, text),
                Some(Verdict::Unavailable(outage)),
                "{status} {text}"
            );
        }
        assert_eq!(of_answer(200, ""), None);
    }

    #[test]
    fn a_refused_login_is_access_denied() {
        let denied = Some(Verdict::Denied(AccessDenied));
        assert_eq!(of_login(400, "invalid role or secret ID"), denied);
        assert_eq!(of_login(404, "no handler for route"), denied);
        assert_eq!(of_login(403, "permission denied"), denied);
        assert_eq!(
            of_login(503, "Vault is sealed"),
            Some(Verdict::Unavailable(Outage::Failed))
        );
        assert_eq!(of_login(200, ""), None);
    }
}
