//! ARNs of this server's account and region, and the names that callers give for a key.

use super::fault::Fault;

/// Where this server is, in AWS's terms.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) region: String,
    pub(super) account: String,
}

/// A key as a caller names it, without proof that it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyName {
    /// A key id.
    Id(String),
    /// An alias, with its `alias/` prefix.
    Alias(String),
}

/// Longest name that is looked at, in bytes (AWS: 2,048).
const NAME_BYTES_MAX: usize = 2_048;

impl Names {
    pub(super) fn key_arn(&self, id: &str) -> String {
        format!("arn:aws:kms:{}:{}:key/{id}", self.region, self.account)
    }

    /// `alias` with its `alias/` prefix.
    pub(super) fn alias_arn(&self, alias: &str) -> String {
        format!("arn:aws:kms:{}:{}:{alias}", self.region, self.account)
    }

    pub(super) fn user_arn(&self, user: &str) -> String {
        format!("arn:aws:iam::{}:user/{user}", self.account)
    }

    pub(super) fn role_arn(&self, role: &str) -> String {
        format!("arn:aws:iam::{}:role/{role}", self.account)
    }

    pub(super) fn session_arn(&self, role: &str, session: &str) -> String {
        format!("arn:aws:sts::{}:assumed-role/{role}/{session}", self.account)
    }

    pub(super) fn root_arn(&self) -> String {
        format!("arn:aws:iam::{}:root", self.account)
    }

    /// Takes a key id, key ARN, alias name or alias ARN apart.
    pub(super) fn parse_key(&self, text: &str) -> Result<KeyName, Fault> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(Fault::validation(format!(
                "1 validation error detected: Value at 'keyId' failed to satisfy constraint: Member must have length \
                 between 1 and {NAME_BYTES_MAX}"
            )));
        }
        let resource = match text.strip_prefix("arn:") {
            Some(rest) => {
                let parts: Vec<&str> = rest.splitn(5, ':').collect();
                let [partition, service, region, account, resource] = parts[..] else {
                    return Err(Fault::new(
                        "InvalidArnException",
                        format!("Invalid arn '{}'", printable(text)),
                    ));
                };
                if partition != "aws" || service != "kms" {
                    return Err(Fault::new(
                        "InvalidArnException",
                        format!("Invalid arn '{}'", printable(text)),
                    ));
                }
                if region != self.region {
                    return Err(Fault::not_found(format!("Invalid arn {}", printable(region))));
                }
                if account != self.account {
                    return Err(Fault::not_found(format!("Key '{}' does not exist", printable(text))));
                }
                match resource.strip_prefix("key/") {
                    Some(id) => return Ok(KeyName::Id(valid_id(id)?.to_owned())),
                    None => resource,
                }
            }
            None => text,
        };
        if resource.starts_with("alias/") {
            return Ok(KeyName::Alias(valid_alias(resource)?.to_owned()));
        }
        Ok(KeyName::Id(valid_id(resource)?.to_owned()))
    }
}

fn valid_id(id: &str) -> Result<&str, Fault> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Fault::not_found(format!("Invalid keyId '{}'", printable(id))));
    }
    Ok(id)
}

/// Checks an alias with its `alias/` prefix (AWS: 1 to 256 of `[a-zA-Z0-9/_-]`).
pub(super) fn valid_alias(alias: &str) -> Result<&str, Fault> {
    let name = alias.strip_prefix("alias/").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    if name.is_empty() || alias.len() > 256 || !name.bytes().all(plain) {
        return Err(Fault::validation(
            "Alias must start with the prefix \"alias/\" and then hold 1 to 250 of the characters a-zA-Z0-9/_-",
        ));
    }
    Ok(alias)
}

/// Caller's text as it may stand in a message and a log line: short, and only visible ASCII.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(256)
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_names_of_every_form() {
        let names = Names {
            region: "us-east-1".into(),
            account: "000000000000".into(),
        };
        let id = |text: &str| KeyName::Id(text.to_owned());
        assert_eq!(names.parse_key("abc-1").unwrap(), id("abc-1"));
        assert_eq!(
            names.parse_key("arn:aws:kms:us-east-1:000000000000:key/abc").unwrap(),
            id("abc")
        );
        let alias = KeyName::Alias("alias/a/b".to_owned());
        assert_eq!(names.parse_key("alias/a/b").unwrap(), alias);
        assert_eq!(
            names.parse_key("arn:aws:kms:us-east-1:000000000000:alias/a/b").unwrap(),
            alias
        );
        let code = |text: &str| names.parse_key(text).unwrap_err().code;
        assert_eq!(code("arn:aws:kms:eu-west-1:000000000000:key/abc"), "NotFoundException");
        assert_eq!(code("arn:aws:kms:us-east-1:111111111111:key/abc"), "NotFoundException");
        assert_eq!(code("arn:aws:s3:us-east-1:000000000000:key/abc"), "InvalidArnException");
        assert_eq!(code("arn:aws:kms"), "InvalidArnException");
        assert_eq!(code("a b"), "NotFoundException");
        assert_eq!(code(""), "ValidationException");
        assert_eq!(code(&"a".repeat(NAME_BYTES_MAX + 1)), "ValidationException");
        assert!(names.parse_key(&"a".repeat(NAME_BYTES_MAX)).is_ok());
        assert_eq!(code("alias/"), "ValidationException");
        assert_eq!(code("alias/ü"), "ValidationException");
    }
}
