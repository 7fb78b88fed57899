//! Codes of vectors, 7 or 4 bits a value: a quarter or an eighth of the memory of the vectors, so that a walk over the
//! graph touches less of it.
//!
//! Codes only guide walks; every score that leaves the crate is computed from the vectors themselves.
//!
//! A value `v` of place `d` becomes `round((v - center[d]) * scale[d] + middle)`, brought into the range of a code. Codes of
//! 7 bits have one scale for all places, so that distances between codes follow those between rows; codes of 4 bits cannot
//! spare a step, so each place has the scale that suits its spread. Codes have 7 bits in a byte, not 8, so that AVX2's products of bytes, which
//! add up in 16 bits, cannot overflow; what that loses is less than what a walk can notice. Queries are not coded alike:
//! they become weights, small integers in any scale of their own, so that none lies outside of the range, and the cost of
//! a row follows from one sum of products of weights and codes:
//! - Inner product: `q·x = q·center + Σ q[d] (code[d] - middle) / scale[d]`; only the sum depends on the row.
//! - Cosine: the same over rows divided by their norms.
//! - L2: `|q - x|² = |q - center|² + |x - center|² - 2 (q - center)·(x - center)`, of which the middle term is kept for
//!   each row.
//!
//! While a graph is built rows take the part of queries. Their costs are squared distances of codes and exact. Under
//! cosine, if there are zero vectors, one more value makes them unit vectors at right angles to everything, which gives
//! them their defined similarity of 0. Under inner product the cost of row `b` for row `a` is `|a|² + M² - 2 a·b`, M the
//! largest norm: the squared distance after Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean
//! transformation for inner-product spaces", RecSys 2014.

use zeroize::{Zeroize, Zeroizing};

use crate::{Metric, Vectors, kernel};

/// How many bits of a value a code has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeBits {
    /// One byte a value.
    Seven,
    /// Half a byte a value: half the memory and bandwidth, for longer candidate lists at the same recall.
    Four,
}

impl CodeBits {
    fn code_max(self) -> u8 {
        match self {
            Self::Seven => kernel::CODE_MAX,
            Self::Four => 15,
        }
    }

    /// The code of a value at its center.
    fn middle(self) -> f32 {
        f32::from(self.code_max()) / 2.0
    }

    /// Bytes of a row of `places` values.
    fn stride(self, places: usize) -> usize {
        let padded = places.next_multiple_of(kernel::DOT_BLOCK);
        match self {
            Self::Seven => padded,
            Self::Four => padded / 2,
        }
    }
}

/// How vectors of one index become codes.
pub(super) struct Encoder {
    pub(super) metric: Metric,
    pub(super) bits: CodeBits,
    /// Whether a value is added to each vector; see the module text.
    pub(super) extra: bool,
    /// One value for each place, the added one included.
    pub(super) scale: Vec<f32>,
    /// As many.
    pub(super) center: Vec<f32>,
}

impl Encoder {
    /// Fits the codes to `vectors`. Values that are not finite are passed over.
    pub(super) fn fit(vectors: &Vectors, metric: Metric, bits: CodeBits) -> Self {
        let (dim, rows) = (vectors.dim(), vectors.rows());
        let mut buffer = Zeroizing::new(Vec::with_capacity(dim));
        let extra = metric == Metric::Cosine
            && (0..rows).any(|row| {
                let row = vectors.row_f32(row, &mut buffer);
                kernel::dot(row, row) == 0.0
            });
        let places = dim + usize::from(extra);
        let mut encoder = Self {
            metric,
            bits,
            extra,
            scale: vec![1.0; places],
            center: vec![0.0; places],
        };

        let step = rows.div_ceil(SAMPLE_VALUES / places + 1).max(1);
        // Allocated at once: growing would leave copies that nobody wipes.
        let mut sample = Zeroizing::new(Vec::with_capacity(rows.div_ceil(step) * places));
        let mut values = Zeroizing::new(Vec::with_capacity(places));
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
        match bits {
            CodeBits::Seven => encoder.fit_together(&mut sample),
            CodeBits::Four => encoder.fit_each(&sample),
        }
        encoder
    }

    /// The size of codes that searches over `vectors` are fastest with: half bytes where rows are so long that reading them
    /// takes most of the time, and distances the sum of so many places that errors of each even out.
    pub(super) fn suited_bits(&self, vectors: &Vectors) -> CodeBits {
        let places = self.center.len();
        let mut squares = Zeroizing::new(vec![0.0f64; places]);
        let mut values = Zeroizing::new(Vec::with_capacity(places));
        let mut buffer = Zeroizing::new(Vec::with_capacity(vectors.dim()));
        for row in (0..vectors.rows()).step_by(vectors.rows() / SPREAD_ROWS + 1) {
            self.transform(vectors.row_f32(row, &mut buffer), &mut values);
            for ((square, value), center) in squares.iter_mut().zip(values.iter()).zip(&self.center) {
                let difference = f64::from(value - center);
                *square += if difference.is_finite() {
                    difference * difference
                } else {
                    0.0
                };
            }
        }
        // So many places of equal spread would share the distances as these do.
        let sum: f64 = squares.iter().sum();
        let equal_places = sum * sum / squares.iter().map(|square| square * square).sum::<f64>();
        if equal_places >= HALF_BYTES_PLACES_MIN {
            CodeBits::Four
        } else {
            CodeBits::Seven
        }
    }

    /// One scale for all places, and a center of each.
    fn fit_together(&mut self, sample: &mut [f32]) {
        let places = self.center.len();
        let mut column = Zeroizing::new(Vec::with_capacity(sample.len() / places));
        let mut widest_place = 0.0f32;
        for (place, center) in self.center.iter_mut().enumerate() {
            column.clear();
            column.extend(sample.iter().skip(place).step_by(places).copied());
            // Under inner product the center stays 0: only then can a row take the part of a query. Medians and quantiles, for
            // a mean or a maximum would let one wild row blur all others.
            if self.metric != Metric::Ip {
                *center = quantile(&mut column, 5_000);
            }
            column.iter_mut().for_each(|value| *value = (*value - *center).abs());
            widest_place = widest_place.max(quantile(&mut column, MOST_OF_WIDEST_PER_10_000));
        }
        for values in sample.chunks_exact_mut(places) {
            values
                .iter_mut()
                .zip(&self.center)
                .for_each(|(value, center)| *value = (*value - center).abs());
        }
        let largest = quantile(sample, 10_000);
        let most = quantile(sample, MOST_PER_10_000);
        let spread = if most > 0.0 {
            largest.min((most * TAIL_FACTOR).max(widest_place))
        } else {
            largest
        };
        self.scale.fill(scale_for(self.bits, spread));
    }

    /// A scale and a center of each place.
    fn fit_each(&mut self, sample: &[f32]) {
        let places = self.center.len();
        let mut column = Zeroizing::new(Vec::with_capacity(sample.len() / places));
        for place in 0..places {
            column.clear();
            column.extend(sample.iter().skip(place).step_by(places).copied());
            let center = quantile(&mut column, 5_000);
            column.iter_mut().for_each(|value| *value = (*value - center).abs());
            let largest = quantile(&mut column, 10_000);
            let most = quantile(&mut column, MOST_OF_PLACE_PER_10_000);
            let spread = if most > 0.0 { most } else { largest };
            self.center[place] = center;
            self.scale[place] = scale_for(self.bits, spread);
        }
    }

    /// Codes of all rows.
    pub(super) fn encode_all(&self, vectors: &Vectors) -> Codes {
        let places = self.center.len();
        let mut codes = Codes::zeroed(vectors.rows(), places, self.bits);
        if self.bits == CodeBits::Four {
            let squared = |scale: &f32| (0.5 / scale) * (0.5 / scale);
            codes.half_steps_squared = self.scale.iter().map(squared).collect();
        }
        let mut values = Zeroizing::new(Vec::with_capacity(places));
        let mut buffer = Zeroizing::new(Vec::with_capacity(vectors.dim()));
        let mut whole = Zeroizing::new(vec![0u8; CodeBits::Seven.stride(places)]);
        let (middle, code_max) = (self.bits.middle(), self.bits.code_max());
        for row in 0..vectors.rows() {
            self.transform(vectors.row_f32(row, &mut buffer), &mut values);
            let out = codes.row_mut(row);
            match self.bits {
                CodeBits::Seven => kernel::encode(&values, &self.center, &self.scale, middle, code_max, out),
                CodeBits::Four => {
                    kernel::encode(&values, &self.center, &self.scale, middle, code_max, &mut whole);
                    pack(&whole, out);
                }
            }
        }
        codes
    }

    /// A query as weights of codes.
    pub(super) fn encode_query(&self, query: &[f32], out: &mut Query) {
        let shift = |value: f32, center: f32| match self.metric {
            Metric::L2 => value - center,
            Metric::Ip | Metric::Cosine => value,
        };
        let places = || query.iter().zip(&self.center).zip(&self.scale);
        let values = || places().map(|((&value, &center), &scale)| shift(value, center) / scale);
        let largest = values().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let fineness = if largest > 0.0 { WEIGHT_MAX / largest } else { 0.0 };
        out.weights.clear();
        out.weights.resize(CodeBits::Seven.stride(self.center.len()), 0);
        let mut sum = 0i32;
        for (weight, value) in out.weights.iter_mut().zip(values()) {
            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
            let whole = (value * fineness + 0.5f32.copysign(value)).clamp(-WEIGHT_MAX, WEIGHT_MAX) as i8;
            *weight = whole;
            sum += i32::from(whole.max(0));
        }
        let top = sum * i32::from(self.bits.code_max());
        (out.cost, out.slope) = match self.metric {
            Metric::Ip => (Cost::Product { top }, fineness.recip()),
            Metric::Cosine => (
                Cost::Product { top },
                (fineness * kernel::dot(query, query).sqrt()).recip(),
            ),
            Metric::L2 => {
                // In the units of the rows' squares.
                let unit = match self.bits {
                    CodeBits::Seven => self.scale.first().map_or(1.0, |scale| 0.25 / (scale * scale)),
                    CodeBits::Four => 1.0,
                };
                let factor = 2.0 / (fineness * unit);
                let factor = if factor.is_finite() { factor } else { 0.0 };
                (Cost::Square { top, factor }, unit)
            }
        };
    }

    /// Whether every number is one that [`Self::fit`] can give.
    pub(super) fn is_sound(&self) -> bool {
        let centers = self.center.iter().all(|center| center.is_finite());
        centers && self.scale.iter().all(|scale| scale.is_finite() && *scale > 0.0)
    }

    /// A row as it is coded.
    fn transform(&self, row: &[f32], out: &mut Vec<f32>) {
        out.clear();
        match self.metric {
            Metric::L2 | Metric::Ip => out.extend_from_slice(row),
            Metric::Cosine => {
                let squared = kernel::dot(row, row);
                let inverse = if squared > 0.0 { squared.sqrt().recip() } else { 0.0 };
                out.extend(row.iter().map(|value| value * inverse));
                if self.extra {
                    out.push(if squared > 0.0 { 0.0 } else { 1.0 });
                }
            }
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.center.zeroize();
        self.scale.zeroize();
    }
}

/// A query, or a row that takes the part of one, as [`Codes::costs`] reads it. Its weights are wiped on drop.
#[derive(Default)]
pub(super) struct Query {
    weights: Vec<i8>,
    cost: Cost,
    /// How much an exact cost in the user's metric grows with the value of a cost.
    slope: f32,
}

/// How a sum of products becomes a cost, an integer that orders rows.
#[derive(Clone, Copy)]
enum Cost {
    /// The largest possible sum, less the sum.
    Product { top: i32 },
    /// The same times a factor, plus the row's square, as the bits of an `f32`: those of numbers from 0 up order as they do.
    Square { top: i32, factor: f32 },
    /// A constant plus the row's square, less four times the sum, for a row as a query.
    Row { base: u32 },
    /// A constant less four times the sum, for a row as a query under inner product.
    RowProduct { base: u32 },
}

impl Default for Cost {
    fn default() -> Self {
        Self::Product { top: 0 }
    }
}

impl Query {
    /// A cost as a number in the user's metric, but for a constant that is the same for all rows.
    pub(super) fn estimate(&self, cost: u32) -> f32 {
        let value = match self.cost {
            Cost::Product { .. } | Cost::Row { .. } | Cost::RowProduct { .. } => cost as f32,
            Cost::Square { .. } => f32::from_bits(cost),
        };
        value * self.slope
    }
}

impl Query {
    /// Overwrites the weights.
    pub(super) fn wipe(&mut self) {
        self.weights.zeroize();
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        self.weights.zeroize();
    }
}

/// Codes of all rows, each padded to whole kernel steps and, as far as that allows, aligned to cache lines. Wiped on drop.
pub(super) struct Codes {
    bits: CodeBits,
    places: usize,
    stride: usize,
    bytes: kernel::Lined<u8>,
    /// Squared distance of each row from the center; empty where costs do without. With codes of 7 bits in units of half a
    /// code, with codes of 4 bits the bits of an `f32`.
    squares: Vec<u32>,
    /// The largest of them.
    square_max: u32,
    /// With codes of 4 bits, the square of half a step of each place.
    half_steps_squared: Vec<f32>,
}

impl Codes {
    fn zeroed(rows: usize, places: usize, bits: CodeBits) -> Self {
        let stride = bits.stride(places);
        Self {
            bits,
            places,
            stride,
            bytes: kernel::Lined::filled(rows * stride, || 0),
            squares: Vec::new(),
            square_max: 0,
            half_steps_squared: Vec::new(),
        }
    }

    /// Other rows, `count` of them, in codes like these. Nothing is kept beside them.
    pub(super) fn with_rows<'a>(&self, count: usize, rows: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut codes = Self::zeroed(count, self.places, self.bits);
        codes.half_steps_squared.clone_from(&self.half_steps_squared);
        for (place, row) in rows.take(count).enumerate() {
            codes.row_mut(place).copy_from_slice(row);
        }
        codes
    }

    /// The bytes of a row, padding included.
    pub(super) fn row(&self, row: u32) -> &[u8] {
        &self.as_slice()[row as usize * self.stride..][..self.stride]
    }

    pub(super) fn rows(&self) -> usize {
        self.bytes.len() / self.stride
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Leaves the costs of `rows` for `query` in `costs`, in order.
    ///
    /// # Panics
    /// If one of `rows` does not exist, or [`Self::keep_squares`] is due.
    #[inline]
    pub(super) fn costs(&self, query: &Query, rows: &[u32], costs: &mut Vec<u32>) {
        self.costs_before(&[], query, rows, costs);
    }

    /// As [`Self::costs`]; meanwhile what the costs of `later` take is fetched.
    ///
    /// # Panics
    /// As [`Self::costs`], for `later` too.
    #[inline]
    pub(super) fn costs_before(&self, later: &[u32], query: &Query, rows: &[u32], costs: &mut Vec<u32>) {
        let needs_squares = matches!(query.cost, Cost::Square { .. } | Cost::Row { .. });
        if needs_squares {
            rows.iter()
                .chain(later)
                .filter_map(|&row| self.squares.get(row as usize..))
                .for_each(kernel::prefetch);
        }
        match self.bits {
            CodeBits::Seven => {
                kernel::dot_codes_of_rows(&query.weights, self.as_slice(), self.stride, rows, later, costs)
            }
            CodeBits::Four => {
                kernel::dot_half_codes_of_rows(&query.weights, self.as_slice(), self.stride, rows, later, costs)
            }
        }
        match query.cost {
            Cost::Product { top } => costs
                .iter_mut()
                .for_each(|cost| *cost = top.cast_unsigned().wrapping_sub(*cost)),
            Cost::Square { top, factor } => {
                for (cost, &row) in costs.iter_mut().zip(rows) {
                    let product = top.cast_unsigned().wrapping_sub(*cost);
                    let square = self.squares[row as usize];
                    let square = match self.bits {
                        CodeBits::Seven => square as f32,
                        CodeBits::Four => f32::from_bits(square),
                    };
                    *cost = (square + factor * product as f32).to_bits();
                }
            }
            Cost::Row { base } => {
                for (cost, &row) in costs.iter_mut().zip(rows) {
                    *cost = base
                        .wrapping_add(self.squares[row as usize])
                        .wrapping_sub(cost.wrapping_mul(4));
                }
            }
            Cost::RowProduct { base } => costs
                .iter_mut()
                .for_each(|cost| *cost = base.wrapping_sub(cost.wrapping_mul(4))),
        }
    }

    /// Computes what rows as queries, and queries under L2, need beside the codes.
    pub(super) fn keep_squares(&mut self) {
        let mut squares = Vec::with_capacity(self.rows());
        let code_max = u32::from(self.bits.code_max());
        for row in self.as_slice().chunks_exact(self.stride) {
            let square = |code: u8| (2 * u32::from(code)).abs_diff(code_max).pow(2);
            squares.push(match self.bits {
                CodeBits::Seven => row[..self.places].iter().map(|&code| square(code)).sum(),
                CodeBits::Four => {
                    let steps = self.half_steps_squared.iter().enumerate();
                    let terms = steps.map(|(place, step)| step * square(unpack(row, place)) as f32);
                    terms.sum::<f32>().to_bits()
                }
            });
        }
        self.square_max = squares.iter().copied().max().unwrap_or(0);
        self.squares = squares;
    }

    /// Keeps what [`Self::keep_squares`] computes if searches under `metric` need it, else gives it back.
    pub(super) fn keep_squares_if_needed(&mut self, metric: Metric) {
        match metric {
            Metric::L2 if self.squares.len() == self.rows() => {}
            Metric::L2 => self.keep_squares(),
            Metric::Ip | Metric::Cosine => {
                self.squares.zeroize();
                self.squares = Vec::new();
            }
        }
    }

    /// Row `row` as a query under `metric`. For codes of 7 bits whose squares are kept.
    pub(super) fn as_query(&self, metric: Metric, row: u32, out: &mut Query) {
        out.weights.clear();
        out.weights.resize(self.stride, 0);
        let mut sum = 0i32;
        let codes = &self.as_slice()[row as usize * self.stride..][..self.places];
        for (weight, &code) in out.weights.iter_mut().zip(codes) {
            // From -127 to 127 in units of half a code.
            *weight = code.wrapping_mul(2).wrapping_sub(kernel::CODE_MAX).cast_signed();
            sum += i32::from(*weight);
        }
        // |a - b|² = |a|² + |b|² - 2 Σ weight (2 code - 127), modulo 2^32, which it is always below.
        let base = self.squares[row as usize].wrapping_add(sum.wrapping_mul(254).cast_unsigned());
        out.slope = 1.0;
        out.cost = match metric {
            Metric::L2 | Metric::Cosine => Cost::Row { base },
            Metric::Ip => Cost::RowProduct {
                base: base.wrapping_add(self.square_max),
            },
        };
    }

    /// Where walks begin. For codes whose squares are kept.
    pub(super) fn start_row(&self, metric: Metric) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the number of rows is below 2^31")]
        let rows = 0..self.rows() as u32;
        let square = |row: &u32| self.squares[*row as usize];
        let found = match metric {
            Metric::L2 | Metric::Cosine => rows.min_by_key(square),
            // The largest products are with long rows.
            Metric::Ip => rows.max_by_key(square),
        };
        found.unwrap_or(0)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.memory_bytes()
            + size_of_val(self.squares.as_slice())
            + size_of_val(self.half_steps_squared.as_slice())
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.bytes[row * self.stride..][..self.stride]
    }
}

impl Drop for Codes {
    fn drop(&mut self) {
        self.bytes.zeroize();
        self.squares.zeroize();
        self.half_steps_squared.zeroize();
    }
}

/// Packs whole bytes of 4-bit codes as [`kernel::dot_half_codes`] reads them.
fn pack(whole: &[u8], halves: &mut [u8]) {
    for (whole, halves) in whole
        .chunks_exact(kernel::DOT_BLOCK)
        .zip(halves.chunks_exact_mut(kernel::HALF_BLOCK))
    {
        let (low, high) = whole.split_at(kernel::HALF_BLOCK);
        for ((half, &low), &high) in halves.iter_mut().zip(low).zip(high) {
            *half = low | high << 4;
        }
    }
}

/// The code of one place of a packed row.
fn unpack(row: &[u8], place: usize) -> u8 {
    let (block, place) = (place / kernel::DOT_BLOCK, place % kernel::DOT_BLOCK);
    let byte = row[block * kernel::HALF_BLOCK + place % kernel::HALF_BLOCK];
    if place < kernel::HALF_BLOCK {
        byte & 15
    } else {
        byte >> 4
    }
}

/// The scale with which values as far as `spread` from the center have codes.
fn scale_for(bits: CodeBits, spread: f32) -> f32 {
    let scale = bits.middle() / spread;
    if scale.is_finite() && scale > 0.0 { scale } else { 1.0 }
}

/// The value below which `per_10_000` of all `values` are; they are reordered. There must be some.
fn quantile(values: &mut [f32], per_10_000: usize) -> f32 {
    let place = (values.len() - 1) * per_10_000 / 10_000;
    *values.select_nth_unstable_by(place, f32::total_cmp).1
}

/// From so many places on, if their spread is equal, 4 bits a value are the better choice.
const HALF_BYTES_PLACES_MIN: f64 = 96.0;
/// About how many rows tell how equal the spread is.
const SPREAD_ROWS: usize = 1_000;
/// Largest weight of a place, either sign.
const WEIGHT_MAX: f32 = 127.0;
/// The share of sampled values that tells how wide values usually spread, ...
const MOST_PER_10_000: usize = 9_900;
/// ... and how far beyond that the range of a code reaches at most: far enough for the tails of real embeddings, whose
/// clamping cost 0.04 of recall under inner product on GloVe, and not so far that a few wild rows coarsen all others.
const TAIL_FACTOR: f32 = 4.0;
/// The share of its values that a place which spreads wider than that has within the range: distances are about that place.
const MOST_OF_WIDEST_PER_10_000: usize = 9_990;
/// With 4 bits, the share of a place's values within the range of a code: its sixteen steps must be spent where most values
/// are.
const MOST_OF_PLACE_PER_10_000: usize = 9_900;
/// About how many values the fit looks at: enough for a stable 0.9999 quantile, few enough to be quick.
const SAMPLE_VALUES: usize = 2_000_000;
