//! The one place that writes to standard output. A reader that went away (a closed pipe) is no error.

use std::{fmt::Display, io::Write as _};

/// One line for people or scripts.
pub(super) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Why the command failed, on standard error.
pub(super) fn error(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "saker: {text}");
}
