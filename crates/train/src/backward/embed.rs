//! Each row's gradient goes to its token's row of `embed_tokens`.

use crate::forward::Pass;
use crate::vectors::{add_scaled, vectorized};

pub(crate) fn backward(pass: &Pass<'_>, dx: &[f32], gradient: &mut [f32]) {
    let slot = pass.layout.embed_tokens;
    let table = slot.of_mut(gradient);
    vectorized(
        #[inline(always)]
        || {
            for (dx, token) in dx.chunks_exact(slot.cols).zip(pass.batch.tokens) {
                add_scaled(&mut table[*token as usize * slot.cols..][..slot.cols], 1.0, dx);
            }
        },
    );
}
