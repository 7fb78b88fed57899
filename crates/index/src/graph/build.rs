//! Building: rows join one after another, on several threads, each linked both ways to the rows that a walk finds.
//!
//! The method is Vamana's (Jayaram Subramanya et al., "DiskANN: Fast accurate billion-point nearest neighbor search on a
//! single node", NeurIPS 2019; growing row by row as in Singh et al., "FreshDiskANN", 2021), over codes. Under inner
//! product rows join as queries would, so that lists lead to the largest products (Morozov and Babenko, "Non-metric
//! similarity graphs for maximum inner product search", NeurIPS 2018).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use saker_arena::{STACK_BYTES, leaving_no_trace};

use super::GraphParams;
use super::codes::{Codes, Query};
use super::links::{GrowingLinks, Links, NONE, Neighbours};
use super::walk::{Ground, Scratch, Step};
use crate::{IndexError, Metric};

/// Builds the lists of all rows of `codes`, walks starting at `start`.
pub(super) fn build(
    codes: &Codes,
    metric: Metric,
    start: u32,
    params: &GraphParams,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
    stop: &AtomicBool,
) -> Result<Links, IndexError> {
    let width = params.degree + params.degree * SLACK_PERCENT / 100 + 1;
    let rows = Rows { codes, metric };
    let builder = Builder {
        rows,
        links: GrowingLinks::new(codes.rows(), width),
        start,
        params,
        width,
    };
    let done = AtomicUsize::new(0);
    in_chunks(codes.rows(), threads, stop, |worker: &mut Worker, rows| {
        let count = rows.len();
        rows.filter(|&row| row != start)
            .for_each(|row| builder.join(row, worker));
        progress(done.fetch_add(count, Ordering::Relaxed) + count);
    })?;
    in_chunks(codes.rows(), threads, stop, |worker: &mut Worker, rows| {
        rows.for_each(|row| builder.trim(row, worker));
    })?;
    let mut links = builder.links.finish(params.degree);
    connect(rows, &mut links, start, params.build_list, stop)?;
    Ok(links)
}

/// Runs `work` over all rows, a chunk at a time, on `threads` threads.
fn in_chunks<W: Default>(
    rows: usize,
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn(&mut W, std::ops::Range<u32>) + Sync,
) -> Result<(), IndexError> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut worker = W::default();
        while !stop.load(Ordering::Relaxed) {
            let first = next.fetch_add(CHUNK_ROWS, Ordering::Relaxed);
            if first >= rows {
                break;
            }
            #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
            work(&mut worker, first as u32..rows.min(first + CHUNK_ROWS) as u32);
        }
    };
    let threads = threads.clamp(1, THREADS_MAX);
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without this thread the others do its share.
            let _ = thread::Builder::new()
                .name("index-build".into())
                .spawn_scoped(scope, || leaving_no_trace::<STACK_BYTES, _>(run));
        }
        run();
    });
    if stop.load(Ordering::Relaxed) {
        Err(IndexError::Stopped)
    } else {
        Ok(())
    }
}

/// The rows to be joined, each of which takes the part of a query.
#[derive(Clone, Copy)]
struct Rows<'a> {
    codes: &'a Codes,
    metric: Metric,
}

impl Rows<'_> {
    fn as_query(self, row: u32, out: &mut Query) {
        self.codes.as_query(self.metric, row, out);
    }

    /// Whether the cost of row `b` for row `a` as a query may differ from that of `a` for `b`.
    fn is_lopsided(self) -> bool {
        self.metric == Metric::Ip
    }
}

struct Builder<'a> {
    rows: Rows<'a>,
    links: GrowingLinks,
    start: u32,
    params: &'a GraphParams,
    width: usize,
}

/// What one thread reuses from row to row.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    query: Query,
    list: Vec<u32>,
    pruner: Pruner,
}

impl Builder<'_> {
    /// Links `row` to the rows that a walk from the start expands on its way, and those back to `row`.
    fn join(&self, row: u32, worker: &mut Worker) {
        let Worker {
            scratch,
            query,
            list,
            pruner,
        } = worker;
        self.rows.as_query(row, query);
        let ground = Ground {
            links: &self.links,
            codes: self.rows.codes,
            start: self.start,
        };
        ground.walk(query, self.params.build_list, scratch);
        pruner.pool.clear();
        pruner
            .pool
            .extend(scratch.expanded.iter().copied().filter(|step| step.row() != row));
        pruner.select(self.rows, self.params, row);
        let chosen = std::mem::take(&mut pruner.chosen);
        // Rows that joined meanwhile may have linked back already: keep those.
        self.links.update(row, list, |list| {
            for step in &chosen {
                if !list.contains(&step.row()) && list.len() < self.width {
                    list.push(step.row());
                }
            }
        });
        for step in &chosen {
            self.links.update(step.row(), list, |list| {
                if list.contains(&row) {
                    return;
                }
                list.push(row);
                if list.len() > self.width {
                    pruner.shorten(self.rows, self.params, step.row(), list);
                }
            });
        }
        pruner.chosen = chosen;
    }

    /// Brings the list of `row` down to the final degree.
    fn trim(&self, row: u32, worker: &mut Worker) {
        let Worker { list, pruner, .. } = worker;
        self.links.update(row, list, |list| {
            if list.len() > self.params.degree {
                pruner.shorten(self.rows, self.params, row, list);
            }
        });
    }
}

/// Chooses a row's neighbours among candidates so that they lead in all directions.
#[derive(Default)]
struct Pruner {
    /// Candidates and their costs to the row.
    pool: Vec<Step>,
    /// Those chosen by the last selection.
    chosen: Vec<Step>,
    states: Vec<State>,
    query: Query,
    costs: Vec<u32>,
    compared: Vec<u32>,
}

/// How far the comparison of one candidate with the chosen ones has come.
#[derive(Clone, Copy)]
struct State {
    /// Cost of the row to the candidate as a query.
    cost: u32,
    /// Largest ratio of its cost to the row over its cost to a chosen one: above 1 a chosen one is nearer to it.
    occlusion: f32,
    /// Chosen ones that it was compared with.
    compared: usize,
}

impl Pruner {
    /// Replaces `list`, neighbours of `row`, by at most the final degree of them.
    fn shorten(&mut self, rows: Rows<'_>, params: &GraphParams, row: u32, list: &mut Vec<u32>) {
        rows.as_query(row, &mut self.query);
        rows.codes.costs(&self.query, list, &mut self.costs);
        self.pool.clear();
        self.pool.extend(
            self.costs
                .iter()
                .zip(list.iter())
                .map(|(&cost, &row)| Step::new(cost, row)),
        );
        self.select(rows, params, row);
        list.clear();
        list.extend(self.chosen.iter().map(|step| step.row()));
    }

    /// Robust prune: goes through the pool from near to far and chooses a candidate unless a chosen one is nearer to it
    /// than the row is, by a factor of more than alpha; first with alpha 1, then, while there is room, with the full one.
    fn select(&mut self, rows: Rows<'_>, params: &GraphParams, row: u32) {
        let Self {
            pool,
            chosen,
            states,
            query,
            costs,
            compared,
        } = self;
        pool.sort_unstable();
        pool.dedup();
        pool.truncate(POOL_MAX);
        states.clear();
        states.extend(pool.iter().map(|step| State {
            cost: step.cost(),
            occlusion: 0.0,
            compared: 0,
        }));
        // Under inner product all costs are those of the candidate as a query: only they compare with each other.
        if rows.is_lopsided() {
            for (candidate, state) in pool.iter().zip(states.iter_mut()) {
                rows.as_query(candidate.row(), query);
                rows.codes.costs(query, &[row], costs);
                state.cost = costs[0];
            }
        }
        let alpha = if rows.is_lopsided() {
            params.alpha.clamp(1.0, ALPHA_LOPSIDED_MAX)
        } else {
            params.alpha.max(1.0)
        };
        chosen.clear();
        compared.clear();
        for alpha in [1.0, alpha] {
            for (candidate, state) in pool.iter().zip(states.iter_mut()) {
                if chosen.len() >= params.degree {
                    return;
                }
                if state.occlusion > alpha {
                    continue;
                }
                if state.compared < chosen.len() {
                    rows.as_query(candidate.row(), query);
                }
                while state.compared < chosen.len() && state.occlusion <= alpha {
                    let end = compared.len().min(state.compared + COMPARE_ROWS);
                    rows.codes.costs(query, &compared[state.compared..end], costs);
                    for (&between, other) in costs.iter().zip(&chosen[state.compared..]) {
                        if other > candidate {
                            continue;
                        }
                        let ratio = if between == 0 {
                            f32::MAX
                        } else {
                            state.cost as f32 / between as f32
                        };
                        state.occlusion = state.occlusion.max(ratio);
                    }
                    state.compared = end;
                }
                if state.occlusion <= alpha {
                    chosen.push(*candidate);
                    compared.push(candidate.row());
                    state.occlusion = f32::INFINITY;
                }
            }
        }
    }
}

/// Links every row that no walk could reach from one that walks do reach.
fn connect(rows: Rows<'_>, links: &mut Links, start: u32, list: usize, stop: &AtomicBool) -> Result<(), IndexError> {
    let codes = rows.codes;
    if codes.rows() == 0 {
        return Ok(());
    }
    let mut scratch = Scratch::default();
    let mut query = Query::default();
    let mut reached = vec![false; codes.rows()];
    let mut pending = vec![start];
    reached[start as usize] = true;
    #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
    for lost in 0..=codes.rows() as u32 {
        while let Some(row) = pending.pop() {
            links.each(row, |neighbour| {
                if !std::mem::replace(&mut reached[neighbour as usize], true) {
                    pending.push(neighbour);
                }
            });
        }
        if reached.get(lost as usize).is_none_or(|reached| *reached) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            return Err(IndexError::Stopped);
        }
        rows.as_query(lost, &mut query);
        Ground {
            links: &*links,
            codes,
            start,
        }
        .walk(&query, list, &mut scratch);
        let free = |step: &&Step| links.row(step.row()).contains(&NONE);
        let near = scratch.nearest.iter().find(free).map(|step| step.row());
        // With no free entry near, any reached row that has one will do: a longer way is better than none.
        let from = near
            .or_else(|| (0..codes.rows() as u32).find(|&row| reached[row as usize] && links.row(row).contains(&NONE)));
        if let Some(entry) = from.and_then(|row| links.row_mut(row).iter_mut().find(|entry| **entry == NONE)) {
            *entry = lost;
            reached[lost as usize] = true;
            pending.push(lost);
        }
    }
    Ok(())
}

/// Rows that a thread takes at once: few enough that all threads end together and a stop is heard soon.
const CHUNK_ROWS: usize = 256;
/// Most build threads, so that a wrong setting cannot exhaust the process.
const THREADS_MAX: usize = 256;
/// Room beyond the final degree while building, so that not every new neighbour costs a prune.
const SLACK_PERCENT: usize = 30;
/// Most candidates that a selection looks at: its time grows with their square.
const POOL_MAX: usize = 750;
/// Largest alpha under inner product: costs share a large constant there, so a small factor reaches far.
const ALPHA_LOPSIDED_MAX: f32 = 1.1;
/// Chosen neighbours that a candidate is compared with before looking whether it is out already.
const COMPARE_ROWS: usize = 4;
