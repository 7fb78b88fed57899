//! `evidence.html`: one page that needs nothing else. Its content security policy names the hashes of its own style and
//! script, so that nothing else in it could run, whatever a name in it holds.
//!
//! Every number carries the place of its twin in `evidence.json` (`data-json`), by which a reader or a test can compare.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    io::{self, Write},
};

use aws_lc_rs::digest;
use base64::Engine as _;
use saker_audit::to_text;
use saker_engine::{CollectionReport, Verdict};
use serde::Serialize;

use super::{
    Facts, json, pictures,
    summary::{Conclusion, Summary, owner_label},
    text::{self, bytes, escape, number, root_key},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Rows of files that stand in the page itself: what is printed, and seen without scripts.
const ROWS_SHOWN: usize = 100;
/// Findings and requests in the page; the JSON has all.
const LISTED_MAX: usize = 500;

/// Writes the page.
///
/// # Errors
/// The writer's.
pub(super) fn write(out: &mut impl Write, facts: &Facts<'_>, summary: &Summary<'_>, sha256: &str) -> io::Result<()> {
    let mut head = String::new();
    begin(&mut head, facts);
    front(&mut head, facts, summary, sha256);
    coverage(&mut head, summary);
    hierarchy(&mut head, facts, summary);
    findings(&mut head, facts);
    requests(&mut head, facts);
    chain(&mut head, facts);
    method(&mut head);
    out.write_all(head.as_bytes())?;
    files(out, facts)?;
    let mut tail = String::new();
    end(&mut tail, facts, sha256);
    out.write_all(tail.as_bytes())
}

/// A number with the place of its twin.
fn counted(path: impl Display, value: u64) -> String {
    format!("<span data-json=\"{path}\">{}</span>", number(value))
}

/// An amount of bytes with the place of its twin; the exact one shows where the pointer rests.
fn sized(path: impl Display, value: u64) -> String {
    format!(
        "<span data-json=\"{path}\" data-unit=\"bytes\" title=\"{} bytes\">{}</span>",
        number(value),
        bytes(value)
    )
}

fn tag(word: &str) -> String {
    format!("<span class=\"tag {word}\">{word}</span>")
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _never_fails = page.write_fmt(text);
}

fn hash_source(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest))
}

fn begin(page: &mut String, facts: &Facts<'_>) {
    let cluster = facts.verification.cluster.as_deref().unwrap_or("unknown cluster");
    put(
        page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" \
             content=\"no-referrer\">\n<title>Encryption at rest: evidence for {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
            hash_source(STYLE),
            hash_source(SCRIPT),
            escape(cluster),
        ),
    );
}

/// Title, statement, method and result, before anything else.
fn front(page: &mut String, facts: &Facts<'_>, summary: &Summary<'_>, sha256: &str) {
    let verification = facts.verification;
    let (title, statement, mark) = statement(facts, summary);
    let class = match summary.conclusion {
        Conclusion::Verified => "verified",
        Conclusion::Incomplete => "incomplete",
        Conclusion::Findings => "findings",
    };
    put(
        page,
        format_args!(
            "<header>\n<p class=\"eyebrow\">Evidence report</p>\n<h1>Encryption at rest</h1>\n<p class=\"who\">Saker cluster \
             <code>{}</code>, examined {} (UTC)</p>\n</header>\n<section class=\"verdict {class}\" id=\"verdict\" \
             data-verdict=\"{class}\">\n<svg class=\"mark\" viewBox=\"0 0 46 46\" aria-hidden=\"true\"><circle cx=\"23\" cy=\"23\" \
             r=\"22\"/><path d=\"{mark}\"/></svg>\n<div><strong>{title}</strong><p>{statement}</p></div>\n</section>\n",
            escape(verification.cluster.as_deref().unwrap_or("unknown")),
            escape(&to_text(facts.finished_ms).replace('T', " ").replace('Z', "")),
        ),
    );
    let unsealed = summary.verdict(Verdict::Unsealed).items;
    let tiles = [
        ("Items examined", counted("totals.items", summary.all.items), false),
        ("Bytes examined", sized("totals.bytes", summary.all.bytes), false),
        (
            "Opened and verified",
            counted(
                "totals.byVerdict.verified.items",
                summary.verdict(Verdict::Verified).items,
            ),
            false,
        ),
        (
            "Unsealed",
            counted("totals.byVerdict.unsealed.items", unsealed),
            unsealed > 0,
        ),
        (
            "Findings",
            counted("totals.findings", verification.findings.len() as u64),
            !verification.findings.is_empty(),
        ),
    ];
    page.push_str("<dl class=\"tiles\">");
    for (label, value, bad) in tiles {
        let class = if bad { " class=\"bad\"" } else { "" };
        put(page, format_args!("<div{class}><dt>{label}</dt><dd>{value}</dd></div>"));
    }
    page.push_str("</dl>\n<dl class=\"facts\">");
    let took = (facts.finished_ms.saturating_sub(facts.started_ms)) as u128;
    let names = if facts.names {
        "told in this report, on request"
    } else {
        "not told in this report: databases and collections appear by id"
    };
    for (label, value) in [
        (
            "Data directory",
            format!("<code>{}</code>", escape(&facts.directory.display().to_string())),
        ),
        (
            "Its id",
            format!(
                "<code>{}</code>",
                escape(verification.store.as_deref().unwrap_or("unknown"))
            ),
        ),
        (
            "Walk",
            format!(
                "{} to {} UTC, {}.{:03} s",
                escape(&to_text(facts.started_ms)),
                escape(&to_text(facts.finished_ms)),
                took / 1_000,
                took % 1_000
            ),
        ),
        ("Program", format!("saker {}", env!("CARGO_PKG_VERSION"))),
        ("Names", names.to_owned()),
        (
            "Complete record",
            format!(
                "<code>evidence.json</code>, schema <code>{}</code>, SHA-256 <code id=\"json-sha256\">{sha256}</code>",
                json::SCHEMA
            ),
        ),
    ] {
        put(page, format_args!("<dt>{label}</dt><dd>{value}</dd>"));
    }
    page.push_str("</dl>\n");
}

/// Title, statement, and the path of a mark.
fn statement(facts: &Facts<'_>, summary: &Summary<'_>) -> (&'static str, String, &'static str) {
    let items = counted("totals.items", summary.all.items);
    let verified = counted(
        "totals.byVerdict.verified.items",
        summary.verdict(Verdict::Verified).items,
    );
    let open = counted("totals.byVerdict.open.items", summary.verdict(Verdict::Open).items);
    let dark = counted("totals.byVerdict.dark.items", summary.verdict(Verdict::Dark).items);
    let findings = counted("totals.findings", facts.verification.findings.len() as u64);
    match summary.conclusion {
        Conclusion::Verified => (
            "Everything that is stored is sealed, and all of it was verified",
            format!(
                "All {items} stored items were read to the last byte. {verified} of them were opened under their own keys, frame \
                 by frame, and are what the catalog says they are. The other {open} hold no data and need no seal. Nothing that \
                 holds data was found in the clear."
            ),
            "M13 24 L20 31 L34 16",
        ),
        Conclusion::Incomplete => (
            "Nothing is wrong with what could be opened; some keys may not be used now",
            format!(
                "{verified} of {items} stored items were opened under their own keys, frame by frame. {dark} lie under root keys that \
                 their owners have switched off or that are out of reach: of those only the headers were checked, for their form and \
                 their zone. {open} hold no data and need no seal. Nothing was found in the clear; of the dark items that is said of their headers \
                 alone."
            ),
            "M15 23 H31",
        ),
        Conclusion::Findings => (
            "Something is not as it should be",
            format!(
                "The walk went on to its end and has {findings} findings, listed below. {verified} of {items} stored items were opened \
                 under their own keys and are what the catalog says they are."
            ),
            "M23 12 V26 M23 33 V34",
        ),
    }
}

fn coverage(page: &mut String, summary: &Summary<'_>) {
    page.push_str("<section id=\"coverage\">\n<h2>Coverage</h2>\n<p>What came of every stored item: files, log segments and metadata values.</p>\n");
    page.push_str(&pictures::coverage(summary));
    page.push_str("<table><thead><tr><th>Verdict</th><th>Meaning</th><th class=\"number\">Items</th><th class=\"number\">Bytes</th></tr></thead><tbody>");
    for (verdict, tally) in &summary.by_verdict {
        let name = verdict.as_str();
        put(
            page,
            format_args!(
                "<tr><td class=\"nowrap\">{}{name}</td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                pictures::swatch(*verdict),
                meaning(*verdict),
                counted(format_args!("totals.byVerdict.{name}.items"), tally.items),
                sized(format_args!("totals.byVerdict.{name}.bytes"), tally.bytes),
            ),
        );
    }
    page.push_str("</tbody></table>\n<h3>By kind</h3>\n<table><thead><tr><th>Kind</th><th class=\"number\">Items</th><th class=\"number\">Bytes</th></tr></thead><tbody>");
    for (kind, tally) in &summary.by_kind {
        put(
            page,
            format_args!(
                "<tr><td>{kind}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                counted(format_args!("totals.byKind.{kind}.items"), tally.items),
                sized(format_args!("totals.byKind.{kind}.bytes"), tally.bytes),
            ),
        );
    }
    put(
        page,
        format_args!(
            "</tbody></table>\n<p class=\"note\">{} frames, records and values were opened one by one.</p>\n</section>\n",
            counted("totals.frames", summary.frames)
        ),
    );
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Verified => "Sealed. Every byte was opened under its own key, and it is what the catalog says it is.",
        Verdict::Dark => {
            "Its key could not be had: the root key is off or out of reach, or the catalog is damaged. Its header has the form of sealed data and its own zone; the rest was not looked at."
        }
        Verdict::Open => {
            "Not sealed by design: it holds no data (marker, lock, the platform zone's wrapped keys, the file around the metadata values)."
        }
        Verdict::Unfinished => "Left by an interrupted call or named by no manifest; the next start clears it away.",
        Verdict::Refused => "Altered, cut, exchanged, or belongs to nothing that the catalog knows.",
        Verdict::Unsealed => "In the clear, and must not be there.",
    }
}

fn hierarchy(page: &mut String, facts: &Facts<'_>, summary: &Summary<'_>) {
    put(
        page,
        format_args!(
            "<section id=\"hierarchy\">\n<h2>Keys</h2>\n<p>{} root keys stay in their key services. Each wraps the key of a zone (EZK), \
             kept only in wrapped form; the zone key wraps one data key for each item. {} zones were found, of which {} are dark.</p>\n",
            counted("totals.roots", summary.roots.len() as u64),
            counted("totals.zones", summary.zones.len() as u64),
            counted(
                "totals.darkZones",
                summary.zones.iter().filter(|zone| zone.report.dark.is_some()).count() as u64
            ),
        ),
    );
    page.push_str(&pictures::hierarchy(facts, summary));
    page.push_str("<h3>Root keys</h3>\n<table><thead><tr><th>Root key</th><th>State</th><th class=\"number\">Zones</th><th class=\"number\">Dark</th><th class=\"number\">Items</th><th class=\"number\">Bytes</th></tr></thead><tbody>");
    for (index, root) in summary.roots.iter().enumerate() {
        let (_, place) = root_key(root.root.as_str());
        put(
            page,
            format_args!(
                "<tr><td><code>{}</code><br><span class=\"soft\">{}</span></td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                escape(root.root.as_str()),
                escape(&place),
                tag(root.state()),
                counted(format_args!("roots.{index}.zones"), root.zones.len() as u64),
                counted(format_args!("roots.{index}.darkZones"), root.dark_zones),
                counted(format_args!("roots.{index}.items"), root.all.items),
                sized(format_args!("roots.{index}.bytes"), root.all.bytes),
            ),
        );
    }
    page.push_str("</tbody></table>\n<h3>Versions of the zone keys</h3>\n<p>Items under each version: green is the newest, pale are older ones. After a rotation new items go under the newest version, and older ones are moved to it. A version that is gone from a zone opens nothing any more.</p>\n");
    page.push_str(&pictures::versions(facts, summary));
    if pictures::leaves_out(summary) {
        page.push_str("<p class=\"note\">The pictures show some of the zones; the table has all.</p>\n");
    }
    zones(page, facts, summary);
    page.push_str("</section>\n");
}

fn zones(page: &mut String, facts: &Facts<'_>, summary: &Summary<'_>) {
    page.push_str("<table><thead><tr><th>Zone</th><th>State</th><th>Version</th><th>SHA-256 of the wrapped key</th><th class=\"number\">Items</th><th class=\"number\">Bytes</th></tr></thead><tbody>");
    for (index, zone) in summary.zones.iter().enumerate() {
        let state = if zone.report.dark.is_some() { "dark" } else { "usable" };
        let reason = zone
            .report
            .dark
            .as_deref()
            .map(|reason| format!("<br><span class=\"soft\">{}</span>", escape(reason)));
        let role = match zone.report.role.as_str() {
            "zone" => String::new(),
            other => format!(" ({})", escape(other)),
        };
        let versions = zone.report.versions.iter().zip(&zone.by_version).enumerate();
        for (row, (version, tally)) in versions {
            let (who, state) = if row == 0 {
                let who = format!(
                    "{}{role}<br><code>{}</code>",
                    escape(&owner_label(facts, zone.report.owner)),
                    zone.report.zone
                );
                (who, format!("{}{}", tag(state), reason.clone().unwrap_or_default()))
            } else {
                (String::new(), String::new())
            };
            put(
                page,
                format_args!(
                    "<tr><td>{who}</td><td>{state}</td><td>{}</td><td><code>{}</code></td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                    counted(
                        format_args!("zones.{index}.versions.{row}.version"),
                        version.version.into()
                    ),
                    version.wrapped_sha256,
                    counted(format_args!("zones.{index}.versions.{row}.items"), tally.items),
                    sized(format_args!("zones.{index}.versions.{row}.bytes"), tally.bytes),
                ),
            );
        }
    }
    put(
        page,
        format_args!(
            "</tbody></table>\n<p class=\"note\">{} items ({}) name no zone: those that hold no data, and those with findings.</p>\n",
            counted("totals.withoutZone.items", summary.without_zone.items),
            sized("totals.withoutZone.bytes", summary.without_zone.bytes),
        ),
    );
}

fn findings(page: &mut String, facts: &Facts<'_>) {
    let findings = &facts.verification.findings;
    put(
        page,
        format_args!(
            "<section id=\"findings\">\n<h2>Findings</h2>\n<p>{} in all.</p>\n",
            counted("totals.findings", findings.len() as u64)
        ),
    );
    if findings.is_empty() {
        page.push_str("<p>There is nothing to report.</p>\n</section>\n");
        return;
    }
    page.push_str(
        "<table id=\"findings-table\"><thead><tr><th>Class</th><th>Where</th><th>Problem</th></tr></thead><tbody>",
    );
    for finding in findings.iter().take(LISTED_MAX) {
        put(
            page,
            format_args!(
                "<tr><td>{}</td><td class=\"mono\">{}</td><td>{}</td></tr>",
                tag(finding.class.as_str()),
                escape(&finding.what),
                escape(&finding.problem)
            ),
        );
    }
    page.push_str("</tbody></table>\n");
    listed_note(page, findings.len());
    page.push_str("</section>\n");
}

fn listed_note(page: &mut String, count: usize) {
    if count > LISTED_MAX {
        put(
            page,
            format_args!(
                "<p class=\"note\">The first {LISTED_MAX} are shown; <code>evidence.json</code> has all.</p>\n"
            ),
        );
    }
}

fn requests(page: &mut String, facts: &Facts<'_>) {
    let (all, decrypts) = (facts.requests.len() as u64, of_operation(facts, "Decrypt"));
    put(
        page,
        format_args!(
            "<section id=\"requests\">\n<h2>Requests to key services</h2>\n<p>The walk made {} requests: {} <code>Decrypt</code> and {} \
             <code>GenerateDataKey</code>. {} were refused. Each is in the key service's own record (CloudTrail, for AWS) under the \
             request id that it gave; the platform key file keeps no record and gives none.</p>\n",
            counted("keyCalls.total", all),
            counted("keyCalls.byOperation.Decrypt", decrypts),
            counted(
                "keyCalls.byOperation.GenerateDataKey",
                of_operation(facts, "GenerateDataKey")
            ),
            counted(
                "keyCalls.refused",
                facts
                    .requests
                    .iter()
                    .filter(|request| request.call.outcome.is_err())
                    .count() as u64
            ),
        ),
    );
    if facts.requests.is_empty() {
        page.push_str("</section>\n");
        return;
    }
    page.push_str("<table id=\"requests-table\"><thead><tr><th>Time (UTC)</th><th>Operation</th><th>Root key</th><th>Zone</th><th>Outcome</th><th>Request id</th></tr></thead><tbody>");
    for request in facts.requests.iter().take(LISTED_MAX) {
        let call = &request.call;
        let outcome = json::outcome_of(request);
        let outcome = if call.outcome.is_ok() {
            tag("ok")
        } else {
            escape(&outcome)
        };
        put(
            page,
            format_args!(
                "<tr><td class=\"nowrap\">{}</td><td>{}</td><td>{}</td><td class=\"mono\">{}</td><td>{outcome}</td><td class=\"mono\">{}</td></tr>",
                escape(&to_text(request.sent_ms)),
                call.operation.as_str(),
                escape(&root_key(call.root.as_str()).0),
                escape(&text::shortened(&call.context.database, 13)),
                escape(call.request_id.as_deref().unwrap_or("")),
            ),
        );
    }
    page.push_str("</tbody></table>\n");
    listed_note(page, facts.requests.len());
    page.push_str("</section>\n");
}

fn of_operation(facts: &Facts<'_>, name: &str) -> u64 {
    let chosen = facts
        .requests
        .iter()
        .filter(|request| request.call.operation.as_str() == name);
    chosen.count() as u64
}

fn chain(page: &mut String, facts: &Facts<'_>) {
    page.push_str("<section id=\"chain\">\n<h2>Audit log</h2>\n");
    let Some(chain) = facts.chain else {
        page.push_str("<p>This data directory has no audit log that could be opened.</p>\n</section>\n");
        return;
    };
    let state = if chain.report.is_whole() {
        "an unbroken chain: each record names the hash of the one before it"
    } else {
        "not an unbroken chain; see the findings"
    };
    put(
        page,
        format_args!(
            "<p>{} records from number {} on, {state}. Keep this head: a later audit log that does not contain it was rewritten.</p>\n\
             <dl class=\"facts\"><dt>Head</dt><dd><code data-json=\"auditChain.head\">{}</code></dd></dl>\n</section>\n",
            counted("auditChain.records", chain.report.records),
            counted("auditChain.first", chain.first),
            chain.report.head,
        ),
    );
}

fn method(page: &mut String) {
    page.push_str(
        "<section id=\"method\">\n<h2>Method, and what it proves</h2>\n<div class=\"two\"><div><h3>How it was done</h3><ul>\
         <li>The directory was read without a change to it; a copy or a read-only mount will do.</li>\
         <li>Key services were asked for <code>Decrypt</code> only. No new key was made.</li>\
         <li>Each frame, record and value was opened with AES-256-GCM under the data key in its own header. Its tag binds the file, \
         its place in the file and the zone that it was made in.</li>\
         <li>Each item was compared with what the sealed catalog says: id, kind, place, zone and key version.</li>\
         <li>Every other name in the directory is a finding, and so is an access mode that lets others in.</li></ul></div>\
         <div><h3>What it does not prove</h3><ul>\
         <li>That there is no other copy of the data elsewhere: backups, replicas, memory, swap.</li>\
         <li>That this is the newest state. An older copy of the whole directory is consistent in itself; compare the audit \
         log's head with one that was kept.</li>\
         <li>That the program which wrote the report is the one that it names. Run it from a copy that you trust.</li>\
         <li>Anything about the content of dark items, beyond the form of their headers.</li>\
         <li>That unused space inside the metadata file and on the disk holds nothing.</li></ul></div></div>\n</section>\n",
    );
}

/// What the script shows, with every text that comes again said once.
#[derive(Serialize)]
struct FilesData<'a> {
    kinds: Vec<&'a str>,
    verdicts: Vec<&'a str>,
    owners: Vec<String>,
    zones: Vec<String>,
}

/// Numbers for texts that come again.
struct Numbered<T> {
    known: BTreeMap<T, i64>,
    texts: Vec<T>,
}

impl<T: Ord + Clone> Numbered<T> {
    fn new() -> Self {
        Self {
            known: BTreeMap::new(),
            texts: Vec::new(),
        }
    }
    fn of(&mut self, text: T) -> i64 {
        if let Some(number) = self.known.get(&text) {
            return *number;
        }
        let number = i64::try_from(self.texts.len()).unwrap_or(-1);
        self.known.insert(text.clone(), number);
        self.texts.push(text);
        number
    }
}

fn files(out: &mut impl Write, facts: &Facts<'_>) -> io::Result<()> {
    let items = &facts.verification.items;
    let mut page = String::new();
    put(
        &mut page,
        format_args!(
            "<section id=\"files\">\n<h2>Files</h2>\n<p>All {} items. A metadata value's path is <code>meta.redb:KEY</code>; the bytes of <code>meta.redb</code> itself are those around its values.</p>\n\
             <div class=\"search\" id=\"files-search\" hidden><input id=\"files-query\" type=\"search\" placeholder=\"Search path, kind, \
             owner or zone\" aria-label=\"Search files\"><select id=\"files-verdict\" aria-label=\"Verdict\"><option value=\"\">every \
             verdict</option>",
            counted("totals.items", items.len() as u64)
        ),
    );
    for verdict in Verdict::ALL {
        put(&mut page, format_args!("<option>{}</option>", verdict.as_str()));
    }
    page.push_str(
        "</select></div>\n<table id=\"files-table\"><thead><tr><th>Path</th><th>Kind</th><th>Belongs to</th><th>Zone</th>\
         <th class=\"number\">Key</th><th class=\"number\">Bytes</th><th class=\"number\">Frames</th><th>Verdict</th></tr></thead>\
         <tbody id=\"files-rows\">",
    );
    let collections: BTreeMap<i64, &CollectionReport> = facts
        .verification
        .collections
        .iter()
        .map(|collection| (collection.id.0, collection))
        .collect();
    for item in items.iter().take(ROWS_SHOWN) {
        let zone = item.zone.map(|zone| zone.to_string()).unwrap_or_default();
        put(
            &mut page,
            format_args!(
                "<tr><td class=\"mono\">{}</td><td class=\"nowrap\">{}</td><td>{}</td><td class=\"mono nowrap\" title=\"{zone}\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>",
                escape(&item.path),
                item.kind.as_str(),
                escape(&belongs_to(facts, &collections, item)),
                zone.get(..8).unwrap_or_default(),
                item.version.map(|version| format!("v{version}")).unwrap_or_default(),
                number(item.bytes),
                number(item.frames),
                tag(item.verdict.as_str()),
            ),
        );
    }
    page.push_str(
        "</tbody></table>\n<div class=\"pages\" id=\"files-pages\" hidden><button id=\"files-before\">Before</button><button \
         id=\"files-after\">Next</button><span class=\"soft\" id=\"files-count\"></span></div>\n",
    );
    if items.len() > ROWS_SHOWN {
        put(
            &mut page,
            format_args!(
                "<p class=\"note\">{ROWS_SHOWN} rows are shown at a time, and on paper; <code>evidence.json</code> has all.</p>\n"
            ),
        );
    }
    page.push_str("</section>\n<script type=\"application/json\" id=\"files-data\">");
    out.write_all(page.as_bytes())?;
    rows(out, facts, &collections)?;
    out.write_all(b"</script>\n")
}

/// All items as JSON, row by row.
fn rows(out: &mut impl Write, facts: &Facts<'_>, collections: &BTreeMap<i64, &CollectionReport>) -> io::Result<()> {
    let (mut kinds, mut verdicts) = (Numbered::new(), Numbered::new());
    let (mut owners, mut zones) = (Numbered::new(), Numbered::new());
    out.write_all(b"{\"rows\":[")?;
    for (index, item) in facts.verification.items.iter().enumerate() {
        let owner = text::visible(&belongs_to(facts, collections, item));
        let row = (
            text::visible(&item.path),
            kinds.of(item.kind.as_str()),
            if owner.is_empty() { -1 } else { owners.of(owner) },
            item.zone.map_or(-1, |zone| zones.of(zone.to_string())),
            item.version,
            item.bytes,
            item.frames,
            verdicts.of(item.verdict.as_str()),
        );
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{}", text::json(&row)?)?;
    }
    let data = FilesData {
        kinds: kinds.texts,
        verdicts: verdicts.texts,
        owners: owners.texts,
        zones: zones.texts,
    };
    let rest = text::json(&data)?;
    write!(out, "],{}", rest.trim_start_matches('{'))
}

fn belongs_to(facts: &Facts<'_>, collections: &BTreeMap<i64, &CollectionReport>, item: &saker_engine::Item) -> String {
    let Some(id) = item.collection else {
        return String::new();
    };
    let Some(collection) = collections.get(&id.0) else {
        return format!("collection {id}");
    };
    match facts
        .verification
        .database_name(collection.database)
        .filter(|_| facts.names)
    {
        Some(database) => format!("{database} / {}", collection.name),
        None => format!("database {} / collection {id}", collection.database),
    }
}

fn end(page: &mut String, facts: &Facts<'_>, sha256: &str) {
    put(
        page,
        format_args!(
            "<footer><p>Written by saker {} at {} UTC. To check that <code>evidence.json</code> is the one that this page was made \
             with: <code>sha256sum evidence.json</code> gives <code>{sha256}</code>.</p></footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            escape(&to_text(facts.finished_ms)),
        ),
    );
}
