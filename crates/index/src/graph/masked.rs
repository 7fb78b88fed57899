//! Searches among a subset of rows.
//!
//! Which way is fastest depends on how many rows are allowed, which is counted exactly, and on where they lie:
//! - Few: all of them are compared by code, then the best exactly. Its time grows with their number and nothing else.
//! - Many, some of them where the query is: a walk as if all were, with a list as much longer, of which the others are
//!   dropped. A row that is not allowed leads on as well as any other, and better than what lies behind it, as long as the
//!   list need not be several times as long.
//! - Otherwise: a walk over allowed rows alone. A neighbour that is not allowed is a bridge: its own allowed neighbours
//!   count as neighbours (Patel et al., "ACORN: Performant and predicate-agnostic search over vector embeddings and
//!   structured data", SIGMOD 2024), until a row has as many as it has without a mask, so that a list of some length finds
//!   about what it finds without one. It starts from the nearest of a sample of the allowed rows, so it need not find its
//!   way to wherever they lie.
//!
//! A graph leads to rows that are near the query. Where the allowed ones are all far from it, many are about equally far,
//! in all directions, and no list of moderate length holds the best of them. The sample shows that: it has many rows
//! hardly farther than the walk's best. Then, as where a walk found too little, the allowed rows are compared by code
//! after all.

use super::GraphIndex;
use super::codes::Query;
use super::links::Neighbours;
use super::walk::{Ground, Scratch, Step, insert};
use crate::RowMask;

/// The costs of a sample of the allowed rows.
#[derive(Default)]
pub(super) struct Sample {
    rows: Vec<Step>,
}

impl GraphIndex {
    /// Leaves the candidates for the `k` best of the `allowed` rows in `mask`, best first, in `scratch.nearest`. At most
    /// `list` of them.
    pub(super) fn search_among(
        &self,
        query: &Query,
        k: usize,
        list: usize,
        mask: RowMask<'_>,
        allowed: usize,
        scratch: &mut Scratch,
    ) {
        let share = allowed as f64 / self.codes.rows().max(1) as f64;
        if (allowed as f64) < walk_rows(list, self.links.width()) {
            return self.scan_among(query, k, list, mask, scratch);
        }
        let near = if share >= MANY {
            self.allowed_near(query, mask, scratch)
        } else {
            0
        };
        if near >= LOOK_ALLOWED_MIN {
            // Where nearly all near ones are allowed, that is what counts.
            let share = share.max((near - LOOK_ALLOWED_MIN) as f64 / LOOK_NEAREST as f64);
            // Beyond those wanted, for how many of a list are allowed varies.
            let least = list.max(k + k / 2 + SPARE_ROWS);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a list is short")]
            let longer = (least as f64 / share).ceil() as usize;
            self.ground().walk(query, longer, scratch);
            scratch.nearest.retain(|step| mask.contains(step.row() as usize));
            // Fewer may be allowed where the query is than elsewhere.
            if scratch.nearest.len() >= k.max(list / 2) {
                return;
            }
        }
        self.ground().walk_among(query, list, mask, allowed, scratch);
        if scratch.nearest.len() < list || scratch.sample.is_dense(query, scratch.nearest.get(k.max(1) - 1)) {
            self.scan_among(query, k, list, mask, scratch);
        }
    }

    /// How many of [`LOOK_NEAREST`] rows near the query are allowed: of the nearest of a few rows of all parts.
    fn allowed_near(&self, query: &Query, mask: RowMask<'_>, scratch: &mut Scratch) -> usize {
        let Scratch {
            rows, costs, nearest, ..
        } = scratch;
        rows.clear();
        #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
        rows.extend(sample_places(self.codes.rows(), LOOK_ROWS).map(|row| row as u32));
        self.codes.costs(query, rows, costs);
        nearest.clear();
        nearest.extend(costs.iter().zip(&*rows).map(|(&cost, &row)| Step::new(cost, row)));
        if nearest.len() > LOOK_NEAREST {
            nearest.select_nth_unstable(LOOK_NEAREST - 1);
            nearest.truncate(LOOK_NEAREST);
        }
        let allowed = nearest.iter().filter(|step| mask.contains(step.row() as usize));
        allowed.count()
    }

    /// Leaves the nearest allowed rows by code in `scratch.nearest`: `list` of them, or more where many are about as far as
    /// the `k` best.
    fn scan_among(&self, query: &Query, k: usize, list: usize, mask: RowMask<'_>, scratch: &mut Scratch) {
        let Scratch {
            rows, costs, nearest, ..
        } = scratch;
        let kept = list.saturating_mul(DENSE_LISTS);
        let (mut worst, mut sum, mut count) = (Step::LAST, 0.0f64, 0usize);
        nearest.clear();
        rows.clear();
        let mut compare = |rows: &mut Vec<u32>| {
            self.codes.costs(query, rows, costs);
            for (&cost, &row) in costs.iter().zip(rows.iter()) {
                sum += f64::from(query.estimate(cost));
                let step = Step::new(cost, row);
                if step < worst {
                    nearest.push(step);
                }
            }
            count += rows.len();
            rows.clear();
            // Cut now and then, so that it takes little memory and each row little time.
            if nearest.len() >= kept.saturating_mul(2) {
                worst = *nearest.select_nth_unstable(kept - 1).1;
                nearest.truncate(kept);
            }
        };
        for row in mask.iter() {
            #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
            rows.push(row as u32);
            if rows.len() == super::SCAN_BATCH_ROWS {
                compare(rows);
            }
        }
        compare(rows);
        if nearest.len() <= list {
            return nearest.sort_unstable();
        }
        nearest.select_nth_unstable(list - 1);
        nearest[..list].sort_unstable();
        let mean = sum / count.max(1) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "about so much is enough")]
        let limit = limit_of(query.estimate(nearest[k.clamp(1, list) - 1].cost()), mean as f32);
        let near = nearest
            .iter()
            .filter(|step| query.estimate(step.cost()) <= limit)
            .count();
        if near * SAMPLE_ROWS > count * DENSE_ROWS && near > list {
            nearest[list..].sort_unstable();
        } else {
            nearest.truncate(list);
        }
    }
}

impl<N: Neighbours> Ground<'_, N> {
    /// Leaves the `list` nearest rows found among the `allowed` ones of `mask` in `scratch.nearest`, and what they start
    /// from in `scratch.sample`.
    pub(super) fn walk_among(
        &self,
        query: &Query,
        list: usize,
        mask: RowMask<'_>,
        allowed: usize,
        scratch: &mut Scratch,
    ) {
        scratch.nearest.clear();
        scratch.seen.clear(self.codes.rows());
        self.begin_among(query, list, mask, allowed, scratch);
        let mut next = 0;
        while let Some(&step) = scratch.nearest.get(next) {
            if step.is_expanded() {
                next += 1;
                continue;
            }
            scratch.nearest[next] = step.expanded();
            self.expand_among(query, step.row(), mask, scratch);
            if let Some(after) = scratch.nearest.get(next + 1) {
                self.links.prefetch(after.row());
            }
            for index in 0..scratch.rows.len() {
                let found = Step::new(scratch.costs[index], scratch.rows[index]);
                if let Some(place) = insert(&mut scratch.nearest, found, list)
                    && place <= next
                {
                    next = place;
                    self.links.prefetch(found.row());
                }
            }
        }
    }

    /// Starts from the nearest of a sample.
    fn begin_among(&self, query: &Query, list: usize, mask: RowMask<'_>, allowed: usize, scratch: &mut Scratch) {
        sample(mask, allowed, &mut scratch.rows);
        self.codes.costs(query, &scratch.rows, &mut scratch.costs);
        let costs = scratch.costs.iter().zip(&scratch.rows);
        scratch.sample.rows.clear();
        scratch
            .sample
            .rows
            .extend(costs.map(|(&cost, &row)| Step::new(cost, row)));
        scratch.sample.rows.sort_unstable();
        for step in scratch.sample.rows.iter().take(STARTS.min(list)) {
            scratch.seen.insert(step.row());
            scratch.nearest.push(*step);
        }
    }

    /// Leaves allowed rows not seen before that are neighbours of `row`, or of neighbours that are not allowed, in
    /// `scratch.rows`, their costs in `scratch.costs`.
    #[inline]
    fn expand_among(&self, query: &Query, row: u32, mask: RowMask<'_>, scratch: &mut Scratch) {
        let Scratch {
            seen,
            rows,
            costs,
            bridges,
            ..
        } = scratch;
        rows.clear();
        bridges.clear();
        let mut neighbours = 0;
        self.links.each(row, |neighbour| {
            neighbours += 1;
            if mask.contains(neighbour as usize) {
                if seen.insert(neighbour) {
                    rows.push(neighbour);
                }
            } else if !seen.contains(neighbour) {
                bridges.push(neighbour);
            }
        });
        // Rows met before count as well. About as many as a row has neighbours let a list find what it finds without a
        // mask, and a few more where they all lie around one place; half as many cost 0.06 of recall on MiniLM.
        let enough = neighbours + neighbours / 4;
        let mut met = neighbours - bridges.len();
        bridges
            .iter()
            .take(BRIDGES_AHEAD)
            .for_each(|&bridge| self.links.prefetch(bridge));
        for (index, &bridge) in bridges.iter().enumerate() {
            if met >= enough {
                break;
            }
            if let Some(&ahead) = bridges.get(index + BRIDGES_AHEAD) {
                self.links.prefetch(ahead);
            }
            seen.insert(bridge);
            self.links.each(bridge, |neighbour| {
                if mask.contains(neighbour as usize) && seen.insert(neighbour) {
                    rows.push(neighbour);
                    met += 1;
                }
            });
        }
        self.codes.costs(query, rows, costs);
    }
}

impl Sample {
    /// Whether many allowed rows are hardly farther than `best`, the last of those wanted.
    fn is_dense(&self, query: &Query, best: Option<&Step>) -> bool {
        let Some(best) = best.map(|step| query.estimate(step.cost())) else {
            return true;
        };
        let costs = || self.rows.iter().map(|step| query.estimate(step.cost()));
        let mean = costs().sum::<f32>() / self.rows.len().max(1) as f32;
        let limit = limit_of(best, mean);
        costs().filter(|&cost| cost <= limit).count() > DENSE_ROWS
    }
}

/// What is hardly farther than `best` where all rows are `mean` far on average.
fn limit_of(best: f32, mean: f32) -> f32 {
    best + (mean - best) * HARDLY_FARTHER
}

/// Leaves [`SAMPLE_ROWS`] of the `allowed` rows in `rows`, or all: one, taken at random, of each of as many equal parts.
fn sample(mask: RowMask<'_>, allowed: usize, rows: &mut Vec<u32>) {
    rows.clear();
    let mut places = sample_places(allowed, SAMPLE_ROWS);
    let Some(mut place) = places.next() else { return };
    let mut before = 0;
    for (index, word) in mask.valid_words().enumerate() {
        let ones = word.count_ones() as usize;
        while place < before + ones {
            let mut rest = word;
            for _ in before..place {
                rest &= rest - 1;
            }
            #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
            rows.push((index * 64) as u32 + rest.trailing_zeros());
            match places.next() {
                Some(next) => place = next,
                None => return,
            }
        }
        before += ones;
    }
}

/// Which of so many rows are sampled, `count` at most, ascending. A fixed sequence: the same search gives the same answer.
fn sample_places(rows: usize, count: usize) -> impl Iterator<Item = usize> {
    let mut random = 0x9E37_79B9u32;
    let parts = count.min(rows);
    (0..parts).map(move |part| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (start, end) = (part * rows / parts, (part + 1) * rows / parts);
        start + (random as usize >> 8) % (end - start)
    })
}

/// How many rows a scan could compare in the time of a walk over allowed rows.
fn walk_rows(list: usize, width: usize) -> f64 {
    list as f64 * width as f64 * SCAN_ROWS_PER_NEIGHBOUR
}

/// Rows sampled: comparing them takes a few percent of a walk's time.
const SAMPLE_ROWS: usize = 256;
/// Rows of the sample that a walk starts from: where the allowed rows lie in several places, it is to reach each.
const STARTS: usize = 8;
/// Bridges whose neighbours are fetched ahead.
const BRIDGES_AHEAD: usize = 6;
/// From this share on, an ordinary walk with a longer list is faster: at half it takes about five sixths of the time, at a
/// third a third more.
const MANY: f64 = 0.4;
/// Rows beyond those wanted that such a walk is to find at least.
const SPARE_ROWS: usize = 4;
/// Rows that are looked at before it, ...
const LOOK_ROWS: usize = 64;
/// ... the nearest of them, ...
const LOOK_NEAREST: usize = 8;
/// ... and how many of those have to be allowed.
const LOOK_ALLOWED_MIN: usize = 2;
/// Rows that a scan compares per row and neighbour that a walk expands.
const SCAN_ROWS_PER_NEIGHBOUR: f64 = 6.0;
/// This part of the way from the best rows to the middle of all.
const HARDLY_FARTHER: f32 = 0.15;
/// Where many rows are about as far as the best, so many times the usual list get exact scores if need be.
const DENSE_LISTS: usize = 64;
/// More rows of a sample than this, that near, are many.
const DENSE_ROWS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::{GraphParams, Metric, Vectors, distance, flat_search};

    const ROWS: usize = 12_000;
    const DIM: usize = 24;
    const QUERIES: usize = 25;

    /// Rows in overlapping clusters, the last [`QUERIES`] of which are taken out as queries.
    fn data() -> (Vec<f32>, Vec<f32>) {
        let mut random = StdRng::seed_from_u64(7);
        let mut value = |spread: f32| (0..4).map(|_| random.random_range(-spread..spread)).sum::<f32>();
        let centers: Vec<f32> = (0..60 * DIM).map(|_| value(1.0)).collect();
        let mut data: Vec<f32> = (0..(ROWS + QUERIES) * DIM)
            .map(|at| centers[(at / DIM * 7_919) % 60 * DIM + at % DIM] + value(0.8))
            .collect();
        let queries = data.split_off(ROWS * DIM);
        (data, queries)
    }

    /// `allowed` rows: anywhere, the nearest to the query, the farthest from it, or the nearest to some other row.
    fn mask(kind: &str, metric: Metric, rows: &[f32], query: &[f32], allowed: usize, seed: u64) -> Vec<u64> {
        let mut random = StdRng::seed_from_u64(seed);
        let row = |at: usize| &rows[at * DIM..][..DIM];
        let center = if kind == "place" {
            row(random.random_range(0..ROWS))
        } else {
            query
        };
        let mut order: Vec<(f32, usize)> = (0..ROWS)
            .map(|at| {
                let score = match kind {
                    "random" => random.random_range(0.0..1.0),
                    _ => metric.cost(distance(metric, center, row(at))),
                };
                (if kind == "far" { -score } else { score }, at)
            })
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut words = vec![0u64; ROWS.div_ceil(64)];
        for &(_, row) in &order[..allowed] {
            words[row / 64] |= 1 << (row % 64);
        }
        words
    }

    #[test]
    fn filters_of_every_selectivity_and_place_find_the_best() {
        let (rows, queries) = data();
        let vectors = Vectors::new(DIM, rows.clone()).unwrap();
        for metric in [Metric::L2, Metric::Cosine] {
            let never = AtomicBool::new(false);
            let index =
                GraphIndex::build(vectors.clone(), metric, &GraphParams::default(), 2, &|_| (), &never).unwrap();
            for allowed in [ROWS / 1_000, ROWS / 100, ROWS / 10, ROWS / 2, ROWS * 9 / 10] {
                for kind in ["random", "near", "far", "place"] {
                    // Short lists, so that a share of ten percent walks already, and the usual one.
                    for ef in [18, 40, 0] {
                        let (mut found, mut wanted) = (0, 0);
                        for (at, query) in queries.chunks_exact(DIM).enumerate() {
                            let words = mask(kind, metric, &rows, query, allowed, at as u64);
                            let mask = RowMask {
                                words: &words,
                                rows: ROWS,
                            };
                            let truth = flat_search(metric, &rows, DIM, query, 10, Some(mask));
                            let hits = index.search(query, 10, ef, Some(mask)).unwrap();
                            assert!(hits.iter().all(|hit| mask.contains(hit.row as usize)));
                            found += hits
                                .iter()
                                .filter(|hit| truth.iter().any(|true_hit| true_hit.row == hit.row))
                                .count();
                            wanted += truth.len();
                        }
                        let recall = found as f64 / wanted as f64;
                        let least = if ef == 18 { 0.85 } else { 0.95 };
                        assert!(
                            recall >= least,
                            "{metric:?} {kind} {allowed} rows, list of {ef}: recall {recall}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn samples_are_allowed_rows_of_all_parts() {
        let mut random = StdRng::seed_from_u64(8);
        for (rows, allowed) in [(1, 1), (64, 64), (1_000, 3), (5_000, 255), (5_000, 257), (5_000, 4_999)] {
            let mut words = vec![0u64; rows / 64 + 1];
            let mut left = allowed;
            while left > 0 {
                let row = random.random_range(0..rows);
                if words[row / 64] >> (row % 64) & 1 == 0 {
                    words[row / 64] |= 1 << (row % 64);
                    left -= 1;
                }
            }
            let mask = RowMask { words: &words, rows };
            let mut taken = Vec::new();
            sample(mask, allowed, &mut taken);
            assert_eq!(taken.len(), allowed.min(SAMPLE_ROWS));
            assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "ascending, each once");
            assert!(taken.iter().all(|&row| mask.contains(row as usize)));
        }
        let mut taken = vec![1];
        sample(RowMask { words: &[0], rows: 64 }, 0, &mut taken);
        assert_eq!(taken, Vec::<u32>::new());
    }
}
