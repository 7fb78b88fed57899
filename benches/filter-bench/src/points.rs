//! The points of a data set of the side-by-side program, searched in process: what is left is the index alone.

use std::path::Path;

use saker_index::{Hit, Metric, RowMask, Vectors, flat_search};

use crate::npy::{Array, Failure};

const K: usize = 10;
const ROUNDS: usize = 7;

/// Prints a line for each point and list length.
pub fn measure(folder: &Path, option: &dyn Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let numbers = |name: &str, default: &str| -> Result<Vec<usize>, Failure> {
        let text = option(name).unwrap_or_else(|| default.to_owned());
        Ok(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
    };
    let (efs, permilles) = (numbers("--efs", "16,32,64,128")?, numbers("--permilles", "1,10,100,500")?);
    let columns = option("--columns").unwrap_or_else(|| "scattered,clustered".to_owned());
    let vectors = Array::read(&folder.join("vectors.npy"), "<f4")?;
    let (rows, dim) = (vectors.rows, vectors.columns);
    let values = vectors.f32s();
    let queries = Array::read(&folder.join(option("--queries").unwrap_or_else(|| "filter-queries.npy".to_owned())), "<f4")?.f32s();
    let queries: Vec<&[f32]> = queries.chunks_exact(dim).collect();
    let index = crate::opened(option("--saved"), Vectors::new(dim, values.clone())?, Metric::Cosine);
    for column in columns.split(',') {
        let numbers = Array::read(&folder.join(format!("{column}.npy")), "<i4")?.i32s();
        for &permille in &permilles {
            let mut words = vec![0u64; rows.div_ceil(64)];
            let passes = |row: &usize| usize::try_from(numbers[*row]).is_ok_and(|number| number < permille);
            (0..rows).filter(passes).for_each(|row| words[row / 64] |= 1 << (row % 64));
            let mask = (permille < 1_000).then_some(RowMask { words: &words, rows });
            let truth = match Array::read(&folder.join(format!("truth-{column}-{permille}.npy")), "<i8") {
                Ok(truth) if mask.is_some() => truth.i64s().chunks_exact(truth.columns).map(<[i64]>::to_vec).collect(),
                _ => exact(&values, dim, &queries, mask),
            };
            for &ef in &efs {
                let (mut found, mut least) = (0, f64::INFINITY);
                for round in 0..ROUNDS {
                    let began = cpu_ns()?;
                    let answers = queries.iter().map(|query| index.search(query, K, ef, mask)).collect::<Result<Vec<_>, _>>()?;
                    least = least.min((cpu_ns()? - began) as f64 / 1e3 / queries.len() as f64);
                    if round == 0 {
                        found = answers.iter().zip(&truth).map(|(hits, truth)| common(hits, truth)).sum();
                    }
                }
                let recall = found as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64;
                println!("{{\"column\": \"{column}\", \"permille\": {permille}, \"ef\": {ef}, \"recall\": {recall:.4}, \"cpu_us\": {least:.1}}}");
            }
        }
    }
    Ok(())
}

fn exact(values: &[f32], dim: usize, queries: &[&[f32]], mask: Option<RowMask<'_>>) -> Vec<Vec<i64>> {
    let one = |query: &&[f32]| flat_search(Metric::Cosine, values, dim, query, K, mask).iter().map(|hit| i64::from(hit.row)).collect();
    queries.iter().map(one).collect()
}

fn common(hits: &[Hit], truth: &[i64]) -> usize {
    hits.iter().filter(|hit| truth.contains(&i64::from(hit.row))).count()
}

/// Processor time of this thread.
fn cpu_ns() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}
