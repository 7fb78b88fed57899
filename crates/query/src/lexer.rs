//! Filter text into tokens, one at a time.

use crate::FilterError;

/// A token and where it starts, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) position: usize,
    pub(crate) kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind {
    End,
    /// A name or keyword; the parser tells which.
    Word(String),
    /// `$meta`.
    Meta,
    /// Size without sign, so that the smallest 64-bit integer can be written.
    Int(u64),
    Double(f64),
    Text(String),
    /// Punctuation and operators, as written.
    Symbol(&'static str),
}

impl TokenKind {
    /// What it is, for messages; never the literal itself.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::End => "end of the filter".to_owned(),
            Self::Word(_) => "a name".to_owned(),
            Self::Meta => "$meta".to_owned(),
            Self::Int(_) | Self::Double(_) => "a number".to_owned(),
            Self::Text(_) => "a string".to_owned(),
            Self::Symbol(symbol) => format!("'{symbol}'"),
        }
    }
}

/// Reads tokens from the start of a text to its end.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// The next token; `End` for ever after the last one.
    pub(crate) fn next(&mut self) -> Result<Token, FilterError> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.position += self.rest().bytes().take_while(blank).count();
        let position = self.position;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token {
                position,
                kind: TokenKind::End,
            });
        };
        let kind = match first {
            'a'..='z' | 'A'..='Z' | '_' => self.word()?,
            '0'..='9' => self.number()?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
            '"' | '\'' => self.text(first)?,
            '$' => self.meta()?,
            _ => self.symbol()?,
        };
        Ok(Token { position, kind })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn fail<T>(&self, position: usize, reason: &str) -> Result<T, FilterError> {
        Err(FilterError::Syntax {
            position,
            reason: reason.to_owned(),
        })
    }

    fn word(&mut self) -> Result<TokenKind, FilterError> {
        let rest = self.rest();
        let length = word_bytes(rest);
        let word = &rest[..length];
        let quote = rest[length..].chars().next().filter(|c| matches!(c, '"' | '\''));
        if let Some(quote) = quote {
            match word {
                "r" | "R" => {
                    self.position += length;
                    return self.raw_text(quote);
                }
                "u8" | "u" | "U" | "L" => {
                    self.position += length;
                    return self.text(quote);
                }
                _ => {}
            }
        }
        self.position += length;
        Ok(TokenKind::Word(word.to_owned()))
    }

    fn meta(&mut self) -> Result<TokenKind, FilterError> {
        let length = word_bytes(&self.rest()[1..]);
        if &self.rest()[1..=length] == "meta" {
            self.position += 1 + length;
            return Ok(TokenKind::Meta);
        }
        self.fail(self.position, "'$' must be followed by 'meta'")
    }

    fn symbol(&mut self) -> Result<TokenKind, FilterError> {
        let rest = self.rest();
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.position += symbol.len();
                Ok(TokenKind::Symbol(symbol))
            }
            None => self.fail(self.position, "unexpected character"),
        }
    }

    fn number(&mut self) -> Result<TokenKind, FilterError> {
        let start = self.position;
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let radix = match bytes.get(1) {
            Some(b'x' | b'X') if bytes[0] == b'0' => Some(16),
            Some(b'b' | b'B') if bytes[0] == b'0' => Some(2),
            _ => None,
        };
        if let Some(radix) = radix {
            let length = word_bytes(&rest[2..]);
            self.position += 2 + length;
            self.check_number_end(start)?;
            return self.integer(start, &rest[2..2 + length], radix);
        }
        let mut length = digits(0);
        let whole = length;
        if bytes.get(length) == Some(&b'.') {
            length += 1 + digits(length + 1);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits(length + 1 + sign);
            if exponent == 0 {
                return self.fail(start, "a float needs digits after its exponent sign");
            }
            length += 1 + sign + exponent;
        }
        self.position += length;
        self.check_number_end(start)?;
        if length == whole {
            return match &rest[..length] {
                "0" => Ok(TokenKind::Int(0)),
                octal if octal.starts_with('0') => self.integer(start, octal, 8),
                decimal => self.integer(start, decimal, 10),
            };
        }
        match rest[..length].parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(TokenKind::Double(value)),
            Ok(_) => self.fail(start, "float out of range"),
            Err(_) => self.fail(start, "not a number"),
        }
    }

    /// `12abc` is a slip, not a number and a name.
    fn check_number_end(&self, start: usize) -> Result<(), FilterError> {
        if word_bytes(self.rest()) > 0 || self.rest().starts_with('.') {
            return self.fail(start, "not a number");
        }
        Ok(())
    }

    fn integer(&self, start: usize, digits: &str, radix: u32) -> Result<TokenKind, FilterError> {
        match u64::from_str_radix(digits, radix) {
            Ok(size) if size <= 1 << 63 => Ok(TokenKind::Int(size)),
            Err(error) if *error.kind() != std::num::IntErrorKind::PosOverflow => self.fail(start, "not a number"),
            Ok(_) | Err(_) => self.fail(start, "integer out of the 64-bit range"),
        }
    }

    /// A quoted text with escapes, as C has them. An escape that C does not have stands for itself, backslash included,
    /// so that `like` patterns need no double backslashes.
    fn text(&mut self, quote: char) -> Result<TokenKind, FilterError> {
        let start = self.position;
        let mut bytes = Vec::new();
        let mut characters = self.rest()[1..].char_indices();
        while let Some((offset, character)) = characters.next() {
            if character == quote {
                self.position += 1 + offset + 1;
                return match String::from_utf8(bytes) {
                    Ok(text) => Ok(TokenKind::Text(text)),
                    Err(_) => self.fail(start, "a string's escapes are not valid UTF-8"),
                };
            }
            if character == '\\' {
                let used = self.escape(start + 1 + offset, &mut bytes)?;
                // Every byte of an escape is ASCII but the last, which may start a longer character.
                let end = offset + used;
                while characters.as_str().len() > self.rest().len() - 1 - end {
                    characters.next();
                }
            } else {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        self.fail(start, "a string is not closed")
    }

    /// Puts out what the escape at `position` stands for, and gives its length in bytes.
    fn escape(&self, position: usize, out: &mut Vec<u8>) -> Result<usize, FilterError> {
        let after = &self.text[position + 1..];
        let Some(first) = after.chars().next() else {
            return self.fail(position, "a string is not closed");
        };
        let simple = match first {
            'a' => Some(0x07),
            'b' => Some(0x08),
            'f' => Some(0x0c),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(0x0b),
            '\\' | '\'' | '"' | '?' => u8::try_from(first).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            return Ok(2);
        }
        let digits = |radix: u32, from: usize, most: usize| {
            after[from..]
                .chars()
                .take(most)
                .take_while(|c| c.is_digit(radix))
                .count()
        };
        let value = |radix: u32, from: usize, count: usize| u32::from_str_radix(&after[from..from + count], radix).ok();
        match first {
            '0'..='7' => {
                let count = digits(8, 0, 3);
                match value(8, 0, count).and_then(|value| u8::try_from(value).ok()) {
                    Some(byte) => out.push(byte),
                    None => return self.fail(position, "octal escape out of range"),
                }
                Ok(1 + count)
            }
            'x' => match value(16, 1, digits(16, 1, 2)).and_then(|value| u8::try_from(value).ok()) {
                Some(byte) => {
                    out.push(byte);
                    Ok(2 + digits(16, 1, 2))
                }
                None => self.fail(position, "\\x needs hexadecimal digits"),
            },
            'u' | 'U' => {
                let count = if first == 'u' { 4 } else { 8 };
                let character = (digits(16, 1, count) == count)
                    .then(|| value(16, 1, count))
                    .flatten()
                    .and_then(char::from_u32);
                match character {
                    Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => return self.fail(position, "not a Unicode escape"),
                }
                Ok(2 + count)
            }
            '\n' => Ok(2),
            '\r' if after.starts_with("\r\n") => Ok(3),
            other => {
                out.push(b'\\');
                out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                Ok(1 + other.len_utf8())
            }
        }
    }

    /// `r"..."`: nothing is an escape; a backslash before the quote keeps it from closing, and both stay.
    fn raw_text(&mut self, quote: char) -> Result<TokenKind, FilterError> {
        let start = self.position;
        let body = &self.rest()[1..];
        let mut escaped = false;
        for (offset, character) in body.char_indices() {
            if escaped {
                escaped = false;
            } else if character == '\\' {
                escaped = true;
            } else if character == quote {
                self.position += 1 + offset + 1;
                return Ok(TokenKind::Text(body[..offset].to_owned()));
            }
        }
        self.fail(start, "a string is not closed")
    }
}

/// Bytes of the word at the start of `text`.
fn word_bytes(text: &str) -> usize {
    text.bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count()
}

/// Longer ones first, as the first match counts.
const SYMBOLS: [&str; 31] = [
    "**", "&&", "||", "==", "!=", "<=", ">=", "<<", ">>", "=~", "!~", "(", ")", "[", "]", "{", "}", ",", "+", "-", "*",
    "/", "%", "<", ">", "=", "!", "~", "&", "|", "^",
];
