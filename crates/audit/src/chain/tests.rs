//! Whatever is done to an export is found.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::{Draft, RecordHash};

fn lines(count: u64) -> (Vec<Vec<u8>>, Head) {
    let mut head = Head::NONE;
    let mut lines = Vec::new();
    for number in 0..count {
        let draft = Draft::new(
            1_768_000_000_000 + number,
            "zone-locked",
            json!({ "database": format!("d{number}") }),
        );
        let (line, next) = draft.chained(head);
        lines.push(line);
        head = next;
    }
    (lines, head)
}

fn export(lines: &[Vec<u8>], head: Head) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(closing_line(head).as_bytes());
    bytes.push(b'\n');
    bytes
}

fn check(bytes: &[u8]) -> ChainReport {
    check_export(bytes, Head::NONE, Vec::new())
}

#[test]
fn an_untouched_export_is_whole() {
    for count in 0..5 {
        let (lines, head) = lines(count);
        let report = check(&export(&lines, head));
        assert!(report.is_whole(), "{count}: {:?}", report.faults);
        assert_eq!((report.records, report.head), (count, head));
    }
}

#[test]
fn every_edit_of_every_byte_is_found() {
    let (lines, head) = lines(6);
    let whole = export(&lines, head);
    let mut tried = 0;
    for place in 0..whole.len() {
        // Each of the eight bits; case of letters and hexadecimal digits among them.
        for bit in 0..8 {
            let mut edited = whole.clone();
            edited[place] ^= 1 << bit;
            tried += 1;
            assert!(!check(&edited).is_whole(), "byte {place} bit {bit}");
        }
    }
    assert_eq!(tried, whole.len() * 8);
}

#[test]
fn every_byte_left_out_or_put_in_is_found() {
    let (lines, head) = lines(4);
    let whole = export(&lines, head);
    for place in 0..whole.len() {
        let mut shorter = whole.clone();
        shorter.remove(place);
        assert!(!check(&shorter).is_whole(), "byte {place} left out");
        for byte in [b' ', b'\n', b'0', b'}'] {
            let mut longer = whole.clone();
            longer.insert(place, byte);
            assert!(!check(&longer).is_whole(), "{byte} before byte {place}");
        }
    }
}

#[test]
fn every_cut_is_found() {
    let (lines, head) = lines(5);
    let whole = export(&lines, head);
    for length in 0..whole.len() {
        assert!(!check(&whole[..length]).is_whole(), "cut to {length}");
    }
}

#[test]
fn a_cut_that_is_closed_anew_needs_a_kept_head() {
    let (lines, head) = lines(5);
    let (_, shorter) = self::lines(3);
    let cut = export(&lines[..3], shorter);
    assert!(check(&cut).is_whole(), "nothing in the file itself can tell");
    let report = check_export(&cut, Head::NONE, vec![head]);
    assert_eq!(report.faults.len(), 1);
    assert_eq!(report.faults[0].kind, FaultKind::Cut { kept: head, last: 3 });
}

#[test]
fn a_rewritten_history_needs_a_kept_head() {
    let (lines, head) = lines(5);
    let mut forged_head = self::lines(2).1;
    let mut forged: Vec<Vec<u8>> = lines[..2].to_vec();
    for number in 2..5 {
        let (line, next) = Draft::new(number, "nothing-to-see", json!({})).chained(forged_head);
        forged.push(line);
        forged_head = next;
    }
    let bytes = export(&forged, forged_head);
    assert!(check(&bytes).is_whole());
    for kept in [head, Record::parse(&lines[3]).unwrap().head()] {
        let report = check_export(&bytes, Head::NONE, vec![kept]);
        assert_eq!(report.faults[0].kind, FaultKind::OtherHistory { kept });
    }
    let before = Record::parse(&lines[1]).unwrap().head();
    assert!(check_export(&bytes, Head::NONE, vec![before]).is_whole());
}

#[test]
fn faults_say_where() {
    let (lines, head) = lines(6);
    let kinds = |lines: &[Vec<u8>]| -> Vec<(u64, FaultKind)> {
        let report = check(&export(lines, head));
        report
            .faults
            .into_iter()
            .map(|fault| (fault.line, fault.kind))
            .collect()
    };
    let mut gap = lines.clone();
    gap.drain(2..4);
    assert_eq!(kinds(&gap), [(3, FaultKind::Gap { from: 3, to: 4 })]);
    let mut twice = lines.clone();
    twice.insert(3, lines[2].clone());
    assert_eq!(kinds(&twice), [(4, FaultKind::Repeated { sequence: 3 })]);
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    assert_eq!(
        kinds(&swapped),
        [
            (2, FaultKind::Gap { from: 2, to: 2 }),
            (3, FaultKind::OutOfOrder { sequence: 2, after: 3 }),
        ]
    );
    let mut edited = lines.clone();
    let text = String::from_utf8(edited[3].clone()).unwrap().replace("d3", "d4");
    edited[3] = text.into_bytes();
    assert_eq!(kinds(&edited), [(5, FaultKind::Edited { sequence: 4 })]);
    let mut late = lines.clone();
    late.drain(..2);
    assert_eq!(kinds(&late), [(1, FaultKind::Gap { from: 1, to: 2 })]);
    let after = Record::parse(&lines[1]).unwrap().head();
    assert!(check_export(&export(&late, head), after, Vec::new()).is_whole());
    let wrong = Head {
        hash: RecordHash::of(b"x"),
        ..after
    };
    assert!(!check_export(&export(&late, head), wrong, Vec::new()).is_whole());
}

#[test]
fn listed_faults_are_bounded() {
    for count in [FAULTS_MAX - 1, FAULTS_MAX, FAULTS_MAX + 1] {
        // One fault a line, and one for the missing closing line.
        let bytes = b"x\n".repeat(count);
        assert_eq!(check(&bytes).faults.len(), (count + 1).min(FAULTS_MAX));
    }
}

proptest! {
    #[test]
    fn any_other_order_or_choice_of_records_is_found(order in proptest::collection::vec(0_usize..6, 0..9)) {
        let (lines, head) = lines(6);
        let chosen: Vec<Vec<u8>> = order.iter().map(|&index| lines[index].clone()).collect();
        let right = order.len() == 6 && order.iter().enumerate().all(|(at, &index)| at == index);
        prop_assert_eq!(check(&export(&chosen, head)).is_whole(), right);
    }

    #[test]
    fn arbitrary_bytes_are_no_export(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(!check(&bytes).is_whole());
    }
}
