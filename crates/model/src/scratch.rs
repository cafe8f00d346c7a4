//! Buffers of a forward pass, kept from one step to the next.

use k2_kernels::Inputs;

use crate::mla::MlaScratch;
use crate::mlp::MlpScratch;
use crate::moe::MoeScratch;
use crate::rope::Angles;

/// All intermediate rows of one step; grows to the largest batch it has seen.
#[derive(Default)]
pub struct Scratch {
    /// The residual stream, `[T, hidden]`.
    pub(crate) x: Vec<f32>,
    /// A normalised copy of it.
    pub(crate) normed: Vec<f32>,
    /// What a block adds to it.
    pub(crate) out: Vec<f32>,
    pub(crate) angles: Angles,
    pub(crate) mla: MlaScratch,
    pub(crate) mlp: MlpScratch,
    pub(crate) moe: MoeScratch,
    pub(crate) head_inputs: Inputs,
    pub(crate) logits: Vec<f32>,
}

/// The first `len` numbers of a buffer, which grows if it has fewer. Contents are left over.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
