//! Letters with marks to plain ASCII.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Appends `word` to `out`: compatibility forms and marks taken apart, marks left out, and letters that Unicode does not
/// take apart spelled as is usual in ASCII. Other scripts stay as they are, without their marks.
pub(crate) fn fold(word: &str, out: &mut String) {
    for character in word.nfkd().filter(|&character| !is_combining_mark(character)) {
        match SPELLINGS.binary_search_by_key(&character, |&(letter, _)| letter) {
            Ok(found) => out.push_str(SPELLINGS[found].1),
            Err(_) => out.push(character),
        }
    }
}

/// Latin letters without a decomposition and punctuation that has a plain form, by code point.
const SPELLINGS: [(char, &str); 52] = [
    ('«', "\""),
    ('»', "\""),
    ('Æ', "AE"),
    ('Ð', "D"),
    ('×', "x"),
    ('Ø', "O"),
    ('Þ', "TH"),
    ('ß', "ss"),
    ('æ', "ae"),
    ('ð', "d"),
    ('ø', "o"),
    ('þ', "th"),
    ('Đ', "D"),
    ('đ', "d"),
    ('Ħ', "H"),
    ('ħ', "h"),
    ('ı', "i"),
    ('ĸ', "q"),
    ('Ł', "L"),
    ('ł', "l"),
    ('Ŋ', "N"),
    ('ŋ', "n"),
    ('Œ', "OE"),
    ('œ', "oe"),
    ('Ŧ', "T"),
    ('ŧ', "t"),
    ('ƀ', "b"),
    ('Ɓ', "B"),
    ('Ƈ', "C"),
    ('ƈ', "c"),
    ('Ɖ', "D"),
    ('Ɗ', "D"),
    ('Ƒ', "F"),
    ('ƒ', "f"),
    ('Ɠ', "G"),
    ('Ɨ', "I"),
    ('Ƙ', "K"),
    ('ƙ', "k"),
    ('Ɲ', "N"),
    ('Ƶ', "Z"),
    ('ƶ', "z"),
    ('ȷ', "j"),
    ('ẞ', "SS"),
    ('‐', "-"),
    ('‑', "-"),
    ('‒', "-"),
    ('–', "-"),
    ('—', "-"),
    ('‘', "'"),
    ('’', "'"),
    ('“', "\""),
    ('”', "\""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_in_order() {
        assert!(SPELLINGS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn marks_go_and_scripts_stay() {
        let folded = |word: &str| {
            let mut out = String::new();
            fold(word, &mut out);
            out
        };
        assert_eq!(folded("Crème Brûlée ÅNGSTRÖM"), "Creme Brulee ANGSTROM");
        assert_eq!(folded("łódź ĳssel ﬁn Þór"), "lodz ijssel fin THor");
        assert_eq!(folded("Привет ελλάδα 日本"), "Привет ελλαδα 日本");
        assert_eq!(folded("й"), "и");
    }
}
