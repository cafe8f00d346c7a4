//! From a row of logits to a token.
//!
//! Ids that may not come out, then biases and penalties, temperature, softmax, top-k, nucleus (top-p, arXiv
//! 1904.09751), min-p (arXiv 2407.01082), one draw. Weights are f32, `exp((logit - max) / temperature)` with
//! this project's own `exp`; sums are f64 in a fixed order. The draw comes from a counter-based generator
//! (SplitMix64's finaliser over seed and position, Steele et al. 2014), so neither other requests nor time have
//! a part in the choice.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use k2_kernels::exp::exp_each;

use crate::event::Logprobs;
use crate::logprobs::logprobs;
use crate::request::{Request, Sampling};

/// How many of the likeliest tokens are sorted first; a nucleus is seldom larger.
const FIRST_SORTED: usize = 256;

/// Chooses one token after the other.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    masked_ids: Arc<[u32]>,
    logit_bias: Arc<[(u32, f32)]>,
    /// Not chosen before `min_tokens`.
    stop_ids: Arc<[u32]>,
    min_tokens: u64,
    logprobs: Option<usize>,
    /// Ids of prompt and answer, and how often they are in the answer; kept if there are penalties.
    seen: HashMap<u32, u32>,
    /// Tokens chosen so far.
    position: u64,
    /// Id and weight of the tokens that are drawn from; kept for its memory.
    candidates: Vec<(u32, f32)>,
    /// The candidates' weights alone, kept for its memory.
    weights: Vec<f32>,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// How likely it was, if the request wants to know.
    pub logprobs: Option<Logprobs>,
}

/// Why no token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// A row of logits that says nothing.
    #[error("the model's logits are not numbers to choose from: {found} at id {id}")]
    NotFinite {
        /// The first such id.
        id: u32,
        /// Its logit.
        found: f32,
    },
    /// The grammar and the masked ids leave nothing.
    #[error("no id may come after the {position} tokens of the answer")]
    NothingAllowed {
        /// Tokens chosen so far.
        position: u64,
    },
}

impl Sampler {
    /// A sampler at the start of a request's answer.
    pub fn new(request: &Request) -> Sampler {
        let repetition = request.sampling.repetition_penalty != 1.0;
        Sampler {
            sampling: request.sampling,
            masked_ids: Arc::clone(&request.masked_ids),
            logit_bias: Arc::clone(&request.logit_bias),
            stop_ids: Arc::clone(&request.stop_ids),
            min_tokens: request.min_tokens as u64,
            logprobs: request.logprobs,
            seen: if repetition {
                request.prompt.iter().map(|id| (*id, 0)).collect()
            } else {
                HashMap::new()
            },
            position: 0,
            candidates: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// The token that follows, by its logits. `allowed` are the ids that may come, a bit each
    /// ([`crate::Constraint::allowed`]).
    pub fn next(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Result<Choice, SamplerError> {
        if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(SamplerError::NotFinite { id: id as u32, found: logits[id] });
        }
        self.gather(logits, allowed);
        let best = self.best().ok_or(SamplerError::NothingAllowed { position: self.position })?;
        let id = match self.sampling.greedy || self.sampling.temperature == 0.0 {
            true => best.0,
            false => self.draw(best.1),
        };
        self.position += 1;
        if self.has_penalties() {
            *self.seen.entry(id).or_default() += 1;
        }
        Ok(Choice { id, logprobs: self.logprobs.map(|count| logprobs(logits, id, count)) })
    }

    /// `candidates`: id and logit of everything that may come, after biases and penalties.
    fn gather(&mut self, logits: &[f32], allowed: Option<&[u32]>) {
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits.iter().copied()));
        for (id, bias) in self.logit_bias.iter() {
            if let Some((_, logit)) = self.candidates.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        self.penalise();
        for id in self.masked_ids.iter() {
            if let Some((_, logit)) = self.candidates.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let may_come = |id: u32| allowed.is_none_or(|allowed| is_set(allowed, id));
        if allowed.is_some() || !self.masked_ids.is_empty() {
            self.candidates.retain(|(id, logit)| logit.is_finite() && may_come(*id));
        }
        self.not_yet_stop();
    }

    /// Before `min_tokens` stop ids do not come, if anything else may.
    fn not_yet_stop(&mut self) {
        let Sampler { stop_ids, candidates, .. } = self;
        if self.position < self.min_tokens && candidates.iter().any(|(id, _)| !stop_ids.contains(id)) {
            candidates.retain(|(id, _)| !stop_ids.contains(id));
        }
    }

    fn has_penalties(&self) -> bool {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    /// Each id on its own, so the order in which they are visited does not matter.
    fn penalise(&mut self) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        for (id, times) in &self.seen {
            let Some((_, logit)) = self.candidates.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if *times > 0 {
                *logit -= presence_penalty + *times as f32 * frequency_penalty;
            }
        }
    }

    /// The largest logit, of equal ones that of the lowest id.
    fn best(&self) -> Option<(u32, f32)> {
        self.candidates.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    fn draw(&mut self, max: f32) -> u32 {
        let Sampling { temperature, top_k, min_p, .. } = self.sampling;
        if top_k > 0 && top_k < self.candidates.len() {
            self.sort_first(top_k);
            self.candidates.truncate(top_k);
        }
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|(_, logit)| (logit - max) / temperature));
        exp_each(&mut self.weights);
        for ((_, weight), of_logit) in self.candidates.iter_mut().zip(&self.weights) {
            *weight = *of_logit;
        }
        if self.sampling.top_p < 1.0 {
            self.keep_nucleus();
        }
        if min_p > 0.0 {
            self.candidates.retain(|(_, weight)| *weight >= min_p); // the likeliest has weight 1
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

/// Whether bit `id` is set.
fn is_set(words: &[u32], id: u32) -> bool {
    words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}

/// A number from 0 up to, not including, 1, by seed and position alone.
fn uniform(seed: u64, position: u64) -> f64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let bits = mix(mix(seed.wrapping_add(GOLDEN_GAMMA)).wrapping_add(position.wrapping_mul(GOLDEN_GAMMA)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's finaliser.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
