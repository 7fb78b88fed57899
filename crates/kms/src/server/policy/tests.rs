use super::*;

const KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/k1";
const USER: &str = "arn:aws:iam::000000000000:user/saker";

fn policy(text: &str, kind: Kind) -> Policy {
    Policy::parse(text, kind).unwrap()
}

fn asker(identity: &[&str]) -> Asker {
    Asker {
        account: "000000000000".into(),
        arn: USER.into(),
        principal_arn: USER.into(),
        identity: identity.iter().map(|text| policy(text, Kind::Identity)).collect(),
    }
}

fn one(statement: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#)
}

fn decide(key: &str, identity: &[&str], action: &str, values: &Values) -> Decision {
    key_allows(&policy(key, Kind::Key), &asker(identity), action, KEY, values)
}

const DEFAULT: &str = r#"{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions",
    "Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:root"},"Action":"kms:*","Resource":"*"}]}"#;
const MAY_DECRYPT: &str =
    r#"{"Statement":{"Effect":"Allow","Action":["kms:Decrypt","kms:GenerateDataKey"],"Resource":"*"}}"#;

#[test]
fn the_default_policy_leaves_it_to_the_account() {
    let none = Values::default();
    assert_eq!(decide(DEFAULT, &[MAY_DECRYPT], "kms:Decrypt", &none), Decision::Allowed);
    assert_eq!(
        decide(DEFAULT, &[MAY_DECRYPT], "kms:Encrypt", &none),
        Decision::NoIdentityPolicy
    );
    assert_eq!(decide(DEFAULT, &[], "kms:Decrypt", &none), Decision::NoIdentityPolicy);
}

#[test]
fn a_policy_without_the_account_shuts_identity_policies_out() {
    let none = Values::default();
    let other = one(
        r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/customer"},
        "Action":"kms:*","Resource":"*"}"#,
    );
    assert_eq!(
        decide(&other, &[MAY_DECRYPT], "kms:Decrypt", &none),
        Decision::NoResourcePolicy
    );
    let named = one(
        r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/saker"},
        "Action":"kms:decrypt","Resource":"*"}"#,
    );
    assert_eq!(
        decide(&named, &[], "kms:Decrypt", &none),
        Decision::Allowed,
        "no identity policy is needed"
    );
    let foreign = one(r#"{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"kms:*","Resource":"*"}"#);
    assert_eq!(
        decide(&foreign, &[MAY_DECRYPT], "kms:Decrypt", &none),
        Decision::NoResourcePolicy
    );
    let service =
        one(r#"{"Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action":"kms:*","Resource":"*"}"#);
    assert_eq!(
        decide(&service, &[MAY_DECRYPT], "kms:Decrypt", &none),
        Decision::NoResourcePolicy
    );
}

#[test]
fn an_explicit_deny_wins_from_either_side() {
    let none = Values::default();
    let deny_here = format!(
        r#"{{"Statement":[{{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}},
        {{"Effect":"Deny","Principal":{{"AWS":"{USER}"}},"Action":"kms:Decrypt","Resource":"*"}}]}}"#
    );
    assert_eq!(
        decide(&deny_here, &[MAY_DECRYPT], "kms:Decrypt", &none),
        Decision::ExplicitDeny { by_resource: true }
    );
    assert_eq!(decide(&deny_here, &[], "kms:GenerateDataKey", &none), Decision::Allowed);
    let deny_identity = one(r#"{"Effect":"Deny","Action":"kms:De*","Resource":"arn:aws:kms:*:*:key/*"}"#);
    let both = [MAY_DECRYPT, deny_identity.as_str()];
    assert_eq!(
        decide(DEFAULT, &both, "kms:Decrypt", &none),
        Decision::ExplicitDeny { by_resource: false }
    );
    let deny_account = one(r#"{"Effect":"Deny","Principal":{"AWS":"000000000000"},"Action":"kms:*","Resource":"*"}"#);
    assert_eq!(
        decide(&deny_account, &[MAY_DECRYPT], "kms:Decrypt", &none),
        Decision::ExplicitDeny { by_resource: true }
    );
}

#[test]
fn not_action_and_resources_select() {
    let none = Values::default();
    let all_but = one(r#"{"Effect":"Allow","Principal":"*","NotAction":"kms:Decrypt","Resource":"*"}"#);
    assert_eq!(decide(&all_but, &[], "kms:Decrypt", &none), Decision::NoResourcePolicy);
    assert_eq!(decide(&all_but, &[], "kms:Encrypt", &none), Decision::Allowed);
    let other_key = one(r#"{"Effect":"Allow","Principal":"*","Action":"kms:*",
        "Resource":"arn:aws:kms:us-east-1:000000000000:key/k2"}"#);
    assert_eq!(
        decide(&other_key, &[], "kms:Decrypt", &none),
        Decision::NoResourcePolicy
    );
    let not_this = one(r#"{"Effect":"Allow","Action":"kms:*","NotResource":"arn:aws:kms:*:*:key/k1"}"#);
    assert_eq!(
        decide(DEFAULT, &[&not_this], "kms:Decrypt", &none),
        Decision::NoIdentityPolicy
    );
}

/// Whether a statement with this condition allows a request with these values.
fn holds(condition: &str, values: &[(&str, &[&str])]) -> bool {
    let text = one(&format!(
        r#"{{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{condition}}}"#
    ));
    let mut given = Values::default();
    for (key, texts) in values {
        given.set_all(key, texts.iter().map(|text| (*text).to_owned()).collect());
    }
    decide(&text, &[], "kms:Decrypt", &given) == Decision::Allowed
}

#[test]
fn string_conditions() {
    let equals = r#"{"StringEquals":{"kms:EncryptionContext:saker:database":["d1","d2"]}}"#;
    let key = "kms:EncryptionContext:saker:database";
    assert!(holds(equals, &[(key, &["d1"])]) && holds(equals, &[(key, &["d2"])]));
    assert!(!holds(equals, &[(key, &["D1"])]) && !holds(equals, &[]));
    let not_equals = r#"{"StringNotEquals":{"kms:EncryptionContext:saker:database":"d1"}}"#;
    assert!(!holds(not_equals, &[(key, &["d1"])]));
    assert!(
        holds(not_equals, &[(key, &["d2"])]) && holds(not_equals, &[]),
        "negated operators hold without the key"
    );
    let like = r#"{"StringLike":{"kms:EncryptionContext:saker:database":"d*"}}"#;
    assert!(holds(like, &[(key, &["dx"])]) && !holds(like, &[(key, &["x"])]) && !holds(like, &[]));
    let not_like = r#"{"StringNotLike":{"kms:EncryptionContext:saker:database":"d*"}}"#;
    assert!(!holds(not_like, &[(key, &["dx"])]) && holds(not_like, &[(key, &["x"])]));
    let folded = r#"{"StringEqualsIgnoreCase":{"kms:EncryptionContext:saker:database":"D1"}}"#;
    assert!(holds(folded, &[(key, &["d1"])]));
    let if_exists = r#"{"StringEqualsIfExists":{"kms:EncryptionContext:saker:database":"d1"}}"#;
    assert!(holds(if_exists, &[]) && !holds(if_exists, &[(key, &["d2"])]) && holds(if_exists, &[(key, &["d1"])]));
    let arn = r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/saker"}}"#;
    assert!(holds(arn, &[("aws:PrincipalArn", &[USER])]) && !holds(arn, &[]));
}

#[test]
fn set_conditions() {
    let key = "kms:EncryptionContextKeys";
    let all = r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#;
    assert!(holds(all, &[(key, &["a"])]) && holds(all, &[(key, &["a", "b"])]) && holds(all, &[]));
    assert!(!holds(all, &[(key, &["a", "c"])]));
    let any = r#"{"ForAnyValue:StringEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#;
    assert!(holds(any, &[(key, &["c", "a"])]) && !holds(any, &[(key, &["c"])]) && !holds(any, &[]));
    let all_like = r#"{"ForAllValues:StringLike":{"kms:EncryptionContextKeys":"saker:*"}}"#;
    assert!(holds(all_like, &[(key, &["saker:cluster"])]) && !holds(all_like, &[(key, &["saker:cluster", "x"])]));
}

#[test]
fn null_and_bool_and_several_at_once() {
    let key = "kms:EncryptionContext:a";
    let absent = r#"{"Null":{"kms:EncryptionContext:a":"true"}}"#;
    assert!(holds(absent, &[]) && !holds(absent, &[(key, &["x"])]));
    let present = r#"{"Null":{"kms:EncryptionContext:a":false}}"#;
    assert!(!holds(present, &[]) && holds(present, &[(key, &["x"])]));
    let secure = r#"{"Bool":{"aws:SecureTransport":"false"}}"#;
    assert!(holds(secure, &[("aws:SecureTransport", &["false"])]) && !holds(secure, &[]));
    let both = r#"{"StringEquals":{"kms:CallerAccount":"000000000000","kms:EncryptionContext:a":"1"},
        "Null":{"kms:ViaService":"true"}}"#;
    assert!(holds(both, &[(key, &["1"]), ("kms:CallerAccount", &["000000000000"])]));
    assert!(!holds(both, &[(key, &["1"])]), "every condition must hold");
}

#[test]
fn nothing_is_ignored_in_silence() {
    let refused = |text: String, kind| assert!(Policy::parse(&text, kind).is_err(), "{text}");
    let statement = |more: &str| {
        one(&format!(
            r#"{{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"{more}}}"#
        ))
    };
    assert!(Policy::parse(&statement(""), Kind::Key).is_ok());
    for more in [
        r#","Condition":{"NumericLessThan":{"kms:CallerAccount":"1"}}"#,
        r#","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#,
        r#","Condition":{"StringEquals":{"aws:SourceVpce":"x"}}"#,
        r#","Condition":{"StringEquals":{"kms:EncryptionContext:":"x"}}"#,
        r#","Condition":{"StringEquals":{"aws:PrincipalArn":"${aws:username}"}}"#,
        r#","Condition":{"ForNoValues:StringEquals":{"kms:EncryptionContextKeys":"x"}}"#,
        r#","Condition":{"NullIfExists":{"kms:ViaService":"true"}}"#,
        r#","Condition":{"Bool":{"aws:SecureTransport":"maybe"}}"#,
        r#","Condition":{"StringEquals":{"kms:ViaService":[]}}"#,
        r#","Condition":{"StringEquals":"x"}"#,
        r#","Condition":[]"#,
        r#","NotPrincipal":"*""#,
        r#","NotAction":"kms:Decrypt""#,
        r#","Surprise":1"#,
    ] {
        refused(statement(more), Kind::Key);
    }
    for text in [
        "",
        "[]",
        "{}",
        r#"{"Statement":[]}"#,
        r#"{"Statement":[1]}"#,
        r#"{"Version":"2020-01-01","Statement":[]}"#,
        r#"{"Statement":[{"Effect":"Maybe","Principal":"*","Action":"kms:*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":[],"Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"k1"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":{"Federated":"x"},"Action":"kms:*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:user/x"},"Action":"kms:*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/*"},"Action":"kms:*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":[]},"Action":"kms:*","Resource":"*"}]}"#,
    ] {
        refused(text.to_owned(), Kind::Key);
    }
    refused(statement(""), Kind::Identity);
    refused(statement(""), Kind::Trust);
}

#[test]
fn documents_have_a_largest_size() {
    let sized = |bytes: usize| {
        let empty = r#"{"Id":"","Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}}"#;
        empty.replacen(
            r#""Id":"""#,
            &format!(r#""Id":"{}""#, "i".repeat(bytes - empty.len())),
            1,
        )
    };
    assert!(Policy::parse(&sized(POLICY_BYTES_MAX), Kind::Key).is_ok());
    assert!(Policy::parse(&sized(POLICY_BYTES_MAX + 1), Kind::Key).is_err());
    let statement = r#"{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}"#;
    assert!(Policy::parse(&one(&vec![statement; STATEMENTS_MAX].join(",")), Kind::Key).is_ok());
    assert!(Policy::parse(&one(&vec![statement; STATEMENTS_MAX + 1].join(",")), Kind::Key).is_err());
}

#[test]
fn trust_asks_for_the_external_id() {
    let trust = r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/saker"},
        "Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"x-42"}}}}"#;
    let trust = policy(trust, Kind::Trust);
    let role = "arn:aws:iam::000000000000:role/r";
    let mut values = Values::default();
    assert_eq!(
        trust_allows(&trust, &asker(&[]), role, &values),
        Decision::NoResourcePolicy
    );
    values.set("sts:ExternalId", "x-41");
    assert_eq!(
        trust_allows(&trust, &asker(&[]), role, &values),
        Decision::NoResourcePolicy
    );
    values.set("sts:ExternalId", "x-42");
    assert_eq!(trust_allows(&trust, &asker(&[]), role, &values), Decision::Allowed);
    let whole_account =
        r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":"sts:AssumeRole"}}"#;
    let whole_account = policy(whole_account, Kind::Trust);
    assert_eq!(
        trust_allows(&whole_account, &asker(&[]), role, &values),
        Decision::NoIdentityPolicy
    );
    let may =
        r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::000000000000:role/r"}}"#;
    assert_eq!(
        trust_allows(&whole_account, &asker(&[may]), role, &values),
        Decision::Allowed
    );
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    /// JSON that looks like a policy in places.
    fn json_like() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "Version",
            "Statement",
            "Effect",
            "Allow",
            "Deny",
            "Principal",
            "AWS",
            "*",
            "Action",
            "NotAction",
            "kms:*",
            "Resource",
            "arn:aws:iam::000000000000:root",
            "Condition",
            "StringLike",
            "Null",
            "kms:ViaService",
            "true",
            "ForAllValues:StringEquals",
            "kms:EncryptionContextKeys",
            "2012-10-17",
            "",
        ]);
        let leaf = prop_oneof![
            word.clone().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// What is understood can be evaluated; nothing panics.
        #[test]
        fn documents_never_panic(document in json_like(), raw in ".{0,64}") {
            for kind in [Kind::Key, Kind::Trust, Kind::Identity] {
                let _ = Policy::parse(&raw, kind);
                let statement = serde_json::json!({ "Statement": document });
                for text in [document.to_string(), statement.to_string()] {
                    if let Ok(policy) = Policy::parse(&text, kind) {
                        let _ = key_allows(&policy, &asker(&[]), "kms:Decrypt", KEY, &Values::default());
                    }
                }
            }
        }
    }
}
