//! Finding rows by primary key without a second copy of the keys: row numbers only, compared through the column.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use saker_model::{Column, ColumnData, PrimaryKey};

/// Row numbers in order of their keys; equal keys in order of row. For rows that do not change.
#[derive(Debug, Default)]
pub(crate) struct SortedRows(Vec<u32>);

impl SortedRows {
    #[expect(clippy::cast_possible_truncation, reason = "a chunk has fewer than 2^31 rows")]
    pub(crate) fn new(column: &Column) -> Self {
        let mut rows: Vec<u32> = (0..column.rows() as u32).collect();
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other type is a primary key")]
        match &column.data {
            ColumnData::Int64(keys) => rows.sort_by_key(|&row| (keys[row as usize], row)),
            ColumnData::VarChar(keys) => rows.sort_by(|&a, &b| keys[a as usize].cmp(&keys[b as usize]).then(a.cmp(&b))),
            _ => rows.clear(),
        }
        Self(rows)
    }

    /// The rows with this key, in order. `column` is the one that this was made of.
    pub(crate) fn find<'a>(&'a self, column: &Column, key: &PrimaryKey) -> &'a [u32] {
        let span = |order: &dyn Fn(u32) -> std::cmp::Ordering| {
            let start = self.0.partition_point(|&row| order(row).is_lt());
            let length = self.0[start..].partition_point(|&row| order(row).is_eq());
            &self.0[start..start + length]
        };
        match (&column.data, key) {
            (ColumnData::Int64(keys), PrimaryKey::Int(key)) => span(&|row| keys[row as usize].cmp(key)),
            (ColumnData::VarChar(keys), PrimaryKey::Text(key)) => span(&|row| keys[row as usize].as_str().cmp(key)),
            _ => &[],
        }
    }
}

/// Row numbers by hash of their key, for rows that keep coming. Several keys may share a hash: the caller compares.
#[derive(Debug, Default)]
pub(crate) struct HashedRows {
    hasher: RandomState,
    rows: HashMap<u64, Rows, BuildIdentity>,
}

/// Almost every key has one row.
#[derive(Debug)]
enum Rows {
    One(u32),
    Many(Vec<u32>),
}

impl HashedRows {
    /// Adds rows from `first` on.
    pub(crate) fn extend(&mut self, column: &Column, first: u32) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other type is a primary key")]
        match &column.data {
            ColumnData::Int64(keys) => (first..)
                .zip(keys)
                .for_each(|(row, key)| self.add(self.hasher.hash_one(key), row)),
            ColumnData::VarChar(keys) => {
                (first..)
                    .zip(keys)
                    .for_each(|(row, key)| self.add(self.hasher.hash_one(key.as_str()), row));
            }
            _ => {}
        }
    }

    /// Rows that may have this key, in order.
    pub(crate) fn candidates(&self, key: &PrimaryKey) -> &[u32] {
        let hash = match key {
            PrimaryKey::Int(key) => self.hasher.hash_one(key),
            PrimaryKey::Text(key) => self.hasher.hash_one(key.as_str()),
        };
        match self.rows.get(&hash) {
            None => &[],
            Some(Rows::One(row)) => std::slice::from_ref(row),
            Some(Rows::Many(rows)) => rows,
        }
    }

    fn add(&mut self, hash: u64, row: u32) {
        self.rows
            .entry(hash)
            .and_modify(|rows| match rows {
                Rows::One(first) => *rows = Rows::Many(vec![*first, row]),
                Rows::Many(rows) => rows.push(row),
            })
            .or_insert(Rows::One(row));
    }
}

/// The keys of the map are hashes already.
#[derive(Clone, Debug, Default)]
struct BuildIdentity;

#[derive(Debug, Default)]
struct Identity(u64);

impl BuildHasher for BuildIdentity {
    type Hasher = Identity;
    fn build_hasher(&self) -> Identity {
        Identity::default()
    }
}

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Whether a row of a column of primary keys holds this key.
pub(crate) fn holds(column: &Column, row: usize, key: &PrimaryKey) -> bool {
    match (&column.data, key) {
        (ColumnData::Int64(keys), PrimaryKey::Int(key)) => keys.get(row) == Some(key),
        (ColumnData::VarChar(keys), PrimaryKey::Text(key)) => keys.get(row) == Some(key),
        _ => false,
    }
}
