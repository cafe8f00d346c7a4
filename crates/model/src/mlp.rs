//! The gated feed-forward part (SwiGLU, arXiv 2002.05202): `down_proj(silu(gate_proj x) * up_proj x)`.
//!
//! Dense layers, routed experts and shared experts all have this form.

use k2_kernels::swiglu::{Expert, Share, swiglu};
use k2_kernels::{Inputs, Matrix, Pool, Precision};

/// `gate_proj` and `up_proj` are `[intermediate, hidden]`, `down_proj` is `[hidden, intermediate]`.
pub struct Mlp {
    /// Decides how much of each channel passes.
    pub gate_proj: Matrix,
    /// What passes.
    pub up_proj: Matrix,
    /// Back to the hidden width.
    pub down_proj: Matrix,
}

/// Intermediate rows of MLPs.
#[derive(Default)]
pub struct MlpScratch {
    /// Rows as they come in.
    pub(crate) inputs: Inputs,
    /// Between `up_proj` and `down_proj`.
    pub(crate) hidden: Inputs,
}

impl Mlp {
    /// `out = down_proj(silu(gate_proj x) * up_proj x)`; `x` and `out` are `[T, hidden]`.
    pub fn forward(
        &self,
        pool: &Pool,
        precision: Precision,
        x: &[f32],
        scratch: &mut MlpScratch,
        out: &mut [f32],
    ) {
        scratch.inputs.set(pool, precision, self.first_weights(), 1, x);
        let this = |_| self.expert(0, Share::Whole);
        swiglu(pool, 1, this, &scratch.inputs, &mut scratch.hidden, out);
    }

    /// What multiplies its input.
    pub(crate) fn first_weights(&self) -> impl Iterator<Item = &Matrix> + Clone {
        [&self.gate_proj, &self.up_proj].into_iter()
    }

    /// As one of several, for the tokens of a segment.
    pub(crate) fn expert<'a>(&'a self, segment: usize, share: Share<'a>) -> Expert<'a> {
        let Mlp { gate_proj, up_proj, down_proj } = self;
        Expert { gate_proj, up_proj, down_proj, segment, share }
    }
}
