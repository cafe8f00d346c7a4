//! RMSNorm (arXiv 1910.07467): `y = x / sqrt(mean(x²) + eps) * weight`, row by row.

use crate::dot::dot;
use crate::isa::{isa, per_isa};

/// Normalises each row of `x` (`[T, weight.len()]`) into `y`.
pub fn rmsnorm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "rmsnorm keeps the shape");
    let isa = isa();
    for (x, y) in x.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len())) {
        row(isa, x, weight, eps, y);
    }
}

per_isa! {
    fn row(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) = row_body
}

#[inline(always)]
fn row_body(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
        *y = x * scale * w;
    }
}
