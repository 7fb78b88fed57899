//! Eight-bit codes of vectors: a quarter of the memory of the vectors, so that a walk over the graph touches less of it.
//!
//! Codes only guide walks; every score that leaves the crate is computed from the `f32` vectors.
//!
//! Every metric becomes a squared Euclidean distance first, so that one kernel and one graph serve all:
//! - L2 is itself.
//! - Cosine divides each vector by its norm; |q - x|² = 2 - 2 cos. If there are zero vectors, one more value makes them
//!   unit vectors at right angles to everything, which gives them their defined similarity of 0.
//! - Inner product adds the value sqrt(M² - |x|²), M the largest norm, to rows and 0 to queries; then
//!   |q - x|² = |q|² + M² - 2 q·x (Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean
//!   transformation for inner-product spaces", RecSys 2014).
//!
//! A value `v` of place `d` becomes `round((v - center[d]) * scale + 127.5)`, clamped to a byte. One scale for all places
//! keeps distances comparable.

use zeroize::{Zeroize, Zeroizing};

use crate::{Metric, Vectors, kernel};

/// How vectors of one index become codes.
pub(crate) struct Encoder {
    pub(crate) metric: Metric,
    /// Whether a value is added to each vector; see the module text.
    pub(crate) extra: bool,
    /// Largest norm of a row, for inner product.
    pub(crate) norm_max: f32,
    pub(crate) scale: f32,
    /// One value for each place, the added one included.
    pub(crate) center: Vec<f32>,
}

impl Encoder {
    /// Fits the codes to `vectors`. Values that are not finite are passed over.
    pub(crate) fn fit(vectors: &Vectors, metric: Metric) -> Self {
        let (dim, rows) = (vectors.dim(), vectors.rows());
        let norm = |row: usize| {
            let mut buffer = Zeroizing::new(Vec::new());
            let row = vectors.row_f32(row, &mut buffer);
            kernel::dot(row, row).sqrt()
        };
        let norm_max = match metric {
            Metric::Ip => (0..rows).map(norm).filter(|norm| norm.is_finite()).fold(0.0, f32::max),
            Metric::L2 | Metric::Cosine => 0.0,
        };
        let extra = match metric {
            Metric::L2 => false,
            Metric::Ip => true,
            Metric::Cosine => (0..rows).any(|row| norm(row) == 0.0),
        };
        let places = dim + usize::from(extra);
        let mut encoder = Self {
            metric,
            extra,
            norm_max,
            scale: 1.0,
            center: vec![0.0; places],
        };

        let step = rows.div_ceil(SAMPLE_VALUES / places + 1).max(1);
        // Allocated at once: growing would leave copies that nobody wipes.
        let mut sample = Zeroizing::new(Vec::with_capacity(rows.div_ceil(step) * places));
        let mut values = Zeroizing::new(Vec::with_capacity(places));
        let mut buffer = Zeroizing::new(Vec::with_capacity(dim));
        for row in (0..rows).step_by(step) {
            encoder.transform(vectors.row_f32(row, &mut buffer), &mut values);
            sample.extend_from_slice(&values);
        }
        sample
            .iter_mut()
            .filter(|value| !value.is_finite())
            .for_each(|value| *value = 0.0);
        if sample.is_empty() {
            return encoder;
        }
        // Medians and quantiles, for a mean or a maximum would let one wild row blur all others.
        let mut column = Zeroizing::new(Vec::with_capacity(sample.len() / places));
        for (place, center) in encoder.center.iter_mut().enumerate() {
            column.clear();
            column.extend(sample.iter().skip(place).step_by(places).copied());
            *center = quantile(&mut column, 5_000);
        }
        for values in sample.chunks_exact_mut(places) {
            values
                .iter_mut()
                .zip(&encoder.center)
                .for_each(|(value, center)| *value = (*value - center).abs());
        }
        let largest = quantile(&mut sample, 10_000);
        let most = quantile(&mut sample, MOST_PER_10_000);
        let spread = if most > 0.0 {
            largest.min(most * TAIL_FACTOR)
        } else {
            largest
        };
        let scale = HALF_RANGE / spread;
        encoder.scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        encoder
    }

    /// Codes of all rows.
    pub(crate) fn encode_all(&self, vectors: &Vectors) -> Codes {
        let mut codes = Codes::zeroed(vectors.rows(), self.center.len());
        if self.metric == Metric::Ip {
            // The value that a query adds, 0, in code units.
            let query = self.encode_query(&vec![0.0; vectors.dim()]);
            codes.aside = query.get(vectors.dim()).map(|&zero| (vectors.dim(), zero));
        }
        let mut values = Zeroizing::new(Vec::with_capacity(self.center.len()));
        let mut buffer = Zeroizing::new(Vec::with_capacity(vectors.dim()));
        for row in 0..vectors.rows() {
            self.transform(vectors.row_f32(row, &mut buffer), &mut values);
            for ((code, value), center) in codes.row_mut(row).iter_mut().zip(values.iter()).zip(&self.center) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
                let byte = ((value - center) * self.scale + HALF_RANGE).round() as u8;
                *code = byte;
            }
        }
        codes
    }

    /// A query in code units, not clamped to a byte: a query may lie outside the rows.
    pub(crate) fn encode_query(&self, query: &[f32]) -> Zeroizing<Vec<i16>> {
        let mut values = Zeroizing::new(Vec::with_capacity(self.center.len()));
        self.transform_query(query, &mut values);
        let mut codes = Zeroizing::new(vec![0i16; padded(self.center.len())]);
        // The sum over all places of the largest squared difference must stay below 2^32.
        let reach = ((u32::MAX as f32 / codes.len().max(1) as f32).sqrt() - 256.0).clamp(0.0, REACH_MAX);
        for ((code, value), center) in codes.iter_mut().zip(values.iter()).zip(&self.center) {
            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates and the range is clamped")]
            let units = ((value - center) * self.scale + HALF_RANGE)
                .round()
                .clamp(-reach, 255.0 + reach) as i16;
            *code = units;
        }
        codes
    }

    /// Whether every number is one that [`Self::fit`] can give.
    pub(crate) fn is_sound(&self) -> bool {
        let numbers = self.center.iter().chain([&self.norm_max, &self.scale]);
        numbers.copied().all(f32::is_finite) && self.scale > 0.0 && self.norm_max >= 0.0
    }

    /// A row in the space where squared distance orders as the metric does.
    fn transform(&self, row: &[f32], out: &mut Vec<f32>) {
        let squared = kernel::dot(row, row);
        out.clear();
        match self.metric {
            Metric::L2 => out.extend_from_slice(row),
            Metric::Ip => {
                out.extend_from_slice(row);
                out.push((self.norm_max * self.norm_max - squared).max(0.0).sqrt());
            }
            Metric::Cosine => {
                let inverse = if squared > 0.0 { squared.sqrt().recip() } else { 0.0 };
                out.extend(row.iter().map(|value| value * inverse));
                if self.extra {
                    out.push(if squared > 0.0 { 0.0 } else { 1.0 });
                }
            }
        }
    }

    fn transform_query(&self, query: &[f32], out: &mut Vec<f32>) {
        match self.metric {
            Metric::L2 | Metric::Cosine => self.transform(query, out),
            Metric::Ip => {
                out.clear();
                out.extend_from_slice(query);
                out.push(0.0);
            }
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.center.zeroize();
    }
}

/// Codes of all rows, each padded to whole kernel steps and, as far as that allows, aligned to cache lines. Wiped on drop.
pub(crate) struct Codes {
    stride: usize,
    start: usize,
    len: usize,
    /// The place of the value by which rows and queries differ, and its value in a query.
    aside: Option<(usize, i16)>,
    bytes: Vec<u8>,
}

impl Codes {
    fn zeroed(rows: usize, places: usize) -> Self {
        let stride = padded(places);
        let len = rows * stride;
        let bytes = vec![0u8; len + ALIGN_BYTES];
        // An offset that cannot be had (never on real machines) only costs speed.
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        Self {
            stride,
            start,
            len,
            aside: None,
            bytes,
        }
    }

    /// Bytes from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn rows(&self) -> usize {
        self.len / self.stride
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    #[inline]
    pub(crate) fn row(&self, row: u32) -> &[u8] {
        &self.as_slice()[row as usize * self.stride..][..self.stride]
    }

    /// Row `row` as a query, into `out`. The caller wipes it in the end.
    pub(crate) fn as_query(&self, row: u32, out: &mut Vec<i16>) {
        out.clear();
        out.extend(self.row(row).iter().map(|&code| i16::from(code)));
        if let Some((place, value)) = self.aside {
            out[place] = value;
        }
    }

    /// Whether the cost of row `b` for row `a` as a query may differ from that of `a` for `b`.
    pub(crate) fn is_lopsided(&self) -> bool {
        self.aside.is_some()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.bytes[self.start + row * self.stride..][..self.stride]
    }
}

impl Drop for Codes {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// The value below which `per_10_000` of all `values` are; they are reordered. There must be some.
fn quantile(values: &mut [f32], per_10_000: usize) -> f32 {
    let place = (values.len() - 1) * per_10_000 / 10_000;
    *values.select_nth_unstable_by(place, f32::total_cmp).1
}

fn padded(places: usize) -> usize {
    places.next_multiple_of(kernel::CODE_BLOCK)
}

/// Half of what a byte can count, the code of a value at its center.
const HALF_RANGE: f32 = 127.5;
/// How far a query may lie outside the range of a byte, in code units: within `i16` after subtracting a byte.
const REACH_MAX: f32 = 16_000.0;
/// The share of sampled values that tells how wide values usually spread, ...
const MOST_PER_10_000: usize = 9_900;
/// ... and how far beyond that the range of a byte reaches at most: far enough for the tails of real embeddings, whose
/// clamping cost 0.04 of recall under inner product on GloVe, and not so far that a few wild rows coarsen all others.
const TAIL_FACTOR: f32 = 4.0;
/// About how many values the fit looks at: enough for a stable 0.9999 quantile, few enough to be quick.
const SAMPLE_VALUES: usize = 2_000_000;
/// Codes start at a cache line.
const ALIGN_BYTES: usize = 64;
