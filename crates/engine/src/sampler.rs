//! From a row of logits to a token.
//!
//! Masked ids out, then temperature, softmax, nucleus (top-p, arXiv 1904.09751), one draw. Weights are f32,
//! `exp((logit - max) / temperature)` with this project's own `exp`; sums are f64 in a fixed order. The draw
//! comes from a counter-based generator (SplitMix64's finaliser over seed and position, Steele et al. 2014),
//! so neither other requests nor time have a part in the choice.

use std::cmp::Ordering;
use std::sync::Arc;

use k2_kernels::exp::exp;

use crate::request::Sampling;

/// How many of the likeliest tokens are sorted first; a nucleus is seldom larger.
const FIRST_SORTED: usize = 256;

/// Chooses one token after the other.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    masked_ids: Arc<[u32]>,
    /// Tokens chosen so far.
    position: u64,
    /// Id and weight of the tokens that are drawn from; kept for its memory.
    candidates: Vec<(u32, f32)>,
}

/// A row of logits that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the model's logits are not numbers to choose from: {found} at id {id}")]
pub struct NotFinite {
    /// The first such id.
    pub id: u32,
    /// Its logit.
    pub found: f32,
}

impl Sampler {
    /// A sampler at the start of an answer. `masked_ids` are never chosen as long as any other id exists.
    pub fn new(sampling: Sampling, masked_ids: Arc<[u32]>) -> Sampler {
        Sampler { sampling, masked_ids, position: 0, candidates: Vec::new() }
    }

    /// The token that follows, by its logits.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, NotFinite> {
        if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(NotFinite { id: id as u32, found: logits[id] });
        }
        self.gather(logits);
        let best = self.best();
        let chosen = match self.sampling.greedy || self.sampling.temperature == 0.0 {
            true => best.0,
            false => self.draw(best.1),
        };
        self.position += 1;
        Ok(chosen)
    }

    /// `candidates`: id and logit of everything that is not masked.
    fn gather(&mut self, logits: &[f32]) {
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits.iter().copied()));
        for id in self.masked_ids.iter() {
            if let Some((_, logit)) = self.candidates.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if !self.masked_ids.is_empty() {
            self.candidates.retain(|(_, logit)| logit.is_finite());
        }
    }

    /// The largest logit, of equal ones that of the lowest id.
    fn best(&self) -> (u32, f32) {
        let larger = |best: (u32, f32), next: &(u32, f32)| if next.1 > best.1 { *next } else { best };
        self.candidates.iter().fold((0, f32::NEG_INFINITY), larger)
    }

    fn draw(&mut self, max: f32) -> u32 {
        let temperature = self.sampling.temperature;
        for (_, weight) in &mut self.candidates {
            *weight = exp((*weight - max) / temperature);
        }
        if self.sampling.top_p < 1.0 {
            self.keep_nucleus();
        }
        let point = uniform(self.sampling.seed, self.position) * self.total();
        let mut sum = 0.0;
        let hit = self.candidates.iter().find(|(_, weight)| {
            sum += f64::from(*weight);
            point < sum
        });
        // Rounding may leave the point at the very end.
        hit.or(self.candidates.last()).map_or(0, |(id, _)| *id)
    }

    fn total(&self) -> f64 {
        self.candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
    }

    /// Keeps the fewest candidates, likeliest first (of equal ones the lower id), that have `top_p` of the
    /// total weight.
    fn keep_nucleus(&mut self) {
        let wanted = self.total() * f64::from(self.sampling.top_p);
        let mut sorted = FIRST_SORTED;
        loop {
            self.sort_first(sorted);
            let mut sum = 0.0;
            let reached = self.candidates.iter().take(sorted).position(|(_, weight)| {
                sum += f64::from(*weight);
                sum >= wanted
            });
            match reached {
                Some(last) => return self.candidates.truncate(last + 1),
                None if sorted >= self.candidates.len() => return,
                None => sorted *= 16,
            }
        }
    }

    /// Brings the `count` likeliest to the front, in order.
    fn sort_first(&mut self, count: usize) {
        let order = |a: &(u32, f32), b: &(u32, f32)| match b.1.total_cmp(&a.1) {
            Ordering::Equal => a.0.cmp(&b.0),
            unequal => unequal,
        };
        if count < self.candidates.len() {
            self.candidates.select_nth_unstable_by(count, order);
        }
        let count = count.min(self.candidates.len());
        self.candidates[..count].sort_unstable_by(order);
    }
}

/// A number from 0 up to, not including, 1, by seed and position alone.
fn uniform(seed: u64, position: u64) -> f64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let bits = mix(mix(seed.wrapping_add(GOLDEN_GAMMA)).wrapping_add(position.wrapping_mul(GOLDEN_GAMMA)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's finaliser.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
