//! The pictures of the page, as SVG without anything from elsewhere. Colours come from the page's style sheet by class, so
//! that they follow light, dark and print.

use std::fmt::Write as _;

use saker_engine::Verdict;

use super::{
    Facts,
    summary::{Summary, Tally, owner_label},
    text::{bytes, escape, number, root_key, shortened},
};

/// Zones that the pictures show one by one; the tables have all of them.
const ZONES_SHOWN: usize = 24;
/// Of one root key.
const ZONES_SHOWN_PER_ROOT: usize = 8;
/// Bars of key versions, and versions that stand beside one.
const BARS_SHOWN: usize = 16;
const VERSIONS_SAID: usize = 3;

/// Which share of all items and bytes has which verdict.
pub(super) fn coverage(summary: &Summary<'_>) -> String {
    let mut svg = svg(
        960,
        132,
        "Coverage: which share of all items, and of all bytes, has which verdict",
    );
    type PartOf = fn(&Tally) -> u64;
    let rows: [(&str, PartOf, u64); 2] = [
        ("items", |tally| tally.items, summary.all.items),
        ("bytes", |tally| tally.bytes, summary.all.bytes),
    ];
    for (row, (label, part, all)) in rows.into_iter().enumerate() {
        let top = 8 + row * 62;
        put(
            &mut svg,
            format_args!("<text class=\"axis\" x=\"0\" y=\"{}\">{label}</text>", top + 27),
        );
        // What is there at all can be seen, and all of it fits.
        let wide = |tally: &Tally| match part(tally) {
            0 => 0.0,
            value => (share(value, all) * 890.0).max(3.0) + 1.0,
        };
        let scale = 890.0
            / summary
                .by_verdict
                .iter()
                .map(|(_, tally)| wide(tally))
                .sum::<f64>()
                .max(1.0);
        let mut left = 70.0;
        for (verdict, tally) in &summary.by_verdict {
            let value = part(tally);
            if value == 0 {
                continue;
            }
            let width = wide(tally) * scale - 1.0;
            put(
                &mut svg,
                format_args!(
                    "<rect class=\"v-{name}\" x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"42\" rx=\"3\">\
                     <title>{name}: {exact} {label}</title></rect>",
                    name = verdict.as_str(),
                    exact = number(value),
                ),
            );
            if width > 120.0 {
                let shown = if label == "bytes" { bytes(value) } else { number(value) };
                put(
                    &mut svg,
                    format_args!(
                        "<text class=\"in-bar\" x=\"{:.1}\" y=\"{}\">{} {shown}</text>",
                        left + 12.0,
                        top + 27,
                        verdict.as_str(),
                    ),
                );
            }
            left += width + 1.0;
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Root keys, the zones whose keys they wrap, and the files under those.
pub(super) fn hierarchy(facts: &Facts<'_>, summary: &Summary<'_>) -> String {
    let rows = hierarchy_rows(facts, summary);
    let height = 44 + rows.iter().map(Root::height).sum::<usize>();
    let mut svg = svg(
        960,
        height,
        "Hierarchy: root keys, zones, and the files under each zone",
    );
    for (x, title) in [(0, "Root key"), (360, "Zone key (EZK)"), (720, "Sealed under it")] {
        put(
            &mut svg,
            format_args!("<text class=\"column\" x=\"{x}\" y=\"16\">{title}</text>"),
        );
    }
    let mut top = 32;
    for root in &rows {
        draw_root(&mut svg, root, top);
        top += root.height();
    }
    svg.push_str("</svg>");
    svg
}

struct Root {
    title: String,
    line: String,
    full: String,
    dark: bool,
    leaves: Vec<Leaf>,
}

/// A zone, or the rest of a root key's zones.
struct Leaf {
    title: String,
    line: String,
    full: String,
    files: String,
    size: String,
    path: Option<usize>,
    dark: bool,
}

const LEAF_HEIGHT: usize = 56;
const ROOT_GAP: usize = 18;

impl Root {
    fn height(&self) -> usize {
        self.leaves.len().max(1) * LEAF_HEIGHT + ROOT_GAP
    }
}

fn hierarchy_rows(facts: &Facts<'_>, summary: &Summary<'_>) -> Vec<Root> {
    let mut shown = 0;
    let mut rows = Vec::new();
    for root in &summary.roots {
        let (name, place) = root_key(root.root.as_str());
        let few = ZONES_SHOWN_PER_ROOT.min(ZONES_SHOWN.saturating_sub(shown)).max(1);
        // One that is left over is shown and not counted.
        let few = if root.zones.len() == few + 1 { few + 1 } else { few };
        let mut leaves: Vec<Leaf> = root
            .zones
            .iter()
            .take(few)
            .filter_map(|place| leaf(facts, summary, *place))
            .collect();
        shown += leaves.len();
        let rest = root.zones.get(few..).unwrap_or_default();
        if !rest.is_empty() {
            leaves.push(rest_of(summary, rest));
        }
        rows.push(Root {
            title: name,
            line: place,
            full: root.root.to_string(),
            dark: root.state() == "dark",
            leaves,
        });
    }
    rows
}

fn leaf(facts: &Facts<'_>, summary: &Summary<'_>, place: usize) -> Option<Leaf> {
    let zone = summary.zones.get(place)?;
    let versions: Vec<u32> = zone.report.versions.iter().map(|version| version.version).collect();
    let versions = match versions[..] {
        [] => "no version".to_owned(),
        [one] => format!("version {one}"),
        [first, .., last] => format!("{} versions, {first} to {last}", versions.len()),
    };
    let role = match zone.report.role.as_str() {
        "zone" => String::new(),
        other => format!(" · {other}"),
    };
    Some(Leaf {
        title: shortened(&owner_label(facts, zone.report.owner), 30),
        line: format!("{versions}{role}"),
        full: format!("zone {}", zone.report.zone),
        files: number(zone.all.items),
        size: bytes(zone.all.bytes),
        path: Some(place),
        dark: zone.report.dark.is_some(),
    })
}

fn rest_of(summary: &Summary<'_>, places: &[usize]) -> Leaf {
    let zones = places.iter().filter_map(|place| summary.zones.get(*place));
    let (mut all, mut dark) = (Tally::default(), 0_usize);
    for zone in zones {
        all.items += zone.all.items;
        all.bytes += zone.all.bytes;
        dark += usize::from(zone.report.dark.is_some());
    }
    Leaf {
        title: format!("{} more zones", number(places.len() as u64)),
        line: if dark == 0 {
            "in the table below".to_owned()
        } else {
            format!("{dark} of them dark")
        },
        full: "all of them are in the table of zones".to_owned(),
        files: number(all.items),
        size: bytes(all.bytes),
        path: None,
        dark: dark == places.len(),
    }
}

fn draw_root(svg: &mut String, root: &Root, top: usize) {
    let span = root.leaves.len().max(1) * LEAF_HEIGHT;
    let middle = top + span / 2;
    let state = if root.dark { " dark" } else { "" };
    for (index, leaf) in root.leaves.iter().enumerate() {
        let center = top + index * LEAF_HEIGHT + LEAF_HEIGHT / 2;
        put(
            svg,
            format_args!("<path class=\"link\" d=\"M280 {middle} C 320 {middle}, 320 {center}, 360 {center}\"/>"),
        );
        put(svg, format_args!("<path class=\"link\" d=\"M640 {center} H 720\"/>"));
        let state = if leaf.dark { " dark" } else { "" };
        draw_box(
            svg,
            &format!("zone{state}"),
            360,
            center - 23,
            &leaf.title,
            &leaf.line,
            &leaf.full,
        );
        let (files, size) = match leaf.path {
            Some(place) => (
                format!("<tspan data-json=\"zones.{place}.items\">{}</tspan> items", leaf.files),
                format!(
                    "<tspan data-json=\"zones.{place}.bytes\" data-unit=\"bytes\">{}</tspan>",
                    leaf.size
                ),
            ),
            None => (format!("{} items", leaf.files), leaf.size.clone()),
        };
        put(
            svg,
            format_args!(
                "<text class=\"title\" x=\"732\" y=\"{}\">{files}</text><text class=\"line\" x=\"732\" y=\"{}\">{size}{}</text>",
                center - 3,
                center + 15,
                if leaf.dark { " · dark" } else { "" },
            ),
        );
    }
    draw_box(
        svg,
        &format!("root{state}"),
        0,
        middle - 23,
        &root.title,
        &root.line,
        &root.full,
    );
}

fn draw_box(svg: &mut String, class: &str, x: usize, y: usize, title: &str, line: &str, full: &str) {
    put(
        svg,
        format_args!(
            "<g class=\"{class}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"280\" height=\"46\" rx=\"7\"/>\
             <text class=\"title\" x=\"{left}\" y=\"{}\">{}</text><text class=\"line\" x=\"{left}\" y=\"{}\">{}</text></g>",
            escape(full),
            y + 20,
            escape(title),
            y + 37,
            escape(line),
            left = x + 14,
        ),
    );
}

/// How many items of each zone are under which version of its key.
pub(super) fn versions(facts: &Facts<'_>, summary: &Summary<'_>) -> String {
    let mut places: Vec<usize> = (0..summary.zones.len()).collect();
    // Zones on their way through a rotation first.
    places.sort_by_key(|place| {
        let zone = summary.zones.get(*place);
        std::cmp::Reverse(zone.map_or((0, 0), |zone| (zone.report.versions.len(), zone.all.items)))
    });
    places.truncate(BARS_SHOWN);
    let zones = || places.iter().filter_map(|place| summary.zones.get(*place));
    let longest = zones().map(|zone| zone.all.items).max().unwrap_or_default();
    let mut svg = svg(
        960,
        places.len() * 38 + 8,
        "Versions of each zone's key, and how many items are under each",
    );
    for (row, place) in places.iter().enumerate() {
        let Some(zone) = summary.zones.get(*place) else {
            continue;
        };
        let top = 4 + row * 38;
        let label = shortened(&owner_label(facts, zone.report.owner), 26);
        put(
            &mut svg,
            format_args!(
                "<text class=\"axis\" x=\"0\" y=\"{}\">{}</text>",
                top + 20,
                escape(&label)
            ),
        );
        let newest = zone.report.versions.len().saturating_sub(1);
        let (mut left, mut says) = (220.0, Vec::new());
        for (index, (version, tally)) in zone.report.versions.iter().zip(&zone.by_version).enumerate() {
            let items = number(tally.items);
            says.push(format!(
                "v{} · <tspan data-json=\"zones.{place}.versions.{index}.items\">{items}</tspan>",
                version.version
            ));
            if tally.items == 0 {
                continue;
            }
            let width = (share(tally.items, longest) * 520.0).max(3.0);
            let class = if index == newest { "newest" } else { "older" };
            put(
                &mut svg,
                format_args!(
                    "<rect class=\"bar {class}\" x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"28\" rx=\"3\">\
                     <title>version {}: {items} items</title></rect>",
                    version.version,
                ),
            );
            left += width + 1.0;
        }
        // The newest ones say most; the table has all.
        let hidden = says.len().saturating_sub(VERSIONS_SAID);
        let before = if hidden > 0 { "… " } else { "" };
        let says = says.get(hidden..).unwrap_or_default().join(", ");
        put(
            &mut svg,
            format_args!(
                "<text class=\"axis\" x=\"{:.1}\" y=\"{}\">{before}{says}</text>",
                left + 10.0,
                top + 20
            ),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Whether the pictures leave zones out.
pub(super) fn leaves_out(summary: &Summary<'_>) -> bool {
    summary.zones.len() > BARS_SHOWN.min(ZONES_SHOWN_PER_ROOT)
}

/// The small square of a legend.
pub(super) fn swatch(verdict: Verdict) -> String {
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect class=\"v-{}\" width=\"12\" height=\"12\" \
         rx=\"2\"/></svg>",
        verdict.as_str()
    )
}

fn svg(width: usize, height: usize, label: &str) -> String {
    format!("<svg class=\"picture\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">")
}

#[expect(clippy::cast_precision_loss, reason = "a length on a screen")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    let _never_fails = svg.write_fmt(text);
}
