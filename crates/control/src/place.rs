//! Where a cluster's keys may be: provider and region.

use saker_keyring::{KeyProvider, RootKeyId};
use serde::{Deserialize, Serialize};

/// A key service's provider and region, as far as they are fixed. `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Whose key service.
    pub provider: Option<KeyProvider>,
    /// Which region; only AWS has regions.
    pub region: Option<String>,
}

impl Place {
    /// Where this key is.
    #[must_use]
    pub fn of(root: &RootKeyId) -> Self {
        Self {
            provider: Some(root.provider()),
            region: root.region().map(str::to_owned),
        }
    }
    /// Whether a key may be used here.
    #[must_use]
    pub fn accepts(&self, root: &RootKeyId) -> bool {
        let provider = self.provider.is_none_or(|provider| provider == root.provider());
        // A key without region (not AWS's) is nowhere in particular.
        let region = match (&self.region, root.region()) {
            (Some(wanted), Some(region)) => wanted == region,
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        provider && region
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let provider = self.provider.map_or("any provider", KeyProvider::as_str);
        match &self.region {
            Some(region) => write!(f, "{provider} in {region}"),
            None => f.write_str(provider),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_and_region_have_to_match() {
        let east: RootKeyId = "arn:aws:kms:us-east-1:000000000000:key/a".parse().unwrap();
        let west: RootKeyId = "arn:aws:kms:us-west-2:000000000000:key/a".parse().unwrap();
        let transit: RootKeyId = "vault://transit/a".parse().unwrap();
        let place = Place::of(&east);
        assert_eq!(place.to_string(), "aws in us-east-1");
        assert!(place.accepts(&east) && !place.accepts(&west) && !place.accepts(&transit));
        let any = Place::default();
        assert!(any.accepts(&east) && any.accepts(&west) && any.accepts(&transit));
        let region = Place {
            provider: None,
            region: Some("us-east-1".into()),
        };
        assert!(region.accepts(&east) && !region.accepts(&west) && region.accepts(&transit));
        assert!(Place::of(&transit).accepts(&transit) && !Place::of(&transit).accepts(&east));
    }
}
