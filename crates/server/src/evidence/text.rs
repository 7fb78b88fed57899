//! Texts of the page: escaped, grouped, shortened.

use std::fmt::Write as _;

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _never_fails = write!(text, "{byte:02x}");
            text
        })
}

/// Characters that turn the direction of text, steer a terminal or cannot be seen become visible: a name must not look like
/// another one.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            let _never_fails = write!(out, "\\u{{{:x}}}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// For the content of an element and for an attribute in double quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// JSON for a data block of the page: nothing in it ends the block.
pub(super) fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' => {
                let _never_fails = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    Ok(out)
}

/// `1,234,567`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.5 MiB`; the exact number stands beside it in the page.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1_024 {
        return format!("{value} B");
    }
    let (mut amount, mut unit) = (value as f64 / 1_024.0, 0);
    while amount >= 1_024.0 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// The first and last characters of a long text.
pub(super) fn shortened(text: &str, characters_max: usize) -> String {
    let count = text.chars().count();
    if count <= characters_max {
        return text.to_owned();
    }
    let keep = characters_max.saturating_sub(1) / 2;
    let (start, end): (String, String) = (
        text.chars().take(keep).collect(),
        text.chars().skip(count - keep).collect(),
    );
    format!("{start}…{end}")
}

/// The two lines by which people tell root keys apart: what names the key, and where it is.
pub(super) fn root_key(name: &str) -> (String, String) {
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    match parts[..] {
        ["arn", _, "kms", region, account, resource] => (
            shortened(resource.trim_start_matches("key/"), 26),
            format!("AWS KMS · {region} · {account}"),
        ),
        _ => match name.split_once(':') {
            Some(("file", _)) => ("platform key file".to_owned(), "kept by the operator".to_owned()),
            Some(("vault", key)) => (shortened(key.trim_start_matches('/'), 26), "Vault Transit".to_owned()),
            Some(("pkcs11", key)) => (shortened(key, 26), "PKCS#11 module".to_owned()),
            _ => (shortened(name, 26), String::new()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_its_place() {
        assert_eq!(
            escape("<b a=\"1\" c='2'>&"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;"
        );
        assert_eq!(escape("a\u{202e}b\0"), "a\\u{202e}b\\u{0}");
        let block = json(&"</script><!--&").unwrap();
        assert_eq!(block, "\"\\u003c/script\\u003e\\u003c!--\\u0026\"");
        assert_eq!(serde_json::from_str::<String>(&block).unwrap(), "</script><!--&");
    }

    #[test]
    fn numbers_are_read_easily() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
        for (value, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(shortened("abcdefghij", 7), "abc…hij");
        assert_eq!(shortened("abc", 7), "abc");
    }

    #[test]
    fn root_keys_are_told_apart() {
        let (name, place) = root_key("arn:aws:kms:eu-west-1:111122223333:key/1234abcd");
        assert_eq!(
            (name.as_str(), place.as_str()),
            ("1234abcd", "AWS KMS · eu-west-1 · 111122223333")
        );
        assert_eq!(root_key("file:platform").0, "platform key file");
        assert_eq!(root_key("vault://transit/key").0, "transit/key");
    }
}
