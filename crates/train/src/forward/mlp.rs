//! SwiGLU (arXiv 2002.05202): `down(silu(gate x) * up x)`.

use k2_kernels::exp::sigmoid;

use crate::gemm::{Into, View, ViewMut, linear};
use crate::params::MlpSlots;
use crate::vectors::{sized, vectorized};

/// Adds the MLP of `x` (`[T, hidden]`) to `out`; `gate_up` (`[T, 2 width]`: gate, then up) is kept.
pub(crate) fn forward(
    weights: &[f32],
    slots: &MlpSlots,
    x: &[f32],
    gate_up: &mut [f32],
    h: &mut Vec<f32>,
    out: &mut [f32],
    into: Into,
) {
    let (hidden, width) = (slots.down_proj.rows, slots.down_proj.cols);
    let x = View::rows_of(x, hidden);
    linear(ViewMut::rows_of(gate_up, 2 * width), Into::Replace, x, slots.gate_up_proj.view(weights));
    let h = sized(h, gate_up.len() / 2);
    silu_mul(gate_up, width, h);
    linear(ViewMut::rows_of(out, hidden), into, View::rows_of(h, width), slots.down_proj.view(weights));
}

/// `h = silu(gate) * up`, rows of `[gate | up]` to rows of `h`.
pub(crate) fn silu_mul(gate_up: &[f32], width: usize, h: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (gate_up, h) in gate_up.chunks_exact(2 * width).zip(h.chunks_exact_mut(width)) {
                let (gate, up) = gate_up.split_at(width);
                for ((h, gate), up) in h.iter_mut().zip(gate).zip(up) {
                    *h = gate * sigmoid(*gate) * up;
                }
            }
        },
    );
}
