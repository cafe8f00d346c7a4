//! Token ids to rows of `embed_tokens`.

use super::Pass;

/// Fills `x`, `[T, hidden]`.
pub(crate) fn forward(pass: &Pass<'_>, x: &mut [f32]) {
    let slot = pass.layout.embed_tokens;
    let table = slot.of(pass.weights);
    for (x, token) in x.chunks_exact_mut(slot.cols).zip(pass.batch.tokens) {
        x.copy_from_slice(&table[*token as usize * slot.cols..][..slot.cols]);
    }
}
