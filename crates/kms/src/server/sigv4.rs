//! AWS Signature Version 4, the checking side.
//!
//! What it is for: no request is looked at before its signature is proven against a secret that this server gave out.
//! What it deliberately does not do: presigned URLs and chunked payloads, which KMS, STS and IAM clients do not use.
//! Reference: AWS General Reference, "Create a signed AWS API request".

use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::{constant_time, digest};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use axum::http::HeaderMap;
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

/// Largest difference between the signer's clock and ours, in seconds (AWS: 5 minutes).
pub(super) const SKEW_SECONDS_MAX: i64 = 300;

/// Why a request is not believed. Each protocol has its own names for these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthFault {
    /// No `Authorization` header.
    Missing,
    /// A part of the signature is not there or malformed.
    Incomplete(String),
    /// Unknown access key or session token.
    UnknownClient,
    /// The session has ended.
    ExpiredToken,
    /// The signature is wrong.
    Mismatch,
    /// The signature is right, but from another time.
    Skewed(String),
    /// Scoped to another service or region.
    Scope(String),
}

/// The `Authorization` header, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authorization {
    pub(super) access_key_id: String,
    /// `YYYYMMDD`.
    date: String,
    pub(super) region: String,
    pub(super) service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// One request as it came, before anything is believed.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Authorization {
    /// Reads the header. Proves nothing.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, AuthFault> {
        let incomplete = |what: &str| AuthFault::Incomplete(format!("Authorization header requires {what}."));
        let header = headers.get("authorization").ok_or(AuthFault::Missing)?;
        let text = header.to_str().map_err(|_| incomplete("visible ASCII"))?;
        let fields = text
            .strip_prefix("AWS4-HMAC-SHA256")
            .ok_or_else(|| incomplete("'AWS4-HMAC-SHA256'"))?;
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let credential = field("Credential").ok_or_else(|| incomplete("'Credential' parameter"))?;
        let signed_headers = field("SignedHeaders").ok_or_else(|| incomplete("'SignedHeaders' parameter"))?;
        let signature = field("Signature").ok_or_else(|| incomplete("'Signature' parameter"))?;
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = parts[..] else {
            return Err(incomplete("'Credential' as KEY/DATE/REGION/SERVICE/aws4_request"));
        };
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_ascii_lowercase).collect(),
            signature,
        })
    }

    /// Proves that whoever knows `secret` signed this request, body included, at about `now_ms` (Unix milliseconds).
    pub(super) fn verify(&self, incoming: Incoming<'_>, secret: &str, now_ms: i64) -> Result<(), AuthFault> {
        self.must_cover(incoming.headers)?;
        let stamp = header_text(incoming.headers, "x-amz-date")
            .ok_or_else(|| AuthFault::Incomplete("Authorization header requires existence of 'X-Amz-Date'.".into()))?;
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let signed_at = PrimitiveDateTime::parse(&stamp, format)
            .map_err(|_| AuthFault::Incomplete("'X-Amz-Date' must be YYYYMMDD'T'HHMMSS'Z'.".to_owned()))?
            .assume_utc();
        if !stamp.starts_with(&self.date) || self.date.len() != 8 {
            return Err(AuthFault::Scope(
                "Date in Credential scope does not match YYYYMMDD from X-Amz-Date.".into(),
            ));
        }
        let canonical = self.canonical_request(incoming);
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
            sha256_hex(canonical.as_bytes())
        );
        let seconds = u64::try_from(signed_at.unix_timestamp()).map_err(|_| AuthFault::Mismatch)?;
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        let key = generate_signing_key(secret, time, &self.region, &self.service);
        let expected = calculate_signature(key, to_sign.as_bytes());
        constant_time::verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes())
            .map_err(|_| AuthFault::Mismatch)?;
        // Only now: whoever cannot sign learns nothing from our clock.
        check_skew(signed_at, now_ms)
    }

    /// The host and every `x-amz-` header must be under the signature, or somebody between could change the call.
    fn must_cover(&self, headers: &HeaderMap) -> Result<(), AuthFault> {
        let uncovered = headers
            .keys()
            .map(axum::http::HeaderName::as_str)
            .filter(|name| *name == "host" || name.starts_with("x-amz-"))
            .find(|name| !self.signed_headers.iter().any(|signed| signed == name));
        match uncovered {
            Some(name) => Err(AuthFault::Incomplete(format!(
                "'{name}' must be a 'SignedHeader' in the AWS request."
            ))),
            None if !headers.contains_key("host") => Err(AuthFault::Incomplete("'Host' is required.".into())),
            None => Ok(()),
        }
    }

    fn canonical_request(&self, incoming: Incoming<'_>) -> String {
        let mut text = format!("{}\n{}\n\n", incoming.method, incoming.path);
        let mut names = self.signed_headers.clone();
        names.sort();
        for name in &names {
            let value = header_text(incoming.headers, name).unwrap_or_default();
            text.push_str(name);
            text.push(':');
            text.push_str(&value);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&names.join(";"));
        text.push('\n');
        // Hashed here and not taken from a header: this is what binds the body.
        text.push_str(&sha256_hex(incoming.body));
        text
    }
}

fn check_skew(signed_at: OffsetDateTime, now_ms: i64) -> Result<(), AuthFault> {
    let skew_seconds = now_ms.div_euclid(1_000) - signed_at.unix_timestamp();
    if skew_seconds > SKEW_SECONDS_MAX {
        return Err(AuthFault::Skewed(format!(
            "Signature expired: it was made {skew_seconds} seconds ago"
        )));
    }
    if skew_seconds < -SKEW_SECONDS_MAX {
        return Err(AuthFault::Skewed(format!(
            "Signature not yet current: it is {} seconds ahead",
            -skew_seconds
        )));
    }
    Ok(())
}

/// All values of a header, trimmed, inner white space folded, joined by commas. Bytes that are no UTF-8 never match.
fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// `post-vanilla` of AWS's published Signature Version 4 test suite.
    fn vanilla() -> (HeaderMap, i64) {
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        let signature = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        headers.insert("authorization", authorization.parse().unwrap());
        (headers, 1_440_938_160_000)
    }

    fn check(headers: &HeaderMap, body: &[u8], now_ms: i64) -> Result<(), AuthFault> {
        let incoming = Incoming {
            method: "POST",
            path: "/",
            headers,
            body,
        };
        Authorization::parse(headers)?.verify(incoming, SECRET, now_ms)
    }

    #[test]
    fn a_published_vector_is_accepted() {
        let (headers, now) = vanilla();
        assert_eq!(check(&headers, b"", now), Ok(()));
    }

    #[test]
    fn whatever_changes_breaks_the_signature() {
        let (headers, now) = vanilla();
        assert_eq!(check(&headers, b"x", now), Err(AuthFault::Mismatch));
        let mut other_host = headers.clone();
        other_host.insert("host", "example.com".parse().unwrap());
        assert_eq!(check(&other_host, b"", now), Err(AuthFault::Mismatch));
        let mut unsigned = headers.clone();
        unsigned.insert("x-amz-target", "TrentService.Decrypt".parse().unwrap());
        assert!(matches!(check(&unsigned, b"", now), Err(AuthFault::Incomplete(_))));
        let incoming = Incoming {
            method: "POST",
            path: "/",
            headers: &headers,
            body: b"",
        };
        let wrong = Authorization::parse(&headers).unwrap().verify(incoming, "other", now);
        assert_eq!(wrong, Err(AuthFault::Mismatch));
    }

    #[test]
    fn clocks_may_differ_by_five_minutes() {
        let (headers, now) = vanilla();
        let seconds = SKEW_SECONDS_MAX * 1_000;
        assert_eq!(check(&headers, b"", now + seconds), Ok(()));
        assert_eq!(check(&headers, b"", now - seconds), Ok(()));
        assert!(matches!(
            check(&headers, b"", now + seconds + 1_000),
            Err(AuthFault::Skewed(_))
        ));
        assert!(matches!(
            check(&headers, b"", now - seconds - 1_000),
            Err(AuthFault::Skewed(_))
        ));
    }

    proptest::proptest! {
        #[test]
        fn headers_never_panic(text in ".{0,200}", date in "[0-9TZ]{0,17}") {
            let (mut headers, now) = vanilla();
            for value in [text.clone(), format!("AWS4-HMAC-SHA256 Credential=a/{date}/r/s/aws4_request,{text}")] {
                if let Ok(value) = value.parse() {
                    headers.insert("authorization", value);
                    let _ = check(&headers, b"", now);
                }
            }
            headers.insert("x-amz-date", date.parse().unwrap());
            let _ = check(&headers, b"", now);
        }
    }

    #[test]
    fn malformed_headers_are_told_apart() {
        let (mut headers, now) = vanilla();
        headers.insert("authorization", "Basic abc".parse().unwrap());
        assert!(matches!(check(&headers, b"", now), Err(AuthFault::Incomplete(_))));
        headers.insert(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host".parse().unwrap(),
        );
        assert!(matches!(check(&headers, b"", now), Err(AuthFault::Incomplete(_))));
        headers.remove("authorization");
        assert_eq!(check(&headers, b"", now), Err(AuthFault::Missing));
    }
}
