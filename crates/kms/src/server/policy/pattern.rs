//! Texts with `*` (any run) and `?` (any one character), as policies write actions, resources and `StringLike` values.

/// A pattern; matched against a whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    ignore_case: bool,
}

impl Pattern {
    pub(super) fn exact_case(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ignore_case: false,
        }
    }

    pub(super) fn ignoring_case(text: &str) -> Self {
        Self {
            text: text.to_ascii_lowercase(),
            ignore_case: true,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether some text that starts with one of `prefixes` can match.
    pub(super) fn may_start_with_any(&self, prefixes: &[&str]) -> bool {
        let fixed = self.text.split(['*', '?']).next().unwrap_or_default();
        let open = fixed.len() < self.text.len();
        prefixes
            .iter()
            .any(|prefix| fixed.starts_with(prefix) || (open && prefix.starts_with(fixed)))
    }

    /// Whether the whole of `text` matches. Time grows with the product of the lengths at worst, never faster.
    pub(super) fn matches(&self, text: &str) -> bool {
        if self.ignore_case {
            glob(&self.text, &text.to_ascii_lowercase())
        } else {
            glob(&self.text, text)
        }
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star fits nowhere: the star, and the text after what it took so far.
    let mut resume: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            resume = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, taken)) = resume {
            resume = Some((star, taken + 1));
            (p, t) = (star + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, exponential and obviously right.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|taken| by_definition(rest, &text[taken..])),
            (Some((c, rest)), Some((t, after))) => (*c == b'?' || c == t) && by_definition(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let expected = by_definition(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(Pattern::exact_case(&pattern).matches(&text), expected);
        }
    }

    #[test]
    fn case_counts_only_where_it_should() {
        assert!(Pattern::ignoring_case("KMS:de*").matches("kms:Decrypt"));
        assert!(!Pattern::exact_case("A*").matches("ab"));
    }

    #[test]
    fn prefixes_that_can_match() {
        let may = |text: &str| Pattern::ignoring_case(text).may_start_with_any(&["kms:"]);
        assert!(may("*") && may("kms:*") && may("kms:Decrypt") && may("k*") && may("?ms:x"));
        assert!(!may("s3:*") && !may("km") && !may("") && !may("sts:*"));
    }
}
