//! Operations that use a key: encrypt, decrypt, make data keys.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Bytes, base64, missing, must_be_enabled, read, required};
use crate::server::{
    ciphertext::{self, Header, Pairs},
    core::{Asked, Call},
    fault::Fault,
    records::{Key, Records},
};

/// Longest plaintext of `Encrypt`, in bytes (AWS).
const PLAINTEXT_BYTES_MAX: usize = 4_096;
/// Longest ciphertext that is looked at, in bytes (AWS).
const CIPHERTEXT_BYTES_MAX: usize = 6_144;
/// Largest encryption context, names and values together, in bytes (AWS).
const CONTEXT_BYTES_MAX: usize = 8_192;
/// Longest data key, in bytes (AWS).
const DATA_KEY_BYTES_MAX: i64 = 1_024;
const ALGORITHM: &str = "SYMMETRIC_DEFAULT";

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Use {
    key_id: Option<String>,
    plaintext: Option<Bytes>,
    ciphertext_blob: Option<Bytes>,
    encryption_context: Pairs,
    encryption_algorithm: Option<String>,
    key_spec: Option<String>,
    number_of_bytes: Option<i64>,
    dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ReEncrypt {
    ciphertext_blob: Option<Bytes>,
    source_key_id: Option<String>,
    source_encryption_context: Pairs,
    source_encryption_algorithm: Option<String>,
    destination_key_id: Option<String>,
    destination_encryption_context: Pairs,
    destination_encryption_algorithm: Option<String>,
    dry_run: bool,
}

pub(super) fn generate_data_key(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    data_key(call, request, "kms:GenerateDataKey", true)
}

pub(super) fn generate_data_key_without_plaintext(
    call: &mut Call<'_>,
    request: Map<String, Value>,
) -> Result<Value, Fault> {
    data_key(call, request, "kms:GenerateDataKeyWithoutPlaintext", false)
}

fn data_key(call: &mut Call<'_>, request: Map<String, Value>, action: &str, show: bool) -> Result<Value, Fault> {
    let request: Use = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let bytes = data_key_bytes(request.key_spec.as_deref(), request.number_of_bytes)?;
    check_context(&request.encryption_context)?;
    let records = call.core.read();
    let key = usable(call, &records, named, action, &request.encryption_context)?;
    refuse_dry_run(request.dry_run)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes + 32));
    while plain.len() < bytes {
        plain.extend_from_slice(saker_keyring::random_key().expose_bytes());
    }
    plain.truncate(bytes);
    let sealed = seal(&records, key, &request.encryption_context, &plain)?;
    let mut answer = json!({ "CiphertextBlob": base64(&sealed), "KeyId": call.core.names.key_arn(&key.id) });
    if show {
        answer["Plaintext"] = Value::String(base64(&plain));
    }
    Ok(answer)
}

pub(super) fn encrypt(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Use = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let plain = &request.plaintext.as_ref().ok_or_else(|| missing("plaintext"))?.0;
    if plain.is_empty() || plain.len() > PLAINTEXT_BYTES_MAX {
        return Err(Fault::validation(format!(
            "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length \
             between 1 and {PLAINTEXT_BYTES_MAX}"
        )));
    }
    check_algorithm(request.encryption_algorithm.as_deref())?;
    check_context(&request.encryption_context)?;
    let records = call.core.read();
    let key = usable(call, &records, named, "kms:Encrypt", &request.encryption_context)?;
    refuse_dry_run(request.dry_run)?;
    let sealed = seal(&records, key, &request.encryption_context, plain)?;
    Ok(json!({
        "CiphertextBlob": base64(&sealed), "KeyId": call.core.names.key_arn(&key.id), "EncryptionAlgorithm": ALGORITHM,
    }))
}

pub(super) fn decrypt(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Use = read(request)?;
    let ciphertext = ciphertext_of(request.ciphertext_blob.as_ref())?;
    check_algorithm(request.encryption_algorithm.as_deref())?;
    check_context(&request.encryption_context)?;
    let source = Source {
        named: request.key_id.as_deref(),
        context: &request.encryption_context,
        ciphertext,
    };
    let records = call.core.read();
    let (key, plain) = open(call, &records, "kms:Decrypt", &source, request.dry_run)?;
    Ok(json!({
        "KeyId": call.core.names.key_arn(&key.id), "Plaintext": base64(&plain), "EncryptionAlgorithm": ALGORITHM,
    }))
}

pub(super) fn re_encrypt(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: ReEncrypt = read(request)?;
    let ciphertext = ciphertext_of(request.ciphertext_blob.as_ref())?;
    let target = required(request.destination_key_id.as_ref(), "destinationKeyId")?;
    check_algorithm(request.source_encryption_algorithm.as_deref())?;
    check_algorithm(request.destination_encryption_algorithm.as_deref())?;
    check_context(&request.source_encryption_context)?;
    check_context(&request.destination_encryption_context)?;
    let source = Source {
        named: request.source_key_id.as_deref(),
        context: &request.source_encryption_context,
        ciphertext,
    };
    let records = call.core.read();
    // Both keys are asked before anything is opened.
    let to = usable(
        call,
        &records,
        target,
        "kms:ReEncryptTo",
        &request.destination_encryption_context,
    )?;
    let (from, plain) = open(call, &records, "kms:ReEncryptFrom", &source, request.dry_run)?;
    let sealed = seal(&records, to, &request.destination_encryption_context, &plain)?;
    Ok(json!({
        "CiphertextBlob": base64(&sealed),
        "SourceKeyId": call.core.names.key_arn(&from.id),
        "KeyId": call.core.names.key_arn(&to.id),
        "SourceEncryptionAlgorithm": ALGORITHM,
        "DestinationEncryptionAlgorithm": ALGORITHM,
    }))
}

/// A key that this caller may use for `action` and that is enabled.
fn usable<'r>(
    call: &mut Call<'_>,
    records: &'r Records,
    named: &str,
    action: &str,
    context: &Pairs,
) -> Result<&'r Key, Fault> {
    let key = call.find_key(records, named, true)?;
    call.authorise(
        records,
        key,
        action,
        &Asked {
            named: Some(named),
            context: Some(context),
            bypass: None,
        },
    )?;
    must_be_enabled(&call.core.names, key)?;
    Ok(key)
}

fn seal(records: &Records, key: &Key, context: &Pairs, plain: &[u8]) -> Result<Vec<u8>, Fault> {
    let newest = key.materials.last().ok_or_else(Fault::internal)?;
    let material = records.materials.get(&newest.file).ok_or_else(Fault::internal)?;
    let id = Uuid::parse_str(&key.id).map_err(|_| Fault::internal())?;
    Ok(ciphertext::seal(
        material,
        Header {
            key: id,
            material_version: newest.version,
        },
        context,
        plain,
    ))
}

struct Source<'a> {
    named: Option<&'a str>,
    context: &'a Pairs,
    ciphertext: &'a [u8],
}

/// Opens a ciphertext under the key that is named, or else under the one that it was made with.
fn open<'r>(
    call: &mut Call<'_>,
    records: &'r Records,
    action: &str,
    source: &Source<'_>,
    dry_run: bool,
) -> Result<(&'r Key, Zeroizing<Vec<u8>>), Fault> {
    let parsed = Header::parse(source.ciphertext);
    let key = match (source.named, parsed) {
        (Some(named), _) => usable(call, records, named, action, source.context)?,
        (None, None) => return Err(Fault::invalid_ciphertext()),
        (None, Some((header, _))) => {
            let id = header.key.to_string();
            if !records.keys.contains_key(&id) {
                return Err(Fault::new(
                    "AccessDeniedException",
                    "The ciphertext refers to a customer master key that does not exist, does not exist in this \
                     region, or you are not allowed to access.",
                ));
            }
            usable(call, records, &id, action, source.context)?
        }
    };
    let Some((header, sealed)) = parsed else {
        return Err(Fault::invalid_ciphertext());
    };
    if header.key.to_string() != key.id {
        // Another key's ciphertext if there is such a key; otherwise nothing of ours.
        if !records.keys.contains_key(&header.key.to_string()) {
            return Err(Fault::invalid_ciphertext());
        }
        return Err(Fault::new(
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        ));
    }
    refuse_dry_run(dry_run)?;
    let version = key
        .materials
        .iter()
        .find(|material| material.version == header.material_version);
    let version = version.ok_or_else(Fault::invalid_ciphertext)?;
    let material = records.materials.get(&version.file).ok_or_else(Fault::internal)?;
    let plain = ciphertext::open(material, header, source.context, sealed).ok_or_else(Fault::invalid_ciphertext)?;
    Ok((key, plain))
}

fn data_key_bytes(spec: Option<&str>, number: Option<i64>) -> Result<usize, Fault> {
    match (spec, number) {
        (Some("AES_256"), None) => Ok(32),
        (Some("AES_128"), None) => Ok(16),
        (None, Some(number)) if (1..=DATA_KEY_BYTES_MAX).contains(&number) => {
            usize::try_from(number).map_err(|_| Fault::internal())
        }
        (None, Some(_)) => Err(Fault::validation(format!(
            "1 validation error detected: Value at 'numberOfBytes' failed to satisfy constraint: Member must have \
             value between 1 and {DATA_KEY_BYTES_MAX}"
        ))),
        (Some(_), None) => Err(Fault::validation(
            "1 validation error detected: Value at 'keySpec' failed to satisfy constraint: Member must satisfy enum \
             value set: [AES_256, AES_128]",
        )),
        _ => Err(Fault::validation("Please specify either number of bytes or key spec.")),
    }
}

fn ciphertext_of(blob: Option<&Bytes>) -> Result<&[u8], Fault> {
    let ciphertext = &blob.ok_or_else(|| missing("ciphertextBlob"))?.0;
    if ciphertext.is_empty() || ciphertext.len() > CIPHERTEXT_BYTES_MAX {
        return Err(Fault::validation(format!(
            "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must have \
             length between 1 and {CIPHERTEXT_BYTES_MAX}"
        )));
    }
    Ok(ciphertext)
}

fn check_algorithm(algorithm: Option<&str>) -> Result<(), Fault> {
    match algorithm {
        None | Some(ALGORITHM) => Ok(()),
        Some(_) => Err(Fault::new(
            "InvalidKeyUsageException",
            "This key server has symmetric keys only; the algorithm must be SYMMETRIC_DEFAULT.",
        )),
    }
}

fn check_context(context: &Pairs) -> Result<(), Fault> {
    let bytes: usize = context.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > CONTEXT_BYTES_MAX {
        return Err(Fault::validation(format!(
            "The encryption context has {bytes} bytes; at most {CONTEXT_BYTES_MAX} are allowed."
        )));
    }
    Ok(())
}

fn refuse_dry_run(dry_run: bool) -> Result<(), Fault> {
    if !dry_run {
        return Ok(());
    }
    let message = "The request would have succeeded, but the DryRun option is set.";
    Err(Fault::new("DryRunOperationException", message).with_status(412))
}
