//! Filtered search over vectors in a file: recall and time of the index at several selectivities, for filters whose rows
//! lie anywhere, near the query, far from it, or in one place that has nothing to do with it.
//!
//! `--rows FILE --queries FILE --dim D [--ef N] [--saved FILE] [--metric cosine|ip|l2] [--take N]`; files hold
//! little-endian `f32`. One line of JSON for each point; `exact_ms` is comparing all allowed vectors.
//!
//! `--folder FOLDER [--efs 16,32] [--columns scattered,clustered] [--permilles 500,1000] [--saved FILE]`: a data set of the
//! side-by-side program with its columns, under the rows of less than so many thousandths (1,000 and more: no mask). One line
//! for each point and list length; `cpu_us` is processor time a query, the least of several rounds.

#[path = "../../src/npy.rs"]
mod npy;
mod points;

use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use saker_index::{GraphIndex, GraphParams, Hit, Metric, RowMask, Vectors, distance, flat_search};

const K: usize = 10;
const SHARES: [f64; 4] = [0.001, 0.01, 0.1, 0.5];

fn main() {
    let option = |name: &str| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name);
        arguments.nth(1)
    };
    let number = |name: &str, default: usize| option(name).map_or(default, |text| text.parse().expect("a number"));
    let floats = |name: &str| -> Vec<f32> {
        let bytes = fs::read(option(name).unwrap_or_else(|| panic!("{name} FILE is missing"))).expect("a readable file");
        bytes.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect()
    };
    if let Some(folder) = option("--folder") {
        points::measure(folder.as_ref(), &option).expect("a data set");
        return;
    }
    let dim = number("--dim", 384);
    let metric = match option("--metric").as_deref() {
        Some("l2") => Metric::L2,
        Some("ip") => Metric::Ip,
        _ => Metric::Cosine,
    };
    let rows = floats("--rows");
    let queries = floats("--queries");
    let queries: Vec<&[f32]> = queries.chunks_exact(dim).take(number("--take", 100)).collect();
    let vectors = Vectors::new(dim, rows.clone()).expect("whole rows");
    let index = opened(option("--saved"), vectors, metric);
    let ef = number("--ef", 0);
    let bench = Bench { rows: &rows, dim, metric, queries: &queries };
    let count = rows.len() / dim;
    let kinds = option("--kinds").unwrap_or_else(|| "random,near,far,place".to_owned());
    let shares: Vec<f64> = match option("--shares") {
        Some(text) => text.split(',').map(|share| share.parse().expect("a number")).collect(),
        None => SHARES.to_vec(),
    };
    for share in shares {
        for kind in kinds.split(',') {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a number of rows")]
            let allowed = ((count as f64) * share) as usize;
            let masks: Vec<Vec<u64>> = (0..queries.len()).map(|query| bench.mask(kind, allowed, query)).collect();
            let mask = |query: usize| RowMask { words: &masks[query], rows: count };
            let mut exact_ms = Vec::new();
            let truth: Vec<Vec<Hit>> = queries
                .iter()
                .enumerate()
                .map(|(at, query)| {
                    let began = Instant::now();
                    let hits = flat_search(metric, &rows, dim, query, K, Some(mask(at)));
                    exact_ms.push(began.elapsed().as_secs_f64() * 1e3);
                    hits
                })
                .collect();
            let (mut found, mut wanted, mut took_ms) = (0, 0, Vec::new());
            let mut least_ms = vec![f64::INFINITY; queries.len()];
            for round in 0..5 {
                for (at, query) in queries.iter().enumerate() {
                    let began = Instant::now();
                    let hits = index.search(query, K, ef, Some(mask(at))).expect("a search");
                    let ms = began.elapsed().as_secs_f64() * 1e3;
                    took_ms.push(ms);
                    least_ms[at] = least_ms[at].min(ms);
                    if round == 0 {
                        // Rows as good as the last true one count, whichever of them the exact search took.
                        let worst = truth[at].last().map_or(0.0, |hit| hit.score);
                        let good = |hit: &&Hit| if metric == Metric::L2 { hit.score <= worst * 1.000_001 } else { hit.score >= worst - 1e-6 };
                        found += hits.iter().filter(good).count();
                        wanted += truth[at].len();
                    }
                }
            }
            println!(
                "{{\"share\": {share}, \"kind\": \"{kind}\", \"allowed\": {allowed}, \"recall\": {:.4}, \"p50_ms\": {:.4}, \"p99_ms\": {:.4}, \"least_ms\": {:.4}, \"exact_ms\": {:.4}}}",
                found as f64 / wanted as f64,
                percentile(&mut took_ms, 0.5),
                percentile(&mut took_ms, 0.99),
                least_ms.iter().sum::<f64>() / least_ms.len() as f64,
                percentile(&mut exact_ms, 0.5),
            );
        }
    }
}

/// The index of a file or, if there is none, a new one that is left there.
fn opened(saved: Option<String>, vectors: Vectors, metric: Metric) -> GraphIndex {
    if let Some(path) = saved.as_ref().filter(|path| fs::exists(path).unwrap_or(false)) {
        return GraphIndex::from_bytes(&fs::read(path).expect("a readable file"), vectors, metric).expect("a saved index");
    }
    let never = AtomicBool::new(false);
    let index = GraphIndex::build(vectors, metric, &GraphParams::default(), 2, &|_| (), &never).expect("an index");
    if let Some(path) = saved {
        fs::write(path, index.to_bytes()).expect("a writable file");
    }
    index
}

struct Bench<'a> {
    rows: &'a [f32],
    dim: usize,
    metric: Metric,
    queries: &'a [&'a [f32]],
}

impl Bench<'_> {
    fn mask(&self, kind: &str, allowed: usize, query: usize) -> Vec<u64> {
        let count = self.rows.len() / self.dim;
        let row = |at: usize| &self.rows[at * self.dim..][..self.dim];
        let mut random = 0x9E37_79B9_7F4A_7C15u64 ^ query as u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let chosen: Vec<usize> = match kind {
            "random" => {
                let mut all: Vec<usize> = (0..count).collect();
                for at in 0..allowed {
                    let other = at + (next() as usize) % (count - at);
                    all.swap(at, other);
                }
                all.truncate(allowed);
                all
            }
            _ => {
                let center = if kind == "place" { row((next() as usize) % count) } else { self.queries[query] };
                let mut all: Vec<(f32, usize)> = (0..count)
                    .map(|at| {
                        let score = distance(self.metric, center, row(at));
                        (if self.metric == Metric::L2 { score } else { -score }, at)
                    })
                    .collect();
                all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                if kind == "far" {
                    all.reverse();
                }
                all.into_iter().take(allowed).map(|(_, at)| at).collect()
            }
        };
        let mut words = vec![0u64; count.div_ceil(64)];
        chosen.iter().for_each(|row| words[row / 64] |= 1 << (row % 64));
        words
    }
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a list")]
    let place = ((values.len() - 1) as f64 * share) as usize;
    values[place]
}
