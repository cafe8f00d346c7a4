//! The gated feed-forward part (SwiGLU, arXiv 2002.05202): `down_proj(silu(gate_proj x) * up_proj x)`.
//!
//! Dense layers, routed experts and shared experts all have this form.

use k2_kernels::exp::silu_mul;
use k2_kernels::matmul::matmul;
use k2_kernels::{Matrix, Pool};

use crate::scratch::sized;

/// `gate_proj` and `up_proj` are `[intermediate, hidden]`, `down_proj` is `[hidden, intermediate]`.
pub struct Mlp {
    /// Decides how much of each channel passes.
    pub gate_proj: Matrix,
    /// What passes.
    pub up_proj: Matrix,
    /// Back to the hidden width.
    pub down_proj: Matrix,
}

/// Intermediate rows of an MLP.
#[derive(Default)]
pub struct MlpScratch {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Mlp {
    /// `out = down_proj(silu(gate_proj x) * up_proj x)`; `x` and `out` are `[T, hidden]`.
    pub fn forward(&self, pool: &Pool, x: &[f32], scratch: &mut MlpScratch, out: &mut [f32]) {
        let tokens = x.len() / self.gate_proj.cols();
        let gate = sized(&mut scratch.gate, tokens * self.gate_proj.rows());
        let up = sized(&mut scratch.up, tokens * self.up_proj.rows());
        matmul(pool, &self.gate_proj, x, gate);
        matmul(pool, &self.up_proj, x, up);
        silu_mul(gate, up);
        matmul(pool, &self.down_proj, gate, out);
    }
}
