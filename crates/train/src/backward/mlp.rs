//! SwiGLU's gradients; `h` is computed again from `gate` and `up`.

use k2_kernels::exp::sigmoid;

use crate::forward::mlp::silu_mul;
use crate::gemm::{Into, View, ViewMut, linear_input_gradient, linear_weight_gradient};
use crate::params::MlpSlots;
use crate::vectors::{sized, vectorized};
use crate::workspace::Scratch;

/// Adds to `dx` (`[T, hidden]`), given the output's gradient `dy`.
pub(crate) fn backward(
    weights: &[f32],
    slots: &MlpSlots,
    x: &[f32],
    gate_up: &[f32],
    dy: &[f32],
    scratch: &mut Scratch,
    gradient: &mut [f32],
    dx: &mut [f32],
) {
    let (hidden, width) = (slots.down_proj.rows, slots.down_proj.cols);
    let rows = gate_up.len() / (2 * width);
    let (h, dh) = (sized(&mut scratch.h, rows * width), sized(&mut scratch.dh, rows * width));
    let dy = View::rows_of(dy, hidden);
    silu_mul(gate_up, width, h);
    linear_weight_gradient(slots.down_proj.view_mut(gradient), dy, View::rows_of(h, width));
    linear_input_gradient(ViewMut::rows_of(dh, width), Into::Replace, dy, slots.down_proj.view(weights));
    let d_gate_up = sized(&mut scratch.d_gate_up, gate_up.len());
    silu_mul_backward(gate_up, width, dh, d_gate_up);
    let d_gate_up = View::rows_of(d_gate_up, 2 * width);
    linear_weight_gradient(slots.gate_up_proj.view_mut(gradient), d_gate_up, View::rows_of(x, hidden));
    let dx = ViewMut::rows_of(dx, hidden);
    linear_input_gradient(dx, Into::Add, d_gate_up, slots.gate_up_proj.view(weights));
}

/// From the gradient of `silu(gate) * up` to those of `gate` and `up`.
pub(crate) fn silu_mul_backward(gate_up: &[f32], width: usize, dh: &[f32], d_gate_up: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let rows = gate_up.chunks_exact(2 * width).zip(dh.chunks_exact(width));
            for ((gate_up, dh), d_gate_up) in rows.zip(d_gate_up.chunks_exact_mut(2 * width)) {
                let (gate, up) = gate_up.split_at(width);
                let (d_gate, d_up) = d_gate_up.split_at_mut(width);
                for i in 0..width {
                    let s = sigmoid(gate[i]);
                    let silu = gate[i] * s;
                    d_up[i] = dh[i] * silu;
                    d_gate[i] = dh[i] * up[i] * (s + silu * (1.0 - s));
                }
            }
        },
    );
}
