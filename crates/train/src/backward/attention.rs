//! Attention's gradients (FlashAttention, arXiv 2205.14135, algorithm 4): probabilities again from the
//! scores, then `dV = Pᵀ dO`, `dS = P (dO Vᵀ - D) scale` with `D = dO·O`, `dQ = dS K`, `dK = dSᵀ Q`.

use k2_kernels::exp::exp;
use std::ops::Range;

use crate::forward::attention::{AttentionScratch, Heads, Inputs, blocks};
use crate::gemm::{Into, View, ViewMut, gemm};
use crate::vectors::{add_scaled, dot, sized, vectorized};

/// What the forward pass gave, and the gradient of its output; all `[T, heads, v]` or `[T, heads]`.
#[derive(Clone, Copy)]
pub(crate) struct Outputs<'a> {
    pub out: &'a [f32],
    pub d_out: &'a [f32],
    pub log_sum_exp: &'a [f32],
}

/// Gradients, laid out as the inputs are. `dkv_a` has its rope part added to, the rest is left alone.
pub(crate) struct InputGradients<'a> {
    pub dq: &'a mut [f32],
    pub dkv: &'a mut [f32],
    pub dkv_a: &'a mut [f32],
}

pub(crate) fn backward(
    inputs: &Inputs<'_>,
    outputs: Outputs<'_>,
    documents: &[Range<usize>],
    scratch: &mut AttentionScratch,
    gradients: &mut InputGradients<'_>,
) {
    gradients.dkv.fill(0.0);
    for document in documents {
        for head in 0..inputs.heads.count {
            inputs.keys(document, head, &mut scratch.k);
            scratch.dk.clear();
            scratch.dk.resize(scratch.k.len(), 0.0);
            for rows in blocks(document) {
                block(inputs, outputs, document.start, rows, head, scratch, gradients);
            }
            key_gradients(inputs, document, head, &scratch.dk, gradients);
        }
    }
}

fn block(
    inputs: &Inputs<'_>,
    outputs: Outputs<'_>,
    start: usize,
    rows: Range<usize>,
    head: usize,
    scratch: &mut AttentionScratch,
    gradients: &mut InputGradients<'_>,
) {
    let Heads { count, nope, v, .. } = inputs.heads;
    let (keys, qk, scale) = (rows.end - start, inputs.heads.qk(), inputs.scale);
    let p = sized(&mut scratch.scores, rows.len() * keys);
    let ds = sized(&mut scratch.d_scores, rows.len() * keys);
    let d_out = View::strided(&outputs.d_out[(rows.start * count + head) * v..], rows.len(), v, count * v);
    inputs.scores(&rows, head, &scratch.k, p);
    let values = inputs.values(start..rows.end, head);
    gemm(ViewMut::rows_of(ds, keys), Into::Replace, 1.0, d_out, values.transposed());
    probabilities(inputs, outputs, rows.start - start, &rows, head, p, ds);

    let dv = &mut gradients.dkv[(start * count + head) * (nope + v) + nope..];
    let dv = ViewMut::strided(dv, keys, v, count * (nope + v));
    gemm(dv, Into::Add, 1.0, View::rows_of(p, keys).transposed(), d_out);
    let ds = View::rows_of(ds, keys);
    let dq = &mut gradients.dq[(rows.start * count + head) * qk..];
    let dq = ViewMut::strided(dq, rows.len(), qk, count * qk);
    gemm(dq, Into::Replace, scale, ds, View::strided(&scratch.k, keys, qk, qk));
    let dk = ViewMut::strided(&mut scratch.dk, keys, qk, qk);
    gemm(dk, Into::Add, scale, ds.transposed(), inputs.queries(&rows, head));
}

/// Scores to probabilities, and their gradients to those of the scores; what the mask hides becomes 0.
fn probabilities(
    inputs: &Inputs<'_>,
    outputs: Outputs<'_>,
    before: usize,
    rows: &Range<usize>,
    head: usize,
    p: &mut [f32],
    ds: &mut [f32],
) {
    let Heads { count, v, .. } = inputs.heads;
    let keys = p.len() / rows.len();
    vectorized(
        #[inline(always)]
        || {
            for (i, (p, ds)) in p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys)).enumerate() {
                let place = (rows.start + i) * count + head;
                let d = dot(&outputs.out[place * v..][..v], &outputs.d_out[place * v..][..v]);
                let log_sum_exp = outputs.log_sum_exp[place];
                let (p, p_masked) = p.split_at_mut(before + i + 1);
                let (ds, ds_masked) = ds.split_at_mut(before + i + 1);
                for (p, ds) in p.iter_mut().zip(ds) {
                    *p = exp(*p - log_sum_exp);
                    *ds = *p * (*ds - d);
                }
                p_masked.fill(0.0);
                ds_masked.fill(0.0);
            }
        },
    );
}

/// One head's key gradients go to its own part and to the shared rotated key.
fn key_gradients(
    inputs: &Inputs<'_>,
    document: &Range<usize>,
    head: usize,
    dk: &[f32],
    gradients: &mut InputGradients<'_>,
) {
    let Heads { count, nope, v, .. } = inputs.heads;
    let (width, latent) = (inputs.latent_width, inputs.latent());
    for (row, dk) in document.clone().zip(dk.chunks_exact(inputs.heads.qk())) {
        let (dk_nope, dk_rope) = dk.split_at(nope);
        gradients.dkv[(row * count + head) * (nope + v)..][..nope].copy_from_slice(dk_nope);
        add_scaled(&mut gradients.dkv_a[row * width + latent..(row + 1) * width], 1.0, dk_rope);
    }
}
