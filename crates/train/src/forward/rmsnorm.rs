//! RMSNorm (arXiv 1910.07467): `y = x * inv_rms * weight`, `inv_rms = 1 / sqrt(mean(x²) + eps)`.

use crate::vectors::{dot, vectorized};

/// `q_a_layernorm` and `kv_a_layernorm` use this whatever `rms_norm_eps` says, as the official code does.
pub(crate) const LATENT_NORM_EPS: f32 = 1e-6;

/// Normalises the first `weight.len()` numbers of each row of `x`, rows being `stride` apart. `y` is
/// `[T, weight.len()]`, `inv_rms` `[T]`.
pub(crate) fn forward(
    x: &[f32],
    stride: usize,
    weight: &[f32],
    eps: f32,
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let width = weight.len();
    vectorized(
        #[inline(always)]
        || {
            for ((x, y), inv_rms) in x.chunks(stride).zip(y.chunks_exact_mut(width)).zip(inv_rms) {
                let x = &x[..width];
                *inv_rms = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
                for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * *inv_rms * weight;
                }
            }
        },
    );
}
