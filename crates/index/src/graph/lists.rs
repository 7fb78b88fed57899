//! Lists around centers: an index that is made about a hundred times faster than a graph, for rows that wait for one.
//!
//! Rows are compared by code, as a graph's walk does, and only those in the lists whose centers are nearest to the query
//! (Jégou et al., "Product quantization for nearest neighbor search", IEEE TPAMI 2011, section IV, with plain codes). The
//! best of all are scored exactly. Centers are means of codes, so the kernels of `codes` serve them as well.
//!
//! Nothing is saved: it is made again sooner than it would be read.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::codes::{CodeBits, Codes, Encoder, Query};
use super::rerank::rerank;
use super::walk::Step;
use crate::{GraphIndex, Hit, IndexError, Metric, RowMask, Vectors, exact_search, kernel};

/// Rows in lists around centers, over shared vectors. Codes and lists are wiped on drop.
pub struct ListIndex {
    vectors: Vectors,
    encoder: Encoder,
    /// One for each list.
    centers: Codes,
    /// Where each list starts in `rows` and `codes`, and where the last one ends.
    starts: Vec<usize>,
    /// Rows, list after list.
    rows: Zeroizing<Vec<u32>>,
    /// Their codes, in the same order.
    codes: Codes,
}

impl ListIndex {
    /// Fewest rows for which lists are worth their making.
    pub const ROWS_MIN: usize = 2_048;

    /// Puts all rows into lists, on the caller's thread: about a microsecond a row. Once `stop` is set it ends within a few
    /// hundred rows.
    ///
    /// # Errors
    /// [`IndexError::Stopped`] once `stop` is set.
    pub fn build(vectors: Vectors, metric: Metric, stop: &AtomicBool) -> Result<Self, IndexError> {
        let encoder = Encoder::fit(&vectors, metric, CodeBits::Seven);
        let mut encoded = encoder.encode_all(&vectors);
        encoded.keep_squares();
        let lists = (encoded.rows() / ROWS_PER_LIST).clamp(1, LISTS_MAX);
        let mut centers = train(&encoded, lists, stop)?;
        let list_of = assign(&encoded, &centers, stop)?;

        let mut starts = vec![0; lists + 1];
        list_of.iter().for_each(|&list| starts[list + 1] += 1);
        (0..lists).for_each(|list| starts[list + 1] += starts[list]);
        let mut next = starts.clone();
        let mut rows = Zeroizing::new(vec![0u32; encoded.rows()]);
        for (row, &list) in (0..).zip(&list_of) {
            rows[next[list]] = row;
            next[list] += 1;
        }
        let mut codes = encoded.with_rows(rows.len(), rows.iter().map(|&row| encoded.row(row)));
        codes.keep_squares_if_needed(metric);
        centers.keep_squares_if_needed(metric);
        Ok(Self {
            vectors,
            encoder,
            centers,
            starts,
            rows,
            codes,
        })
    }

    /// The metric that it was made for.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.encoder.metric
    }

    /// Bytes that it takes in memory, without the vectors.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.centers.memory_bytes()
            + self.codes.memory_bytes()
            + size_of_val(self.rows.as_slice())
            + size_of_val(self.starts.as_slice())
            + size_of_val(self.encoder.center.as_slice())
    }

    /// About how many bytes of codes a search without a mask reads.
    #[must_use]
    pub fn search_bytes(&self, ef: usize) -> usize {
        let ef = if ef == 0 { GraphIndex::EF_DEFAULT } else { ef };
        let (lists, rows) = (self.centers.rows(), self.rows.len());
        let read = rows / lists.max(1) * self.probes(ef, rows) + lists;
        read.saturating_mul(self.vectors.dim())
    }

    /// The `k` best rows (fewer if there are fewer to return), best first, ties by lower row, with exact scores. `ef` says
    /// how hard to look, as in [`GraphIndex::search`]; with a `mask` only its rows are returned.
    ///
    /// # Errors
    /// [`IndexError::QueryDimension`], [`IndexError::MaskRows`].
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, IndexError> {
        let (dim, rows) = (self.vectors.dim(), self.rows.len());
        if query.len() != dim {
            return Err(IndexError::QueryDimension {
                query: query.len(),
                index: dim,
            });
        }
        RowMask::check(mask, rows)?;
        let allowed = mask.map_or(rows, |mask| mask.count());
        let k = k.min(allowed);
        let ef = if ef == 0 { GraphIndex::EF_DEFAULT } else { ef }.max(k);
        // A query without a direction has the same cosine with everything; only the exact search answers it well.
        let aimless = query.iter().any(|value| !value.is_finite())
            || self.encoder.metric == Metric::Cosine && kernel::dot(query, query) == 0.0;
        if k == 0 || aimless || allowed <= (rows / EXACT_SHARE).max(k * ROWS_PER_HIT) {
            return Ok(exact_search(self.encoder.metric, &self.vectors, query, k, mask));
        }
        let mut weights = Query::default();
        self.encoder.encode_query(query, &mut weights);
        let candidates = self.candidates(&weights, k.saturating_mul(RERANK_FACTOR), ef, allowed, mask);
        Ok(rerank(
            &self.vectors,
            self.encoder.metric,
            query,
            &weights,
            k,
            &candidates,
        ))
    }

    /// The best rows by code, best first, at most `count`.
    fn candidates(
        &self,
        query: &Query,
        count: usize,
        ef: usize,
        allowed: usize,
        mask: Option<RowMask<'_>>,
    ) -> Vec<Step> {
        let (mut costs, mut batch) = (Vec::new(), Vec::with_capacity(BATCH_ROWS));
        let mut nearest = BinaryHeap::with_capacity(count.min(allowed) + 1);
        for list in self.nearest_lists(query, ef, allowed, &mut costs) {
            let (first, end) = (self.starts[list], self.starts[list + 1]);
            for first in (first..end).step_by(BATCH_ROWS) {
                batch.clear();
                #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
                batch.extend(
                    (first..end.min(first + BATCH_ROWS))
                        .filter(|&place| mask.is_none_or(|mask| mask.contains(self.rows[place] as usize)))
                        .map(|place| place as u32),
                );
                self.codes.costs(query, &batch, &mut costs);
                for (&cost, &place) in costs.iter().zip(&batch) {
                    let step = Step::new(cost, self.rows[place as usize]);
                    if nearest.len() < count {
                        nearest.push(step);
                    } else if let Some(mut worst) = nearest.peek_mut()
                        && step < *worst
                    {
                        *worst = step;
                    }
                }
            }
        }
        nearest.into_sorted_vec()
    }

    /// The lists to look into, nearest first: the more, the smaller the share of rows that may be returned, so that about
    /// as many rows are compared whatever it is.
    fn nearest_lists(&self, query: &Query, ef: usize, allowed: usize, costs: &mut Vec<u32>) -> Vec<usize> {
        let lists = self.centers.rows();
        let probes = self.probes(ef, allowed);
        self.centers.costs(query, &all_of(&self.centers), costs);
        let mut ranked: Vec<(u32, usize)> = costs.iter().copied().zip(0..).collect();
        if probes < lists {
            ranked.select_nth_unstable(probes);
            ranked.truncate(probes);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, list)| list).collect()
    }

    /// How many lists are looked into.
    fn probes(&self, ef: usize, allowed: usize) -> usize {
        let lists = self.centers.rows();
        let share = allowed as f64 / self.rows.len().max(1) as f64;
        let effort = ef as f64 / GraphIndex::EF_DEFAULT as f64;
        let probes = PROBES_PER_ROOT * (lists as f64).sqrt() * effort / share;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; `as` saturates"
        )]
        let probes = probes.ceil() as usize;
        probes.clamp(1, lists.max(1))
    }
}

impl std::fmt::Debug for ListIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListIndex")
            .field("metric", &self.encoder.metric)
            .field("vectors", &self.vectors)
            .field("lists", &self.centers.rows())
            .finish_non_exhaustive()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "there are few centers")]
fn all_of(centers: &Codes) -> Vec<u32> {
    (0..centers.rows() as u32).collect()
}

/// Means of codes by Lloyd's method, over a sample of the rows.
fn train(codes: &Codes, lists: usize, stop: &AtomicBool) -> Result<Codes, IndexError> {
    let sampled = codes.rows().min(lists * SAMPLE_PER_LIST);
    #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
    let sample = |at: usize| (at as u64 * codes.rows() as u64 / sampled.max(1) as u64) as u32;
    if codes.rows() == 0 {
        return Ok(codes.with_rows(0, std::iter::empty()));
    }
    let places = codes.row(0).len();
    let mut means = Zeroizing::new(Vec::with_capacity(lists * places));
    (0..lists).for_each(|list| means.extend_from_slice(codes.row(sample(list * sampled / lists))));
    let mut sums = Zeroizing::new(vec![0u32; lists * places]);
    let mut counts = vec![0u32; lists];
    for _ in 0..ROUNDS {
        let mut centers = codes.with_rows(lists, means.chunks_exact(places));
        centers.keep_squares();
        let mut nearest = Nearest::new(&centers);
        sums.fill(0);
        counts.fill(0);
        for at in 0..sampled {
            if at % STOP_ROWS == 0 && stop.load(Ordering::Relaxed) {
                return Err(IndexError::Stopped);
            }
            let list = nearest.to(codes, sample(at));
            counts[list] += 1;
            let sum = &mut sums[list * places..][..places];
            let row = codes.row(sample(at));
            sum.iter_mut().zip(row).for_each(|(sum, &code)| *sum += u32::from(code));
        }
        for (list, &count) in counts.iter().enumerate() {
            let mean = &mut means[list * places..][..places];
            if count == 0 {
                // A list that nobody is in begins again at some other row.
                mean.copy_from_slice(codes.row(sample((list * 7_919 + 13) % sampled)));
                continue;
            }
            for (mean, &sum) in mean.iter_mut().zip(&sums[list * places..][..places]) {
                *mean = u8::try_from((sum + count / 2) / count).unwrap_or(u8::MAX);
            }
        }
    }
    let mut centers = codes.with_rows(lists, means.chunks_exact(places));
    centers.keep_squares();
    Ok(centers)
}

/// The list of each row.
fn assign(codes: &Codes, centers: &Codes, stop: &AtomicBool) -> Result<Vec<usize>, IndexError> {
    let mut nearest = Nearest::new(centers);
    let mut list_of = Vec::with_capacity(codes.rows());
    #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
    for row in 0..codes.rows() as u32 {
        if (row as usize).is_multiple_of(STOP_ROWS) && stop.load(Ordering::Relaxed) {
            return Err(IndexError::Stopped);
        }
        list_of.push(nearest.to(codes, row));
    }
    Ok(list_of)
}

/// Finds the center nearest to a row, by the distance of their codes whatever the metric: lists gather rows that are near
/// each other.
struct Nearest<'a> {
    centers: &'a Codes,
    all: Vec<u32>,
    query: Query,
    costs: Vec<u32>,
}

impl<'a> Nearest<'a> {
    fn new(centers: &'a Codes) -> Self {
        Self {
            centers,
            all: all_of(centers),
            query: Query::default(),
            costs: Vec::new(),
        }
    }

    fn to(&mut self, codes: &Codes, row: u32) -> usize {
        codes.as_query(Metric::L2, row, &mut self.query);
        self.centers.costs(&self.query, &self.all, &mut self.costs);
        let costs = self.costs.iter().zip(0..);
        costs.min().map_or(0, |(_, list)| list)
    }
}

/// About so many rows are in a list.
const ROWS_PER_LIST: usize = 128;
/// Most lists: finding each row's takes time in proportion.
const LISTS_MAX: usize = 512;
/// Rows of the sample that centers are trained on, for each list.
const SAMPLE_PER_LIST: usize = 32;
/// Rounds of training: after these, centers hardly move.
const ROUNDS: usize = 5;
/// Rows between two looks whether to stop.
const STOP_ROWS: usize = 256;
/// Lists that are looked into, for the root of their number, at [`GraphIndex::EF_DEFAULT`]: with 2 a search of 32,768 GloVe
/// vectors finds 93 % of the best ten, with 5 it finds 99 %.
const PROBES_PER_ROOT: f64 = 5.0;
/// Below this part of all rows, comparing with each allowed one exactly is as fast.
const EXACT_SHARE: usize = 16;
/// Where more than one of so many rows is wanted, too: most of them would have to be scored exactly.
const ROWS_PER_HIT: usize = 16;
/// Rows that get an exact score, at most so many times `k`.
const RERANK_FACTOR: usize = 4;
/// Rows that are compared at once: their codes are fetched together.
const BATCH_ROWS: usize = 64;

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::flat_search;

    const METRICS: [Metric; 3] = [Metric::L2, Metric::Ip, Metric::Cosine];

    /// Rows around common points, as embeddings are.
    fn clustered(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut points = StdRng::seed_from_u64(77);
        let points: Vec<Vec<f32>> = (0..40)
            .map(|_| (0..dim).map(|_| points.random_range(-1.0..1.0)).collect())
            .collect();
        let mut values = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let point = &points[random.random_range(0..points.len())];
            values.extend(point.iter().map(|value| value + random.random_range(-0.5f32..0.5)));
        }
        values
    }

    fn built(vectors: &Vectors, metric: Metric) -> ListIndex {
        ListIndex::build(vectors.clone(), metric, &AtomicBool::new(false)).unwrap()
    }

    fn recall(found: &[Hit], truth: &[Hit]) -> f64 {
        let right = truth
            .iter()
            .filter(|hit| found.iter().any(|found| found.row == hit.row))
            .count();
        right as f64 / truth.len() as f64
    }

    #[test]
    fn lists_find_what_comparing_with_everything_finds() {
        let (rows, dim) = (8_192, 20);
        let values = clustered(rows, dim, 1);
        let vectors = Vectors::new(dim, values.clone()).unwrap();
        let queries = clustered(60, dim, 2);
        let half: Vec<u64> = vec![0x5555_5555_5555_5555; rows / 64];
        for metric in METRICS {
            let index = built(&vectors, metric);
            assert_eq!(index.centers.rows(), 64);
            let mut listed: Vec<u32> = index.rows.to_vec();
            listed.sort_unstable();
            assert!(listed.iter().copied().eq(0..8_192), "each row is in one list");
            for mask in [None, Some(RowMask { words: &half, rows })] {
                let (mut sum, mut sum_of_all) = (0.0, 0.0);
                for query in queries.chunks_exact(dim) {
                    let truth = flat_search(metric, &values, dim, query, 10, mask);
                    let found = index.search(query, 10, 0, mask).unwrap();
                    assert_eq!(found.len(), 10);
                    assert!(
                        found
                            .iter()
                            .all(|hit| mask.is_none_or(|mask| mask.contains(hit.row as usize)))
                    );
                    // Scores are exact, and best first.
                    for hit in &found {
                        let exact = crate::distance(metric, query, &values[hit.row as usize * dim..][..dim]);
                        assert!((hit.score - exact).abs() < 1e-4, "{metric:?}");
                    }
                    let cost = |hit: &Hit| metric.cost(hit.score);
                    assert!(found.is_sorted_by(|a, b| cost(a) <= cost(b)), "{metric:?}");
                    sum += recall(&found, &truth) / 60.0;
                    // Looking into all lists finds what codes can tell apart.
                    sum_of_all += recall(&index.search(query, 10, 100_000, mask).unwrap(), &truth) / 60.0;
                }
                let masked = mask.is_some();
                assert!(
                    sum > 0.95 && sum_of_all > 0.99,
                    "{metric:?}, {masked}: {sum}, {sum_of_all}"
                );
            }
        }
    }

    #[test]
    fn odd_rows_and_wrong_requests_are_met() {
        let vectors = Vectors::new(3, vec![1.0; 3 * 3_000]).unwrap();
        let index = built(&vectors, Metric::Cosine);
        let search = |query: &[f32], k, mask| index.search(query, k, 0, mask);
        for query in [[1.0, 2.0, 3.0], [0.0; 3], [f32::NAN, 0.0, 1.0]] {
            assert_eq!(search(&query, 5, None).unwrap().len(), 5);
        }
        assert_eq!(search(&[1.0; 3], 2_999, None).unwrap().len(), 2_999);
        assert!(search(&[1.0; 3], 0, None).unwrap().is_empty());
        let wrong = search(&[1.0], 5, None).unwrap_err();
        assert_eq!(wrong, IndexError::QueryDimension { query: 1, index: 3 });
        let (words, rows) = (&[0; 2], 3_000);
        let wrong = search(&[1.0; 3], 5, Some(RowMask { words, rows })).unwrap_err();
        assert_eq!(
            wrong,
            IndexError::MaskRows {
                mask: 128,
                index: 3_000
            }
        );
        let words = &[0; 47];
        assert!(search(&[1.0; 3], 5, Some(RowMask { words, rows })).unwrap().is_empty());
        let empty = built(&Vectors::new(3, Vec::new()).unwrap(), Metric::L2);
        assert!(empty.search(&[1.0; 3], 5, 0, None).unwrap().is_empty());
        let stopped = ListIndex::build(vectors, Metric::L2, &AtomicBool::new(true));
        assert_eq!(stopped.unwrap_err(), IndexError::Stopped);
        let mut wild = clustered(4_000, 2, 8);
        wild[..4].copy_from_slice(&[f32::MAX, f32::NAN, f32::INFINITY, -f32::MAX]);
        for metric in METRICS {
            let index = built(&Vectors::new(2, wild.clone()).unwrap(), metric);
            assert_eq!(index.search(&[1.0, 2.0], 5, 0, None).unwrap().len(), 5, "{metric:?}");
        }
    }
}
