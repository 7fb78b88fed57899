//! Dependencies between the workspace's crates, checked against the table of allowed ones.

use serde_json::Value;

use super::Problem;

/// `from` names `to` in its manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) to: String,
    /// The dependency is for tests only.
    pub(super) test_only: bool,
}

/// Reads the edges between workspace members out of `cargo metadata --no-deps`.
pub(super) fn from_metadata(metadata: &[u8]) -> Result<Vec<Edge>, String> {
    let metadata: Value = serde_json::from_slice(metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let mut edges = Vec::new();
    for package in packages {
        let from = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Only dependencies inside the workspace carry a path.
            if dependency["path"].is_null() {
                continue;
            }
            edges.push(Edge {
                from: from.to_owned(),
                to: dependency["name"].as_str().unwrap_or_default().to_owned(),
                test_only: dependency["kind"] == "dev",
            });
        }
    }
    Ok(edges)
}

pub(super) fn check(edges: &[Edge], allowed: &[(&str, &[&str])], test_only_crates: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Edge { from, to, test_only } in edges {
        let Some((_, targets)) = allowed.iter().find(|(name, _)| name == from) else {
            problems.push(Problem::failure(
                "xtask/src/tidy.rs",
                format!("crate {from} has no line in ALLOWED_EDGES"),
            ));
            continue;
        };
        let for_tests = *test_only && test_only_crates.contains(&to.as_str());
        if !for_tests && !targets.contains(&to.as_str()) {
            problems.push(Problem::failure(
                from.as_str(),
                format!("must not depend on {to}: arrows point down only (ALLOWED_EDGES in xtask/src/tidy.rs)"),
            ));
        }
    }
    problems
}
