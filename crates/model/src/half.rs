//! Floats of 16 bits, kept as bits: IEEE 754's, and the upper half of a 32-bit float ("brain float").
//!
//! Every value of either is exactly a value of `f32`; the other way rounds to the nearest, ties to even.

/// The value of a 16-bit IEEE 754 float.
#[inline(always)]
#[must_use]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    // Places the fraction; the product then moves the exponent's bias from 15 to 127 and makes subnormals normal.
    let value = f32::from_bits(magnitude << 13) * TWO_TO_112;
    // The largest exponent stands for infinities and NaN.
    let special = u32::from(magnitude >= F16_INFINITY) * F32_INFINITY;
    f32::from_bits(value.to_bits() | special | sign)
}

/// The value of the upper half of an `f32`.
#[inline(always)]
#[must_use]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The 16-bit IEEE 754 float nearest to a value; infinite from 65,520 on.
#[must_use]
pub fn f32_to_f16(value: f32) -> u16 {
    let sign = value.to_bits() >> 16 & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let bits = if magnitude > F32_INFINITY {
        F16_INFINITY | 0x0200
    } else if magnitude >= FIRST_TOO_LARGE {
        F16_INFINITY
    } else if magnitude < FIRST_NORMAL {
        // One half has the unit in its last place that subnormals have, so that adding it rounds to that.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let odd = magnitude >> 13 & 1;
        (magnitude - (112 << 23) + 0x0fff + odd) >> 13
    };
    low_half(bits | sign)
}

/// The upper half of the `f32` nearest to a value among those whose lower half is zero.
#[must_use]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return low_half(bits >> 16 | 0x0040);
    }
    let odd = bits >> 16 & 1;
    low_half((bits + 0x7fff + odd) >> 16)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the callers leave nothing in the upper half"
)]
fn low_half(bits: u32) -> u16 {
    bits as u16
}

/// 2^112.
const TWO_TO_112: f32 = f32::from_bits(0x7780_0000);
/// Bits of infinity.
const F16_INFINITY: u32 = 0x7c00;
const F32_INFINITY: u32 = 0x7f80_0000;
/// Bits of 65,520, half way between the largest 16-bit float and the next that there would be.
const FIRST_TOO_LARGE: u32 = 0x477f_f000;
/// Bits of 2^-14.
const FIRST_NORMAL: u32 = 0x3880_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_widen_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3c00, 1.0),
            (0xc100, -2.5),
            (0x7bff, 65_504.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(f16_to_f32(bits).to_bits(), value.to_bits(), "{bits:#06x}");
        }
        assert!(f16_to_f32(0x7c01).is_nan() && f16_to_f32(0xffff).is_nan());
        assert_eq!(bf16_to_f32(0x3f80), 1.0);
        assert!(bf16_to_f32(0x7fc0).is_nan());
    }

    /// Each value comes back, and what lies between two goes to the nearer, from the middle to the even one.
    #[test]
    fn narrowing_rounds_to_the_nearest() {
        type Widen = fn(u16) -> f32;
        type Narrow = fn(f32) -> u16;
        let widths: [(Widen, Narrow, u16); 2] = [(f16_to_f32, f32_to_f16, 0x7c00), (bf16_to_f32, f32_to_bf16, 0x7f80)];
        for (widen, narrow, infinity) in widths {
            for bits in 0..=u16::MAX {
                let value = widen(bits);
                if value.is_nan() {
                    assert!(widen(narrow(value)).is_nan());
                    continue;
                }
                assert_eq!(narrow(value), bits);
                if bits & 0x7fff < infinity - 1 {
                    let middle = (f64::from(value) + f64::from(widen(bits + 1))) / 2.0;
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "a 16-bit float and half a step fit exactly"
                    )]
                    let middle = middle as f32;
                    let even = if bits % 2 == 0 { bits } else { bits + 1 };
                    assert_eq!(narrow(middle), even, "{bits:#06x}");
                    let (nearer_zero, farther) = if value < 0.0 || bits == 0x8000 {
                        (middle.next_up(), middle.next_down())
                    } else {
                        (middle.next_down(), middle.next_up())
                    };
                    assert_eq!((narrow(nearer_zero), narrow(farther)), (bits, bits + 1), "{bits:#06x}");
                }
            }
        }
        assert_eq!(
            (f32_to_f16(65_519.9), f32_to_f16(65_520.0), f32_to_f16(-1e9)),
            (0x7bff, 0x7c00, 0xfc00)
        );
        assert_eq!((f32_to_f16(1e-9), f32_to_bf16(f32::MAX)), (0, 0x7f80));
    }
}
