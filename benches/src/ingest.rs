//! Inserts a data set's rows as fast as a server acknowledges them and prints what it saw as one JSON line.
//!
//! Requests are encoded before the clock starts, so that the measurement shows the server. The rows are `id` (their
//! number), the named integer columns, and `vector`, each read from the data set's folder.

#[allow(dead_code, reason = "shared with a program that uses more of it")]
mod npy;

mod connection;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use clap::Parser;
use prost::Message as _;
use saker_proto::{
    milvus::{InsertRequest, MutationResult},
    schema::{
        DataType, FieldData, FloatArray, IntArray, LongArray, ScalarField, VectorField, field_data::Field, scalar_field,
        vector_field,
    },
};

use connection::{Connection, Failure, prefixed};
use npy::Array;

/// Inserts rows and measures.
#[derive(Parser)]
struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:19530")]
    uri: String,
    #[arg(long, default_value = "default")]
    database: String,
    #[arg(long)]
    collection: String,
    /// Holds `vectors.npy` and a file for each column.
    #[arg(long)]
    folder: PathBuf,
    /// Names of integer columns, parted by commas.
    #[arg(long, default_value = "")]
    columns: String,
    /// Rows in one request.
    #[arg(long, default_value_t = 5_000)]
    batch: usize,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 2)]
    clients: usize,
}

fn scalars(name: &str, kind: DataType, data: scalar_field::Data) -> FieldData {
    FieldData {
        r#type: kind.into(),
        field_name: name.to_owned(),
        field: Some(Field::Scalars(ScalarField { data: Some(data), ..Default::default() })),
        ..Default::default()
    }
}

fn requests(options: &Options) -> Result<(Vec<Vec<u8>>, usize), Failure> {
    let vectors = Array::read(&options.folder.join("vectors.npy"), "<f4")?;
    let (rows, dim) = (vectors.rows, vectors.columns);
    let vectors = vectors.f32s();
    let mut columns = Vec::new();
    for name in options.columns.split(',').filter(|name| !name.is_empty()) {
        columns.push((name, Array::read(&options.folder.join(format!("{name}.npy")), "<i4")?.i32s()));
    }
    let mut requests = Vec::new();
    for start in (0..rows).step_by(options.batch) {
        let end = (start + options.batch).min(rows);
        let ids = (start..end).map(i64::try_from).collect::<Result<Vec<_>, _>>()?;
        let mut fields = vec![scalars("id", DataType::Int64, scalar_field::Data::LongData(LongArray { data: ids }))];
        for (name, values) in &columns {
            let data = IntArray { data: values[start..end].to_vec() };
            fields.push(scalars(name, DataType::Int32, scalar_field::Data::IntData(data)));
        }
        let data = FloatArray { data: vectors[start * dim..end * dim].to_vec() };
        fields.push(FieldData {
            r#type: DataType::FloatVector.into(),
            field_name: "vector".to_owned(),
            field: Some(Field::Vectors(VectorField {
                dim: i64::try_from(dim)?,
                data: Some(vector_field::Data::FloatVector(data)),
                ..Default::default()
            })),
            ..Default::default()
        });
        let request = InsertRequest {
            db_name: options.database.clone(),
            collection_name: options.collection.clone(),
            fields_data: fields,
            num_rows: u32::try_from(end - start)?,
            ..Default::default()
        };
        requests.push(prefixed(&request.encode_to_vec())?);
    }
    Ok((requests, rows))
}

fn client(connection: &mut Connection, requests: &[Vec<u8>], next: &AtomicUsize) -> Result<(), Failure> {
    let mut answer = Vec::new();
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        connection.call(request, &mut answer)?;
        if let Some(status) = MutationResult::decode(&answer[..])?.status.filter(|status| status.code != 0) {
            return Err(format!("refused: {}", status.reason).into());
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let (requests, rows) = requests(&options)?;
    let authority = options.uri.trim_start_matches("http://").trim_end_matches('/');
    let connect = |_| Connection::open(authority, "/milvus.proto.milvus.MilvusService/Insert");
    let mut connections = (0..options.clients).map(connect).collect::<Result<Vec<_>, _>>()?;
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let outcomes: Vec<Result<(), Failure>> = thread::scope(|scope| {
        let (requests, next) = (&requests, &next);
        let threads: Vec<_> =
            connections.iter_mut().map(|connection| scope.spawn(move || client(connection, requests, next))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a client died".into()))).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    for outcome in outcomes {
        outcome?;
    }
    println!("{}", serde_json::json!({ "rows": rows, "requests": requests.len(), "seconds": seconds }));
    Ok(())
}
