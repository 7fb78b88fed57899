//! The rules of this repository that formatter and linter do not know.
//!
//! Each rule is a pure function from what was read to the problems it found; reading happens in [`run`] alone. To change
//! what is allowed, edit the tables at the top; a new crate edge also needs a line in ARCHITECTURE.md that says why.

mod edges;
mod links;
mod source;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    path::Path,
    process::{Command, Output},
};

use edges::Edge;

/// Which workspace crate may import which. Arrows point down only.
const ALLOWED_EDGES: &[(&str, &[&str])] = &[
    ("saker-arena", &[]),
    ("saker-proto", &[]),
    ("saker-model", &[]),
    // Text to terms; what it gives is the model's sparse vector.
    ("saker-analyzer", &["saker-model"]),
    ("saker-keyring", &["saker-arena", "saker-model"]),
    // Threads that build an index overwrite their stacks.
    ("saker-index", &["saker-arena", "saker-model"]),
    // Values in, bitmaps out: filters ask it, segments keep it.
    ("saker-scalar", &["saker-model"]),
    ("saker-storage", &["saker-model", "saker-keyring"]),
    // The local key server is itself a durable store, so it goes through the one door to bytes as well.
    ("saker-kms", &["saker-model", "saker-keyring", "saker-storage"]),
    // The audit log seals its own records and writes them to the log, as the engine does with rows.
    ("saker-audit", &["saker-keyring", "saker-storage"]),
    // Its rules are pure; what they need of a store and of key services is a trait.
    ("saker-control", &["saker-keyring"]),
    // Segments write and read sealed files, so they name the lease and the sealed types.
    (
        "saker-segment",
        &[
            "saker-model",
            "saker-index",
            "saker-scalar",
            "saker-keyring",
            "saker-storage",
        ],
    ),
    // Filters and top-k work on columns that are handed to them, wherever those come from.
    // `text_match` cuts the text of rows as their field says.
    ("saker-query", &["saker-model", "saker-analyzer", "saker-scalar"]),
    (
        "saker-engine",
        &[
            "saker-model",
            // Functions of a schema cut texts into terms.
            "saker-analyzer",
            "saker-index",
            "saker-scalar",
            "saker-keyring",
            "saker-storage",
            "saker-segment",
            "saker-query",
        ],
    ),
    (
        "saker-server",
        &[
            // For the metrics: how much of the keys' memory is locked.
            "saker-arena",
            "saker-proto",
            "saker-model",
            "saker-index",
            "saker-keyring",
            "saker-kms",
            "saker-storage",
            "saker-segment",
            "saker-query",
            "saker-engine",
            "saker-audit",
            "saker-control",
        ],
    ),
    ("saker-testing", &["saker-model", "saker-keyring", "saker-storage"]),
    ("xtask", &[]),
];

/// Crates that any other may use in its tests.
const TEST_ONLY_CRATES: &[&str] = &["saker-testing"];

/// Folders and files outside `crates/storage` whose product code may open files, and why.
const MAY_OPEN_FILES: &[(&str, &str)] = &[
    ("crates/storage/", "the one door to bytes"),
    (
        "crates/kms/src/key_file.rs",
        "the platform key file is an operator's secret and lies outside every store",
    ),
    (
        "crates/kms/src/secret_file.rs",
        "tokens and PINs that an operator or an agent keeps outside every store",
    ),
    (
        "crates/kms/src/server/credentials.rs",
        "an AWS shared-credentials file, made for the operator's own AWS clients",
    ),
    (
        "crates/kms/src/server/trail.rs",
        "the key server's call record: JSON lines that others read while they grow",
    ),
    ("crates/server/src/config.rs", "reads the configuration file"),
    (
        "crates/server/src/evidence/",
        "writes the report where the auditor wants it; it holds ids, sizes and hashes, no data",
    ),
    (
        "crates/server/src/cli/",
        "makes and reads the folders and files that the user names on the command line",
    ),
    (
        "crates/server/src/metrics.rs",
        "reads the kernel's count of this process's memory",
    ),
    ("xtask/", "reads the repository"),
    ("benches/", "measurements, not product code"),
    ("testing/", "test support"),
];

/// The only folders whose code may be `unsafe`, and the only one that may call an AEAD.
const UNSAFE_FOLDERS: &[&str] = &["crates/index/", "crates/arena/"];
const AEAD_FOLDER: &str = "crates/keyring/";
/// Names an AEAD that an HSM computes under a key which never leaves it.
const AEAD_ON_HSM: &str = "crates/kms/src/pkcs11/token.rs";

/// This folder holds the forbidden words as samples.
const RULES_FOLDER: &str = "xtask/src/tidy";

const FILE_LINES_MAX: usize = 1_000;
const LINES_BEFORE_TESTS_WARN: usize = 600;

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// Path from the repository's folder, with `:line` where there is one.
    place: String,
    message: String,
    severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// Printed, and the run still passes.
    Warning,
    Failure,
}

impl Problem {
    fn failure(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            severity: Severity::Failure,
        }
    }

    fn warning(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            severity: Severity::Warning,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning: ",
            Severity::Failure => "",
        };
        write!(formatter, "{severity}{}: {}", self.place, self.message)
    }
}

/// One text file of the repository; `path` is relative to its folder, with forward slashes.
struct SourceFile {
    path: String,
    text: String,
}

/// Checks every rule on the repository at `root` and prints what it found.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let files = read_files(root)?;
    let mut problems = edges::check(&read_edges(root)?, ALLOWED_EDGES, TEST_ONLY_CRATES);
    for file in &files {
        problems.extend(source::check(file));
    }
    problems.extend(links::check(&files, |path| root.join(path).exists()));
    for problem in &problems {
        println!("tidy: {problem}");
    }
    let failures = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Failure)
        .count();
    if failures > 0 {
        return Err(format!("tidy: {failures} problems"));
    }
    println!("tidy: {} files, no problem", files.len());
    Ok(())
}

/// Tracked files and new ones that are not ignored; binary ones are left out.
fn read_files(root: &Path) -> Result<Vec<SourceFile>, String> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ])
    .current_dir(root);
    let listing = succeeded("git ls-files", git.output())?;
    let mut files = Vec::new();
    for name in listing.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let path = String::from_utf8_lossy(name).into_owned();
        // A file that was deleted but not yet committed is still listed.
        if !root.join(&path).is_file() {
            continue;
        }
        let content = fs::read(root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
        if let Ok(text) = String::from_utf8(content) {
            files.push(SourceFile { path, text });
        }
    }
    Ok(files)
}

fn read_edges(root: &Path) -> Result<Vec<Edge>, String> {
    let mut cargo = crate::cargo();
    cargo
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root);
    let output = succeeded("cargo metadata", cargo.output())?;
    edges::from_metadata(&output.stdout)
}

fn succeeded(what: &str, output: std::io::Result<Output>) -> Result<Output, String> {
    let output = output.map_err(|error| format!("{what} did not start: {error}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!(
            "{what} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        ))
    }
}
