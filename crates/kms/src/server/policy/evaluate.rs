//! Whether a request is allowed: explicit deny first, then the resource's own policy, then the caller's.

use super::{Kind, Policy, Principal, Statement, Values};

/// Who asks, as policies see it.
#[derive(Clone, Debug)]
pub(in super::super) struct Asker {
    pub(in super::super) account: String,
    /// The user, or the session of a role.
    pub(in super::super) arn: String,
    /// The user, or the role itself.
    pub(in super::super) principal_arn: String,
    /// What the user or role may do.
    pub(in super::super) identity: Vec<Policy>,
}

/// The answer, with what AWS's message says of its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Decision {
    Allowed,
    /// `with an explicit deny in a resource-based policy`, or an identity-based one.
    ExplicitDeny {
        by_resource: bool,
    },
    /// No policy of the resource lets the caller in, nor the caller's account.
    NoResourcePolicy,
    /// The resource leaves it to the caller's account, whose policies are silent.
    NoIdentityPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Voice {
    Silent,
    /// The account is let in; its identity policies decide.
    Account,
    /// The caller itself is let in.
    Caller,
    Denied,
}

/// Decides about `action` on the key `resource` under the key's policy.
pub(in super::super) fn key_allows(
    policy: &Policy,
    asker: &Asker,
    action: &str,
    resource: &str,
    values: &Values,
) -> Decision {
    resource_allows(policy, Kind::Key, asker, action, resource, values)
}

/// Decides about assuming the role `resource` under its trust policy.
pub(in super::super) fn trust_allows(policy: &Policy, asker: &Asker, resource: &str, values: &Values) -> Decision {
    resource_allows(policy, Kind::Trust, asker, "sts:AssumeRole", resource, values)
}

/// Decides about an action that only the caller's own policies govern.
pub(in super::super) fn identity_allows(asker: &Asker, action: &str, resource: &str, values: &Values) -> Decision {
    match identity_voice(asker, action, resource, values) {
        Voice::Denied => Decision::ExplicitDeny { by_resource: false },
        Voice::Silent => Decision::NoIdentityPolicy,
        Voice::Account | Voice::Caller => Decision::Allowed,
    }
}

fn resource_allows(
    policy: &Policy,
    kind: Kind,
    asker: &Asker,
    action: &str,
    resource: &str,
    values: &Values,
) -> Decision {
    let by_resource = policy
        .statements
        .iter()
        // A trust policy has no resource of its own: its statements speak of the role they are attached to.
        .filter(|statement| statement.speaks_of(action, if kind == Kind::Trust { "*" } else { resource }, values))
        .map(|statement| statement.voice(asker))
        .max()
        .unwrap_or(Voice::Silent);
    let by_identity = identity_voice(asker, action, resource, values);
    match (by_resource, by_identity) {
        (Voice::Denied, _) => Decision::ExplicitDeny { by_resource: true },
        (_, Voice::Denied) => Decision::ExplicitDeny { by_resource: false },
        (Voice::Caller, _) | (Voice::Account, Voice::Caller | Voice::Account) => Decision::Allowed,
        (Voice::Account, Voice::Silent) => Decision::NoIdentityPolicy,
        (Voice::Silent, _) => Decision::NoResourcePolicy,
    }
}

fn identity_voice(asker: &Asker, action: &str, resource: &str, values: &Values) -> Voice {
    let statements = asker.identity.iter().flat_map(|policy| &policy.statements);
    statements
        .filter(|statement| statement.speaks_of(action, resource, values))
        .map(|statement| if statement.deny { Voice::Denied } else { Voice::Caller })
        .max()
        .unwrap_or(Voice::Silent)
}

impl Statement {
    fn speaks_of(&self, action: &str, resource: &str, values: &Values) -> bool {
        self.actions.matches(action)
            && self.resources.matches(resource)
            && self.conditions.iter().all(|condition| condition.holds(values))
    }

    /// What a statement of a resource's policy that speaks of the request says to this caller.
    fn voice(&self, asker: &Asker) -> Voice {
        let closest = self
            .principals
            .iter()
            .map(|principal| principal.voice(asker))
            .max()
            .unwrap_or(Voice::Silent);
        if closest == Voice::Silent {
            Voice::Silent
        } else if self.deny {
            Voice::Denied
        } else {
            closest
        }
    }
}

impl Principal {
    fn voice(&self, asker: &Asker) -> Voice {
        match self {
            Self::Anyone => Voice::Caller,
            Self::Arn(arn) if *arn == asker.arn || *arn == asker.principal_arn => Voice::Caller,
            Self::Account(account) if *account == asker.account => Voice::Account,
            Self::Arn(_) | Self::Account(_) | Self::Service => Voice::Silent,
        }
    }
}
