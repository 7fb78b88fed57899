//! Reads the array files that the data sets are kept in: NumPy's format, version 1, C order, little endian.

use std::path::Path;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An array's shape and its raw values.
pub struct Array {
    pub rows: usize,
    /// Values in a row; 1 for a flat array.
    pub columns: usize,
    raw: Vec<u8>,
}

impl Array {
    /// Reads a file whose values are of the type that NumPy calls `kind`, such as `<f4`.
    pub fn read(path: &Path, kind: &str) -> Result<Self, Failure> {
        let mut raw = std::fs::read(path)?;
        let about = || format!("{} is not an array of {kind} in C order", path.display());
        let length = raw.get(8..10).ok_or_else(about)?;
        let start = 10 + usize::from(u16::from_le_bytes([length[0], length[1]]));
        let header = String::from_utf8_lossy(raw.get(10..start).ok_or_else(about)?).into_owned();
        if !raw.starts_with(b"\x93NUMPY\x01") || !header.contains(&format!("'{kind}'")) || !header.contains("False") {
            return Err(about().into());
        }
        let shape = header.split(['(', ')']).nth(1).ok_or_else(about)?;
        let mut sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(str::parse::<usize>);
        let rows = sizes.next().ok_or_else(about)??;
        let columns = sizes.next().transpose()?.unwrap_or(1);
        raw.drain(..start);
        Ok(Self { rows, columns, raw })
    }

    pub fn f32s(&self) -> Vec<f32> {
        self.raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    pub fn i32s(&self) -> Vec<i32> {
        self.raw.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
    }

    pub fn i64s(&self) -> Vec<i64> {
        self.raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }
}
