//! The `cipher.*` properties: whose key a new database or collection goes under.
//!
//! A key that is named is never ignored, and a key is chosen once: `cipher.*` cannot be altered afterwards.

use saker_keyring::RootKeyId;

use crate::{
    error::{Error, Result},
    types::Properties,
    zones::Access,
};

const PREFIX: &str = "cipher.";
const ENABLED: &str = "cipher.enabled";
const KEY: &str = "cipher.key";
const ZONE: &str = "cipher.ezID";

/// Whose key a new database goes under.
pub(crate) enum Cipher {
    Customer(RootKeyId),
    Platform,
}

impl Cipher {
    /// What a new database's properties say; without a word about it the server's default key holds.
    ///
    /// # Errors
    /// A contradiction, or a key that is none.
    pub(crate) fn of_database(properties: &Properties, default: Option<&RootKeyId>) -> Result<Self> {
        match (parse(properties)?, default) {
            ((_, Some(key)), _) => Ok(Self::Customer(key)),
            ((Some(false), None), _) | ((None, None), None) => Ok(Self::Platform),
            ((Some(true) | None, None), Some(default)) => Ok(Self::Customer(default.clone())),
            ((Some(true), None), None) => Err(Error::invalid(
                "cipher.enabled is \"true\" but there is no cipher.key and the server has no default key; \
                 give the key's ARN as cipher.key",
            )),
        }
    }
}

/// The key of its own that a new collection's properties ask for; `None`: it is sealed under its database's.
///
/// # Errors
/// A contradiction, or a key that is none.
pub(crate) fn of_collection(properties: &Properties) -> Result<Option<RootKeyId>> {
    match parse(properties)? {
        (_, Some(key)) => Ok(Some(key)),
        (Some(true), None) => Err(Error::invalid(
            "cipher.enabled is \"true\" but there is no cipher.key; give the key's ARN as cipher.key for a key of the \
             collection's own, or leave both out: then it is encrypted under its database's key",
        )),
        (Some(false) | None, None) => Ok(None),
    }
}

/// The properties that users gave, without `cipher.*`.
pub(crate) fn without(properties: Properties) -> Properties {
    properties
        .into_iter()
        .filter(|(key, _)| !key.starts_with(PREFIX))
        .collect()
}

/// Shows the zone among the properties.
pub(crate) fn show(access: &Access, properties: &mut Properties) {
    properties.insert(ENABLED.to_owned(), "true".to_owned());
    properties.insert(KEY.to_owned(), access.root().to_string());
    properties.insert(ZONE.to_owned(), access.zone.id().to_string());
}

/// Refuses to change `cipher.*`; `what` says of what, and what to do instead.
///
/// # Errors
/// If one of them is among the keys.
pub(crate) fn refuse_change<'a>(mut keys: impl Iterator<Item = &'a String>, what: &str) -> Result<()> {
    match keys.find(|key| key.starts_with(PREFIX)) {
        Some(key) => Err(Error::invalid(format!(
            "can not alter cipher related properties: {key}; {what}"
        ))),
        None => Ok(()),
    }
}

/// `cipher.enabled` and `cipher.key`, free of contradictions.
fn parse(properties: &Properties) -> Result<(Option<bool>, Option<RootKeyId>)> {
    let known = [ENABLED, KEY];
    if let Some(key) = properties
        .keys()
        .find(|key| key.starts_with(PREFIX) && !known.contains(&key.as_str()))
    {
        return Err(Error::invalid(format!(
            "property {key} is set by the server; give cipher.enabled and cipher.key only"
        )));
    }
    let enabled = match properties.get(ENABLED).map(|text| text.to_ascii_lowercase()) {
        None => None,
        Some(text) if text == "true" => Some(true),
        Some(text) if text == "false" => Some(false),
        Some(_) => return Err(Error::invalid("cipher.enabled must be \"true\" or \"false\"")),
    };
    let text = properties
        .get(KEY)
        .map(|text| text.trim())
        .filter(|text| !text.is_empty());
    let Some(text) = text else {
        return Ok((enabled, None));
    };
    let key = text.parse::<RootKeyId>().map_err(|error| {
        let shown: String = text.chars().take(256).collect();
        Error::invalid(format!("cipher.key {shown:?} cannot be used: {error}"))
    })?;
    if enabled == Some(false) {
        return Err(Error::invalid(format!(
            "cipher.key {key} is given but cipher.enabled is \"false\"; set cipher.enabled to \"true\" or leave the key out"
        )));
    }
    if key == RootKeyId::platform_file() {
        return Err(Error::invalid(
            "cipher.key must be a customer's key; leave it out for the platform key",
        ));
    }
    Ok((enabled, Some(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000001";

    fn given(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_collection_has_a_key_of_its_own_only_if_it_is_named() {
        let own = of_collection(&given(&[(ENABLED, "true"), (KEY, ARN)])).unwrap();
        assert_eq!(own.unwrap().as_str(), ARN);
        assert_eq!(of_collection(&given(&[(KEY, ARN)])).unwrap().unwrap().as_str(), ARN);
        for none in [
            &[][..],
            &[("mmap", "true")],
            &[(ENABLED, "false")],
            &[(ENABLED, "false"), (KEY, " ")],
        ] {
            assert_eq!(of_collection(&given(none)).unwrap(), None, "{none:?}");
        }
        let refused: &[&[(&str, &str)]] = &[
            &[(ENABLED, "true")],
            &[(ENABLED, "false"), (KEY, ARN)],
            &[(ENABLED, "maybe"), (KEY, ARN)],
            &[(KEY, "alias/mine")],
            &[(KEY, "file:platform")],
            &[(ZONE, "x")],
        ];
        for wrong in refused {
            assert!(of_collection(&given(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_database_falls_back_to_the_default_key_unless_it_says_no() {
        let default: RootKeyId = ARN.parse().unwrap();
        let of = |pairs: &[(&str, &str)]| Cipher::of_database(&given(pairs), Some(&default)).unwrap();
        assert!(matches!(of(&[]), Cipher::Customer(key) if key == default));
        assert!(matches!(of(&[(ENABLED, "true")]), Cipher::Customer(key) if key == default));
        assert!(matches!(of(&[(ENABLED, "false")]), Cipher::Platform));
        assert!(Cipher::of_database(&given(&[(ENABLED, "true")]), None).is_err());
    }
}
