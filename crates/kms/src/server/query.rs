//! AWS's older Query protocol, of IAM and STS: a form comes in, XML goes out.

use std::collections::BTreeMap;

use super::fault::Fault;

/// Most fields of a form; the operations here have under 20.
const FIELDS_MAX: usize = 256;

/// A request's fields.
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads an `application/x-www-form-urlencoded` body. `None` if it is malformed or has too many fields.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut fields = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A name given twice could be read differently by whoever looks at the log.
            if fields.len() >= FIELDS_MAX || fields.insert(decoded(name)?, decoded(value)?).is_some() {
                return None;
            }
        }
        Some(Self(fields))
    }

    /// A field that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Fault> {
        self.text(name).ok_or_else(|| {
            Fault::new(
                "ValidationError",
                format!("1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"),
            )
        })
    }

    /// Whether some field starts with `prefix`.
    pub(super) fn has_any(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(prefix))
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let mut value = [0];
                hex::decode_to_slice(digits, &mut value).ok()?;
                value[0]
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encodes everything but RFC 3986's unreserved characters, as IAM returns policy documents.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Text as it may stand between XML tags.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Control characters are not XML at all.
            c if c.is_control() && !matches!(c, '\n' | '\r' | '\t') => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// One element with a text in it.
pub(super) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escaped(text))
}

/// A whole answer around `result`, which is XML.
pub(super) fn answer(namespace: &str, operation: &str, result: &str, request_id: &str) -> String {
    let result = if result.is_empty() {
        String::new()
    } else {
        format!("<{operation}Result>{result}</{operation}Result>")
    };
    format!(
        "<{operation}Response xmlns=\"{namespace}\">{result}<ResponseMetadata>{}</ResponseMetadata></{operation}Response>",
        element("RequestId", request_id)
    )
}

/// A whole answer that says no.
pub(super) fn error(namespace: &str, fault: &Fault, request_id: &str) -> String {
    let kind = if fault.status >= 500 { "Receiver" } else { "Sender" };
    format!(
        "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type>{}{}</Error>{}</ErrorResponse>",
        element("Code", fault.code),
        element("Message", &fault.message),
        element("RequestId", request_id)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded_or_refused() {
        let form = Form::parse(b"Action=AssumeRole&RoleArn=arn%3Aaws&Name=a+b%C3%BC&Empty=").unwrap();
        assert_eq!(form.text("RoleArn"), Some("arn:aws"));
        assert_eq!(form.text("Name"), Some("a bü"));
        assert_eq!(form.text("Empty"), None);
        assert!(form.required("Nothing").is_err());
        for bad in [&b"a=%4"[..], b"a=%zz", b"a=%FF", b"\xff=1", b"a=1&a=2"] {
            assert!(Form::parse(bad).is_none(), "{bad:?}");
        }
        let many = |count: usize| {
            (0..count)
                .map(|number| format!("f{number}=1"))
                .collect::<Vec<_>>()
                .join("&")
        };
        assert!(Form::parse(many(FIELDS_MAX).as_bytes()).is_some());
        assert!(Form::parse(many(FIELDS_MAX + 1).as_bytes()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn forms_never_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
        }

        #[test]
        fn encoded_forms_come_back(value in ".{0,40}") {
            let form = Form::parse(format!("V={}", percent_encoded(&value)).as_bytes()).unwrap();
            proptest::prop_assert_eq!(form.text("V").unwrap_or_default(), value);
        }
    }

    #[test]
    fn texts_cannot_break_out_of_xml() {
        assert_eq!(element("A", "<&\">\u{1}"), "<A>&lt;&amp;&quot;&gt;?</A>");
        assert_eq!(percent_encoded("{\"a\": 1}~"), "%7B%22a%22%3A%201%7D~");
    }
}
