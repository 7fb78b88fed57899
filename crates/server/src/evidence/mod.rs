//! The evidence report: what a walk of a data directory found, in a form that an auditor can keep.
//!
//! Two files: `evidence.json` with every item, and `evidence.html`, one page that needs nothing else, with the same numbers
//! in pictures and tables. The page names the JSON's SHA-256, and so does the command that wrote both.
//!
//! What it deliberately does not do: it looks at no data itself (that is `saker_engine::verify`), and it says no name that
//! a user gave unless it is asked to.
//!
//! Start reading at [`Facts`], then `json` (the schema, `docs/evidence.md`) and `page`.

mod json;
mod page;
mod pictures;
mod recorder;
mod summary;
#[cfg(test)]
mod tests;
mod text;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
pub(crate) use recorder::{AuditChain, Recorder, RequestMade};
use saker_audit::UnixMs;
use saker_engine::Verification;
use summary::Summary;
pub(crate) use text::visible;

/// Everything that a report says.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) verification: &'a Verification,
    /// Every request to a key service that the walk made.
    pub(crate) requests: &'a [RequestMade],
    pub(crate) chain: Option<&'a AuditChain>,
    pub(crate) started_ms: UnixMs,
    pub(crate) finished_ms: UnixMs,
    /// The data directory.
    pub(crate) directory: &'a Path,
    /// Whether names of databases and collections are told; ids otherwise.
    pub(crate) names: bool,
}

/// Where a report is.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) json: PathBuf,
    pub(crate) html: PathBuf,
    /// Of the JSON, in hex.
    pub(crate) sha256: String,
}

const JSON_NAME: &str = "evidence.json";
const HTML_NAME: &str = "evidence.html";

/// Makes `directory` ready for a report, before the walk.
///
/// # Errors
/// It lies in the data directory, holds a report already, or the operating system refuses.
pub(crate) fn prepare(directory: &Path, data: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    let wanted = std::path::absolute(directory).map_err(failed)?;
    let data = fs::canonicalize(data).map_err(|error| format!("{}: {error}", data.display()))?;
    let inside = |path: &Path| fs::canonicalize(path).is_ok_and(|path| path.starts_with(&data));
    if wanted.ancestors().any(inside) {
        return Err(format!(
            "{} lies in the data directory, which must not change; choose another place for the evidence",
            directory.display()
        ));
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&wanted).map_err(failed)?;
    for name in [JSON_NAME, HTML_NAME] {
        if wanted.join(name).exists() {
            return Err(format!(
                "{} holds a report already, which is not overwritten; choose another directory",
                directory.display()
            ));
        }
    }
    Ok(())
}

/// Writes both files.
///
/// # Errors
/// The operating system refuses, or there is a report already.
pub(crate) fn write(facts: &Facts<'_>, directory: &Path) -> io::Result<Written> {
    let summary = Summary::of(facts);
    let (json, html) = (directory.join(JSON_NAME), directory.join(HTML_NAME));
    let mut out = Hashing::new(create(&json)?);
    serde_json::to_writer(&mut out, &json::Document::new(facts, &summary)).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    let sha256 = out.finish()?;
    let mut out = io::BufWriter::new(create(&html)?);
    page::write(&mut out, facts, &summary, &sha256)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(Written { json, html, sha256 })
}

/// It names ids, sizes and hashes of what is stored, so it is for its owner alone until that one gives it away.
fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Writes to a file and hashes what it writes.
struct Hashing {
    out: io::BufWriter<fs::File>,
    hash: digest::Context,
}

impl Hashing {
    fn new(file: fs::File) -> Self {
        Self {
            out: io::BufWriter::with_capacity(1 << 18, file),
            hash: digest::Context::new(&digest::SHA256),
        }
    }
    fn finish(self) -> io::Result<String> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(text::hex(self.hash.finish().as_ref()))
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
