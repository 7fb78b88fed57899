//! What an attacker with the disk may do to it, one change at a time, and that an offline walk notices every one.
//!
//! Also: that the walk itself changes nothing, asks for `Decrypt` alone, and knows dark from damaged.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use saker_engine::{Engine, FindingClass, ItemKind, JobState, Verdict, Verification, WalkObserver, verify};
use saker_keyring::{Denial, Outage, RootKeyId};
use saker_storage::ReadOnlyStores;
use saker_testing::KmsAnswer;

use crate::{
    common::{Cluster, collection, eventually, insert, loaded},
    sealed::walk as files_under,
};

#[derive(Debug, Default)]
struct Quiet;

impl WalkObserver for Quiet {
    fn on_progress(&self, seen: u64, total: u64) {
        assert!(seen <= total);
    }
    fn on_platform_record(&self, _stream: &str, _sequence: u64, _record: u64, _plain: &[u8]) {}
}

async fn look(cluster: &Cluster, dir: &Path) -> Verification {
    let stores = ReadOnlyStores::open(dir).unwrap();
    verify(Arc::new(stores), &*cluster.kms, Arc::new(Quiet)).await
}

/// A database under a key of its own (its second), one under the platform's, each with sealed files and a log.
struct Disk {
    cluster: Cluster,
    dir: PathBuf,
    other: RootKeyId,
}

impl Disk {
    async fn new() -> Self {
        let cluster = Cluster::new();
        let other = cluster.kms.add_root();
        let engine = cluster.open().await;
        cluster.database(&engine, "ours").await;
        let properties = [("cipher.enabled", "true"), ("cipher.key", other.as_str())];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        engine.create_database("theirs", properties).await.unwrap();
        for database in ["ours", "theirs", "default"] {
            collection(&engine, database, "c", "AUTOINDEX").await;
            insert(&engine, database, "c", 0..600).await;
            engine.flush(database, &["c".into()]).await.unwrap();
            engine
                .delete(database, "c", None, crate::common::filter("id == 3"))
                .await
                .unwrap();
            engine.flush(database, &["c".into()]).await.unwrap();
            for first in 600..604 {
                insert(&engine, database, "c", first..first + 1).await;
            }
        }
        let dir = cluster.dir.clone();
        let disk = Self { cluster, dir, other };
        disk.at_rest(engine).await;
        disk
    }
    /// Stops the engine. What a build or merge leaves that this interrupts is no change that somebody made, so the next
    /// start tidies it up first.
    async fn at_rest(&self, mut engine: Arc<Engine>) {
        for _ in 0..20 {
            for database in ["ours", "theirs", "default"] {
                loaded(&engine, database, "c").await;
                eventually("every segment has its index", || async {
                    let indexes = engine.describe_index(database, "c", "").await.unwrap();
                    indexes.iter().all(|index| index.indexed_rows == index.total_rows)
                })
                .await;
            }
            engine.shutdown().await;
            drop(engine);
            if self.look().await.findings.is_empty() {
                return;
            }
            engine = self.cluster.open().await;
        }
        panic!("{:?}", self.look().await.findings);
    }
    async fn look(&self) -> Verification {
        look(&self.cluster, &self.dir).await
    }
    async fn is_whole(&self) -> Verification {
        let report = self.look().await;
        assert_eq!(report.findings, []);
        report
    }
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        files_under(&self.dir.join(part), &mut files);
        files.retain(|path| path.file_name().is_some_and(|name| name != ".headers"));
        files.sort();
        files
    }
    /// Sealed files of one database.
    async fn objects_of(&self, database: &str) -> Vec<PathBuf> {
        let report = self.look().await;
        let database = report.databases.iter().find(|found| found.name == database).unwrap().id;
        let collections: Vec<_> = report
            .collections
            .iter()
            .filter(|collection| collection.database == database)
            .map(|collection| collection.id)
            .collect();
        let items = report.items.iter().filter(|item| {
            let object = matches!(item.kind, ItemKind::Column | ItemKind::Index | ItemKind::Deletes);
            object && item.collection.is_some_and(|id| collections.contains(&id))
        });
        items.map(|item| self.dir.join(&item.path)).collect()
    }
}

/// Counts changes and those that were noticed.
#[derive(Debug, Default)]
struct Matrix(BTreeMap<&'static str, (u64, u64)>);

impl Matrix {
    /// Makes `path` hold `content`, looks, and puts it back.
    async fn change(&mut self, disk: &Disk, kind: &'static str, path: &Path, content: &[u8]) {
        let before = fs::read(path).unwrap();
        assert_ne!(before, content, "{kind}: no change");
        put(path, content);
        let report = disk.look().await;
        put(path, &before);
        self.count(disk, kind, path, &report);
    }
    /// A change is noticed if there is a finding, and every finding names the file.
    fn count(&mut self, disk: &Disk, kind: &'static str, path: &Path, report: &Verification) {
        let inside = path.strip_prefix(&disk.dir).unwrap().to_string_lossy().into_owned();
        let named = report.findings.iter().any(|finding| finding.what.starts_with(&inside));
        let (tried, caught) = self.0.entry(kind).or_default();
        *tried += 1;
        *caught += u64::from(named);
        assert!(named, "{kind} of {inside} was not noticed: {:?}", report.findings);
    }
    fn say(&self, at_least: u64) {
        let (tried, caught) = self
            .0
            .values()
            .fold((0, 0), |(tried, caught), (a, b)| (tried + a, caught + b));
        #[expect(clippy::print_stdout, reason = "the figure that this test is for")]
        {
            println!("tamper cases: {tried} tried, {caught} caught: {:?}", self.0);
        }
        assert_eq!(tried, caught);
        assert!(tried >= at_least, "{tried}");
    }
}

fn put(path: &Path, content: &[u8]) {
    let there = path.exists();
    #[expect(clippy::disallowed_methods, reason = "this is the attacker")]
    fs::write(path, content).unwrap();
    if !there {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn flipped(content: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut content = content.to_vec();
    content[at] ^= 1 << (bit % 8);
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_to_a_sealed_file_is_noticed() {
    let disk = Disk::new().await;
    let whole = disk.is_whole().await;
    let mut matrix = Matrix::default();
    let ours = disk.objects_of("ours").await;
    let theirs = disk.objects_of("theirs").await;
    assert!(ours.len() >= 6 && theirs.len() == ours.len());

    // Every byte of one header, one bit each.
    let content = fs::read(&ours[0]).unwrap();
    for at in 0..192 {
        let bit = u8::try_from(at % 8).unwrap();
        matrix
            .change(&disk, "bit in a header", &ours[0], &flipped(&content, at, bit))
            .await;
    }
    for path in ours.iter().chain(&theirs) {
        let content = fs::read(path).unwrap();
        for at in [0, 12, 16, 40, 50, 90, 112, 128, 131, 132, 160, 191] {
            matrix
                .change(&disk, "bit in a header", path, &flipped(&content, at, 3))
                .await;
        }
        for at in [192, 204, content.len() / 2, content.len() - 17, content.len() - 1] {
            matrix
                .change(&disk, "bit in a frame", path, &flipped(&content, at, 5))
                .await;
        }
        for length in [
            0,
            1,
            100,
            191,
            192,
            193,
            219,
            content.len() / 2,
            content.len() - 28,
            content.len() - 1,
        ] {
            matrix
                .change(&disk, "cut", path, &content[..length.min(content.len() - 1)])
                .await;
        }
        for more in [1, 28, 29, 1_000, 65_564] {
            let longer = [&content[..], &vec![0; more]].concat();
            matrix.change(&disk, "extended", path, &longer).await;
        }
        let twice = [&content[..], &content[192..]].concat();
        matrix.change(&disk, "extended", path, &twice).await;
    }
    for (index, path) in ours.iter().enumerate() {
        let content = fs::read(path).unwrap();
        let other = fs::read(&ours[(index + 1) % ours.len()]).unwrap();
        matrix
            .change(&disk, "another file of the collection", path, &other)
            .await;
        let foreign = fs::read(&theirs[index]).unwrap();
        matrix.change(&disk, "file from another zone", path, &foreign).await;
        for other in [&other, &foreign] {
            let mixed = [&other[..192], &content[192..]].concat();
            matrix.change(&disk, "header of another file", path, &mixed).await;
        }
        let slot = [&content[..112], &foreign[112..192], &content[192..]].concat();
        matrix.change(&disk, "key slot of another file", path, &slot).await;
        fs::remove_file(path).unwrap();
        let report = disk.look().await;
        put(path, &content);
        matrix.count(&disk, "removed", path, &report);
        let copy = path.with_file_name("00000000-0000-4000-8000-000000000000");
        put(&copy, &content);
        let report = disk.look().await;
        matrix.count(&disk, "copy under another name", &copy, &report);
        fs::remove_file(&copy).unwrap();
    }
    assert_eq!(disk.is_whole().await, whole);
    matrix.say(600);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_to_the_log_is_noticed() {
    let disk = Disk::new().await;
    let whole = disk.is_whole().await;
    let mut matrix = Matrix::default();
    let segments: Vec<PathBuf> = disk
        .files("log")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    assert!(segments.len() >= 3);
    for (index, path) in segments.iter().enumerate() {
        let content = fs::read(path).unwrap();
        for at in (0..content.len()).step_by(content.len() / 60 + 1) {
            matrix
                .change(&disk, "bit in a log segment", path, &flipped(&content, at, 1))
                .await;
        }
        for length in [0, 10, 39, 100, 231, content.len() / 2, content.len() - 1] {
            matrix
                .change(
                    &disk,
                    "cut log segment",
                    path,
                    &content[..length.min(content.len() - 1)],
                )
                .await;
        }
        matrix
            .change(&disk, "extended log segment", path, &[&content[..], b"more"].concat())
            .await;
        let other = fs::read(&segments[(index + 1) % segments.len()]).unwrap();
        matrix.change(&disk, "another log segment", path, &other).await;
    }
    assert_eq!(disk.is_whole().await, whole);
    matrix.say(150);
}

/// Records that are whole for the log's own checksums, and yet not what was written.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_not_exchanged_repeated_or_left_out() {
    let disk = Disk::new().await;
    let mut matrix = Matrix::default();
    for path in disk
        .files("log")
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
    {
        let content = fs::read(path).unwrap();
        let (start, groups) = groups_of(&content);
        if groups.len() < 3 {
            continue;
        }
        let join = |order: &[usize]| {
            let mut bytes = content[..start].to_vec();
            order
                .iter()
                .for_each(|index| bytes.extend_from_slice(&content[groups[*index].clone()]));
            bytes
        };
        let all: Vec<usize> = (0..groups.len()).collect();
        let mut exchanged = all.clone();
        exchanged.swap(0, 1);
        matrix.change(&disk, "exchanged records", path, &join(&exchanged)).await;
        matrix.change(&disk, "record left out", path, &join(&all[1..])).await;
        matrix
            .change(&disk, "record repeated", path, &join(&[&all[..], &[0]].concat()))
            .await;
        // An altered record with checksums to match.
        let mut altered = content.clone();
        let group = groups[1].clone();
        altered[group.start + 40] ^= 1;
        renew_checksums(&mut altered, group);
        matrix
            .change(&disk, "altered record, right checksum", path, &altered)
            .await;
    }
    disk.is_whole().await;
    matrix.say(8);
}

/// Where the groups of a log segment lie (`docs/formats.md`, log segment file).
fn groups_of(content: &[u8]) -> (usize, Vec<std::ops::Range<usize>>) {
    let word = |at: usize| u32::from_le_bytes(content[at..at + 4].try_into().unwrap()) as usize;
    let start = 40 + word(12);
    let (mut at, mut groups) = (start, Vec::new());
    while at < content.len() {
        let end = at + 20 + word(at + 4);
        groups.push(at..end);
        at = end;
    }
    (start, groups)
}

fn renew_checksums(content: &mut [u8], group: std::ops::Range<usize>) {
    let at = group.start;
    let body = crc32(&content[at + 20..group.end]);
    content[at + 12..at + 16].copy_from_slice(&body.to_le_bytes());
    let head = crc32(&content[at..at + 16]);
    content[at + 16..at + 20].copy_from_slice(&head.to_le_bytes());
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_values_are_not_altered_exchanged_or_taken_away() {
    let disk = Disk::new().await;
    let whole = disk.is_whole().await;
    let mut matrix = Matrix::default();
    let path = disk.dir.join("meta.redb");
    let before = fs::read(&path).unwrap();
    let values = values_of(&path);
    let mut named = |kind: &'static str, key: &str, report: &Verification| {
        let what = format!("meta.redb:{key}");
        let found = report.findings.iter().any(|finding| finding.what == what);
        let (tried, caught) = matrix.0.entry(kind).or_default();
        *tried += 1;
        *caught += u64::from(found);
        assert!(found, "{kind} {key}: {:?}", report.findings);
    };
    for (index, (key, value)) in values.iter().enumerate() {
        for at in [0, 20, 50, 100, 120, 140, 200, value.len() - 1] {
            // A bootstrap record has a checksum, not a seal.
            set_value(&path, key, Some(&flipped(value, at.min(value.len() - 1), 2)));
            named("bit in a metadata value", key, &disk.look().await);
        }
        set_value(&path, key, Some(&value[..value.len() - 1]));
        named("cut metadata value", key, &disk.look().await);
        set_value(&path, key, Some(b"{\"name\":\"in the clear\"}"));
        named("unsealed metadata value", key, &disk.look().await);
        let other = &values[(index + 1) % values.len()];
        set_value(&path, key, Some(&other.1));
        named("exchanged metadata value", key, &disk.look().await);
        put(&path, &before);
    }
    for (key, _) in values
        .iter()
        .filter(|(key, _)| key.starts_with("body/") || key.starts_with("manifest/"))
    {
        set_value(&path, key, None);
        named("removed metadata value", key, &disk.look().await);
        put(&path, &before);
    }
    // A new value where there was none: another database's, and plaintext.
    let database = values.iter().find(|(key, _)| key.starts_with("database/")).unwrap();
    for (kind, value) in [
        ("copied metadata value", &database.1[..]),
        ("unsealed metadata value", b"rows"),
    ] {
        set_value(&path, "database/999", Some(value));
        named(kind, "database/999", &disk.look().await);
        put(&path, &before);
    }
    assert_eq!(disk.is_whole().await, whole);
    matrix.say(100);

    // A table beside ours could hold anything.
    let beside = redb::TableDefinition::<&str, &[u8]>::new("beside");
    edit(&path, |transaction| {
        transaction
            .open_table(beside)
            .unwrap()
            .insert("a", &b"rows"[..])
            .unwrap();
    });
    assert!(
        disk.look()
            .await
            .findings
            .iter()
            .any(|finding| finding.what == "meta.redb")
    );
    for content in [&b""[..], b"rows in the clear", &before[..before.len() / 2]] {
        put(&path, content);
        let report = disk.look().await;
        assert!(
            report.findings.iter().any(|finding| finding.what == "meta.redb"),
            "{:?}",
            report.findings
        );
        assert!(report.items.len() > 10, "the walk goes on");
    }
    fs::remove_file(&path).unwrap();
    assert!(!disk.look().await.is_sound() && !path.exists());
}

const VALUES: redb::TableDefinition<'static, &'static str, &'static [u8]> = redb::TableDefinition::new("values");

fn values_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    use redb::{ReadableDatabase as _, ReadableTable as _};
    let database = redb::Database::open(path).unwrap();
    let table = database.begin_read().unwrap().open_table(VALUES).unwrap();
    let entries = table.iter().unwrap().map(|entry| entry.unwrap());
    entries
        .map(|(key, value)| (key.value().to_owned(), value.value().to_vec()))
        .collect()
}

fn set_value(path: &Path, key: &str, value: Option<&[u8]>) {
    edit(path, |transaction| {
        let mut table = transaction.open_table(VALUES).unwrap();
        match value {
            Some(value) => drop(table.insert(key, value).unwrap()),
            None => drop(table.remove(key).unwrap()),
        }
    });
}

fn edit(path: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_header_is_not_accepted_after_a_rotation() {
    let disk = Disk::new().await;
    let ours = disk.objects_of("ours").await;
    let old: Vec<Vec<u8>> = ours.iter().map(|path| fs::read(path).unwrap()).collect();
    let engine = disk.cluster.open().await;
    finished(&engine, engine.rotate_key("ours", None).await.unwrap().id).await;
    engine.shutdown().await;
    drop(engine);
    let report = disk.is_whole().await;
    assert!(
        report
            .zones
            .iter()
            .any(|zone| zone.versions.iter().any(|version| version.version == 2))
    );
    let mut matrix = Matrix::default();
    for (path, old) in ours.iter().zip(&old) {
        let content = fs::read(path).unwrap();
        assert_eq!(content[192..], old[192..], "a rotation touches headers alone");
        matrix
            .change(&disk, "older header", path, &[&old[..192], &content[192..]].concat())
            .await;
        matrix
            .change(&disk, "older key slot", path, &[&content[..112], &old[112..]].concat())
            .await;
        // An old header that claims the new version.
        let mut claims = old.clone();
        claims[128..132].copy_from_slice(&content[128..132]);
        matrix
            .change(&disk, "older header with the new version", path, &claims)
            .await;
    }
    matrix.say(15);
}

async fn finished(engine: &Arc<Engine>, job: i64) {
    eventually("the job is done", || async {
        engine
            .jobs()
            .iter()
            .any(|found| found.id == job && found.state == JobState::Done)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_lies_in_the_directory_is_noticed() {
    let disk = Disk::new().await;
    let mut matrix = Matrix::default();
    let object = disk.objects_of("ours").await[0].clone();
    let near = object.parent().unwrap();
    let stream = disk.files("log")[0].parent().unwrap().to_owned();
    for path in [
        disk.dir.join("rows.csv"),
        disk.dir.join("objects/rows.parquet"),
        disk.dir.join("objects/.rows"),
        disk.dir.join("log/rows"),
        near.join("rows"),
        near.join("rows#12"),
        near.join("rows#12a"),
        stream.join("00000000000000000009.log"),
        stream.join("00000000000000000009.floor"),
        stream.join("00000000000000000009.log.new"),
        stream.join("rows"),
        disk.dir.join("meta.redb.new"),
        disk.dir.join("objects/.headers"),
        disk.dir.join("SAKER"),
        disk.dir.join("LOCK"),
    ] {
        let before = fs::read(&path).ok();
        put(&path, b"rows in the clear");
        let report = disk.look().await;
        matrix.count(&disk, "plaintext beside", &path, &report);
        let unsealed = report
            .findings
            .iter()
            .any(|finding| finding.class == FindingClass::Unsealed);
        assert!(
            unsealed || path.ends_with("SAKER"),
            "{}: {:?}",
            path.display(),
            report.findings
        );
        match before {
            Some(before) => put(&path, &before),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    // Left-overs are told apart from plaintext.
    let sealed = fs::read(&object).unwrap();
    for name in ["x#1", "x#2"] {
        let path = near.join(name);
        put(&path, if name == "x#1" { &sealed[..300] } else { b"" });
        let report = disk.look().await;
        matrix.count(&disk, "left-over", &path, &report);
        assert!(
            report
                .findings
                .iter()
                .all(|finding| finding.class == FindingClass::Leftover)
        );
        fs::remove_file(path).unwrap();
    }
    let link = disk.dir.join("objects/link");
    std::os::unix::fs::symlink(&object, &link).unwrap();
    let report = disk.look().await;
    matrix.count(&disk, "link", &link, &report);
    fs::remove_file(link).unwrap();
    let directory = disk.dir.join("dump");
    fs::create_dir(&directory).unwrap();
    let report = disk.look().await;
    matrix.count(&disk, "directory", &directory, &report);
    fs::remove_dir(directory).unwrap();
    for (path, mode) in [
        (object.clone(), 0o640),
        (object, 0o604),
        (disk.dir.join("meta.redb"), 0o644),
        (disk.files("log")[0].clone(), 0o660),
        (disk.dir.join("objects"), 0o755),
        (disk.dir.join("log"), 0o701),
        (disk.dir.join("SAKER"), 0o644),
    ] {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let report = disk.look().await;
        fs::set_permissions(&path, before).unwrap();
        matrix.count(&disk, "wider access mode", &path, &report);
        assert!(
            report
                .findings
                .iter()
                .all(|finding| finding.class == FindingClass::Mode)
        );
    }
    disk.is_whole().await;
    matrix.say(25);
}

#[tokio::test(flavor = "multi_thread")]
async fn dark_is_not_damaged() {
    let disk = Disk::new().await;
    let whole = disk.is_whole().await;
    let ours = disk.objects_of("ours").await;
    let inside = |path: &Path| path.strip_prefix(&disk.dir).unwrap().to_string_lossy().into_owned();
    for answer in [KmsAnswer::Deny(Denial::Disabled), KmsAnswer::Fail(Outage::Unreachable)] {
        disk.cluster.kms.set(&disk.cluster.customer, answer);
        let report = disk.is_whole().await;
        let dark: Vec<_> = report.dark().collect();
        assert_eq!(dark.len(), 1);
        assert_eq!(dark[0].root, disk.cluster.customer);
        for path in &ours {
            let item = report.items.iter().find(|item| item.path == inside(path)).unwrap();
            assert_eq!((item.verdict, item.zone), (Verdict::Dark, Some(dark[0].zone)));
        }
        let opened = |report: &Verification| report.count(Verdict::Verified).0;
        assert_eq!(opened(&report) + report.count(Verdict::Dark).0, opened(&whole));
        // The form of a dark header is looked at all the same, and its zone.
        let content = fs::read(&ours[0]).unwrap();
        let foreign = fs::read(&disk.objects_of("theirs").await[0]).unwrap();
        let mut matrix = Matrix::default();
        for at in [0, 8, 13, 14, 15, 20, 115, 129] {
            matrix
                .change(&disk, "bit in a dark header", &ours[0], &flipped(&content, at, 6))
                .await;
        }
        for altered in [&content[..100], &content[..220 - 1], &foreign[..], b"plain"] {
            matrix.change(&disk, "dark file", &ours[0], altered).await;
        }
        matrix.say(12);
    }
    // A wrong key, or a wrapped key that is refused, is no decision of the key's owner.
    for answer in [KmsAnswer::WrongKey, KmsAnswer::Deny(Denial::InvalidCiphertext)] {
        disk.cluster.kms.set(&disk.cluster.customer, answer);
        let report = disk.look().await;
        assert!(
            report.findings.iter().any(|finding| finding.class == FindingClass::Key),
            "{:?}",
            report.findings
        );
    }
    // Without the platform key nothing is opened, and nothing is called damaged.
    disk.cluster.kms.set(&disk.cluster.customer, KmsAnswer::Right);
    disk.cluster
        .kms
        .set(&disk.cluster.platform, KmsAnswer::Deny(Denial::Disabled));
    let report = disk.is_whole().await;
    assert_eq!(report.count(Verdict::Verified).0, 0);
    assert!(report.count(Verdict::Dark).0 > 20);
    disk.cluster.kms.set(&disk.cluster.platform, KmsAnswer::Right);
    assert_eq!(disk.is_whole().await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_asks_for_decrypt_alone_and_changes_nothing() {
    let disk = Disk::new().await;
    let roots = [&disk.cluster.platform, &disk.cluster.customer, &disk.other];
    let before: Vec<_> = roots.iter().map(|root| disk.cluster.kms.calls(root)).collect();
    let snapshot = || {
        let mut files = Vec::new();
        files_under(&disk.dir, &mut files);
        files.sort();
        let state = |path: PathBuf| {
            let found = fs::metadata(&path).unwrap();
            (
                fs::read(&path).unwrap(),
                found.modified().unwrap(),
                found.permissions().mode(),
                path,
            )
        };
        files.into_iter().map(state).collect::<Vec<_>>()
    };
    let unchanged = snapshot();
    let report = disk.is_whole().await;
    assert_eq!(snapshot(), unchanged);
    for (root, before) in roots.iter().zip(before) {
        let after = disk.cluster.kms.calls(root);
        assert_eq!(after.generate, before.generate);
        // The default database has a zone of its own under the platform key.
        let zones = if *root == &disk.cluster.platform { 2 } else { 1 };
        assert_eq!(after.decrypt, before.decrypt + zones, "{root}");
    }
    // All items of a zone were opened; everything else holds no data.
    assert_eq!(report.zones.len(), 4);
    assert_eq!(
        report.count(Verdict::Verified).0 + report.count(Verdict::Open).0,
        report.items.len() as u64
    );
    for item in report.items.iter().filter(|item| item.verdict == Verdict::Verified) {
        assert!(
            item.zone.is_some() && item.version == Some(1) && item.frames > 0,
            "{item:?}"
        );
    }
    // Everything that storage wrote is for its owner alone.
    for (_, _, mode, path) in &unchanged {
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}
