//! What happens to a word between the tokenizer and the term.

use std::{borrow::Cow, collections::BTreeSet};

use rust_stemmers::{Algorithm, Stemmer};
use zeroize::Zeroize;

use crate::folding;

/// Changes a word or drops it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    /// Lower case.
    Lowercase,
    /// Letters of Latin scripts without their marks, in ASCII where there is a common spelling.
    AsciiFolding,
    /// Drops words that have anything but ASCII letters and digits.
    AlphanumOnly,
    /// Drops words without a letter or digit.
    RemovePunct,
    /// Drops words with fewer or more characters.
    Length { min: usize, max: usize },
    /// Drops these words.
    Stop(BTreeSet<String>),
    /// The stem of a word, by Snowball's rules for a language.
    Stem(Language),
}

/// A language with a stemmer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Language {
    name: &'static str,
    algorithm: Algorithm,
}

impl Language {
    /// The language of this English name, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = LANGUAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|&(name, algorithm)| Self { name, algorithm })
    }
    /// All names, for messages.
    pub(crate) fn names() -> String {
        let names: Vec<&str> = LANGUAGES.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }
}

impl std::fmt::Debug for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Filter {
    /// Works on `word`; whether it is kept. `spare` is for writing.
    pub(crate) fn apply(&self, word: &mut String, spare: &mut String) -> bool {
        match self {
            Self::Lowercase => lowercase(word, spare),
            Self::AsciiFolding => {
                if !word.is_ascii() {
                    spare.clear();
                    folding::fold(word, spare);
                    std::mem::swap(word, spare);
                }
            }
            Self::AlphanumOnly => return word.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            Self::RemovePunct => return word.chars().any(char::is_alphanumeric),
            Self::Length { min, max } => {
                // No word has more characters than bytes.
                let count = if word.is_ascii() {
                    word.len()
                } else {
                    word.chars().count()
                };
                return (*min..=*max).contains(&count);
            }
            Self::Stop(words) => return !words.contains(word.as_str()),
            Self::Stem(language) => stem(*language, word, spare),
        }
        !word.is_empty()
    }
}

fn lowercase(word: &mut String, spare: &mut String) {
    if word.is_ascii() {
        word.make_ascii_lowercase();
        return;
    }
    // As a whole, since the lower case of a letter may depend on where it stands.
    let mut lower = word.to_lowercase();
    spare.clear();
    spare.push_str(&lower);
    lower.zeroize();
    std::mem::swap(word, spare);
}

fn stem(language: Language, word: &mut String, spare: &mut String) {
    let stemmed = match Stemmer::create(language.algorithm).stem(word) {
        Cow::Owned(stem) => Some(stem),
        // It is its own stem.
        Cow::Borrowed(_) => None,
    };
    if let Some(mut stem) = stemmed {
        spare.clear();
        spare.push_str(&stem);
        stem.zeroize();
        std::mem::swap(word, spare);
    }
}

pub(crate) const LANGUAGES: [(&str, Algorithm); 18] = [
    ("arabic", Algorithm::Arabic),
    ("danish", Algorithm::Danish),
    ("dutch", Algorithm::Dutch),
    ("english", Algorithm::English),
    ("finnish", Algorithm::Finnish),
    ("french", Algorithm::French),
    ("german", Algorithm::German),
    ("greek", Algorithm::Greek),
    ("hungarian", Algorithm::Hungarian),
    ("italian", Algorithm::Italian),
    ("norwegian", Algorithm::Norwegian),
    ("portuguese", Algorithm::Portuguese),
    ("romanian", Algorithm::Romanian),
    ("russian", Algorithm::Russian),
    ("spanish", Algorithm::Spanish),
    ("swedish", Algorithm::Swedish),
    ("tamil", Algorithm::Tamil),
    ("turkish", Algorithm::Turkish),
];
