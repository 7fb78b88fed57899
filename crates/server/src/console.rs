//! A status page: where things are, and whether each root key may be used. No scripts; it reloads itself.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use saker_engine::LockStatus;

use crate::node::Node;

/// What the page shows beside key states.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Lines of label and value.
    pub(crate) lines: Vec<(String, String)>,
}

#[derive(Clone)]
struct Page {
    node: Arc<Node>,
    places: Arc<Places>,
}

/// The page's router.
pub(crate) fn router(node: Arc<Node>, places: Places) -> Router {
    Router::new().route("/", get(page)).with_state(Page {
        node,
        places: Arc::new(places),
    })
}

async fn page(State(page): State<Page>) -> Response {
    let mut rows = String::new();
    match page.node.engine.key_states().await {
        Ok(keys) => {
            for key in keys {
                let (state, reason) = match &key.lock {
                    LockStatus::Active => ("active", ""),
                    LockStatus::Suspect => ("no answer from the key service", ""),
                    LockStatus::Locked { reason } => ("locked", reason.as_str()),
                };
                let databases = key.databases.join(", ");
                // Writing to a string does not fail.
                let _ = write!(
                    rows,
                    "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                    escaped(key.root.as_str()),
                    escaped(&databases),
                    escaped(state),
                    escaped(reason)
                );
            }
        }
        Err(error) => {
            let _ = write!(rows, "<tr><td colspan=4>{}</td></tr>", escaped(&error.message));
        }
    }
    let mut places = String::new();
    for (label, value) in &page.places.lines {
        let _ = write!(
            places,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escaped(label),
            escaped(value)
        );
    }
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5><title>Saker</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}}\
         table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.4rem .8rem;border-bottom:1px solid #ccc}}</style>\
         <h1>Saker</h1><h2>Where things are</h2><table>{places}</table><h2>Root keys</h2>\
         <table><tr><th>Key</th><th>Databases</th><th>State</th><th>Reason</th></tr>{rows}</table></html>"
    );
    (
        [(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        )],
        Html(html),
    )
        .into_response()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn markup_is_shown_as_text() {
        assert_eq!(escaped("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
