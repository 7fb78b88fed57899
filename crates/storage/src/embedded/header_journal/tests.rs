//! A stop at every step of a batch, torn and foreign journals.

use tempfile::TempDir;

use super::*;

/// A file's start of 192 bytes whose fixed part says `file` and whose key slot says `slot`.
fn start(file: u8, slot: u8) -> Vec<u8> {
    let mut start = vec![file; HEADER_BYTES];
    start[HEADER_FIXED_BYTES..].fill(slot);
    start
}

fn replacement(name: &str, file: u8, slot: u8) -> Replacement {
    Replacement {
        path: name.to_owned(),
        start: start(file, slot),
    }
}

fn put(directory: &TempDir, name: &str, start: &[u8]) {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = private_file().create(true).truncate(true).open(path).unwrap();
    file.write_all_at(start, 0).unwrap();
    file.write_all_at(b"body", start.len() as u64).unwrap();
}

fn read(directory: &TempDir, name: &str) -> Vec<u8> {
    fs::read(directory.path().join(name)).unwrap()
}

fn with_body(start: &[u8]) -> Vec<u8> {
    [start, b"body"].concat()
}

fn two_files() -> (TempDir, Vec<Replacement>) {
    let directory = TempDir::new().unwrap();
    put(&directory, "a/1", &start(1, 10));
    put(&directory, "b", &start(2, 10));
    (directory, vec![replacement("a/1", 1, 20), replacement("b", 2, 20)])
}

#[test]
fn headers_are_replaced_and_the_journal_keeps_none_of_them() {
    let (directory, batch) = two_files();
    let journal = HeaderJournal::open(directory.path()).unwrap();
    assert_eq!(journal.replace(&batch).unwrap(), 2);
    assert_eq!(read(&directory, "a/1"), with_body(&start(1, 20)));
    assert_eq!(read(&directory, "b"), with_body(&start(2, 20)));
    assert!(read(&directory, NAME).iter().all(|byte| *byte == 0));
}

#[test]
fn a_stop_before_the_journal_is_whole_leaves_the_old_headers() {
    let (directory, batch) = two_files();
    let whole = encode(&batch).unwrap();
    for cut in [1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, whole.len() - 1] {
        put_journal(&directory, &whole[..cut]);
        HeaderJournal::open(directory.path()).unwrap();
        assert_eq!(read(&directory, "a/1"), with_body(&start(1, 10)), "cut at {cut}");
        assert!(read(&directory, NAME).iter().all(|byte| *byte == 0), "cut at {cut}");
    }
}

#[test]
fn a_stop_after_the_journal_is_whole_gives_the_new_headers_even_over_torn_ones() {
    let (directory, batch) = two_files();
    put_journal(&directory, &encode(&batch).unwrap());
    // The power failed in the middle of both overwrites.
    let mut torn = start(1, 20);
    torn[150..].fill(10);
    put(&directory, "a/1", &torn);
    put(&directory, "b", &[0xff; HEADER_BYTES]);
    HeaderJournal::open(directory.path()).unwrap();
    assert_eq!(read(&directory, "a/1"), with_body(&start(1, 20)));
    assert_eq!(read(&directory, "b"), with_body(&start(2, 20)));
    assert!(read(&directory, NAME).iter().all(|byte| *byte == 0));
    // And only once.
    put(&directory, "b", &start(2, 30));
    HeaderJournal::open(directory.path()).unwrap();
    assert_eq!(read(&directory, "b"), with_body(&start(2, 30)));
}

#[test]
fn a_batch_that_failed_half_way_is_finished_by_the_next_one() {
    let (directory, batch) = two_files();
    let journal = HeaderJournal::open(directory.path()).unwrap();
    journal.write(&batch).unwrap();
    *journal.turn() = true;
    assert_eq!(journal.replace(&[replacement("b", 2, 30)]).unwrap(), 1);
    assert_eq!(read(&directory, "a/1"), with_body(&start(1, 20)));
    assert_eq!(read(&directory, "b"), with_body(&start(2, 30)));
}

#[test]
fn no_key_comes_back_to_a_file_that_was_removed_or_shredded() {
    let (directory, batch) = two_files();
    fs::remove_file(directory.path().join("a/1")).unwrap();
    put(&directory, "b", &[0; HEADER_BYTES]);
    put_journal(&directory, &encode(&batch).unwrap());
    let journal = HeaderJournal::open(directory.path()).unwrap();
    assert_eq!(journal.replace(&batch).unwrap(), 0);
    assert!(!directory.path().join("a/1").exists());
    assert_eq!(read(&directory, "b"), with_body(&[0; HEADER_BYTES]));
}

#[test]
fn a_header_of_another_file_is_refused_and_nothing_of_its_batch_is_written() {
    let (directory, mut batch) = two_files();
    batch[1].start = start(3, 20);
    let journal = HeaderJournal::open(directory.path()).unwrap();
    assert_eq!(journal.replace(&batch).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(read(&directory, "a/1"), with_body(&start(1, 10)));
    assert_eq!(read(&directory, "b"), with_body(&start(2, 10)));
}

#[test]
fn a_journal_reaches_no_file_outside_its_store() {
    let (outer, _) = two_files();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let bytes = encode(&[replacement("../b", 2, 20)]).unwrap();
    private_file()
        .create(true)
        .open(inner.join(NAME))
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
    HeaderJournal::open(&inner).unwrap();
    assert_eq!(read(&outer, "b"), with_body(&start(2, 10)));
}

#[test]
fn batches_at_and_above_the_limit() {
    let directory = TempDir::new().unwrap();
    let journal = HeaderJournal::open(directory.path()).unwrap();
    for count in [BATCH_MAX - 1, BATCH_MAX, BATCH_MAX + 1] {
        let names: Vec<_> = (0..count).map(|number| format!("file-{number}")).collect();
        names.iter().for_each(|name| put(&directory, name, &start(1, 10)));
        let batch: Vec<_> = names.iter().map(|name| replacement(name, 1, 20)).collect();
        assert_eq!(journal.replace(&batch).unwrap(), count);
        assert!(
            names
                .iter()
                .all(|name| read(&directory, name) == with_body(&start(1, 20)))
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "the test writes what a crash would have left")]
fn put_journal(directory: &TempDir, bytes: &[u8]) {
    fs::write(directory.path().join(NAME), bytes).unwrap();
}
