//! Any bytes as a saved scalar index: refused, or an index that answers safely and is saved as the same bytes.
#![no_main]

#[path = "patches.rs"]
mod patches;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use saker_model::{Bitmap, FieldId};
use saker_scalar::{Builder, Classes, Place, Probe, Relation, ScalarIndex};

/// Rows that the bytes claim, as far as a fuzzer will go.
const ROWS_MAX: u64 = 8_192;

/// A sound index with values of all kinds.
static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let rows = 3_000;
    let valid = Bitmap::from_bools((0..rows).map(|row| row % 9 != 0));
    let mut builder = Builder::new(Place::of(FieldId(101)), rows as usize, false, Classes::ALL, Some(valid), rows as usize);
    for row in (0..rows).filter(|row| row % 9 != 0) {
        match row % 5 {
            0 => builder.add_bool(row, row % 2 == 0),
            1 => builder.add_int(row, i64::from(row % 40) - 20),
            2 => builder.add_double(row, f64::from(row % 30) / 4.0),
            _ => builder.add_text(row, ["", "a", "ab", "ä"][row as usize % 4].into()),
        }
    }
    builder.finish().expect("few values").to_bytes().to_vec()
});

fuzz_target!(|data: &[u8]| {
    let data = &*patches::patched(data, &SOUND);
    let number = |at: usize| data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (Some(rows), Some(field)) = (number(16), number(24)) else { return };
    let Ok(rows) = usize::try_from(rows.min(ROWS_MAX)) else { return };
    let Ok(index) = ScalarIndex::from_bytes(data, FieldId(field.cast_signed()), rows) else { return };
    assert!(index.to_bytes().as_slice() == data, "it changed while it was open");
    let probes = [
        Probe::Bool(false),
        Probe::Bool(true),
        Probe::Int(0),
        Probe::Int(i64::MIN),
        Probe::Double(0.5),
        Probe::Double(f64::INFINITY),
        Probe::Double(f64::NAN),
        Probe::Text(""),
        Probe::Text("a"),
    ];
    for probe in probes {
        let count = |relation| index.compare(relation, probe).count_ones();
        let (less, equal) = (count(Relation::Less), count(Relation::Equal));
        if index.of_elements() {
            continue;
        }
        // A row has one value of a type, but may have values of two types of numbers where bytes say so.
        assert!(count(Relation::LessOrEqual) <= less + equal);
        assert!(count(Relation::Greater) <= count(Relation::GreaterOrEqual));
    }
    assert!(index.any_of(&probes.iter().copied()).len() == rows);
    assert!(index.starting_with("a").count_ones() <= index.starting_with("").count_ones());
    assert!(index.texts_that("", |text| text.len() % 2 == 0).len() == rows);
});
