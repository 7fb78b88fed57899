//! What the page and the JSON say of a walk that is made up: hostile names, many files, nothing at all.

use saker_engine::{
    CollectionReport, DatabaseReport, Finding, FindingClass, Item, ItemKind, KeyVersionReport, Verdict, Verification,
    ZoneOwnerReport, ZoneReport,
};
use saker_keyring::ZoneId;
use saker_model::{CollectionId, DatabaseId};

use super::*;

const HOSTILE: [&str; 6] = [
    "</title><script>alert(1)</script>",
    "\" onload=\"alert(1)",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "a\u{202e}b\u{0}c",
    "]]><svg onload=alert(3)>",
];

/// A walk over `files` files whose every name is hostile.
fn walk(files: usize) -> Verification {
    let zone = ZoneId::random();
    let hostile = |index: usize| HOSTILE[index % HOSTILE.len()].to_owned();
    let named = |index: usize| i64::try_from(index).unwrap();
    Verification {
        cluster: Some(hostile(0)),
        store: Some(hostile(1)),
        zones: vec![ZoneReport {
            zone,
            root: "vault://transit/a".parse().unwrap(),
            owner: ZoneOwnerReport::Database(DatabaseId(0)),
            role: hostile(2),
            versions: vec![
                KeyVersionReport {
                    version: 1,
                    wrapped_sha256: "00".repeat(32),
                },
                KeyVersionReport {
                    version: 2,
                    wrapped_sha256: "11".repeat(32),
                },
            ],
            dark: Some(hostile(3)),
        }],
        databases: (0..6)
            .map(|index| DatabaseReport {
                id: DatabaseId(named(index)),
                name: hostile(index),
                customer_key: true,
            })
            .collect(),
        collections: (0..6)
            .map(|index| CollectionReport {
                id: CollectionId(named(index)),
                database: DatabaseId(named(index)),
                name: hostile(index + 1),
            })
            .collect(),
        items: (0..files)
            .map(|index| Item {
                path: format!("objects/{}/{index}", hostile(index)),
                kind: ItemKind::Column,
                collection: Some(CollectionId(named(index % 7))),
                zone: Some(zone),
                version: Some(1 + u32::from(index % 3 == 0)),
                bytes: 1_000,
                frames: 2,
                verdict: Verdict::ALL[index % 6],
            })
            .collect(),
        findings: (0..6)
            .map(|index| Finding {
                what: hostile(index),
                class: FindingClass::Damage,
                problem: hostile(index + 1),
            })
            .collect(),
    }
}

fn written(verification: &Verification, names: bool) -> (serde_json::Value, String, Written) {
    let place = tempfile::tempdir().unwrap();
    let (data, target) = (place.path().join("data"), place.path().join("evidence"));
    fs::create_dir(&data).unwrap();
    prepare(&target, &data).unwrap();
    let facts = Facts {
        verification,
        requests: &[],
        chain: None,
        started_ms: 1_000,
        finished_ms: 2_500,
        directory: &data,
        names,
    };
    let written = write(&facts, &target).unwrap();
    assert!(prepare(&target, &data).unwrap_err().contains("holds a report already"));
    assert!(write(&facts, &target).is_err(), "a report is never put over another");
    let json = fs::read(&written.json).unwrap();
    assert_eq!(
        written.sha256,
        text::hex(digest::digest(&digest::SHA256, &json).as_ref())
    );
    let page = fs::read_to_string(&written.html).unwrap();
    assert!(page.contains(&written.sha256));
    (serde_json::from_slice(&json).unwrap(), page, written)
}

#[test]
fn no_name_becomes_a_part_of_the_page() {
    for names in [false, true] {
        let verification = walk(50);
        let (document, page, _) = written(&verification, names);
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(
            page.matches("<title>").count() - page.matches("<g class").count(),
            1 + rects_with_titles(&page)
        );
        for bad in ["<script>alert", "onload=\"alert", "<!--", "\u{202e}", "<svg onload"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert_eq!(document["databases"][0].get("name").is_some(), names);
        assert_eq!(document["collections"][0].get("name").is_some(), names);
        assert!(!page.contains("database &quot; onload"));
        assert_eq!(document["totals"]["items"], 50);
        assert_eq!(document["verdict"], "findings");
        assert_eq!(document["zones"][0]["versions"][1]["items"], 17);
        assert_eq!(document["files"][3]["path"], verification.items[3].path);
    }
}

/// Bars have titles of their own.
fn rects_with_titles(page: &str) -> usize {
    page.matches("rx=\"3\"><title>").count()
}

#[test]
fn a_report_of_nothing_is_a_report() {
    let (document, page, _) = written(&Verification::default(), false);
    assert_eq!(document["totals"]["items"], 0);
    assert_eq!(document["verdict"], "verified");
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn a_hundred_thousand_files_fit() {
    let verification = walk(100_000);
    let (document, page, written) = written(&verification, false);
    assert_eq!(document["files"].as_array().unwrap().len(), 100_000);
    assert_eq!(document["totals"]["bytes"], 100_000_000);
    // Rows in the page itself are few; the others are data for its script.
    assert_eq!(page.matches("<tr><td class=\"mono\">").count(), 100);
    assert!(page.len() < 20 << 20);
    drop(written);
}

#[test]
fn evidence_never_lands_in_the_data() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    fs::create_dir_all(data.join("objects")).unwrap();
    std::os::unix::fs::symlink(&data, place.path().join("link")).unwrap();
    for inside in ["data", "data/evidence", "data/objects/../evidence", "link/evidence"] {
        let error = prepare(&place.path().join(inside), &data).unwrap_err();
        assert!(error.contains("lies in the data directory"), "{inside}: {error}");
    }
    assert!(!data.join("evidence").exists());
    prepare(&place.path().join("data-evidence"), &data).unwrap();
}
