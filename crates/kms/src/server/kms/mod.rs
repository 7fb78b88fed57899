//! The KMS operations, in AWS's JSON protocol.
//!
//! Start reading at [`run`]; each module holds a family of operations. Every operation finds its key, asks for
//! authorisation, then looks at the key's state: a caller who may not use a key learns nothing of its state.

mod aliases;
mod crypto;
mod keys;
mod policies;
mod rotation;
mod tags;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    core::Call,
    fault::Fault,
    names::Names,
    records::{Key, KeyState, Milliseconds},
};

type Run = fn(&mut Call<'_>, Map<String, Value>) -> Result<Value, Fault>;

/// One operation of the table.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) read_only: bool,
    run: Run,
}

const fn reads(name: &'static str, run: Run) -> Operation {
    Operation {
        name,
        read_only: true,
        run,
    }
}

const fn changes(name: &'static str, run: Run) -> Operation {
    Operation {
        name,
        read_only: false,
        run,
    }
}

/// Every operation there is. Using a key is read-only, as CloudTrail sees it.
const OPERATIONS: &[Operation] = &[
    changes("CancelKeyDeletion", keys::cancel_deletion),
    changes("CreateAlias", aliases::create),
    changes("CreateKey", keys::create),
    reads("Decrypt", crypto::decrypt),
    changes("DeleteAlias", aliases::delete),
    reads("DescribeKey", keys::describe),
    changes("DisableKey", keys::disable),
    changes("EnableKey", keys::enable),
    reads("Encrypt", crypto::encrypt),
    reads("GenerateDataKey", crypto::generate_data_key),
    reads(
        "GenerateDataKeyWithoutPlaintext",
        crypto::generate_data_key_without_plaintext,
    ),
    reads("GetKeyPolicy", policies::get),
    reads("GetKeyRotationStatus", rotation::status),
    reads("ListAliases", aliases::list),
    reads("ListKeyPolicies", policies::list),
    reads("ListKeyRotations", rotation::list),
    reads("ListKeys", keys::list),
    reads("ListResourceTags", tags::list),
    changes("PutKeyPolicy", policies::put),
    reads("ReEncrypt", crypto::re_encrypt),
    changes("RotateKeyOnDemand", rotation::rotate),
    changes("ScheduleKeyDeletion", keys::schedule_deletion),
    changes("TagResource", tags::add),
    changes("UntagResource", tags::remove),
    changes("UpdateAlias", aliases::update),
];

/// The operation of this name.
pub(super) fn operation(name: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name).copied()
}

/// Operations that AWS KMS has and this server does not; named, so that their absence is not taken for a typing error.
const ELSEWHERE: &[&str] = &[
    "ConnectCustomKeyStore",
    "CreateCustomKeyStore",
    "CreateGrant",
    "DeleteCustomKeyStore",
    "DeleteImportedKeyMaterial",
    "DeriveSharedSecret",
    "DescribeCustomKeyStores",
    "DisableKeyRotation",
    "DisconnectCustomKeyStore",
    "EnableKeyRotation",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "GenerateRandom",
    "GetParametersForImport",
    "GetPublicKey",
    "ImportKeyMaterial",
    "ListGrants",
    "ListRetirableGrants",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "Sign",
    "UpdateCustomKeyStore",
    "UpdateKeyDescription",
    "UpdatePrimaryRegion",
    "Verify",
    "VerifyMac",
];

/// Whether AWS KMS has an operation of this name that this server does not have.
pub(super) fn is_known_elsewhere(name: &str) -> bool {
    ELSEWHERE.contains(&name)
}

/// Runs an operation.
pub(super) fn run(operation: Operation, call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    for (field, why) in [
        (
            "Recipient",
            "attested recipients (Nitro enclaves) are not supported by this key server",
        ),
        ("XksKeyId", "external key stores are not supported by this key server"),
        (
            "CustomKeyStoreId",
            "custom key stores are not supported by this key server",
        ),
    ] {
        if request.get(field).is_some_and(|value| !value.is_null()) {
            return Err(Fault::unsupported(why));
        }
    }
    if request
        .get("GrantTokens")
        .and_then(Value::as_array)
        .is_some_and(|tokens| !tokens.is_empty())
    {
        return Err(Fault::new(
            "InvalidGrantTokenException",
            "This key server has no grants.",
        ));
    }
    (operation.run)(call, request)
}

/// Reads a request into its type. The message names no value: it could be plaintext.
fn read<T: DeserializeOwned>(request: Map<String, Value>) -> Result<T, Fault> {
    serde_json::from_value(Value::Object(request)).map_err(|_| {
        Fault::new(
            "SerializationException",
            "The request has a field of the wrong type for this operation.",
        )
    })
}

/// A field that must be there.
fn required<'a>(value: Option<&'a String>, field: &str) -> Result<&'a str, Fault> {
    value.map(String::as_str).ok_or_else(|| missing(field))
}

fn missing(field: &str) -> Fault {
    Fault::validation(format!(
        "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
    ))
}

/// Bytes, in base64 on the wire; zeroed on drop.
#[derive(Default)]
struct Bytes(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(|_| serde::de::Error::custom("not base64"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// AWS's JSON time: seconds since 1970 with a fraction.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this century are exact in 53 bits"
)]
fn seconds(at_ms: Milliseconds) -> Value {
    Value::from(at_ms as f64 / 1_000.0)
}

/// A key that is waiting for its deletion takes no more changes.
fn must_not_be_pending(names: &Names, key: &Key) -> Result<(), Fault> {
    match key.state {
        KeyState::PendingDeletion { .. } => Err(pending(names, key)),
        KeyState::Enabled | KeyState::Disabled => Ok(()),
    }
}

fn must_be_enabled(names: &Names, key: &Key) -> Result<(), Fault> {
    match key.state {
        KeyState::Enabled => Ok(()),
        KeyState::Disabled => Err(Fault::new(
            "DisabledException",
            format!("{} is disabled.", names.key_arn(&key.id)),
        )),
        KeyState::PendingDeletion { .. } => Err(pending(names, key)),
    }
}

fn pending(names: &Names, key: &Key) -> Fault {
    Fault::new(
        "KMSInvalidStateException",
        format!("{} is pending deletion.", names.key_arn(&key.id)),
    )
}

/// A list request's paging.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Paging {
    limit: Option<i64>,
    marker: Option<String>,
}

/// One page of a sorted list of named things, and the marker of the next page if there is one.
fn page<'r, T>(
    items: impl Iterator<Item = (&'r str, T)>,
    paging: &Paging,
    default: usize,
    most: usize,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let limit = match paging.limit {
        None => default,
        Some(limit) => usize::try_from(limit).ok().filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
            Fault::validation(format!(
                "1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value \
                 between 1 and {most}"
            ))
        })?,
    };
    let after = match &paging.marker {
        None => None,
        Some(marker) => {
            let name = hex::decode(marker).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            Some(name.ok_or_else(|| Fault::new("InvalidMarkerException", "The marker is not valid."))?)
        }
    };
    let mut rest = items
        .filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after))
        .peekable();
    let mut found = Vec::new();
    let mut last = String::new();
    while found.len() < limit
        && let Some((name, item)) = rest.next()
    {
        name.clone_into(&mut last);
        found.push(item);
    }
    Ok((found, rest.peek().map(|_| hex::encode(last))))
}

/// Adds `Truncated` and `NextMarker` to a list's answer.
fn paged(mut answer: Map<String, Value>, next: Option<String>) -> Value {
    answer.insert("Truncated".to_owned(), Value::Bool(next.is_some()));
    if let Some(next) = next {
        answer.insert("NextMarker".to_owned(), Value::String(next));
    }
    Value::Object(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_meet_without_gap_or_overlap() {
        let names: Vec<String> = (0..25).map(|number| format!("n{number:02}")).collect();
        let list = |paging: &Paging| page(names.iter().map(|name| (name.as_str(), name.clone())), paging, 10, 20);
        let mut paging = Paging::default();
        let mut seen = Vec::new();
        loop {
            let (found, next) = list(&paging).unwrap();
            seen.extend(found);
            let Some(next) = next else { break };
            paging.marker = Some(next);
        }
        assert_eq!(seen, names);
        let limited = |limit| {
            list(&Paging {
                limit: Some(limit),
                marker: None,
            })
        };
        assert_eq!(limited(20).unwrap().0.len(), 20);
        assert!(limited(0).is_err() && limited(21).is_err() && limited(-1).is_err());
        let bad = list(&Paging {
            limit: None,
            marker: Some("zz".into()),
        })
        .unwrap_err();
        assert_eq!(bad.code, "InvalidMarkerException");
    }
}
