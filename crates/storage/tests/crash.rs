//! A server that is killed in the middle of writing: what it acknowledged is there, and the next one can go on at once.
//!
//! The test runs its own binary again as the server to be killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use saker_keyring::{FileId, Lease, PlainKey, Zone, ZoneId, ZoneKeyVersion};
use saker_storage::{EmbeddedStores, MetaBatch, MetaKey, StreamId};

const DIRECTORY: &str = "SAKER_TEST_CRASH_DIRECTORY";
const ROUND: &str = "SAKER_TEST_CRASH_ROUND";
/// Acknowledged writes after which each round's server is killed.
const KILLED_AFTER: [usize; 6] = [1, 2, 17, 60, 150, 33];

/// The same zone in all processes.
fn lease() -> Lease {
    let zone = Zone::locked(ZoneId::from_bytes([5; 16]));
    let key = PlainKey::take(&mut [6; 32]).unwrap();
    zone.unlock(vec![(ZoneKeyVersion::FIRST, key)]).unwrap();
    zone.lease().unwrap()
}

fn stream() -> StreamId {
    StreamId::new("s").unwrap()
}

fn meta_key(round: usize, number: u64) -> MetaKey {
    MetaKey::new(format!("r/{round}/{number:08}")).unwrap()
}

/// The server: writes until it is killed, and says what was acknowledged. Does nothing when run as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_to_be_killed() {
    let (Ok(directory), Ok(round)) = (std::env::var(DIRECTORY), std::env::var(ROUND)) else {
        return;
    };
    let round: usize = round.parse().unwrap();
    let stores = EmbeddedStores::open(directory).await.unwrap();
    let lease = lease();
    let file = FileId::random();
    let (header, sealer) = lease.log_sealer(file).unwrap();
    let appender = Arc::new(stores.log.create_segment(&stream(), header, file).await.unwrap());
    let sealer = Arc::new(Mutex::new((sealer, 0u64)));
    let writers = (0..4).map(|_| {
        let (appender, sealer) = (Arc::clone(&appender), Arc::clone(&sealer));
        tokio::spawn(async move {
            loop {
                let (number, append) = {
                    let mut guard = sealer.lock().unwrap();
                    let (sealer, number) = &mut *guard;
                    *number += 1;
                    let record = [&number.to_le_bytes()[..], &[7; 3_000]].concat();
                    (*number, appender.append(sealer.seal(&record).unwrap()))
                };
                append.await.unwrap();
                say(&format!("log {number}"));
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for number in 0.. {
        let key = meta_key(round, number);
        let mut batch = MetaBatch::new();
        batch.put(
            key.clone(),
            lease.seal_value(key.as_str(), &number.to_le_bytes()).unwrap(),
        );
        stores.meta.commit(batch).await.unwrap();
        say(&format!("meta {number}"));
    }
    drop(writers);
}

#[expect(clippy::print_stdout, reason = "how the server tells the test")]
fn say(line: &str) {
    println!("\nacknowledged {line}");
}

/// Does not outlive the test, whatever happens.
struct Server(Arc<Mutex<Child>>);

impl Server {
    fn kill(&self) {
        let _ = self.0.lock().unwrap().kill();
    }
    /// Kills it if it is still there after [`PATIENCE`]: whoever reads what it says must not wait for ever.
    fn end_in_time(&self) {
        let child = Arc::downgrade(&self.0);
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            if let Some(child) = child.upgrade() {
                let _ = child.lock().unwrap().kill();
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.lock().unwrap().wait();
    }
}

/// Far longer than any round takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a server until it has acknowledged `count` writes, kills it, and returns all that it said.
fn run_and_kill(directory: &Path, round: usize, count: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server_to_be_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(Arc::new(Mutex::new(server)));
    server.end_in_time();
    let said = server.0.lock().unwrap().stdout.take().unwrap();
    let (mut log, mut meta) = (BTreeSet::new(), BTreeSet::new());
    let mut killed = false;
    for line in BufReader::new(said).lines() {
        let line = line.unwrap();
        let Some(said) = line.strip_prefix("acknowledged ") else {
            continue;
        };
        let (what, number) = said.split_once(' ').unwrap();
        let Ok(number) = number.parse() else { continue };
        if what == "log" { &mut log } else { &mut meta }.insert(number);
        if !killed && log.len() + meta.len() >= count {
            server.kill();
            killed = true;
        }
    }
    assert!(
        killed,
        "the server ended by itself after {} writes",
        log.len() + meta.len()
    );
    (log, meta)
}

#[tokio::test]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let lease = lease();
    let mut said = Vec::new();
    for (round, count) in KILLED_AFTER.into_iter().enumerate() {
        said.push(run_and_kill(&data, round, count));
        let stores = EmbeddedStores::open(&data).await.unwrap();
        let segments = stores.log.segments(&stream()).await.unwrap();
        assert_eq!(segments.len(), round + 1);
        let files: BTreeSet<String> = segments.iter().map(|info| info.file.to_string()).collect();
        assert_eq!(files.len(), round + 1, "a log segment was used twice");
        for ((round, (log, meta)), segment) in said.iter().enumerate().zip(&segments) {
            let contents = stores.log.read_segment(&stream(), segment.sequence).await.unwrap();
            let mut opener = lease.open_log(segment.file, &contents.header).unwrap();
            let found = contents.records.iter().map(|record| {
                let plain = opener.open(record).unwrap().unwrap();
                u64::from_le_bytes(*plain.first_chunk().unwrap())
            });
            let found: Vec<u64> = found.collect();
            let expected: Vec<u64> = (1..=found.len() as u64).collect();
            assert_eq!(found, expected, "round {round}: in order, none missing, none doubled");
            assert!(
                log.iter().all(|number| *number <= found.len() as u64),
                "round {round}: an acknowledged record is lost"
            );
            for &number in meta {
                let key = meta_key(round, number);
                let value = stores.meta.get(&key).await.unwrap().unwrap();
                assert_eq!(*lease.open_value(key.as_str(), &value).unwrap(), number.to_le_bytes());
            }
        }
    }
}
