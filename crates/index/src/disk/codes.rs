//! Four-bit codes: an eighth of the memory of the vectors, so that a walk needs no vector.
//!
//! A value `v` of place `d` becomes `round((v - center[d]) / step[d] + 7.5)`, clamped to 0..=15; every place has a step of its
//! own, the one that is best for a normal distribution of that place's spread. Rows of the cosine metric are brought to
//! length 1 before.
//!
//! What a code costs a query `q` follows from its value `z = (code - 7.5) * step`, with `y = q - center`:
//! |y - z|² = |y|² - 2 y·z + |z|². The first term is the same for all rows and left out; |z|² is kept for each row; y·z is one
//! sum of products of codes with weights `y * step`, which a query turns into eight bits once. Inner product needs the
//! middle term alone, with `q` in place of `y`.

use zeroize::{Zeroize, Zeroizing};

use crate::{
    Metric, Vectors,
    kernel::{
        self,
        nibbles::{self, BLOCK_BYTES, BLOCK_VALUES},
    },
};

/// How rows of one index become codes.
pub(super) struct NibbleEncoder {
    pub(super) metric: Metric,
    pub(super) center: Vec<f32>,
    pub(super) step: Vec<f32>,
}

/// Codes of all rows. Wiped on drop.
pub(super) struct NibbleCodes {
    pub(super) stride: usize,
    /// Of each row |z|².
    pub(super) squares: Vec<f32>,
    pub(super) bytes: Vec<u8>,
}

/// A query as the codes take it. Wiped on drop.
pub(super) struct NibbleQuery {
    weights: Zeroizing<Vec<i8>>,
    /// What a sum of products is multiplied by.
    factor: f32,
    with_squares: bool,
}

/// Bytes of a row's codes.
pub(super) fn stride_of(dim: usize) -> usize {
    dim.div_ceil(BLOCK_VALUES) * BLOCK_BYTES
}

impl NibbleEncoder {
    /// Fits the codes to `vectors`. Values that are not finite are passed over.
    pub(super) fn fit(vectors: &Vectors, metric: Metric) -> Self {
        let (dim, rows) = (vectors.dim(), vectors.rows());
        let step = rows.div_ceil(SAMPLE_VALUES / dim + 1).max(1);
        let (mut sums, mut squares) = (Zeroizing::new(vec![0.0_f64; dim]), Zeroizing::new(vec![0.0_f64; dim]));
        let mut count = 0.0_f64;
        let mut buffer = Zeroizing::new(Vec::with_capacity(dim));
        for row in (0..rows).step_by(step) {
            let row = vectors.row_f32(row, &mut buffer);
            let scale = scale_of(metric, row);
            if !row.iter().all(|value| value.is_finite()) || !scale.is_finite() {
                continue;
            }
            count += 1.0;
            for ((sum, square), value) in sums.iter_mut().zip(squares.iter_mut()).zip(row) {
                let value = f64::from(value * scale);
                *sum += value;
                *square += value * value;
            }
        }
        let count = count.max(1.0);
        #[expect(clippy::cast_possible_truncation, reason = "back to the precision of the values")]
        let spread = |(sum, square): (&f64, &f64)| {
            let mean = sum / count;
            (
                mean as f32,
                (square / count - mean * mean).max(0.0).sqrt() as f32 * STEP_PER_SPREAD,
            )
        };
        let (center, step) = sums.iter().zip(squares.iter()).map(spread).unzip();
        let mut encoder = Self { metric, center, step };
        let usable = |number: &mut f32| {
            if !number.is_finite() {
                *number = 0.0;
            }
        };
        encoder.center.iter_mut().for_each(usable);
        encoder.step.iter_mut().for_each(usable);
        encoder
    }

    /// Whether every number is one that [`Self::fit`] can give.
    pub(super) fn is_sound(&self) -> bool {
        self.center.iter().all(|value| value.is_finite())
            && self.step.iter().all(|value| value.is_finite() && *value >= 0.0)
    }

    /// Codes of all rows.
    pub(super) fn encode_all(&self, vectors: &Vectors) -> NibbleCodes {
        let stride = stride_of(vectors.dim());
        let mut codes = NibbleCodes {
            stride,
            squares: Vec::with_capacity(vectors.rows()),
            bytes: vec![0; vectors.rows() * stride],
        };
        let inverse: Vec<f32> = self
            .step
            .iter()
            .map(|step| if *step > 0.0 { step.recip() } else { 0.0 })
            .collect();
        let mut buffer = Zeroizing::new(Vec::with_capacity(vectors.dim()));
        for (row, bytes) in codes.bytes.chunks_exact_mut(stride).enumerate() {
            let vector = vectors.row_f32(row, &mut buffer);
            let scale = scale_of(self.metric, vector);
            let mut square = 0.0;
            for (place, value) in vector.iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
                let code = ((value * scale - self.center[place]) * inverse[place] + HALF_RANGE)
                    .round()
                    .clamp(0.0, 15.0) as u8;
                let z = (f32::from(code) - HALF_RANGE) * self.step[place];
                square += z * z;
                let (block, at) = (place / BLOCK_VALUES, place % BLOCK_VALUES);
                bytes[block * BLOCK_BYTES + at % BLOCK_BYTES] |= if at < BLOCK_BYTES { code } else { code << 4 };
            }
            codes.squares.push(square);
        }
        codes
    }

    /// A query of the index's dimension, whose values are finite.
    pub(super) fn encode_query(&self, query: &[f32]) -> NibbleQuery {
        let scale = scale_of(self.metric, query);
        let with_squares = self.metric != Metric::Ip;
        let weight = |((value, center), step): ((&f32, &f32), &f32)| {
            let y = if with_squares { value * scale - center } else { *value };
            y * step
        };
        let exact = || query.iter().zip(&self.center).zip(&self.step).map(weight);
        let largest = exact().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        let unit = largest / f32::from(i8::MAX);
        let inverse = if unit > 0.0 && unit.recip().is_finite() {
            unit.recip()
        } else {
            0.0
        };
        let mut weights = Zeroizing::new(vec![0_i8; query.len().next_multiple_of(BLOCK_VALUES)]);
        for (place, weight) in weights.iter_mut().zip(exact()) {
            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
            let units = (weight * inverse).round() as i8;
            *place = units;
        }
        NibbleQuery {
            weights,
            factor: if with_squares { -2.0 * unit } else { -unit },
            with_squares,
        }
    }
}

impl NibbleCodes {
    pub(super) fn rows(&self) -> usize {
        self.squares.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.squares.capacity() * size_of::<f32>()
    }

    /// What each of `rows` costs `query`, in order; a constant of the query is left out.
    pub(super) fn costs(&self, query: &NibbleQuery, rows: &[u32], sums: &mut Vec<i32>, mut each: impl FnMut(u32, f32)) {
        nibbles::dot_of_rows(&query.weights, &self.bytes, self.stride, rows, sums);
        for (&row, &sum) in rows.iter().zip(sums.iter()) {
            let square = if query.with_squares {
                self.squares[row as usize]
            } else {
                0.0
            };
            each(row, square + query.factor * sum as f32);
        }
    }
}

impl Drop for NibbleEncoder {
    fn drop(&mut self) {
        self.center.zeroize();
        self.step.zeroize();
    }
}

impl Drop for NibbleCodes {
    fn drop(&mut self) {
        self.squares.zeroize();
        self.bytes.zeroize();
    }
}

/// What the values of a row or query are multiplied by first.
fn scale_of(metric: Metric, row: &[f32]) -> f32 {
    match metric {
        Metric::L2 | Metric::Ip => 1.0,
        Metric::Cosine => {
            let squared = kernel::dot(row, row);
            if squared > 0.0 { squared.sqrt().recip() } else { 0.0 }
        }
    }
}

/// The code that would stand for the center.
const HALF_RANGE: f32 = 7.5;
/// Step of the uniform quantiser of 16 levels that is best for a normal distribution, in standard deviations (J. Max,
/// "Quantizing for minimum distortion", 1960).
const STEP_PER_SPREAD: f32 = 0.3352;
/// About how many values the fit looks at.
const SAMPLE_VALUES: usize = 4_000_000;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn costs_order_as_the_metric_does() {
        let mut random = StdRng::seed_from_u64(3);
        for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
            for dim in [1, 63, 64, 65, 130] {
                let rows = 300_u32;
                let values: Vec<f32> = (0..rows as usize * dim)
                    .map(|_| random.random_range(-1.0..2.0))
                    .collect();
                let vectors = Vectors::new(dim, values).unwrap();
                let encoder = NibbleEncoder::fit(&vectors, metric);
                assert!(encoder.is_sound());
                let codes = encoder.encode_all(&vectors);
                let query: Vec<f32> = (0..dim).map(|_| random.random_range(-1.0..2.0)).collect();
                let coded = encoder.encode_query(&query);
                let all: Vec<u32> = (0..rows).collect();
                let (mut costs, mut sums) = (Vec::new(), Vec::new());
                codes.costs(&coded, &all, &mut sums, |_, cost| costs.push(f64::from(cost)));
                let exact: Vec<f64> = all
                    .iter()
                    .map(|&row| f64::from(metric.cost(crate::distance(metric, &query, vectors.row(row as usize)))))
                    .collect();
                let correlation = correlation(&costs, &exact);
                assert!(correlation > 0.97, "{metric:?} {dim}: {correlation}");
            }
        }
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (mean_a, mean_b) = (mean(a), mean(b));
        let product: f64 = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum();
        let spread = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>().sqrt();
        product / (spread(a, mean_a) * spread(b, mean_b))
    }

    #[test]
    fn rows_without_spread_or_with_wild_values_are_total() {
        let vectors = Vectors::new(2, vec![1.0, f32::NAN, 1.0, 5.0, 1.0, f32::INFINITY, 1.0, 5.0]).unwrap();
        for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
            let encoder = NibbleEncoder::fit(&vectors, metric);
            assert!(encoder.is_sound());
            let codes = encoder.encode_all(&vectors);
            let query = encoder.encode_query(&[0.0, 0.0]);
            let (mut sums, mut finite) = (Vec::new(), true);
            codes.costs(&query, &[0, 1, 2, 3], &mut sums, |_, cost| finite &= cost.is_finite());
            assert!(finite);
        }
    }
}
