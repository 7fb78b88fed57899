//! A project's policies as commands: paste and run, nothing to edit. Running them again changes nothing.
//!
//! The commands need bash, the AWS CLI and Python 3 (which merges a key's policy); region and endpoints come from the ARN
//! and the standard AWS environment. All texts in them were checked or made here: none holds a quote.

use std::fmt::Write as _;

use serde_json::Value;

use crate::policy::{AccountPolicy, ProjectPolicy, ROLE_POLICY_NAME};

/// Adds a statement to a key's policy, or puts it in the place of an earlier one with the same id. All other statements
/// stay as they are, so nobody who can use or administer the key loses that.
const MERGE: &str = r#"import json, sys
policy, ours = json.loads(sys.argv[1]), json.loads(sys.argv[2])
statements = policy.get("Statement", [])
if isinstance(statements, dict):
    statements = [statements]
policy["Statement"] = [one for one in statements if one.get("Sid") != ours["Sid"]] + [ours]
print(json.dumps(policy))"#;

pub(crate) fn write(policy: &ProjectPolicy) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\
# Lets Saker use the root keys of project {project}: as {principal},
# with the external id {external_id}, and for nothing but GenerateDataKey and Decrypt with its own encryption context.
# Run in bash as somebody who may manage roles and these keys; needs the AWS CLI and python3. May be run again.
",
        project = policy.project,
        principal = policy.principal,
        external_id = policy.external_id,
    );
    for account in &policy.accounts {
        write_account(&mut text, policy, account);
    }
    let _ = writeln!(text, "\n# Then register each key (it is tried first):");
    for account in &policy.accounts {
        for (root, _) in &account.key_statements {
            let _ = writeln!(
                text,
                "#   saker key add --project {} --key {root} --role-arn {}",
                policy.project, account.role_arn
            );
        }
    }
    text
}

fn write_account(text: &mut String, policy: &ProjectPolicy, account: &AccountPolicy) {
    let AccountPolicy {
        account: number,
        role_name,
        trust_policy,
        role_policy,
        ..
    } = account;
    let (trust, role) = (compact(trust_policy), compact(role_policy));
    let region = account
        .key_statements
        .first()
        .and_then(|(root, _)| root.aws_region())
        .unwrap_or_default();
    let _ = write!(
        text,
        "
( # Account {number}
set -euo pipefail
export AWS_PAGER=
command -v python3 >/dev/null || {{ echo 'python3 is needed to merge key policies: install it, or run this in AWS CloudShell' >&2; exit 1; }}
account=$(aws sts get-caller-identity --region {region} --query Account --output text)
[ \"$account\" = {number} ] || {{ echo \"these keys are in account {number}, and you are in $account: change AWS_PROFILE\" >&2; exit 1; }}

# 1. The role, which only Saker can take on, and only with the external id of this project.
trust='{trust}'
if ! said=$(aws iam create-role --role-name {role_name} --description 'Saker project {project}' --assume-role-policy-document \"$trust\" 2>&1); then
  case $said in
    *EntityAlreadyExists*) aws iam update-assume-role-policy --role-name {role_name} --policy-document \"$trust\" ;;
    *) printf '%s\\n' \"$said\" >&2; exit 1 ;;
  esac
fi

# 2. What the role may do.
aws iam put-role-policy --role-name {role_name} --policy-name {ROLE_POLICY_NAME} --policy-document '{role}'

# 3. What each key lets the role do: one statement beside those that are there.
merge='{MERGE}'
let_use() {{ # region, key, statement
  local policy merged said
  policy=$(aws kms get-key-policy --region \"$1\" --key-id \"$2\" --policy-name default --query Policy --output text)
  merged=$(python3 -c \"$merge\" \"$policy\" \"$3\")
  # A new role is not known to KMS at once.
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
    if said=$(aws kms put-key-policy --region \"$1\" --key-id \"$2\" --policy-name default --policy \"$merged\" 2>&1); then
      echo \"$2: may be used by {role_name}\"
      return 0
    fi
    case $said in *'invalid principal'*) sleep 5 ;; *) break ;; esac
  done
  printf '%s\\n' \"$said\" >&2
  return 1
}}
",
        project = policy.project,
    );
    for (root, statement) in &account.key_statements {
        let region = root.aws_region().unwrap_or_default();
        let _ = writeln!(text, "let_use {region} {root} '{}'", compact(statement));
    }
    text.push_str(")\n");
}

fn compact(document: &Value) -> String {
    document.to_string()
}
