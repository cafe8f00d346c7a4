//! Attention of one query token over paged latents, the heads sharing each cached row.
//!
//! The absorbed form of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1.2):
//! queries already live in the latent space, so keys and values are the cached rows themselves. Scores
//! first, a softmax over all of them, then the weighted sum in the order of the keys: nothing depends
//! on how the cache was filled.

use crate::dot::{LANES, accumulate, add_scaled, dot, total};
use crate::exp::exp;
use crate::isa::{isa, per_isa};

/// Cached rows of one layer, page by page.
pub struct Pages<'a> {
    /// The pages in the order of the sequence, each `[page_len, width]`; whole lanes wide.
    pub pages: Vec<&'a [f32]>,
    /// Rows per page.
    pub page_len: usize,
    /// Numbers from one row to the next, a multiple of 16.
    pub width: usize,
    /// Rows to attend to.
    pub keys: usize,
}

impl Pages<'_> {
    #[inline(always)]
    fn row(&self, key: usize) -> &[f32] {
        &self.pages[key / self.page_len][key % self.page_len * self.width..][..self.width]
    }
}

/// Attends with `query` (`[heads, pages.width]`, padding zero) to all keys; `out` is `[heads, value_len]`,
/// the weighted sum of the rows' first `value_len` numbers. `scores` is scratch.
pub fn attend(
    pages: &Pages<'_>,
    query: &[f32],
    scale: f32,
    value_len: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let heads = query.len() / pages.width;
    assert_eq!(out.len(), heads * value_len, "one value per head");
    scores.clear();
    scores.resize(heads * pages.keys, 0.0);
    attend_isa(isa(), pages, query, scale, value_len, scores, out);
}

per_isa! {
    fn attend_isa(pages: &Pages<'_>, query: &[f32], scale: f32, value_len: usize, scores: &mut [f32], out: &mut [f32]) = attend_body
}

#[inline(always)]
fn attend_body(
    pages: &Pages<'_>,
    query: &[f32],
    scale: f32,
    value_len: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    score_heads(pages, query, scale, scores);
    for scores in scores.chunks_exact_mut(pages.keys) {
        softmax(scores);
    }
    out.fill(0.0);
    for key in 0..pages.keys {
        let value = &pages.row(key)[..value_len];
        for (out, scores) in out.chunks_exact_mut(value_len).zip(scores.chunks_exact(pages.keys)) {
            add_scaled(out, scores[key], value);
        }
    }
}

/// `scores[h, key] = scale * query[h] · row[key]`, four heads at a time.
#[inline(always)]
fn score_heads(pages: &Pages<'_>, query: &[f32], scale: f32, scores: &mut [f32]) {
    let (heads, width) = (query.len() / pages.width, pages.width);
    for key in 0..pages.keys {
        let row = pages.row(key);
        for head in (0..heads).step_by(4) {
            let query = &query[head * width..];
            let four = if heads - head >= 4 { dot_four(query, row) } else { dot_rest(query, row) };
            for (i, dot) in four.iter().take(heads - head).enumerate() {
                scores[(head + i) * pages.keys + key] = scale * dot;
            }
        }
    }
}

#[inline(always)]
fn dot_four(query: &[f32], row: &[f32]) -> [f32; 4] {
    let mut sums = [[[0.0; LANES]; 1]; 4];
    accumulate(&mut sums, query, row.len(), row, 0, row.len());
    sums.map(|[sum]| total(sum))
}

/// The last one to three heads, the same order of summation.
#[inline(always)]
fn dot_rest(query: &[f32], row: &[f32]) -> [f32; 4] {
    let mut dots = [0.0; 4];
    for (dot_of_head, query) in dots.iter_mut().zip(query.chunks_exact(row.len())) {
        *dot_of_head = dot(query, row);
    }
    dots
}

/// Softmax in place: the maximum taken off, the sum in lanes of fixed order.
#[inline(always)]
pub(crate) fn softmax(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, score| max.max(*score));
    for score in scores.iter_mut() {
        *score = exp(*score - max);
    }
    let mut sum = [0.0; LANES];
    for group in scores.chunks(LANES) {
        for (sum, score) in sum.iter_mut().zip(group) {
            *sum += score;
        }
    }
    let factor = 1.0 / total(sum);
    for score in scores.iter_mut() {
        *score *= factor;
    }
}
