//! Tags of keys.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Paging, must_not_be_pending, page, paged, read, required};
use crate::server::{
    core::{Asked, Call},
    fault::Fault,
};

/// Most tags of one key (AWS).
const TAGS_MAX: usize = 50;
/// Longest name and value of a tag, in characters (AWS).
const NAME_CHARACTERS_MAX: usize = 128;
const VALUE_CHARACTERS_MAX: usize = 256;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Tag {
    tag_key: String,
    tag_value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    key_id: Option<String>,
    tags: Vec<Tag>,
    tag_keys: Vec<String>,
    #[serde(flatten)]
    paging: Paging,
}

/// `tags` with `more` set, if the outcome is within AWS's limits.
pub(super) fn merged(tags: &BTreeMap<String, String>, more: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    let mut tags = tags.clone();
    for tag in more {
        let (name, value) = (tag.tag_key.chars().count(), tag.tag_value.chars().count());
        if name == 0 || name > NAME_CHARACTERS_MAX || value > VALUE_CHARACTERS_MAX || tag.tag_key.starts_with("aws:") {
            return Err(Fault::new(
                "TagException",
                format!(
                    "A tag has a name of 1 to {NAME_CHARACTERS_MAX} characters that does not start with aws:, and a \
                     value of at most {VALUE_CHARACTERS_MAX}."
                ),
            ));
        }
        tags.insert(tag.tag_key, tag.tag_value);
    }
    if tags.len() > TAGS_MAX {
        return Err(Fault::limit(format!("A key has at most {TAGS_MAX} tags.")));
    }
    Ok(tags)
}

pub(super) fn add(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    change(call, request, "kms:TagResource", |tags, request| {
        merged(tags, request.tags)
    })
}

pub(super) fn remove(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    change(call, request, "kms:UntagResource", |tags, request| {
        let mut tags = tags.clone();
        tags.retain(|name, _| !request.tag_keys.contains(name));
        Ok(tags)
    })
}

fn change(
    call: &mut Call<'_>,
    request: Map<String, Value>,
    action: &str,
    change: impl FnOnce(&BTreeMap<String, String>, Request) -> Result<BTreeMap<String, String>, Fault>,
) -> Result<Value, Fault> {
    let request: Request = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?.to_owned();
    let mut records = call.core.write();
    let key = call.find_key(&records, &named, false)?;
    call.authorise(
        &records,
        key,
        action,
        &Asked {
            named: Some(&named),
            ..Asked::default()
        },
    )?;
    must_not_be_pending(&call.core.names, key)?;
    let mut key = key.clone();
    key.tags = change(&key.tags, request)?;
    call.core.put_key(&mut records, key)?;
    Ok(json!({}))
}

pub(super) fn list(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Request = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let records = call.core.read();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:ListResourceTags",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    let tags = key
        .tags
        .iter()
        .map(|(name, value)| (name.as_str(), json!({ "TagKey": name, "TagValue": value })));
    let (found, next) = page(tags, &request.paging, 50, 50)?;
    Ok(paged(Map::from_iter([("Tags".to_owned(), Value::Array(found))]), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(count: usize, name: &str, value: &str) -> Vec<Tag> {
        (0..count)
            .map(|number| Tag {
                tag_key: format!("{name}{number}"),
                tag_value: value.to_owned(),
            })
            .collect()
    }

    #[test]
    fn tags_have_limits() {
        let none = BTreeMap::new();
        let full = merged(&none, tags(TAGS_MAX, "t", "")).unwrap();
        assert!(
            merged(&full, tags(1, "t", "again")).is_ok(),
            "a tag that is there is replaced"
        );
        assert_eq!(
            merged(&full, tags(1, "u", "")).unwrap_err().code,
            "LimitExceededException"
        );
        let code = |name: &str, value: &str| {
            let tag = Tag {
                tag_key: name.to_owned(),
                tag_value: value.to_owned(),
            };
            merged(&none, vec![tag]).err().map(|fault| fault.code)
        };
        assert_eq!(
            code(&"n".repeat(NAME_CHARACTERS_MAX), &"v".repeat(VALUE_CHARACTERS_MAX)),
            None
        );
        assert_eq!(code(&"n".repeat(NAME_CHARACTERS_MAX + 1), ""), Some("TagException"));
        assert_eq!(code("n", &"v".repeat(VALUE_CHARACTERS_MAX + 1)), Some("TagException"));
        assert_eq!(code("", ""), Some("TagException"));
        assert_eq!(code("aws:x", ""), Some("TagException"));
    }
}
