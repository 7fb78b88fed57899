//! `like` patterns, regular expressions, and words to be found in text.

use std::{collections::BTreeSet, fmt};

use regex::{Regex, RegexBuilder};
use saker_analyzer::Analyzer;
use saker_model::Limits;

/// A compiled pattern. `Debug` is redacted.
#[derive(Clone)]
pub(crate) enum Pattern {
    Like(Like),
    Regex(Regex),
    Words(Words),
}

/// What may follow the start of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Anything,
    /// What the pattern says.
    Some,
}

/// Why a pattern is refused, for a message.
pub(crate) type PatternError = String;

/// A `like` pattern cut at its `%`s: the text starts with the first piece, ends with the last, and holds those between
/// in order, none overlapping.
#[derive(Clone)]
pub(crate) struct Like {
    pieces: Vec<Piece>,
}

/// Words of which a text has to have one, as an analyzer cuts both.
#[derive(Clone)]
pub(crate) struct Words {
    analyzer: Analyzer,
    terms: BTreeSet<String>,
}

/// What stands between two `%`s.
#[derive(Clone)]
enum Piece {
    Text(String),
    /// With `_`, which is `None` here.
    Characters(Vec<Option<char>>),
}

impl Pattern {
    /// `%` is any text, `_` any one character, a backslash takes the next character as it is.
    pub(crate) fn like(pattern: &str) -> Result<Self, PatternError> {
        check_length(pattern)?;
        let mut pieces = Vec::new();
        let mut current = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            match character {
                '%' => pieces.push(Piece::new(std::mem::take(&mut current))),
                '_' => current.push(None),
                '\\' => current.push(Some(characters.next().unwrap_or('\\'))),
                other => current.push(Some(other)),
            }
        }
        pieces.push(Piece::new(current));
        Ok(Self::Like(Like { pieces }))
    }

    /// A regular expression that may match anywhere in the text.
    pub(crate) fn regex(pattern: &str) -> Result<Self, PatternError> {
        check_length(pattern)?;
        let built = RegexBuilder::new(pattern)
            .size_limit(Limits::REGEX_BYTES_MAX)
            .dfa_size_limit(Limits::REGEX_BYTES_MAX)
            .build();
        match built {
            Ok(regex) => Ok(Self::Regex(regex)),
            Err(regex::Error::CompiledTooBig(limit)) => Err(format!(
                "regular expression takes more than {limit} bytes when compiled"
            )),
            // The error's text quotes the pattern.
            Err(_) => Err("invalid regular expression".to_owned()),
        }
    }

    /// Any of the words of `text`. Text without words matches nothing.
    pub(crate) fn words(analyzer: Analyzer, text: &str) -> Result<Self, PatternError> {
        check_length(text)?;
        let mut terms = BTreeSet::new();
        analyzer.analyze(text, |token| {
            terms.insert(token.text.to_owned());
        });
        Ok(Self::Words(Words { analyzer, terms }))
    }

    /// The text that every match starts with, and what may follow it.
    pub(crate) fn prefix(&self) -> (&str, Rest) {
        match self {
            Self::Like(like) => like.prefix(),
            Self::Regex(_) | Self::Words(_) => ("", Rest::Some),
        }
    }

    /// The words of which a text has to have one, in order, if that is what it asks.
    pub(crate) fn terms(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Words(words) => Some(&words.terms),
            Self::Like(_) | Self::Regex(_) => None,
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Like(like) => like.matches(text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Words(words) => words.matches(text),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern([redacted])")
    }
}

fn check_length(pattern: &str) -> Result<(), PatternError> {
    if pattern.len() > Limits::PATTERN_BYTES_MAX {
        return Err(format!(
            "pattern has {} bytes, the limit is {}",
            pattern.len(),
            Limits::PATTERN_BYTES_MAX
        ));
    }
    Ok(())
}

impl Words {
    fn matches(&self, text: &str) -> bool {
        let mut found = false;
        self.analyzer
            .analyze(text, |token| found = found || self.terms.contains(token.text));
        found
    }
}

impl Like {
    fn prefix(&self) -> (&str, Rest) {
        match self.pieces.as_slice() {
            [Piece::Text(all)] => (all, Rest::Nothing),
            [Piece::Text(start), middle @ ..] if middle.iter().all(Piece::is_empty) => (start, Rest::Anything),
            [Piece::Text(start), ..] => (start, Rest::Some),
            _ => ("", Rest::Some),
        }
    }

    fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.pieces.split_first() else {
            return text.is_empty();
        };
        let Some(mut position) = first.at_start(text) else {
            return false;
        };
        let Some((last, middle)) = others.split_last() else {
            return position == text.len();
        };
        for piece in middle {
            match piece.find(&text[position..]) {
                Some(end) => position += end,
                None => return false,
            }
        }
        last.at_end(&text[position..])
    }
}

impl Piece {
    fn new(characters: Vec<Option<char>>) -> Self {
        let text: Option<String> = characters.iter().copied().collect();
        text.map_or(Self::Characters(characters), Self::Text)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// Bytes of the match at the start of `text`.
    fn at_start(&self, text: &str) -> Option<usize> {
        match self {
            Self::Text(wanted) => text.starts_with(wanted.as_str()).then_some(wanted.len()),
            Self::Characters(wanted) => {
                let mut characters = text.chars();
                let fits = |wanted: &Option<char>| {
                    characters
                        .next()
                        .is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
                };
                wanted.iter().all(fits).then(|| text.len() - characters.as_str().len())
            }
        }
    }

    /// End, in bytes, of the first match in `text`.
    fn find(&self, text: &str) -> Option<usize> {
        match self {
            Self::Text(wanted) => text.find(wanted.as_str()).map(|start| start + wanted.len()),
            Self::Characters(_) => text
                .char_indices()
                .find_map(|(start, _)| self.at_start(&text[start..]).map(|length| start + length)),
        }
    }

    fn at_end(&self, text: &str) -> bool {
        match self {
            Self::Text(wanted) => text.ends_with(wanted.as_str()),
            Self::Characters(wanted) => {
                let mut characters = text.chars().rev();
                wanted.iter().rev().all(|wanted| {
                    characters
                        .next()
                        .is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by recursion over both texts.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some(('_', rest)) => !text.is_empty() && naive(rest, &text[1..]),
            Some(('\\', rest)) if !rest.is_empty() => text.first() == rest.first() && naive(&rest[1..], &text[1..]),
            Some((first, rest)) => text.first() == Some(first) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn like_agrees_with_its_definition(pattern in r"[ab%_\\é]{0,8}", text in r"[ab%_\\é]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = naive(&characters(&pattern), &characters(&text));
            prop_assert_eq!(Pattern::like(&pattern).unwrap().matches(&text), expected);
        }
    }

    #[test]
    fn the_start_of_a_pattern_is_known() {
        for (pattern, expected) in [
            ("", ("", Rest::Nothing)),
            ("ab", ("ab", Rest::Nothing)),
            (r"a\%b", ("a%b", Rest::Nothing)),
            ("%", ("", Rest::Anything)),
            ("ab%", ("ab", Rest::Anything)),
            ("ab%%", ("ab", Rest::Anything)),
            ("ab%c", ("ab", Rest::Some)),
            ("a_", ("", Rest::Some)),
            ("%a", ("", Rest::Some)),
        ] {
            assert_eq!(Pattern::like(pattern).unwrap().prefix(), expected, "{pattern}");
        }
        assert_eq!(Pattern::regex("^ab").unwrap().prefix(), ("", Rest::Some));
    }

    #[test]
    fn patterns_are_limited() {
        let limit = Limits::PATTERN_BYTES_MAX;
        assert!(Pattern::like(&"a".repeat(limit)).is_ok());
        assert!(Pattern::like(&"a".repeat(limit + 1)).unwrap_err().contains("4096"));
        assert!(Pattern::regex(&"a".repeat(limit)).is_ok());
        assert!(Pattern::regex(&"a".repeat(limit + 1)).is_err());
        assert!(
            Pattern::regex(r"(\w{100}){100}{100}")
                .unwrap_err()
                .contains("bytes when compiled")
        );
    }

    #[test]
    fn a_bad_regex_is_not_echoed() {
        assert_eq!(Pattern::regex("secret(").unwrap_err(), "invalid regular expression");
    }

    #[test]
    fn regex_matches_anywhere() {
        let pattern = Pattern::regex("E[0-9]{4}").unwrap();
        assert!(pattern.matches("failed with E1001 again"));
        assert!(!pattern.matches("E10"));
    }
}
