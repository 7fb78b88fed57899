use super::{ALLOWED_EDGES, Edge, FILE_LINES_MAX, Severity, SourceFile, TEST_ONLY_CRATES, edges, links, source};

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.into(),
        text: text.into(),
    }
}

/// Messages of the failures that `source` finds.
fn failures(path: &str, text: &str) -> Vec<String> {
    let problems = source::check(&file(path, text)).into_iter();
    problems
        .filter(|problem| problem.severity == Severity::Failure)
        .map(|problem| problem.to_string())
        .collect()
}

fn edge(from: &str, to: &str, test_only: bool) -> Edge {
    Edge {
        from: from.into(),
        to: to.into(),
        test_only,
    }
}

fn edge_failures(edges: &[Edge]) -> usize {
    edges::check(edges, ALLOWED_EDGES, TEST_ONLY_CRATES).len()
}

#[test]
fn edges_point_down_only() {
    assert_eq!(edge_failures(&[edge("saker-engine", "saker-storage", false)]), 0);
    assert_eq!(edge_failures(&[edge("saker-storage", "saker-engine", false)]), 1);
    assert_eq!(edge_failures(&[edge("saker-engine", "saker-kms", false)]), 1);
    assert_eq!(edge_failures(&[edge("saker-engine", "saker-proto", false)]), 1);
    assert_eq!(
        edge_failures(&[edge("saker-keyring", "saker-storage", true)]),
        1,
        "tests are no way up either"
    );
}

#[test]
fn test_support_is_for_tests() {
    assert_eq!(edge_failures(&[edge("saker-storage", "saker-testing", true)]), 0);
    assert_eq!(edge_failures(&[edge("saker-storage", "saker-testing", false)]), 1);
}

#[test]
fn a_crate_without_a_line_in_the_table_fails() {
    assert_eq!(edge_failures(&[edge("saker-new", "saker-model", false)]), 1);
}

#[test]
fn no_allowed_edge_closes_a_circle() {
    // A crate is placed once everything that it may import is; a circle can never be placed.
    let mut placed: Vec<&str> = Vec::new();
    for _ in ALLOWED_EDGES {
        for (name, targets) in ALLOWED_EDGES {
            if !placed.contains(name) && targets.iter().all(|target| placed.contains(target)) {
                placed.push(name);
            }
        }
    }
    assert_eq!(placed.len(), ALLOWED_EDGES.len());
}

#[test]
fn edges_are_read_from_cargo() {
    let metadata = br#"{"packages": [{"name": "a", "dependencies": [
        {"name": "b", "path": "/b", "kind": null}, {"name": "t", "path": "/t", "kind": "dev"}, {"name": "serde"}]}]}"#;
    assert_eq!(
        edges::from_metadata(metadata).unwrap(),
        [edge("a", "b", false), edge("a", "t", true)]
    );
    assert!(edges::from_metadata(b"{}").is_err());
}

#[test]
fn a_file_may_have_the_limit_and_no_more() {
    let text = "\n".repeat(FILE_LINES_MAX);
    assert!(failures("crates/model/src/a.rs", &text).is_empty());
    assert_eq!(failures("crates/model/src/a.rs", &(text.clone() + "\n")).len(), 1);
    assert_eq!(failures("acceptance/a.py", &(text.clone() + "\n")).len(), 1);
    assert!(failures("Cargo.lock", &(text + "\n")).is_empty());
}

#[test]
fn a_long_file_is_warned_about_and_its_tests_do_not_count() {
    let warnings = |text: &str| source::check(&file("crates/model/src/a.rs", text)).len();
    assert_eq!(warnings(&"\n".repeat(600)), 0);
    assert_eq!(warnings(&"\n".repeat(601)), 1);
    let with_tests = "\n".repeat(500) + "#[cfg(test)]\nmod tests {\n" + &"\n".repeat(300) + "}\n";
    assert_eq!(warnings(&with_tests), 0);
}

#[test]
fn a_crate_opens_with_docs() {
    assert_eq!(failures("crates/model/src/lib.rs", "mod a;\n").len(), 1);
    assert!(failures("crates/model/src/lib.rs", "//! What for.\nmod a;\n").is_empty());
    assert!(failures("crates/model/src/a.rs", "mod b;\n").is_empty());
}

#[test]
fn unsafe_code_is_in_two_crates_alone() {
    for sample in [
        "unsafe { x() }",
        "unsafe fn x() {}",
        "unsafe impl Send for A {}",
        "#[allow(unsafe_code, reason = \"\")]",
        "let a = unsafe\n{ 1 };",
        "#[unsafe(no_mangle)]",
    ] {
        assert_eq!(failures("crates/storage/src/a.rs", sample).len(), 1, "{sample}");
        for allowed in ["crates/index/src/a.rs", "crates/arena/src/a.rs"] {
            assert!(failures(allowed, sample).is_empty(), "{sample}");
        }
    }
    for sample in [
        "// unsafe { x() }",
        "#![forbid(unsafe_code)]",
        "fn is_unsafe() {}",
        "let text = \"unsafe\";",
    ] {
        assert!(failures("crates/storage/src/a.rs", sample).is_empty(), "{sample}");
    }
}

#[test]
fn only_the_keyring_calls_an_aead() {
    for sample in [
        "use aws_lc_rs::aead::Aad;",
        "let key = RandomizedNonceKey::new();",
        "aes_gcm::Aes256Gcm",
    ] {
        assert_eq!(failures("crates/kms/src/a.rs", sample).len(), 1, "{sample}");
        assert!(failures("crates/keyring/src/a.rs", sample).is_empty(), "{sample}");
    }
    assert!(failures("crates/kms/src/a.rs", "use aws_lc_rs::hmac;").is_empty());
}

#[test]
fn only_storage_opens_files() {
    for sample in [
        "use std::fs;",
        "tokio::fs::read(path)",
        "std::fs::File::open(path)",
        "let a = OpenOptions::new();",
    ] {
        assert_eq!(failures("crates/engine/src/a.rs", sample).len(), 1, "{sample}");
        assert!(failures("crates/storage/src/a.rs", sample).is_empty(), "{sample}");
        assert!(failures("crates/engine/tests/a.rs", sample).is_empty(), "{sample}");
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{sample}\n}}\n");
        assert!(failures("crates/engine/src/a.rs", &in_tests).is_empty(), "{sample}");
    }
}

#[test]
fn the_project_names_no_machine_and_no_registry() {
    for sample in [
        concat!("see /wor", "k/notes"),
        concat!("include!(\"../sha", "red/x\")"),
        concat!("cd /ro", "ot/saker"),
        concat!("/ho", "me/someone/saker"),
        concat!("pip install --index-url https://py", "pi.org/simple x"),
        concat!("https://index.crates", ".io/"),
        concat!("\"registry+https://github.com/rust-lang/crates", ".io-index\""),
    ] {
        assert_eq!(failures("docs/a.md", sample).len(), 1, "{sample}");
    }
    let from_cargo = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");
    assert!(failures("Cargo.lock", from_cargo).is_empty());
    assert_eq!(failures("Cargo.lock", concat!("# /wor", "k/a")).len(), 1);
    assert!(failures("docs/a.md", "in our network/work/ folder, $HOME/a").is_empty());
}

#[test]
fn links_lead_somewhere() {
    let files = [
        file(
            "README.md",
            "[a](docs/a.md) [b](docs/a.md#key-states-and-why)\n```\n[c](gone.md)\n```\n[w](https://a.example/)",
        ),
        file(
            "docs/a.md",
            "# A\n## Key states, and why\n[up](../README.md) [here](#a)",
        ),
    ];
    let exists = |path: &str| ["README.md", "docs/a.md"].contains(&path);
    assert_eq!(links::check(&files, exists), []);

    for bad in [
        "[a](docs/gone.md)",
        "[a](docs/a.md#gone)",
        "[a](#gone)",
        "[a](../outside.md)",
    ] {
        let files = [file("README.md", bad), file("docs/a.md", "# A\n")];
        assert_eq!(links::check(&files, exists).len(), 1, "{bad}");
    }
}
