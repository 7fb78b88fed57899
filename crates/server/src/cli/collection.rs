//! `saker collection move` and `saker receipt list|show`, against a running server.

use clap::Args;
use serde_json::{Value, json};

use super::{Failed, Outcome, client::Client, output};

#[derive(Debug, Args)]
pub(super) struct MoveOptions {
    /// The collection: DATABASE.COLLECTION
    #[arg(value_name = "DATABASE.COLLECTION")]
    collection: String,
    /// The database that it goes to
    #[arg(long, value_name = "DATABASE")]
    to: String,
    /// Its name there; left out, it keeps its name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    #[command(flatten)]
    client: Client,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowOptions {
    /// The receipt's id
    id: String,
    #[command(flatten)]
    client: Client,
    /// Write JSON, to be kept as a file
    #[arg(long)]
    json: bool,
}

pub(super) async fn move_to(options: MoveOptions) -> Result<Outcome, Failed> {
    // Neither kind of name may hold a dot.
    let (database, collection) = options
        .collection
        .split_once('.')
        .ok_or("name the collection with its database: DATABASE.COLLECTION")?;
    let request = json!({
        "dbName": database,
        "collectionName": collection,
        "toDbName": options.to,
        "newName": options.name,
    });
    let moved = options.client.post("/v2/cmek/collections/move", &request).await?;
    if options.json {
        output::line(moved);
    } else {
        let what = match moved["ownKey"].as_bool() {
            Some(true) => "it keeps its own key".to_owned(),
            _ => format!("{} headers wrapped anew", moved["headers"]),
        };
        output::line(format_args!(
            "moved to {}.{}: {what}",
            text(&moved, "dbName"),
            text(&moved, "collectionName")
        ));
    }
    Ok(Outcome::Done)
}

pub(super) async fn list_receipts(options: ListOptions) -> Result<Outcome, Failed> {
    let receipts = options.client.get("/v2/cmek/receipts").await?;
    if options.json {
        output::line(receipts);
        return Ok(Outcome::Done);
    }
    for receipt in receipts.as_array().into_iter().flatten() {
        output::line(format_args!(
            "{}  {}  {:<10}  {}  {} data keys, {} zone keys{}",
            text(receipt, "id"),
            date(&receipt["begunMs"]),
            text(receipt, "kind"),
            named(receipt),
            receipt["dataKeys"],
            receipt["zoneKeys"].as_array().map_or(0, Vec::len),
            if receipt["finishedMs"].is_null() {
                "  under way"
            } else {
                ""
            },
        ));
    }
    Ok(Outcome::Done)
}

pub(super) async fn show_receipt(options: ShowOptions) -> Result<Outcome, Failed> {
    if options.id.contains(['/', '?', '#', '%']) {
        return Err("that is no receipt's id".into());
    }
    let receipt = options.client.get(&format!("/v2/cmek/receipts/{}", options.id)).await?;
    if options.json {
        output::line(receipt);
        return Ok(Outcome::Done);
    }
    let lines = [
        ("receipt", text(&receipt, "id").to_owned()),
        ("dropped", format!("{} {}", text(&receipt, "kind"), named(&receipt))),
        ("begun", date(&receipt["begunMs"])),
        ("finished", date(&receipt["finishedMs"])),
        ("root key", text(&receipt, "root").to_owned()),
        ("zone", text(&receipt, "zone").to_owned()),
        (
            "shredded",
            format!(
                "{} files, {} log segments, {} metadata values, {} bytes",
                receipt["files"], receipt["logSegments"], receipt["values"], receipt["bytes"]
            ),
        ),
        ("data keys", receipt["dataKeys"].to_string()),
        ("  SHA-256", text(&receipt, "dataKeysSha256").to_owned()),
    ];
    for (name, value) in lines {
        output::line(format_args!("{name:<10}  {value}"));
    }
    for key in receipt["zoneKeys"].as_array().into_iter().flatten() {
        output::line(format_args!(
            "{:<10}  version {} of zone {}, under {}",
            "zone key",
            key["version"],
            text(key, "zone"),
            text(key, "root")
        ));
        output::line(format_args!("{:<10}  {}", "  SHA-256", text(key, "wrappedSha256")));
    }
    Ok(Outcome::Done)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn named(receipt: &Value) -> String {
    match receipt["collection"].as_str() {
        Some(collection) => format!("{}.{collection}", text(receipt, "database")),
        None => text(receipt, "database").to_owned(),
    }
}

/// Unix milliseconds as a date in UTC.
fn date(ms: &Value) -> String {
    let Some(ms) = ms.as_u64() else {
        return "under way".to_owned();
    };
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        for (ms, expected) in [
            (0_u64, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(date(&json!(ms)), expected);
        }
        assert_eq!(date(&Value::Null), "under way");
    }
}
