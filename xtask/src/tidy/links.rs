//! Relative links in Markdown files: the file must exist, and so must the heading that an anchor names.

use super::{Problem, SourceFile};

/// `exists` tells whether a path from the repository's folder is there.
pub(super) fn check(files: &[SourceFile], exists: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&file.text) {
            let place = format!("{}:{line}", file.path);
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let Some(path) = resolve(&file.path, path) else {
                problems.push(Problem::failure(
                    place,
                    format!("link {target} leads out of the repository"),
                ));
                continue;
            };
            if !exists(&path) {
                problems.push(Problem::failure(place, format!("link {target} leads nowhere")));
                continue;
            }
            let page = files.iter().find(|other| other.path == path && path.ends_with(".md"));
            if let Some(page) = page.filter(|_| !anchor.is_empty())
                && !prose(&page.text).any(|(_, line)| heading_anchor(line).as_deref() == Some(anchor))
            {
                problems.push(Problem::failure(place, format!("{path} has no heading #{anchor}")));
            }
        }
    }
    problems
}

/// Targets of inline links that stay inside the repository, with their line numbers.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        line.split("](").skip(1).filter_map(move |rest| {
            let target = rest.split([')', ' ']).next()?;
            let outside = target.contains("://") || target.starts_with("mailto:") || target.is_empty();
            (!outside).then_some((number, target))
        })
    })
}

/// Numbered lines outside fenced code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// `target` seen from the file `from`, as a path from the repository's folder; `None` if it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The anchor that common Markdown viewers give a heading.
fn heading_anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title
        .trim()
        .chars()
        .filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    Some(
        kept.flat_map(char::to_lowercase)
            .map(|char| if char == ' ' { '-' } else { char })
            .collect(),
    )
}
