//! Who signed a request: a user's access key, or a session of a role.

use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    core::{Caller, Core},
    policy::{Asker, Kind, Policy, Values},
    records::{Milliseconds, Records, Role, User},
    sigv4::{AuthFault, Authorization, Incoming},
};

/// What a session token says; sealed, so that only this server can make one.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Session {
    pub(super) access_key_id: String,
    pub(super) secret: String,
    pub(super) role: String,
    /// The role's id: a role made again under the same name does not revive old sessions.
    pub(super) role_id: String,
    pub(super) name: String,
    pub(super) expires_ms: Milliseconds,
}

/// Bound into the seal of every session token.
const TOKEN_ASSOCIATED: &[u8] = b"session token";
/// Longest token that is looked at, in bytes; ours have under 1 KiB.
const TOKEN_BYTES_MAX: usize = 4_096;

impl Session {
    /// The token that stands for this session.
    pub(super) fn token(&self, core: &Core) -> String {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            core.sessions.seal(TOKEN_ASSOCIATED, &plain),
        )
    }

    fn from_token(core: &Core, token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let sealed = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token).ok()?;
        let plain = core.sessions.open(TOKEN_ASSOCIATED, &sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }
}

impl Core {
    /// Proves who signed `incoming`.
    pub(super) fn authenticate(
        &self,
        authorization: &Authorization,
        incoming: Incoming<'_>,
        now_ms: Milliseconds,
    ) -> Result<Caller, AuthFault> {
        let token = match incoming.headers.get("x-amz-security-token") {
            Some(value) => Some(value.to_str().map_err(|_| AuthFault::UnknownClient)?),
            None => None,
        };
        let records = self.read();
        let Some(token) = token else {
            let user = records
                .users
                .values()
                .find(|user| user.access_key_id == authorization.access_key_id)
                .ok_or(AuthFault::UnknownClient)?;
            authorization.verify(incoming, &user.secret, now_ms)?;
            return Ok(self.user_caller(user));
        };
        let session = Session::from_token(self, token)
            .filter(|session| session.access_key_id == authorization.access_key_id)
            .ok_or(AuthFault::UnknownClient)?;
        authorization.verify(incoming, &session.secret, now_ms)?;
        if session.expires_ms <= now_ms {
            return Err(AuthFault::ExpiredToken);
        }
        let role = live_role(&records, &session).ok_or(AuthFault::UnknownClient)?;
        Ok(self.session_caller(&session, role))
    }

    fn user_caller(&self, user: &User) -> Caller {
        let arn = self.names.user_arn(&user.name);
        let mut values = self.caller_values(&arn, "User", &user.id);
        values.set("aws:username", user.name.as_str());
        let identity = json!({
            "type": "IAMUser", "principalId": user.id, "arn": arn, "accountId": self.names.account,
            "accessKeyId": user.access_key_id, "userName": user.name,
        });
        let asker = Asker {
            account: self.names.account.clone(),
            arn: arn.clone(),
            principal_arn: arn,
            identity: understood([user.policy.as_str()].into_iter()),
        };
        Caller {
            asker,
            values,
            identity,
            user_id: user.id.clone(),
        }
    }

    fn session_caller(&self, session: &Session, role: &Role) -> Caller {
        let (arn, role_arn) = (
            self.names.session_arn(&session.role, &session.name),
            self.names.role_arn(&session.role),
        );
        let user_id = format!("{}:{}", role.id, session.name);
        let values = self.caller_values(&role_arn, "AssumedRole", &user_id);
        let identity = json!({
            "type": "AssumedRole", "principalId": user_id, "arn": arn, "accountId": self.names.account,
            "accessKeyId": session.access_key_id,
            "sessionContext": { "sessionIssuer": {
                "type": "Role", "principalId": role.id, "arn": role_arn, "accountId": self.names.account,
                "userName": session.role,
            } },
        });
        let asker = Asker {
            account: self.names.account.clone(),
            arn,
            principal_arn: role_arn,
            identity: understood(role.policies.values().map(String::as_str)),
        };
        Caller {
            asker,
            values,
            identity,
            user_id,
        }
    }

    fn caller_values(&self, principal_arn: &str, kind: &str, user_id: &str) -> Values {
        let mut values = Values::default();
        values.set("aws:PrincipalArn", principal_arn);
        values.set("aws:PrincipalAccount", self.names.account.clone());
        values.set("aws:PrincipalType", kind);
        values.set("aws:userid", user_id);
        values.set("aws:SecureTransport", "false");
        values.set("kms:CallerAccount", self.names.account.clone());
        values
    }
}

fn live_role<'r>(records: &'r Records, session: &Session) -> Option<&'r Role> {
    records
        .roles
        .get(&session.role)
        .filter(|role| role.id == session.role_id)
}

/// Identity policies were checked when they were put. One that a newer version wrote and this one does not understand
/// becomes a deny of everything: dropping it could drop a deny.
fn understood<'a>(policies: impl Iterator<Item = &'a str>) -> Vec<Policy> {
    const DENY_ALL: &str = r#"{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
    policies
        .filter_map(|text| {
            Policy::parse(text, Kind::Identity)
                .or_else(|_| Policy::parse(DENY_ALL, Kind::Identity))
                .ok()
        })
        .collect()
}
