//! Users and passwords.
//!
//! There are no roles yet: with authentication on, only `root` makes, deletes and lists users; everybody may change the
//! own password.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use saker_proto::{
    common::{self, ErrorCode},
    milvus::{
        CreateCredentialRequest, DeleteCredentialRequest, ListCredUsersRequest, ListCredUsersResponse,
        UpdateCredentialRequest,
    },
};
use zeroize::Zeroizing;

use super::Call;
use crate::{
    auth::ROOT_USER,
    node::Node,
    wire::{
        Failure,
        failure::{self, Code},
    },
};

/// Longest user name, in bytes (Milvus: 32).
const USER_NAME_BYTES_MAX: usize = 32;
/// Shortest password, in bytes (Milvus: 6).
const PASSWORD_BYTES_MIN: usize = 6;
/// Longest password, in bytes (Milvus: 72).
const PASSWORD_BYTES_MAX: usize = 72;

pub(super) async fn create(
    node: &Node,
    call: &Call,
    request: CreateCredentialRequest,
) -> Result<common::Status, Failure> {
    only_root(call, "create users")?;
    check_user_name(&request.username)?;
    let password = password_in(&request.password)?;
    check_password(&password)?;
    let hash = node.auth.hash(password).await?;
    node.engine.create_credential(&request.username, &hash).await?;
    Ok(failure::success())
}

pub(super) async fn update(
    node: &Node,
    call: &Call,
    request: UpdateCredentialRequest,
) -> Result<common::Status, Failure> {
    let user = request.username;
    let asks_for_own = call.user.as_ref().is_none_or(|asker| asker.name() == user);
    if !asks_for_own {
        only_root(call, "change the password of another user")?;
    }
    if asks_for_own {
        let old = password_in(&request.old_password)?;
        if !node.auth.verify(&node.engine, &user, &old).await {
            return Err(refused(
                ErrorCode::UpdateCredentialFailure,
                format!("old password not correct: {user}"),
            ));
        }
    }
    let password = password_in(&request.new_password)?;
    check_password(&password)?;
    let hash = node.auth.hash(password).await?;
    node.engine.update_credential(&user, &hash).await?;
    node.auth.forget(&user);
    Ok(failure::success())
}

pub(super) async fn delete(
    node: &Node,
    call: &Call,
    request: DeleteCredentialRequest,
) -> Result<common::Status, Failure> {
    only_root(call, "delete users")?;
    if request.username == ROOT_USER {
        return Err(refused(
            ErrorCode::DeleteCredentialFailure,
            "user root cannot be deleted".to_owned(),
        ));
    }
    node.engine.delete_credential(&request.username).await?;
    node.auth.forget(&request.username);
    Ok(failure::success())
}

pub(super) async fn list(node: &Node, call: &Call, _: ListCredUsersRequest) -> Result<ListCredUsersResponse, Failure> {
    only_root(call, "list users")?;
    let mut usernames = node.engine.list_credentials().await?;
    if !usernames.iter().any(|user| user == ROOT_USER) {
        usernames.insert(0, ROOT_USER.to_owned());
    }
    Ok(ListCredUsersResponse {
        status: None,
        usernames,
    })
}

fn only_root(call: &Call, what: &str) -> Result<(), Failure> {
    match &call.user {
        Some(user) if user.name() != ROOT_USER => Err(refused(
            ErrorCode::PermissionDenied,
            format!("only {ROOT_USER} may {what}: permission deny"),
        )),
        Some(_) | None => Ok(()),
    }
}

fn refused(old_code: ErrorCode, reason: String) -> Failure {
    Failure::new(Code::UNEXPECTED, old_code, reason)
}

fn password_in(encoded: &str) -> Result<Zeroizing<String>, Failure> {
    let decoded = STANDARD
        .decode(encoded)
        .map_err(|_| Failure::invalid("the password is not base64"))?;
    String::from_utf8(decoded)
        .map(Zeroizing::new)
        .map_err(|_| Failure::invalid("the password is not text"))
}

fn check_user_name(name: &str) -> Result<(), Failure> {
    let fail = |reason: &str| Err(Failure::invalid(format_args!("invalid username: {reason}")));
    if name.is_empty() {
        return fail("username must be not empty");
    }
    if name.len() > USER_NAME_BYTES_MAX {
        return fail("the length of username must be at most 32 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return fail("the first character of username must be a letter");
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    {
        return fail("username should only contain letters, numbers, underscores, hyphens and dots");
    }
    Ok(())
}

fn check_password(password: &str) -> Result<(), Failure> {
    if (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        return Ok(());
    }
    Err(Failure::invalid(format_args!(
        "invalid password length: it should be in range [{PASSWORD_BYTES_MIN}, {PASSWORD_BYTES_MAX}]"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_keep_their_limits() {
        assert!(check_user_name("ann-1.b_c").is_ok());
        assert!(check_user_name(&"a".repeat(USER_NAME_BYTES_MAX)).is_ok());
        for bad in ["", "1a", "a b", &"a".repeat(USER_NAME_BYTES_MAX + 1)] {
            assert!(check_user_name(bad).is_err(), "{bad}");
        }
        for (bytes, fine) in [(5, false), (6, true), (72, true), (73, false)] {
            assert_eq!(check_password(&"x".repeat(bytes)).is_ok(), fine, "{bytes}");
        }
        assert!(password_in("!").is_err());
        assert_eq!(password_in("TWlsdnVz").unwrap().as_str(), "Milvus");
    }
}
