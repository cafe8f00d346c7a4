//! Causal softmax attention, head by head and document by document, in blocks of query rows.
//!
//! Only the block on the diagonal computes scores that the mask throws away. Probabilities are not kept:
//! the backward pass computes them again from the scores and `log_sum_exp` (Dao et al., FlashAttention,
//! arXiv 2205.14135), so that memory grows with the length and not with its square.

use k2_kernels::exp::exp;
use k2_model::Config;
use std::ops::Range;

use crate::gemm::{Into, View, ViewMut, gemm};
use crate::vectors::{max_of, sized, sum_of, vectorized};

/// Query rows that are computed together.
pub(crate) const BLOCK: usize = 64;

/// The widths of attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub count: usize,
    pub nope: usize,
    pub rope: usize,
    pub v: usize,
}

/// What attention reads. `q` is `[T, heads, nope + rope]`, `kv` `[T, heads, nope + v]`; the shared rotated
/// key is the end of each row of `kv_a`.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub heads: Heads,
    pub scale: f32,
    pub q: &'a [f32],
    pub kv: &'a [f32],
    pub kv_a: &'a [f32],
    pub latent_width: usize,
}

/// Buffers for one head of one document.
#[derive(Default)]
pub struct AttentionScratch {
    /// Keys, `[n, nope + rope]`.
    pub(crate) k: Vec<f32>,
    pub(crate) dk: Vec<f32>,
    pub(crate) scores: Vec<f32>,
    pub(crate) d_scores: Vec<f32>,
}

impl Heads {
    pub(crate) fn of(config: &Config) -> Heads {
        Heads {
            count: config.num_attention_heads,
            nope: config.qk_nope_head_dim,
            rope: config.qk_rope_head_dim,
            v: config.v_head_dim,
        }
    }

    pub(crate) fn qk(self) -> usize {
        self.nope + self.rope
    }
}

/// `out` is `[T, heads, v]`, `log_sum_exp` `[T, heads]`; `max_logits` (`[heads]`) is raised to what is seen in
/// documents that are not padding.
pub(crate) fn forward(
    inputs: &Inputs<'_>,
    documents: &[Range<usize>],
    counting: &[bool],
    scratch: &mut AttentionScratch,
    out: &mut [f32],
    log_sum_exp: &mut [f32],
    max_logits: &mut [f32],
) {
    let Heads { count, v, .. } = inputs.heads;
    for document in documents {
        for head in 0..count {
            inputs.keys(document, head, &mut scratch.k);
            for rows in blocks(document) {
                let keys = rows.end - document.start;
                let scores = sized(&mut scratch.scores, rows.len() * keys);
                inputs.scores(&rows, head, &scratch.k, scores);
                let log_sum_exp = &mut log_sum_exp[rows.start * count..rows.end * count];
                let seen = softmax(scores, keys, rows.start - document.start, log_sum_exp, count, head);
                if counting[document.start] {
                    max_logits[head] = max_logits[head].max(seen);
                }
                let out = &mut out[(rows.start * count + head) * v..];
                gemm(
                    ViewMut::strided(out, rows.len(), v, count * v),
                    Into::Replace,
                    1.0,
                    View::rows_of(scores, keys),
                    inputs.values(document.start..rows.end, head),
                );
            }
        }
    }
}

/// The blocks of query rows of a document.
pub(crate) fn blocks(document: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = document.end;
    document.clone().step_by(BLOCK).map(move |first| first..(first + BLOCK).min(end))
}

impl<'a> Inputs<'a> {
    /// One head's keys: its own part and the shared rotated one.
    pub(crate) fn keys(&self, document: &Range<usize>, head: usize, k: &mut Vec<f32>) {
        let Heads { count, nope, v, .. } = self.heads;
        k.clear();
        for row in document.clone() {
            k.extend_from_slice(&self.kv[(row * count + head) * (nope + v)..][..nope]);
            k.extend_from_slice(&self.kv_a[row * self.latent_width..][..self.latent_width][self.latent()..]);
        }
    }

    /// Width of the latent in a row of `kv_a`.
    pub(crate) fn latent(&self) -> usize {
        self.latent_width - self.heads.rope
    }

    pub(crate) fn queries(&self, rows: &Range<usize>, head: usize) -> View<'a> {
        let (count, qk) = (self.heads.count, self.heads.qk());
        View::strided(&self.q[(rows.start * count + head) * qk..], rows.len(), qk, count * qk)
    }

    pub(crate) fn values(&self, rows: Range<usize>, head: usize) -> View<'a> {
        let Heads { count, nope, v, .. } = self.heads;
        let width = nope + v;
        View::strided(&self.kv[(rows.start * count + head) * width + nope..], rows.len(), v, count * width)
    }

    /// Scaled scores of a block of queries with all keys up to the block's end.
    pub(crate) fn scores(&self, rows: &Range<usize>, head: usize, k: &[f32], scores: &mut [f32]) {
        let (keys, qk) = (scores.len() / rows.len(), self.heads.qk());
        let k = View::strided(k, keys, qk, qk).transposed();
        gemm(ViewMut::rows_of(scores, keys), Into::Replace, self.scale, self.queries(rows, head), k);
    }
}

/// Scores to probabilities, row `i` over its first `before + i + 1` keys. Returns the largest score.
fn softmax(
    scores: &mut [f32],
    keys: usize,
    before: usize,
    log_sum_exp: &mut [f32],
    stride: usize,
    head: usize,
) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            let mut seen = f32::NEG_INFINITY;
            for (i, scores) in scores.chunks_exact_mut(keys).enumerate() {
                let (scores, masked) = scores.split_at_mut(before + i + 1);
                let max = max_of(scores);
                for score in scores.iter_mut() {
                    *score = exp(*score - max);
                }
                let sum = sum_of(
                    scores,
                    scores,
                    #[inline(always)]
                    |p, _| p,
                );
                let inverse = 1.0 / sum;
                for score in scores.iter_mut() {
                    *score *= inverse;
                }
                masked.fill(0.0);
                log_sum_exp[i * stride + head] = max + sum.ln();
                seen = seen.max(max);
            }
            seen
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Against the formula, over documents longer than a block, shorter than one, and of one position.
    #[test]
    fn output_and_largest_logit_are_those_of_the_formula() {
        let heads = Heads { count: 3, nope: 5, rope: 2, v: 4 };
        let (latent_width, rows) = (9, 170);
        let mut rng = Rng::new(1);
        let mut numbers = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.normal() as f32).collect() };
        let (q, kv, kv_a) = (numbers(rows * 21), numbers(rows * 27), numbers(rows * latent_width));
        let inputs = Inputs { heads, scale: 0.7, q: &q, kv: &kv, kv_a: &kv_a, latent_width };
        let documents = [0..130, 130..131, 131..170];
        let (mut out, mut log_sum_exp) = (vec![0.0; rows * 12], vec![0.0; rows * 3]);
        let mut max_logits = [f32::NEG_INFINITY; 3];
        let mut scratch = AttentionScratch::default();
        forward(&inputs, &documents, &[true; 170], &mut scratch, &mut out, &mut log_sum_exp, &mut max_logits);

        let mut want_max = [f32::NEG_INFINITY; 3];
        for (document, row) in documents.iter().flat_map(|d| d.clone().map(move |row| (d, row))) {
            for head in 0..3 {
                let query = &q[(row * 3 + head) * 7..][..7];
                let logit = |key: usize| {
                    let nope = &kv[(key * 3 + head) * 9..][..5];
                    let k = nope.iter().chain(&kv_a[key * latent_width + 7..][..2]);
                    0.7 * query.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
                };
                let logits: Vec<f32> = (document.start..=row).map(logit).collect();
                want_max[head] = logits.iter().fold(want_max[head], |max, logit| max.max(*logit));
                let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
                assert!((log_sum_exp[row * 3 + head] - sum.ln()).abs() < 1e-5);
                for channel in 0..4 {
                    let value = |key: usize| kv[((document.start + key) * 3 + head) * 9 + 5 + channel];
                    let weighted =
                        logits.iter().enumerate().map(|(key, logit)| logit.exp() / sum * value(key));
                    let (want, found) = (weighted.sum::<f32>(), out[(row * 3 + head) * 4 + channel]);
                    assert!((want - found).abs() < 1e-5, "row {row} head {head}: {found} {want}");
                }
            }
        }
        for (found, want) in max_logits.iter().zip(want_max) {
            assert!((found - want).abs() < 1e-5 * want, "{max_logits:?} {want_max:?}");
        }
    }
}
