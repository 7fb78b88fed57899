//! What the tests of this crate share: a zone, a store, and a schema with every type.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{collections::BTreeMap, sync::Arc};

use saker_keyring::{Lease, Zone, ZoneId, ZoneKeyVersion, random_key};
use saker_model::{
    ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, PartitionId, RowBatch,
    SegmentId, SparseVector, Timestamp,
};
use saker_segment::{ChunkRows, SealedSegment, SegmentManifest, write_segment};
use saker_storage::LocalObjects;

pub(crate) const PREFIX: &str = "zone/segment";
pub(crate) const SEGMENT: SegmentId = SegmentId(71);

pub(crate) struct World {
    pub(crate) zone: Arc<Zone>,
    pub(crate) lease: Lease,
    pub(crate) store: LocalObjects,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let zone = Zone::locked(ZoneId::random());
        zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
        let lease = zone.lease().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = LocalObjects::open(directory.path()).unwrap();
        Self {
            zone,
            lease,
            store,
            directory,
        }
    }
    pub(crate) async fn write(
        &self,
        schema: &CollectionSchema,
        rows: RowBatch,
        stamps: &[Timestamp],
    ) -> SegmentManifest {
        let source = vec![ChunkRows::of_batch(schema, rows, stamps).unwrap()];
        write_segment(
            &self.lease,
            &self.store,
            PREFIX,
            SEGMENT,
            PartitionId(3),
            schema,
            source,
        )
        .await
        .unwrap()
    }
    pub(crate) async fn load(
        &self,
        schema: &Arc<CollectionSchema>,
        manifest: &SegmentManifest,
    ) -> Result<Arc<SealedSegment>, saker_segment::SegmentError> {
        SealedSegment::load(&self.lease, &self.store, PREFIX, Arc::clone(schema), manifest).await
    }
}

pub(crate) fn field(id: i64, data_type: DataType) -> FieldSchema {
    FieldSchema {
        id: FieldId(id),
        name: format!("field_{id}"),
        description: String::new(),
        data_type,
        element_type: None,
        is_primary: false,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable: false,
        default_value: None,
        dim: 0,
        max_length: 0,
        max_capacity: 0,
        type_params: BTreeMap::new(),
    }
}

pub(crate) fn schema(fields: Vec<FieldSchema>) -> Arc<CollectionSchema> {
    let (name, description) = ("collection".to_owned(), String::new());
    Arc::new(CollectionSchema {
        name,
        description,
        fields,
        enable_dynamic_field: true,
        functions: Vec::new(),
    })
}

/// A primary key `100` and a vector of `dim` elements `101`.
pub(crate) fn small_schema(dim: usize) -> Arc<CollectionSchema> {
    let key = FieldSchema {
        is_primary: true,
        ..field(100, DataType::Int64)
    };
    let vector = FieldSchema {
        dim,
        ..field(101, DataType::FloatVector)
    };
    schema(vec![key, vector])
}

pub(crate) fn small_rows(keys: &[i64], dim: usize, data: Vec<f32>) -> RowBatch {
    RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(keys.to_vec())),
        Column::full(FieldId(101), ColumnData::FloatVector { dim, data }),
    ])
    .unwrap()
}

pub(crate) fn stamps(count: usize, first: u64) -> Vec<Timestamp> {
    (0..count as u64).map(|index| Timestamp(first + index)).collect()
}

const ELEMENTS: [DataType; 8] = [
    DataType::Bool,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Float,
    DataType::Double,
    DataType::VarChar,
];

const SCALARS: [DataType; 9] = [
    DataType::Bool,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Float,
    DataType::Double,
    DataType::VarChar,
    DataType::Json,
];

/// Every type, plain (200..) and nullable (300..), arrays of every element type (400.. and 500..), vectors, `$meta`.
pub(crate) fn full_schema(text_key: bool) -> Arc<CollectionSchema> {
    let key = if text_key { DataType::VarChar } else { DataType::Int64 };
    let mut fields = vec![FieldSchema {
        is_primary: true,
        ..field(100, key)
    }];
    for (base, nullable) in [(200, false), (300, true)] {
        fields.extend((base..).zip(SCALARS).map(|(id, data_type)| FieldSchema {
            nullable,
            ..field(id, data_type)
        }));
    }
    for (base, nullable) in [(400, false), (500, true)] {
        let array = |(id, element)| FieldSchema {
            nullable,
            element_type: Some(element),
            ..field(id, DataType::Array)
        };
        fields.extend((base..).zip(ELEMENTS).map(array));
    }
    fields.push(FieldSchema {
        dim: 3,
        ..field(600, DataType::FloatVector)
    });
    fields.push(FieldSchema {
        dim: 2,
        nullable: true,
        ..field(601, DataType::FloatVector)
    });
    let narrow = [
        DataType::Float16Vector,
        DataType::BFloat16Vector,
        DataType::Int8Vector,
        DataType::BinaryVector,
    ];
    for (base, nullable) in [(610, false), (620, true)] {
        fields.extend((base..).zip(narrow).map(|(id, data_type)| FieldSchema {
            dim: 8,
            nullable,
            ..field(id, data_type)
        }));
    }
    fields.push(FieldSchema {
        is_dynamic: true,
        nullable: true,
        ..field(700, DataType::Json)
    });
    schema(fields)
}

/// Rows of [`full_schema`]; row numbers from `first` on decide the values, every third value of a nullable field is null.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]
pub(crate) fn full_rows(schema: &CollectionSchema, first: usize, rows: usize) -> RowBatch {
    let columns = schema.fields.iter().map(|field| {
        let null = |row: usize| field.nullable && (row + field.id.0 as usize).is_multiple_of(3);
        let numbers = || (first..first + rows).map(|row| if null(row) { 0 } else { row as i64 * 7 - 3 });
        let text = |row: usize| {
            if null(row) {
                String::new()
            } else {
                "ä→🦅".repeat(row % 4) + &row.to_string()
            }
        };
        let data = match field.data_type {
            DataType::Bool => ColumnData::Bool(numbers().map(|n| n % 2 != 0).collect()),
            DataType::Int8 => ColumnData::Int8(numbers().map(|n| n as i8).collect()),
            DataType::Int16 => ColumnData::Int16(numbers().map(|n| n as i16).collect()),
            DataType::Int32 => ColumnData::Int32(numbers().map(|n| n as i32).collect()),
            DataType::Int64 => ColumnData::Int64(numbers().map(|n| n * (1 << 40)).collect()),
            DataType::Float => ColumnData::Float(numbers().map(|n| n as f32 / 3.0).collect()),
            DataType::Double => ColumnData::Double(numbers().map(|n| n as f64 / 3.0).collect()),
            DataType::VarChar => ColumnData::VarChar((first..first + rows).map(text).collect()),
            DataType::Json => {
                let json = |row: usize| {
                    if null(row) {
                        Vec::new()
                    } else {
                        format!(r#"{{"row":{row}}}"#).into_bytes()
                    }
                };
                ColumnData::Json((first..first + rows).map(json).collect())
            }
            DataType::Array => {
                let array = |row: usize| array(field.element_type.unwrap(), if null(row) { 0 } else { row % 5 }, row);
                ColumnData::Array((first..first + rows).map(array).collect())
            }
            DataType::FloatVector => {
                let row = |n: i64| (0..field.dim).map(move |at| (n + at as i64) as f32 / 5.0);
                ColumnData::FloatVector {
                    dim: field.dim,
                    data: numbers().flat_map(row).collect(),
                }
            }
            DataType::Float16Vector | DataType::BFloat16Vector => {
                let row = |n: i64| {
                    (0..field.dim).map(move |at| {
                        if n == 0 {
                            0
                        } else {
                            0x3c00 | (n + at as i64) as u16 & 0x7f
                        }
                    })
                };
                let (dim, data) = (field.dim, numbers().flat_map(row).collect());
                if field.data_type == DataType::Float16Vector {
                    ColumnData::Float16Vector { dim, data }
                } else {
                    ColumnData::BFloat16Vector { dim, data }
                }
            }
            DataType::Int8Vector => {
                let row = |n: i64| (0..field.dim).map(move |at| if n == 0 { 0 } else { (n + at as i64) as i8 });
                ColumnData::Int8Vector {
                    dim: field.dim,
                    data: numbers().flat_map(row).collect(),
                }
            }
            DataType::BinaryVector => {
                let row = |n: i64| (0..field.dim / 8).map(move |at| if n == 0 { 0 } else { (n + at as i64) as u8 });
                ColumnData::BinaryVector {
                    dim: field.dim,
                    data: numbers().flat_map(row).collect(),
                }
            }
            DataType::SparseFloatVector => ColumnData::SparseFloatVector {
                data: numbers()
                    .map(|n| {
                        let pairs = (0..n.unsigned_abs() as u32 % 4).map(|at| (at * 7 + n.unsigned_abs() as u32, 0.5));
                        SparseVector::new(if n == 0 { Vec::new() } else { pairs.collect() }).unwrap()
                    })
                    .collect(),
            },
        };
        let validity = field
            .nullable
            .then(|| Bitmap::from_bools((first..first + rows).map(|row| !null(row))));
        Column {
            field: field.id,
            data,
            validity,
        }
    });
    RowBatch::new(columns.collect()).unwrap()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "small"
)]
fn array(element: DataType, length: usize, row: usize) -> ArrayValue {
    let numbers = (0..length).map(|at| (row * 10 + at) as i64 - 20);
    match element {
        DataType::Bool => ArrayValue::Bool(numbers.map(|n| n % 3 == 0).collect()),
        DataType::Int64 => ArrayValue::Int64(numbers.map(|n| n << 40).collect()),
        DataType::Float => ArrayValue::Float(numbers.map(|n| n as f32 / 3.0).collect()),
        DataType::Double => ArrayValue::Double(numbers.map(|n| n as f64 / 3.0).collect()),
        DataType::VarChar => ArrayValue::Text(numbers.map(|n| "é".repeat(n.unsigned_abs() as usize % 3)).collect()),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Json
        | DataType::Array
        | DataType::FloatVector
        | DataType::Float16Vector
        | DataType::BFloat16Vector
        | DataType::Int8Vector
        | DataType::BinaryVector
        | DataType::SparseFloatVector => ArrayValue::Int32(numbers.map(|n| n as i32).collect()),
    }
}

/// Numbers from 0 to 1 that look random and are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
    pub(crate) fn vector(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.next()).collect()
    }
}
