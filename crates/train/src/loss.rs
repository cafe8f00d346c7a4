//! Masked cross entropy, forward and backward in one go.
//!
//! Only positions that count go through `model.norm` and `lm_head`, a tile of rows at a time, so that the
//! logits of a whole batch are never held.

use k2_kernels::exp::exp;

use crate::backward::rmsnorm::{Rows, backward as norm_backward};
use crate::forward::{Pass, rmsnorm};
use crate::gemm::{Into, View, ViewMut, linear, linear_input_gradient, linear_weight_gradient};
use crate::vectors::{add_scaled, max_of, sized, sum_of, vectorized};
use crate::workspace::{Scratch, Workspace};

/// Logits held at a time.
const TILE_LOGITS: usize = 1 << 19;

/// The sum over positions of `loss_mask * cross entropy`, after [`crate::forward::forward`].
///
/// With a gradient vector, also adds the head's gradients to it and leaves the residual's in
/// `workspace.dx`, all times `factor` (one over the step's total weight).
pub fn loss(
    pass: &Pass<'_>,
    workspace: &mut Workspace,
    factor: f32,
    mut gradient: Option<&mut [f32]>,
) -> f64 {
    let Workspace { x, dx, scratch, .. } = workspace;
    if gradient.is_some() {
        dx.clear();
        dx.resize(x.len(), 0.0);
    }
    let counts = |row: &u32| pass.batch.loss_mask[*row as usize] > 0.0;
    scratch.rows.clear();
    scratch.rows.extend((0..pass.batch.tokens.len() as u32).filter(counts));
    let rows = std::mem::take(&mut scratch.rows);
    let tile = (TILE_LOGITS / pass.layout.config().vocab_size).clamp(16, 512);
    let sum =
        rows.chunks(tile).map(|rows| tile_loss(pass, x, dx, rows, scratch, factor, &mut gradient)).sum();
    scratch.rows = rows;
    sum
}

fn tile_loss(
    pass: &Pass<'_>,
    x: &[f32],
    dx: &mut [f32],
    rows: &[u32],
    scratch: &mut Scratch,
    factor: f32,
    gradient: &mut Option<&mut [f32]>,
) -> f64 {
    let (layout, config, w) = (pass.layout, pass.layout.config(), pass.weights);
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let head_x = sized(&mut scratch.head_x, rows.len() * hidden);
    for (to, row) in head_x.chunks_exact_mut(hidden).zip(rows) {
        to.copy_from_slice(&x[*row as usize * hidden..][..hidden]);
    }
    let normed = sized(&mut scratch.head_normed, rows.len() * hidden);
    let inv_rms = sized(&mut scratch.head_inv_rms, rows.len());
    rmsnorm::forward(head_x, hidden, layout.norm.of(w), config.rms_norm_eps, normed, inv_rms);
    let logits = sized(&mut scratch.logits, rows.len() * vocab);
    let normed = View::rows_of(normed, hidden);
    linear(ViewMut::rows_of(logits, vocab), Into::Replace, normed, layout.lm_head.view(w));
    let sum = cross_entropy(pass, rows, vocab, factor, logits);
    if let Some(gradient) = gradient {
        let d_logits = View::rows_of(logits, vocab);
        linear_weight_gradient(layout.lm_head.view_mut(gradient), d_logits, normed);
        let d_normed = sized(&mut scratch.d_normed, rows.len() * hidden);
        let to = ViewMut::rows_of(d_normed, hidden);
        linear_input_gradient(to, Into::Replace, d_logits, layout.lm_head.view(w));
        let d_head_x = sized(&mut scratch.expert_dx, rows.len() * hidden);
        d_head_x.fill(0.0);
        let (norm_rows, d_gain) = (Rows { data: head_x, stride: hidden }, layout.norm.of_mut(gradient));
        norm_backward(norm_rows, layout.norm.of(w), inv_rms, d_normed, d_head_x, hidden, d_gain);
        for (from, row) in d_head_x.chunks_exact(hidden).zip(rows) {
            add_scaled(&mut dx[*row as usize * hidden..][..hidden], 1.0, from);
        }
    }
    sum
}

/// Logits become their own gradient, `(softmax - one-hot) * mask * factor`; returns the loss.
fn cross_entropy(pass: &Pass<'_>, rows: &[u32], vocab: usize, factor: f32, logits: &mut [f32]) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut loss = 0.0;
            for (logits, row) in logits.chunks_exact_mut(vocab).zip(rows) {
                let target = pass.batch.targets[*row as usize] as usize;
                let weight = pass.batch.loss_mask[*row as usize];
                let (max, wanted) = (max_of(logits), logits[target]);
                for logit in logits.iter_mut() {
                    *logit = exp(*logit - max);
                }
                let sum = sum_of(
                    logits,
                    logits,
                    #[inline(always)]
                    |p, _| p,
                );
                loss += f64::from(weight) * f64::from(max + sum.ln() - wanted);
                let scale = weight * factor / sum;
                for logit in logits.iter_mut() {
                    *logit *= scale;
                }
                logits[target] -= weight * factor;
            }
            loss
        },
    )
}
