//! Files in which an operator or an agent keeps a token, a secret id or a PIN. Read at each use, so that they can be
//! replaced without a restart.

use std::{io, path::Path};

use thiserror::Error;
use zeroize::Zeroizing;

/// Why such a file cannot be used. Says nothing of what is in it.
#[derive(Debug, Error)]
pub(crate) enum SecretFileError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("it must hold one line of text, of at most {bytes_max} bytes")]
    Content { bytes_max: usize },
}

/// The one line of the file, without its end.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<String>, SecretFileError> {
    let bytes = Zeroizing::new(std::fs::read(path)?);
    let content = || SecretFileError::Content { bytes_max };
    let text = std::str::from_utf8(&bytes).map_err(|_| content())?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(content());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(matches!(read(&path, 8), Err(SecretFileError::Read(_))));
        for (text, secret) in [
            ("1234\n", Some("1234")),
            ("a b\r\n", Some("a b")),
            ("12345678", Some("12345678")),
            ("123456789", None),
            ("", None),
            ("\n", None),
            ("1\n2", None),
            ("\u{e9}", Some("\u{e9}")),
        ] {
            #[expect(clippy::disallowed_methods, reason = "a test writes its own file")]
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path, 8).ok().as_deref().map(String::as_str), secret, "{text:?}");
        }
        #[expect(clippy::disallowed_methods, reason = "a test writes its own file")]
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = read(&path, 8).unwrap_err().to_string();
        assert!(error.contains("8 bytes"), "{error}");
    }
}
