//! The chain of one tokenizer and its filters.

use zeroize::Zeroizing;

use crate::{AnalyzerError, filter::Filter, params, tokenizer::Tokenizer};

/// Cuts texts into tokens. Made once for a field, used by any number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Analyzer {
    tokenizer: Tokenizer,
    filters: Vec<Filter>,
}

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What the filters made of it.
    pub text: &'a str,
    /// Where it starts in the text, in bytes.
    pub start: usize,
    /// Where it ends in the text, in bytes.
    pub end: usize,
    /// Which token of the text it was before filters dropped others, from 0.
    pub position: usize,
}

impl Analyzer {
    /// The analyzer that a field's `analyzer_params` ask for; `None` or an empty text for the standard one.
    ///
    /// # Errors
    /// [`AnalyzerError`] for what is malformed, over a limit or not there.
    pub fn from_params(params: Option<&str>) -> Result<Self, AnalyzerError> {
        match params.map(str::trim).filter(|text| !text.is_empty()) {
            None => Ok(Self::standard()),
            Some(text) => params::read(text),
        }
    }

    /// Words by Unicode's rules, in lower case.
    #[must_use]
    pub fn standard() -> Self {
        Self::new(Tokenizer::Standard, vec![Filter::Lowercase])
    }

    pub(crate) fn new(tokenizer: Tokenizer, filters: Vec<Filter>) -> Self {
        Self { tokenizer, filters }
    }

    /// Calls `visit` with every token of `text`, in order.
    pub fn analyze(&self, text: &str, mut visit: impl FnMut(Token<'_>)) {
        // Two buffers, so that a filter can write one while it reads the other; both are wiped.
        let mut word = Zeroizing::new(String::with_capacity(WORD_BYTES));
        let mut spare = Zeroizing::new(String::with_capacity(WORD_BYTES));
        let mut position = 0;
        self.tokenizer.cut(text, |start, end| {
            word.clear();
            word.push_str(&text[start..end]);
            if self.filters.iter().all(|filter| filter.apply(&mut word, &mut spare)) {
                visit(Token {
                    text: &word,
                    start,
                    end,
                    position,
                });
            }
            position += 1;
        });
    }
}

/// First size of the buffers: nearly all words fit, so they do not grow and leave copies behind.
const WORD_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(params: &str, text: &str) -> Vec<String> {
        let analyzer = Analyzer::from_params(Some(params)).unwrap();
        let mut tokens = Vec::new();
        analyzer.analyze(text, |token| tokens.push(token.text.to_owned()));
        tokens
    }

    #[test]
    fn the_standard_analyzer_is_the_default() {
        for params in [
            "",
            "  ",
            r#"{"type": "standard"}"#,
            "{}",
            r#"{"tokenizer": "standard", "filter": ["lowercase"]}"#,
        ] {
            assert_eq!(
                tokens(params, "The Quick (brown) fox, can't JUMP 32.3 feet!"),
                ["the", "quick", "brown", "fox", "can't", "jump", "32.3", "feet"]
            );
        }
        assert_eq!(Analyzer::from_params(None).unwrap(), Analyzer::standard());
    }

    #[test]
    fn the_english_analyzer_stems_and_drops_stop_words() {
        let text = "The runners were running to the libraries, and they are nationally loved";
        let expected = ["runner", "were", "run", "librari", "nation", "love"];
        assert_eq!(tokens(r#"{"type": "english"}"#, text), expected);
        assert_eq!(
            tokens(r#"{"type": "english", "stop_words": ["run", "were"]}"#, text),
            ["runner", "librari", "nation", "love"]
        );
    }

    #[test]
    fn tokenizers_cut_in_their_own_ways() {
        let text = "state-of-the-art don't\tX_1 日本";
        assert_eq!(
            tokens(r#"{"tokenizer": "whitespace"}"#, text),
            ["state-of-the-art", "don't", "X_1", "日本"]
        );
        assert_eq!(
            tokens(r#"{"tokenizer": "simple"}"#, text),
            ["state", "of", "the", "art", "don", "t", "X", "1", "日本"]
        );
        assert_eq!(
            tokens(r#"{"tokenizer": {"type": "standard"}}"#, text),
            ["state", "of", "the", "art", "don't", "X_1", "日", "本"]
        );
        assert_eq!(tokens(r#"{"tokenizer": "standard"}"#, ""), Vec::<String>::new());
        assert_eq!(
            tokens(r#"{"tokenizer": "whitespace"}"#, " \u{3000}\n "),
            Vec::<String>::new()
        );
    }

    #[test]
    fn filters_work_in_the_order_given() {
        assert_eq!(
            tokens(
                r#"{"tokenizer": "whitespace", "filter": ["lowercase", "asciifolding"]}"#,
                "Ça ÉTÉ Straße Œuvre"
            ),
            ["ca", "ete", "strasse", "oeuvre"]
        );
        assert_eq!(
            tokens(
                r#"{"tokenizer": "whitespace", "filter": ["removepunct"]}"#,
                "a -- b !? c."
            ),
            ["a", "b", "c."]
        );
        assert_eq!(
            tokens(
                r#"{"tokenizer": "whitespace", "filter": ["alphanumonly"]}"#,
                "a1 b-2 c3 été"
            ),
            ["a1", "c3"]
        );
        assert_eq!(
            tokens(
                r#"{"tokenizer": "whitespace", "filter": [{"type": "length", "min": 2, "max": 3}]}"#,
                "a bb ccc dddd éé"
            ),
            ["bb", "ccc", "éé"]
        );
        assert_eq!(
            tokens(
                r#"{"tokenizer": "standard", "filter": ["lowercase", {"type": "stop", "stop_words": ["of", "_english_"]}]}"#,
                "Of The Rings"
            ),
            ["rings"]
        );
        // Stop words are compared as they are: before the case is lowered, "The" is another word.
        assert_eq!(
            tokens(
                r#"{"tokenizer": "standard", "filter": [{"type": "stop", "stop_words": ["the"]}, "lowercase"]}"#,
                "The the"
            ),
            ["the"]
        );
        assert_eq!(
            tokens(
                r#"{"tokenizer": "standard", "filter": ["lowercase", {"type": "stemmer", "language": "german"}]}"#,
                "Häuser Katzen"
            ),
            ["haus", "katz"]
        );
    }

    #[test]
    fn offsets_are_those_of_the_text() {
        let (text, mut seen) = ("ÄB  is Straße", Vec::new());
        let analyzer = Analyzer::from_params(Some(
            r#"{"tokenizer": "standard", "filter": ["lowercase", "asciifolding", {"type": "stop", "stop_words": ["is"]}]}"#,
        ));
        analyzer.unwrap().analyze(text, |token| {
            seen.push((token.text.to_owned(), &text[token.start..token.end], token.position));
        });
        assert_eq!(seen, [("ab".to_owned(), "ÄB", 0), ("strasse".to_owned(), "Straße", 2)]);
    }

    proptest! {
        #[test]
        fn any_text_gives_tokens_within_it(text in "\\PC{0,80}|.{0,80}", kind in 0usize..4) {
            let params = [
                r#"{"type": "standard"}"#,
                r#"{"type": "english"}"#,
                r#"{"tokenizer": "whitespace", "filter": ["removepunct", "asciifolding", "alphanumonly"]}"#,
                r#"{"tokenizer": "simple", "filter": ["lowercase", {"type": "stemmer", "language": "russian"}]}"#,
            ][kind];
            let (mut end, mut next) = (0, 0);
            let mut sound = true;
            Analyzer::from_params(Some(params)).unwrap().analyze(&text, |token| {
                sound &= token.start >= end && token.start < token.end && token.position >= next && !token.text.is_empty();
                sound &= text.get(token.start..token.end).is_some();
                (end, next) = (token.end, token.position + 1);
            });
            prop_assert!(sound && end <= text.len());
        }
        #[test]
        fn every_language_stems_any_word(word in "\\PC{0,24}|[\u{600}-\u{6ff}]{0,16}|[\u{b80}-\u{bff}]{0,16}|[a-zäöüßçğışñéèáíóúåøæőű']{0,24}") {
            for (language, _) in crate::filter::LANGUAGES {
                let params = format!(r#"{{"tokenizer": "whitespace", "filter": ["lowercase", {{"type": "stemmer", "language": "{language}"}}]}}"#);
                Analyzer::from_params(Some(&params)).unwrap().analyze(&word, |token| assert!(!token.text.is_empty()));
            }
        }
        #[test]
        fn any_params_are_answered(text in "\\PC{0,80}|\\{\"(type|tokenizer|filter)\": .{0,40}\\}") {
            let _ = Analyzer::from_params(Some(&text));
        }
    }
}
