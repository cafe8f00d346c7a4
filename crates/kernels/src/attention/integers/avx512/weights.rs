//! Weights of a whole tile, sixteen keys in a vector of 512 bits: the operations of [`Tile::weigh`] in the same order.

use std::arch::x86_64::*;

use crate::attention::integers::{Keys, MOST_STEPS, Queries, TILE, Tile, step_of};
use crate::attention::tile::Partial;
use crate::attention::tile::avx512::{WIDTH, sums, weigh as weigh_scores};
use crate::exp::ROUND;

/// Products to scores, scores to weights, weights to steps. The tile is whole.
#[inline(always)]
pub(super) fn weigh(
    tile: &mut Tile,
    keys: &Keys<'_>,
    queries: &Queries,
    scale: f32,
    partial: &mut Partial<'_>,
) {
    for (q, scales) in queries.scales.iter().enumerate() {
        score(tile, keys, q, *scales);
        let (max, sum) = (&mut partial.max[q], &mut partial.sum[q]);
        tile.factors[q] = weigh_scores(&mut tile.scores[q], scale, max, sum);
        tile.steps[q] = in_steps(&tile.scores[q], keys, &mut tile.weights[q]);
    }
}

/// Products of a query to scores.
#[inline(always)]
fn score(tile: &mut Tile, keys: &Keys<'_>, q: usize, [of_latents, of_others]: [f32; 2]) {
    for first in (0..TILE).step_by(WIDTH) {
        let (latents, others) = (&tile.sums[0][q][first..][..WIDTH], &tile.sums[1][q][first..][..WIDTH]);
        let (latent_scales, other_scales) =
            (&keys.scales[0][first..][..WIDTH], &keys.scales[1][first..][..WIDTH]);
        let scores = &mut tile.scores[q][first..][..WIDTH];
        simd!({
            let of_latents =
                _mm512_mul_ps(_mm512_set1_ps(of_latents), _mm512_loadu_ps(latent_scales.as_ptr()));
            let of_others = _mm512_mul_ps(_mm512_set1_ps(of_others), _mm512_loadu_ps(other_scales.as_ptr()));
            let latents = _mm512_cvtepi32_ps(_mm512_loadu_si512(latents.as_ptr().cast()));
            let others = _mm512_cvtepi32_ps(_mm512_loadu_si512(others.as_ptr().cast()));
            let sum = _mm512_fmadd_ps(others, of_others, _mm512_mul_ps(latents, of_latents));
            _mm512_storeu_ps(scores.as_mut_ptr(), sum);
        });
    }
}

/// As [`crate::attention::integers::in_steps`].
#[inline(always)]
fn in_steps(weights: &[f32; TILE], keys: &Keys<'_>, steps: &mut [i16; TILE]) -> f32 {
    let mut scaled = [0.0; TILE];
    let mut lanes = simd!(_mm512_setzero_ps());
    for first in (0..TILE).step_by(WIDTH) {
        let (weights, scales) = (&weights[first..][..WIDTH], &keys.scales[0][first..][..WIDTH]);
        let scaled = &mut scaled[first..][..WIDTH];
        simd!({
            let numbers = _mm512_mul_ps(_mm512_loadu_ps(weights.as_ptr()), _mm512_loadu_ps(scales.as_ptr()));
            _mm512_storeu_ps(scaled.as_mut_ptr(), numbers);
            lanes = _mm512_max_ps(numbers, lanes);
        });
    }
    let (step, inverse) = step_of(simd!(_mm512_reduce_max_ps(lanes)), sums(&scaled));
    for (steps, scaled) in steps.as_chunks_mut::<WIDTH>().0.iter_mut().zip(scaled.as_chunks::<WIDTH>().0) {
        simd!({
            let number = _mm512_mul_ps(_mm512_loadu_ps(scaled.as_ptr()), _mm512_set1_ps(inverse));
            // What is no number stays: beside one the second is given.
            let number = _mm512_max_ps(_mm512_set1_ps(-MOST_STEPS), number);
            let number = _mm512_min_ps(_mm512_set1_ps(MOST_STEPS), number);
            let round = _mm512_set1_ps(ROUND);
            let bits = _mm512_castps_si512(_mm512_add_ps(number, round));
            let whole = _mm512_sub_epi32(bits, _mm512_castps_si512(round));
            _mm256_storeu_si256(steps.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(whole));
        });
    }
    step
}
