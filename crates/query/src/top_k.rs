//! Hits of many segments into one ranked list.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};

use saker_model::{MetricType, PrimaryKey};
use thiserror::Error;

/// One row that a segment's search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentHit {
    /// Row number in its segment.
    pub row: usize,
    /// Score in the user's metric.
    pub score: f32,
    /// The row's primary key.
    pub primary_key: PrimaryKey,
}

/// One row of the merged list.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedHit {
    /// Index of the segment in what was merged.
    pub segment: usize,
    /// Row number in that segment.
    pub row: usize,
    /// Score in the user's metric.
    pub score: f32,
    /// The row's primary key.
    pub primary_key: PrimaryKey,
}

/// Bounds that a score must keep, in the user's metric.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct ScoreRange {
    radius: Option<f32>,
    range_filter: Option<f32>,
}

/// Why bounds of a range search are refused.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum RangeError {
    /// The far bound is nearer than the near one.
    #[error("range_filter({range_filter}) must be {relation} radius({radius}) for metric type {metric}")]
    Crossed {
        /// The bound of far rows.
        radius: f32,
        /// The bound of near rows.
        range_filter: f32,
        /// What is wanted.
        relation: &'static str,
        /// The metric's name.
        metric: &'static str,
    },
    /// The near bound without the far one.
    #[error("range_filter needs a radius")]
    NoRadius,
    /// A bound that is not a number.
    #[error("radius and range_filter must be numbers")]
    NotANumber,
}

/// What is kept of the merged list.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// Says whether larger or smaller scores are nearer.
    pub metric: MetricType,
    /// Most hits to return.
    pub limit: usize,
    /// Hits to leave out in front of them.
    pub offset: usize,
    /// Bounds of the scores.
    pub range: ScoreRange,
}

impl ScoreRange {
    /// Bounds of a range search. For L2, `range_filter <= score < radius`; for the others, `radius < score <=
    /// range_filter`.
    ///
    /// # Errors
    /// [`RangeError`] if no score could keep them or one is missing or not a number.
    pub fn new(metric: MetricType, radius: Option<f32>, range_filter: Option<f32>) -> Result<Self, RangeError> {
        if radius.is_some_and(f32::is_nan) || range_filter.is_some_and(f32::is_nan) {
            return Err(RangeError::NotANumber);
        }
        match (radius, range_filter) {
            (None, Some(_)) => Err(RangeError::NoRadius),
            (Some(far), Some(near)) if cost(metric, near) >= cost(metric, far) => {
                let relation = if metric.larger_is_nearer() {
                    "greater than"
                } else {
                    "less than"
                };
                Err(RangeError::Crossed {
                    radius: far,
                    range_filter: near,
                    relation,
                    metric: metric.name(),
                })
            }
            _ => Ok(Self { radius, range_filter }),
        }
    }

    /// Whether a score keeps the bounds. One that is not a number keeps none.
    #[must_use]
    pub fn contains(self, metric: MetricType, score: f32) -> bool {
        let cost_of = |score| cost(metric, score);
        self.radius.is_none_or(|far| cost_of(score) < cost_of(far))
            && self.range_filter.is_none_or(|near| cost_of(score) >= cost_of(near))
    }

    /// Whether every score keeps the bounds.
    #[must_use]
    pub fn is_everything(self) -> bool {
        self.radius.is_none() && self.range_filter.is_none()
    }
}

/// Merges the hits of each segment into one list, nearest first; equal scores by primary key, then by segment and row.
/// Of hits with the same primary key the nearest stays. Scores that are not numbers come last.
#[must_use]
pub fn merge(segments: Vec<Vec<SegmentHit>>, options: MergeOptions) -> Vec<RankedHit> {
    let hits = segments.iter().map(Vec::len).sum::<usize>();
    if hits <= FEW_HITS {
        merge_few(segments, hits, options)
    } else {
        merge_many(segments, options)
    }
}

/// Up to this many hits it is faster to sort them all, and to look for a key among those that were kept, than to keep a
/// heap and a set.
const FEW_HITS: usize = 128;

/// One list, one allocation.
fn merge_few(segments: Vec<Vec<SegmentHit>>, hits: usize, options: MergeOptions) -> Vec<RankedHit> {
    let metric = options.metric;
    let wanted = options.offset.saturating_add(options.limit);
    let mut all = Vec::with_capacity(hits);
    for (segment, hits) in segments.into_iter().enumerate() {
        let hits = hits.into_iter().filter(|hit| options.range.contains(metric, hit.score));
        all.extend(hits.map(|hit| RankedHit::new(segment, hit)));
    }
    all.sort_unstable_by(|a, b| in_order(metric, a, b));
    let mut kept = 0;
    for next in 0..all.len() {
        if kept == wanted {
            break;
        }
        let key = &all[next].primary_key;
        if !all[..kept].iter().any(|hit| hit.primary_key == *key) {
            all.swap(kept, next);
            kept += 1;
        }
    }
    all.truncate(kept);
    all.drain(..options.offset.min(kept));
    all
}

/// A heap over the lists, so that no more of them is looked at than is wanted.
fn merge_many(segments: Vec<Vec<SegmentHit>>, options: MergeOptions) -> Vec<RankedHit> {
    let metric = options.metric;
    let wanted = options.offset.saturating_add(options.limit);
    let mut lists: Vec<_> = segments
        .into_iter()
        .enumerate()
        .map(|(segment, mut hits)| {
            hits.retain(|hit| options.range.contains(metric, hit.score));
            let mut hits: Vec<_> = hits
                .into_iter()
                .map(|hit| Candidate {
                    metric,
                    hit: RankedHit::new(segment, hit),
                })
                .collect();
            hits.sort();
            hits.into_iter()
        })
        .collect();
    let mut heads: BinaryHeap<_> = lists.iter_mut().filter_map(|list| list.next().map(Reverse)).collect();
    let mut seen = HashSet::new();
    let mut ranked = Vec::new();
    while let Some(Reverse(Candidate { hit, .. })) = heads.pop() {
        heads.extend(lists.get_mut(hit.segment).and_then(Iterator::next).map(Reverse));
        if seen.len() >= wanted {
            break;
        }
        if seen.insert(hit.primary_key.clone()) && seen.len() > options.offset {
            ranked.push(hit);
        }
    }
    ranked
}

impl RankedHit {
    fn new(segment: usize, hit: SegmentHit) -> Self {
        let SegmentHit {
            row,
            score,
            primary_key,
        } = hit;
        Self {
            segment,
            row,
            score,
            primary_key,
        }
    }
}

/// A hit in the order of ranking.
struct Candidate {
    metric: MetricType,
    hit: RankedHit,
}

fn in_order(metric: MetricType, a: &RankedHit, b: &RankedHit) -> Ordering {
    cost(metric, a.score)
        .total_cmp(&cost(metric, b.score))
        .then_with(|| a.primary_key.cmp(&b.primary_key))
        .then_with(|| (a.segment, a.row).cmp(&(b.segment, b.row)))
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        in_order(self.metric, &self.hit, &other.hit)
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

/// Smaller is nearer, whatever the metric; infinite for what is not a number. Adding zero makes minus zero plain.
fn cost(metric: MetricType, score: f32) -> f32 {
    let cost = if metric.larger_is_nearer() { -score } else { score };
    if cost.is_nan() { f32::INFINITY } else { cost + 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hit(row: usize, score: f32, key: i64) -> SegmentHit {
        SegmentHit {
            row,
            score,
            primary_key: PrimaryKey::Int(key),
        }
    }

    fn options(metric: MetricType, offset: usize, limit: usize) -> MergeOptions {
        MergeOptions {
            metric,
            limit,
            offset,
            range: ScoreRange::default(),
        }
    }

    fn keys(hits: &[RankedHit]) -> Vec<i64> {
        let key = |hit: &RankedHit| {
            if let PrimaryKey::Int(key) = hit.primary_key {
                key
            } else {
                -1
            }
        };
        hits.iter().map(key).collect()
    }

    #[test]
    fn larger_or_smaller_is_nearer() {
        let segments = || vec![vec![hit(0, 1.0, 10), hit(1, 3.0, 11)], vec![hit(0, 2.0, 12)]];
        assert_eq!(keys(&merge(segments(), options(MetricType::L2, 0, 9))), [10, 12, 11]);
        assert_eq!(
            keys(&merge(segments(), options(MetricType::Cosine, 0, 9))),
            [11, 12, 10]
        );
    }

    #[test]
    fn ties_go_by_key_whatever_the_segment() {
        let segments = vec![
            vec![hit(0, 1.0, 7), hit(1, 1.0, 3)],
            vec![hit(0, 1.0, 5), hit(4, 1.0, 1)],
        ];
        assert_eq!(keys(&merge(segments, options(MetricType::Ip, 0, 9))), [1, 3, 5, 7]);
    }

    #[test]
    fn the_nearest_of_a_key_stays() {
        let segments = vec![
            vec![hit(0, 0.5, 1), hit(1, 0.1, 2)],
            vec![hit(8, 0.9, 2), hit(9, 0.4, 1)],
        ];
        let merged = merge(segments, options(MetricType::Ip, 0, 9));
        assert_eq!(
            merged.iter().map(|hit| (hit.segment, hit.row)).collect::<Vec<_>>(),
            [(1, 8), (0, 0)]
        );
    }

    #[test]
    fn offset_and_limit_count_keys_not_hits() {
        let segments = vec![
            vec![hit(0, 1.0, 1), hit(1, 2.0, 2), hit(2, 3.0, 3)],
            vec![hit(0, 1.5, 1), hit(1, 2.5, 2)],
        ];
        assert_eq!(keys(&merge(segments.clone(), options(MetricType::L2, 1, 1))), [2]);
        assert_eq!(keys(&merge(segments.clone(), options(MetricType::L2, 1, 5))), [2, 3]);
        assert!(merge(segments.clone(), options(MetricType::L2, 3, 5)).is_empty());
        assert!(merge(segments, options(MetricType::L2, 0, 0)).is_empty());
    }

    #[test]
    fn a_range_keeps_its_bounds() {
        let l2 = ScoreRange::new(MetricType::L2, Some(2.0), Some(1.0)).unwrap();
        assert_eq!(
            [0.9, 1.0, 1.9, 2.0].map(|score| l2.contains(MetricType::L2, score)),
            [false, true, true, false]
        );
        let ip = ScoreRange::new(MetricType::Ip, Some(1.0), Some(2.0)).unwrap();
        assert_eq!(
            [1.0, 1.1, 2.0, 2.1].map(|score| ip.contains(MetricType::Ip, score)),
            [false, true, true, false]
        );
        assert!(!ip.contains(MetricType::Ip, f32::NAN));
        assert!(ScoreRange::default().contains(MetricType::L2, 7.0) && ScoreRange::default().is_everything());
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let new = ScoreRange::new;
        assert!(matches!(
            new(MetricType::L2, Some(1.0), Some(1.0)),
            Err(RangeError::Crossed { .. })
        ));
        assert!(matches!(
            new(MetricType::Ip, Some(1.0), Some(0.5)),
            Err(RangeError::Crossed { .. })
        ));
        assert_eq!(new(MetricType::L2, None, Some(1.0)), Err(RangeError::NoRadius));
        assert_eq!(new(MetricType::L2, Some(f32::NAN), None), Err(RangeError::NotANumber));
    }

    #[test]
    fn not_a_number_comes_last() {
        for metric in [MetricType::L2, MetricType::Ip] {
            let merged = merge(vec![vec![hit(0, f32::NAN, 1), hit(1, 5.0, 2)]], options(metric, 0, 9));
            assert_eq!(keys(&merged), [2, 1]);
        }
    }

    proptest! {
        #[test]
        fn merging_equals_sorting_everything(
            segments in prop::collection::vec(prop::collection::vec((0u8..6, 0i64..12), 0..12), 0..5),
            offset in 0usize..6,
            limit in 0usize..12,
            larger in any::<bool>(),
        ) {
            let metric = if larger { MetricType::Ip } else { MetricType::L2 };
            let segments: Vec<Vec<SegmentHit>> = segments
                .iter()
                .map(|hits| hits.iter().enumerate().map(|(row, (score, key))| hit(row, f32::from(*score), *key)).collect())
                .collect();
            let mut all: Vec<(i32, i64)> = segments.iter().flatten().map(|hit| {
                let cost = if larger { -hit.score } else { hit.score };
                let PrimaryKey::Int(key) = hit.primary_key else { unreachable!() };
                #[expect(clippy::cast_possible_truncation, reason = "small whole scores")]
                (cost as i32, key)
            }).collect();
            all.sort_unstable();
            let mut expected = Vec::new();
            for (_, key) in all {
                if !expected.contains(&key) {
                    expected.push(key);
                }
            }
            let expected: Vec<i64> = expected.into_iter().skip(offset).take(limit).collect();
            let options = options(metric, offset, limit);
            let hits = segments.iter().map(Vec::len).sum();
            let few = merge_few(segments.clone(), hits, options);
            let many = merge_many(segments.clone(), options);
            prop_assert_eq!(keys(&few), expected);
            prop_assert_eq!(&few, &many);
            prop_assert_eq!(merge(segments, options), many);
        }
    }
}
