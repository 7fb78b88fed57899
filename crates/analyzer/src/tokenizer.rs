//! Where words start and end.

use unicode_segmentation::UnicodeSegmentation;

/// A way to cut a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokenizer {
    /// Words by the rules of Unicode Standard Annex 29; whatever has no letter and no digit is left out. Each ideograph is
    /// a word.
    Standard,
    /// Runs of characters that are no white space.
    Whitespace,
    /// Runs of letters and digits.
    Simple,
}

impl Tokenizer {
    /// The tokenizer of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "standard" => Some(Self::Standard),
            "whitespace" => Some(Self::Whitespace),
            "simple" => Some(Self::Simple),
            _ => None,
        }
    }

    /// Calls `word` with the first byte and the byte past the end of each word, in order.
    pub(crate) fn cut(self, text: &str, mut word: impl FnMut(usize, usize)) {
        match self {
            Self::Standard => text
                .unicode_word_indices()
                .for_each(|(start, found)| word(start, start + found.len())),
            Self::Whitespace => runs(text, |character| !character.is_whitespace(), word),
            Self::Simple => runs(text, char::is_alphanumeric, word),
        }
    }
}

/// The longest runs of characters that belong.
fn runs(text: &str, belongs: impl Fn(char) -> bool, mut word: impl FnMut(usize, usize)) {
    let mut start = None;
    for (at, character) in text.char_indices() {
        match (belongs(character), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                word(from, at);
                start = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    if let Some(from) = start {
        word(from, text.len());
    }
}
