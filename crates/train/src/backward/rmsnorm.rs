//! RMSNorm's gradients. With `r = inv_rms` and `n` channels:
//! `dx_i += r w_i dy_i - x_i r³/n Σ_j dy_j w_j x_j`, `dw_j += dy_j x_j r`.

use crate::vectors::vectorized;

/// Rows of numbers, a constant stride apart.
pub(crate) struct Rows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// Adds to the first `weight.len()` numbers of each row of `dx`, rows being `dx_stride` apart.
pub(crate) fn backward(
    x: Rows<'_>,
    weight: &[f32],
    inv_rms: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dx_stride: usize,
    d_weight: &mut [f32],
) {
    let width = weight.len();
    vectorized(
        #[inline(always)]
        || {
            let rows = x.data.chunks(x.stride).zip(dy.chunks_exact(width)).zip(inv_rms);
            for (((x, dy), r), dx) in rows.zip(dx.chunks_mut(dx_stride)) {
                row(&x[..width], weight, *r, dy, &mut dx[..width], d_weight);
            }
        },
    );
}

#[inline(always)]
fn row(x: &[f32], weight: &[f32], r: f32, dy: &[f32], dx: &mut [f32], d_weight: &mut [f32]) {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    for ((x, dy), w) in x.chunks(LANES).zip(dy.chunks(LANES)).zip(weight.chunks(LANES)) {
        for lane in 0..x.len() {
            sums[lane] += dy[lane] * w[lane] * x[lane];
        }
    }
    let projection = sums.iter().sum::<f32>() * r * r * r / x.len() as f32;
    for i in 0..x.len() {
        dx[i] += r * weight[i] * dy[i] - x[i] * projection;
        d_weight[i] += dy[i] * x[i] * r;
    }
}
