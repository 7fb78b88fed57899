//! Rules about one file's text: length, `unsafe`, AEAD calls, file access, crate docs, words that must not be in it.

use super::{
    AEAD_FOLDER, AEAD_ON_HSM, FILE_LINES_MAX, LINES_BEFORE_TESTS_WARN, MAY_OPEN_FILES, Problem, RULES_FOLDER,
    SourceFile, UNSAFE_FOLDERS,
};

pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    let mut problems = forbidden_text(file);
    if CODE_ENDINGS.iter().any(|ending| file.path.ends_with(ending)) {
        problems.extend(length(file));
    }
    if file.path.ends_with(".rs") {
        problems.extend(opening_docs(file));
        problems.extend(unsafe_code(file));
        problems.extend(aead(file));
        problems.extend(file_access(file));
    }
    problems
}

fn length(file: &SourceFile) -> Vec<Problem> {
    let lines = file.text.lines().count();
    let before_tests = lines_before_tests(&file.text);
    if lines > FILE_LINES_MAX {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split it at a natural seam");
        vec![Problem::failure(&file.path, message)]
    } else if before_tests > LINES_BEFORE_TESTS_WARN && !is_test(&file.path) {
        let message = format!("{before_tests} lines before its tests, {LINES_BEFORE_TESTS_WARN} is the aim");
        vec![Problem::warning(&file.path, message)]
    } else {
        Vec::new()
    }
}

fn opening_docs(file: &SourceFile) -> Option<Problem> {
    let opens_a_crate = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
    (opens_a_crate && !file.text.starts_with("//! ")).then(|| {
        Problem::failure(
            &file.path,
            "must open with //! docs: what for, what not, where to start reading",
        )
    })
}

fn unsafe_code(file: &SourceFile) -> Vec<Problem> {
    let allowed = UNSAFE_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
    if allowed || file.path.starts_with(RULES_FOLDER) {
        return Vec::new();
    }
    find(file, code_lines(&file.text), |line| {
        let allowed_by_attribute = line.contains("allow(unsafe_code") || line.contains("expect(unsafe_code");
        (allowed_by_attribute || has_unsafe_keyword(line))
            .then(|| format!("`unsafe` outside {}", UNSAFE_FOLDERS.join(" and ")))
    })
}

fn has_unsafe_keyword(line: &str) -> bool {
    line.match_indices("unsafe").any(|(at, word)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].trim_start();
        // `#[unsafe(no_mangle)]` and its kin count as well.
        let opens = ["{", "fn ", "impl", "trait ", "extern", "("]
            .iter()
            .any(|next| after.starts_with(next));
        let ends_line = after.is_empty();
        !before.is_some_and(|char| char.is_alphanumeric() || "_\"`'".contains(char)) && (opens || ends_line)
    })
}

fn aead(file: &SourceFile) -> Vec<Problem> {
    let exempt = [AEAD_FOLDER, AEAD_ON_HSM, RULES_FOLDER];
    if exempt.iter().any(|prefix| file.path.starts_with(prefix)) {
        return Vec::new();
    }
    find(file, code_lines(&file.text), |line| {
        let call = AEAD_NAMES.iter().find(|name| line.contains(**name))?;
        Some(format!(
            "`{call}` outside {AEAD_FOLDER}: only the keyring calls an AEAD"
        ))
    })
}

fn file_access(file: &SourceFile) -> Vec<Problem> {
    let exempt = MAY_OPEN_FILES.iter().any(|(prefix, _)| file.path.starts_with(prefix));
    if exempt || is_test(&file.path) || file.path.ends_with("/build.rs") {
        return Vec::new();
    }
    let product_lines = lines_before_tests(&file.text);
    find(file, code_lines(&file.text).take(product_lines), |line| {
        let call = FILE_CALLS.iter().find(|name| line.contains(**name))?;
        Some(format!(
            "`{call}` outside crates/storage/: list it in MAY_OPEN_FILES with its reason, or go through storage"
        ))
    })
}

fn forbidden_text(file: &SourceFile) -> Vec<Problem> {
    let is_lock = file.path.ends_with("Cargo.lock");
    find(file, file.text.lines().enumerate(), |line| {
        // The one form in which Cargo itself writes where a package came from.
        if is_lock && line.starts_with("source = \"registry+") {
            return None;
        }
        if let Some(host) = REGISTRY_HOSTS.iter().find(|host| line.contains(**host)) {
            return Some(format!("names the registry host {host}"));
        }
        let path = MACHINE_PATHS.iter().find(|path| names_path(line, path))?;
        Some(format!("names the machine path {path}"))
    })
}

/// Whether `line` has `path` as the beginning of a path, not as a part inside a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|char| char.is_alphanumeric() || "._-}$)".contains(char))
    })
}

fn find<'a>(
    file: &SourceFile,
    lines: impl Iterator<Item = (usize, &'a str)>,
    rule: impl Fn(&str) -> Option<String>,
) -> Vec<Problem> {
    lines
        .filter_map(|(index, line)| Some(Problem::failure(format!("{}:{}", file.path, index + 1), rule(line)?)))
        .collect()
}

/// The lines with their indexes, comments cut off.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .enumerate()
}

/// Lines before the file's own test module; all of them if it has none.
fn lines_before_tests(text: &str) -> usize {
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let opens_tests = lines
            .peek()
            .is_some_and(|(_, next)| next.trim_start().starts_with("mod ") && next.ends_with('{'));
        if line.trim() == "#[cfg(test)]" && opens_tests {
            return index;
        }
    }
    text.lines().count()
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/benches/") || path.contains("/examples/")
}

/// Files whose length is limited: those that people write and read.
const CODE_ENDINGS: &[&str] = &[".rs", ".py", ".sh", ".ts", ".tsx", ".css"];

const AEAD_NAMES: &[&str] = &[
    "aead::",
    "RandomizedNonceKey",
    "LessSafeKey",
    "aes_gcm::",
    "chacha20poly1305::",
];

const FILE_CALLS: &[&str] = &[
    "std::fs",
    "tokio::fs",
    "fs::read",
    "fs::write",
    "File::open",
    "File::create",
    "OpenOptions",
];

// Written in two halves, so that this file passes its own rule.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wor", "k/"),
    concat!("../sha", "red"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Use", "rs/"),
];

const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io-index"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
];
