//! Any bytes decode to values or to an error: nothing here may panic or allocate without bound.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use saker_keyring::SealError;
use saker_model::{
    ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, RowBatch, SegmentId,
    Timestamp,
};

use super::{
    Expected, Sink,
    column_read::{VectorDecoder, decode_bytes},
    column_write::{ColumnHeader, encode_column},
    deletes, index,
};
use crate::{Chunk, DeletedRows, write::ChunkRows};

impl Sink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

const SEGMENT: SegmentId = SegmentId(9);
const ROWS: usize = 70;

fn field(id: i64, data_type: DataType, element_type: Option<DataType>) -> FieldSchema {
    FieldSchema {
        id: FieldId(id),
        name: format!("f{id}"),
        description: String::new(),
        data_type,
        element_type,
        is_primary: id == 100,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable: id != 100,
        default_value: None,
        dim: if data_type == DataType::BinaryVector {
            24
        } else if data_type.is_dense_vector() {
            3
        } else {
            0
        },
        max_length: 0,
        max_capacity: 0,
        type_params: BTreeMap::new(),
    }
}

/// One field of each shape of encoding, and rows with nulls.
#[expect(clippy::cast_possible_truncation, reason = "any values will do")]
fn world() -> (CollectionSchema, Vec<ChunkRows>) {
    let fields = vec![
        field(100, DataType::Int64, None),
        field(101, DataType::Bool, None),
        field(102, DataType::Int16, None),
        field(103, DataType::VarChar, None),
        field(104, DataType::Json, None),
        field(105, DataType::Array, Some(DataType::Int8)),
        field(106, DataType::Array, Some(DataType::VarChar)),
        field(107, DataType::Array, Some(DataType::Bool)),
        field(108, DataType::FloatVector, None),
        field(109, DataType::Float16Vector, None),
        field(110, DataType::BFloat16Vector, None),
        field(111, DataType::Int8Vector, None),
        field(112, DataType::BinaryVector, None),
    ];
    let text = |row: usize| "ä".repeat(row % 5);
    let columns = fields.iter().map(|field| {
        let rows = 0..ROWS;
        let data = match field.id.0 {
            100 => ColumnData::Int64(rows.map(|row| row as i64).collect()),
            101 => ColumnData::Bool(rows.map(|row| row % 2 == 0).collect()),
            102 => ColumnData::Int16((-30..).take(ROWS).collect()),
            103 => ColumnData::VarChar(rows.map(text).collect()),
            104 => ColumnData::Json(rows.map(|row| format!("[{row}]").into_bytes()).collect()),
            105 => ColumnData::Array(rows.map(|row| ArrayValue::Int32(vec![-77; row % 4])).collect()),
            106 => ColumnData::Array(rows.map(|row| ArrayValue::Text(vec![text(row); row % 4])).collect()),
            107 => ColumnData::Array(rows.map(|row| ArrayValue::Bool(vec![true; row % 4])).collect()),
            108 => ColumnData::FloatVector {
                dim: 3,
                data: (0..ROWS * 3).map(|at| at as f32).collect(),
            },
            109 => ColumnData::Float16Vector {
                dim: 3,
                data: (0..ROWS as u16 * 3).collect(),
            },
            110 => ColumnData::BFloat16Vector {
                dim: 3,
                data: (0..ROWS as u16 * 3).map(|at| at + 0x3f00).collect(),
            },
            111 => ColumnData::Int8Vector {
                dim: 3,
                data: (0..ROWS * 3).map(|at| at as i8).collect(),
            },
            _ => ColumnData::BinaryVector {
                dim: 24,
                data: (0..ROWS * 3).map(|at| at as u8).collect(),
            },
        };
        let validity = field
            .nullable
            .then(|| Bitmap::from_bools((0..ROWS).map(|row| row % 7 != 0)));
        Column {
            field: field.id,
            data,
            validity,
        }
    });
    let batch = RowBatch::new(columns.collect()).unwrap();
    let schema = CollectionSchema {
        name: "c".to_owned(),
        description: String::new(),
        fields,
        enable_dynamic_field: false,
        functions: Vec::new(),
    };
    let stamps: Vec<Timestamp> = (0..ROWS as u64).map(Timestamp).collect();
    let chunk = Arc::new(Chunk::new(&schema, batch, &stamps).unwrap());
    (schema, vec![ChunkRows { chunk, rows: None }])
}

fn encode(field: &FieldSchema, source: &[ChunkRows]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_column(&ColumnHeader::of(SEGMENT, ROWS, field), source, &mut bytes).unwrap();
    bytes
}

/// As a file is read: vectors in pieces, everything else at once.
fn decode(bytes: &[u8], expected: &Expected, piece: usize) -> Result<Column, &'static str> {
    if !expected.data_type.is_vector() {
        return decode_bytes(bytes, expected);
    }
    let mut decoder = VectorDecoder::new(expected, bytes.len() as u64)?;
    for bytes in bytes.chunks(piece) {
        decoder.push(bytes)?;
    }
    decoder.finish()
}

/// Type, dimension and values of each type of vector, as the formats page says.
#[test]
fn bytes_of_vectors_are_as_the_formats_page_says() {
    let (schema, source) = world();
    let first_row = |data_type: DataType| {
        let field = schema.fields.iter().find(|field| field.data_type == data_type).unwrap();
        let bytes = encode(field, &source);
        let values = 40 + ROWS.div_ceil(64) * 8;
        assert_eq!(bytes.len(), values + ROWS * data_type.vector_row_bytes(field.dim));
        (
            bytes[6],
            bytes[32..36].to_vec(),
            bytes[values..][..data_type.vector_row_bytes(field.dim)].to_vec(),
        )
    };
    assert_eq!(
        first_row(DataType::FloatVector),
        (11, vec![3, 0, 0, 0], vec![0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])
    );
    assert_eq!(
        first_row(DataType::Float16Vector),
        (12, vec![3, 0, 0, 0], vec![0, 0, 1, 0, 2, 0])
    );
    assert_eq!(
        first_row(DataType::BFloat16Vector),
        (13, vec![3, 0, 0, 0], vec![0, 0x3f, 1, 0x3f, 2, 0x3f])
    );
    assert_eq!(first_row(DataType::Int8Vector), (14, vec![3, 0, 0, 0], vec![0, 1, 2]));
    assert_eq!(
        first_row(DataType::BinaryVector),
        (15, vec![24, 0, 0, 0], vec![0, 1, 2])
    );
}

#[test]
fn vectors_may_come_in_pieces_of_any_length() {
    let (schema, source) = world();
    let rows: Vec<usize> = (0..ROWS).collect();
    for field in schema.fields.iter().filter(|field| field.data_type.is_vector()) {
        let (bytes, expected) = (encode(field, &source), Expected::of(SEGMENT, ROWS, field));
        let whole = decode(&bytes, &expected, usize::MAX).unwrap();
        assert_eq!(whole, source[0].chunk.take(field.id, &rows).unwrap());
        for piece in 1..200 {
            assert_eq!(decode(&bytes, &expected, piece).unwrap(), whole, "pieces of {piece}");
        }
    }
}

#[test]
fn cut_and_extended_files_are_refused() {
    let (schema, source) = world();
    for field in &schema.fields {
        let (bytes, expected) = (encode(field, &source), Expected::of(SEGMENT, ROWS, field));
        decode(&bytes, &expected, 64).unwrap();
        for length in 0..bytes.len() {
            assert!(
                decode(&bytes[..length], &expected, 64).is_err(),
                "field {} cut to {length}",
                field.id
            );
        }
        for more in 1..9 {
            let longer = [&bytes[..], &vec![0; more]].concat();
            assert!(
                decode(&longer, &expected, 64).is_err(),
                "field {} extended by {more}",
                field.id
            );
        }
    }
}

#[test]
fn every_byte_of_a_header_counts() {
    let (schema, source) = world();
    for field in &schema.fields {
        let (bytes, expected) = (encode(field, &source), Expected::of(SEGMENT, ROWS, field));
        for position in 0..super::HEADER_BYTES {
            let mut bytes = bytes.clone();
            bytes[position] ^= 0x21;
            assert!(
                decode(&bytes, &expected, 64).is_err(),
                "field {} byte {position}",
                field.id
            );
        }
    }
}

#[test]
fn nulls_in_a_field_that_takes_none_are_refused() {
    let (schema, source) = world();
    let field = &schema.fields[1];
    let mut expected = Expected::of(SEGMENT, ROWS, field);
    expected.nullable = false;
    assert!(decode(&encode(field, &source), &expected, 64).is_err());
}

/// Lengths that claim more than there is must not be believed before they are checked.
#[test]
fn huge_claims_allocate_nothing() {
    let (schema, source) = world();
    for field in &schema.fields {
        let bytes = encode(field, &source);
        for rows in [ROWS + 1, 1 << 31, usize::MAX / 16] {
            let mut expected = Expected::of(SEGMENT, ROWS, field);
            expected.rows = rows;
            let mut bytes = bytes.clone();
            bytes[24..32].copy_from_slice(&(rows as u64).to_le_bytes());
            assert!(
                decode(&bytes, &expected, 64).is_err(),
                "field {} with {rows} rows",
                field.id
            );
        }
    }
    let mut bytes = deletes::encode_deletes(SEGMENT, 70, &DeletedRows::default()).to_vec();
    for count in [1, u64::from(u32::MAX), u64::MAX] {
        bytes[24..32].copy_from_slice(&count.to_le_bytes());
        assert!(deletes::decode_bytes(&bytes, SEGMENT, 70).is_err());
    }
}

#[test]
fn deletes_out_of_order_or_past_the_end_are_refused() {
    let mut rows = DeletedRows::default();
    rows.insert(3, 30);
    rows.insert(69, 40);
    let bytes = deletes::encode_deletes(SEGMENT, 70, &rows).to_vec();
    assert_eq!(deletes::decode_bytes(&bytes, SEGMENT, 70), Ok(rows));
    assert!(deletes::decode_bytes(&bytes, SegmentId(8), 70).is_err());
    assert!(deletes::decode_bytes(&bytes, SEGMENT, 71).is_err());
    for (first, second) in [(69u32, 3u32), (3, 3), (3, 70), (3, u32::MAX)] {
        let mut bytes = bytes.clone();
        bytes[32..36].copy_from_slice(&first.to_le_bytes());
        bytes[36..40].copy_from_slice(&second.to_le_bytes());
        assert!(deletes::decode_bytes(&bytes, SEGMENT, 70).is_err(), "{first}, {second}");
    }
}

/// Written down by the tables of `docs/formats.md`, not by the code.
#[test]
fn bytes_are_as_the_formats_page_says() {
    let fields = vec![
        field(100, DataType::Int64, None),
        field(106, DataType::Array, Some(DataType::VarChar)),
    ];
    let columns = vec![
        Column::full(FieldId(100), ColumnData::Int64(vec![-2, 258])),
        Column {
            field: FieldId(106),
            data: ColumnData::Array(vec![
                ArrayValue::Text(vec!["a".to_owned(), "ä".to_owned()]),
                ArrayValue::Text(Vec::new()),
            ]),
            validity: Some(Bitmap::from_bools([true, false])),
        },
    ];
    let schema = CollectionSchema {
        name: "c".to_owned(),
        description: String::new(),
        fields,
        enable_dynamic_field: false,
        functions: Vec::new(),
    };
    let stamps = [Timestamp(3), Timestamp(u64::MAX)];
    let chunk = Arc::new(Chunk::new(&schema, RowBatch::new(columns).unwrap(), &stamps).unwrap());
    let source = [ChunkRows { chunk, rows: None }];
    let encoded = |header: ColumnHeader| {
        let mut bytes = Vec::new();
        encode_column(&header, &source, &mut bytes).unwrap();
        bytes
    };
    #[rustfmt::skip]
    let header = |types: [u8; 2], field: u8, flags: u8| [
        &b"SKCL"[..], &[1, 0], &types, &[field, 0, 0, 0, 0, 0, 0, 0], &[9, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0], &[flags, 0, 0, 0],
    ].concat();
    let keys = [
        &header([5, 0], 100, 0)[..],
        &[0xFE, 255, 255, 255, 255, 255, 255, 255, 2, 1, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(encoded(ColumnHeader::of(SEGMENT, 2, &schema.fields[0])), keys);
    let body = [
        &[2, 0, 0, 0, 0, 0, 0, 0][..],
        &[1, 0, 0, 0, 2, 0, 0, 0],
        "aä".as_bytes(),
    ]
    .concat();
    let arrays = [&header([10, 8], 106, 1)[..], &[1, 0, 0, 0, 0, 0, 0, 0], &body].concat();
    assert_eq!(encoded(ColumnHeader::of(SEGMENT, 2, &schema.fields[1])), arrays);
    let times = [&header([5, 0], 1, 0)[..], &[3, 0, 0, 0, 0, 0, 0, 0], &[255; 8]].concat();
    assert_eq!(encoded(ColumnHeader::timestamps(SEGMENT, 2)), times);

    let mut deleted = DeletedRows::default();
    deleted.insert(258, 7);
    #[rustfmt::skip]
    let expected = [
        &b"SKDL"[..], &[1, 0, 0, 0], &[9, 0, 0, 0, 0, 0, 0, 0], &[44, 1, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0], &[2, 1, 0, 0], &[7, 0, 0, 0, 0, 0, 0, 0],
    ].concat();
    assert_eq!(*deletes::encode_deletes(SEGMENT, 300, &deleted), expected);
}

fn mutate(bytes: &mut Vec<u8>, changes: &[(usize, u8, u8)]) {
    for &(position, value, kind) in changes {
        let length = bytes.len();
        match kind % 4 {
            _ if length == 0 => bytes.push(value),
            0 => bytes[position % length] = value,
            1 => bytes[position % length] ^= 1 << (value % 8),
            2 => bytes.truncate(position % length),
            _ => bytes.insert(position % length, value),
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    // Half of the positions are in the header and the lengths, where damage bites.
    let position = prop_oneof![0..400usize, any::<usize>()];
    proptest::collection::vec((position, any::<u8>(), any::<u8>()), 1..8)
}

proptest! {
    #[test]
    fn mutated_files_decode_or_fail(changes in changes(), which in 0..9usize, piece in 1..5_000usize) {
        let (schema, source) = world();
        let field = &schema.fields[which];
        let mut bytes = encode(field, &source);
        mutate(&mut bytes, &changes);
        if let Ok(column) = decode(&bytes, &Expected::of(SEGMENT, ROWS, field), piece) {
            prop_assert_eq!(column.rows(), ROWS);
            prop_assert_eq!(column.data.data_type(), field.data_type);
        }
    }

    #[test]
    fn random_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..600), which in 0..9usize) {
        let (schema, _) = world();
        let expected = Expected::of(SEGMENT, ROWS, &schema.fields[which]);
        // Random bytes are no column: 40 bytes of header would have to fit.
        prop_assert!(decode(&bytes, &expected, 64).is_err());
        // With a right header the body is random.
        let mut right = encode(&schema.fields[which], &world().1);
        right.truncate(super::HEADER_BYTES);
        right.extend_from_slice(&bytes);
        if let Ok(column) = decode(&right, &expected, 64) {
            prop_assert_eq!(column.rows(), ROWS);
        }
    }

    #[test]
    fn mutated_deletes_decode_or_fail(changes in changes(), rows in proptest::collection::btree_map(0..70u32, any::<u64>(), 0..70)) {
        let mut deleted = DeletedRows::default();
        rows.iter().for_each(|(&row, &at)| { deleted.insert(row, at); });
        let mut bytes = deletes::encode_deletes(SEGMENT, 70, &deleted).to_vec();
        mutate(&mut bytes, &changes);
        if let Ok(found) = deletes::decode_bytes(&bytes, SEGMENT, 70) {
            prop_assert!(found.iter().all(|(row, _)| row < 70));
        }
    }

    #[test]
    fn random_indexes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let vectors = saker_index::Vectors::new(2, vec![0.0; 20]).unwrap();
        let vectors = crate::VectorRows::Dense(vectors);
        prop_assert!(index::decode_index(&bytes, SEGMENT, FieldId(1), &vectors).is_err());
    }
}
