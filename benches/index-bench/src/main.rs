//! Builds the graph index over vectors in a file, then measures searches as lines on standard input ask: `EF THREADS
//! SECONDS`. Each answer is one line of JSON. So a script can measure this index and a peer in turns, in one run.
//!
//! `cpu_qps` is per second of processor time, which says more than `qps` while other programs use the machine.
//!
//! Files hold little-endian `f32` (vectors, queries) and `u32` (the true ten best rows of each query).

use std::fs;
use std::io::BufRead as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use saker_index::{CodeBits, GraphIndex, GraphParams, Metric, Vectors};

const K: usize = 10;

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
    let dim = number("--dim", 384);
    let metric = match option("--metric").as_deref() {
        Some("l2") => Metric::L2,
        Some("ip") => Metric::Ip,
        _ => Metric::Cosine,
    };
    let defaults = GraphParams::default();
    let params = GraphParams {
        degree: number("--degree", defaults.degree),
        build_list: number("--build-list", defaults.build_list),
        alpha: option("--alpha").map_or(defaults.alpha, |text| text.parse().expect("a number")),
        code_bits: match number("--bits", 0) {
            4 => Some(CodeBits::Four),
            7 => Some(CodeBits::Seven),
            _ => None,
        },
    };
    let queries = floats("--queries");
    let truth: Vec<u32> = floats("--truth").into_iter().map(f32::to_bits).collect();
    // As a load would leave them: put together, in large pages where the system has them.
    let vectors = Vectors::concat(&[&Vectors::new(dim, floats("--rows")).expect("whole rows")]).expect("one part");
    let raw = vectors.bytes();

    let never = AtomicBool::new(false);
    let began = Instant::now();
    let saved = option("--saved").filter(|path| fs::exists(path).unwrap_or(false));
    let index = match &saved {
        Some(path) => GraphIndex::from_bytes(&fs::read(path).expect("a readable file"), vectors, metric),
        None => GraphIndex::build(vectors, metric, &params, number("--threads", 2), &|_| (), &never),
    };
    let index = index.expect("an index");
    println!(
        "{{\"{}\": {:.3}, \"index_bytes\": {}, \"vector_bytes\": {raw}}}",
        if saved.is_some() { "open_seconds" } else { "build_seconds" },
        began.elapsed().as_secs_f64(),
        index.memory_bytes()
    );
    if let (Some(path), None) = (option("--saved"), &saved) {
        fs::write(path, index.to_bytes()).expect("a writable file");
    }

    let rows: Vec<&[f32]> = queries.chunks_exact(dim).collect();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("EF THREADS SECONDS");
        let (ef, threads) = (next().parse().expect("a number"), next().parse::<usize>().expect("a number"));
        let duration = Duration::from_secs_f64(next().parse().expect("a number"));
        let found: usize = rows
            .iter()
            .zip(truth.chunks_exact(K))
            .map(|(query, truth)| {
                let hits = index.search(query, K, ef, None).expect("a search");
                hits.iter().filter(|hit| truth.contains(&hit.row)).count()
            })
            .sum();
        let done = AtomicUsize::new(0);
        let cpu_nanos = AtomicU64::new(0);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (rows, index, done, cpu_nanos) = (&rows, &index, &done, &cpu_nanos);
                scope.spawn(move || {
                    let mut at = thread * rows.len() / threads;
                    while began.elapsed() < duration {
                        for _ in 0..20 {
                            std::hint::black_box(index.search(rows[at % rows.len()], K, ef, None)).expect("a search");
                            at += 1;
                        }
                        done.fetch_add(20, Ordering::Relaxed);
                    }
                    cpu_nanos.fetch_add(thread_cpu_nanos(), Ordering::Relaxed);
                });
            }
        });
        println!(
            "{{\"ef\": {ef}, \"threads\": {threads}, \"recall\": {:.4}, \"qps\": {:.0}, \"cpu_qps\": {:.0}}}",
            found as f64 / (rows.len() * K) as f64,
            done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64(),
            done.load(Ordering::Relaxed) as f64 / (cpu_nanos.load(Ordering::Relaxed) as f64 / 1e9)
        );
    }
}

/// Processor time of the calling thread so far.
fn thread_cpu_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(1)
}
