//! Which experts a token goes to, and how much each counts: DeepSeek-V3's `noaux_tc` (arXiv 2412.19437,
//! section 2.1.2).
//!
//! Sigmoid scores; the bias takes part in the selection only; the weights are the chosen experts' own
//! scores, normalised and scaled.

use k2_kernels::exp::sigmoid;
use k2_kernels::topk::top_k;
use k2_model::Config;

use super::Pass;
use crate::gemm::{Into, View, ViewMut, linear};
use crate::params::MoeSlots;
use crate::vectors::vectorized;
use crate::workspace::Scratch;

/// The choices of some tokens, also sorted by expert.
#[derive(Default)]
pub struct Routing {
    /// Sigmoid scores, `[T, n_routed_experts]`.
    pub(crate) scores: Vec<f32>,
    /// `[T, num_experts_per_tok]`, ascending in each row.
    pub experts: Vec<u32>,
    /// `[T, num_experts_per_tok]`.
    pub(crate) weights: Vec<f32>,
    /// Positions in `experts`, sorted by expert.
    pub(crate) by_expert: Vec<u32>,
    /// Where each expert's positions begin in `by_expert`, `[n_routed_experts + 1]`.
    pub(crate) starts: Vec<usize>,
    /// Which tokens are not padding, `[T]`.
    pub(crate) counting: Vec<bool>,
}

/// Routes each row of `x` (`[T, hidden]`).
pub(crate) fn forward(
    pass: &Pass<'_>,
    slots: &MoeSlots,
    x: &[f32],
    routing: &mut Routing,
    scratch: &mut Scratch,
) {
    let config = pass.layout.config();
    let (experts, tokens) = (config.n_routed_experts, x.len() / config.hidden_size);
    routing.scores.resize(tokens * experts, 0.0);
    let (x, gate) = (View::rows_of(x, config.hidden_size), slots.gate.view(pass.weights));
    linear(ViewMut::rows_of(&mut routing.scores, experts), Into::Replace, x, gate);
    vectorized(
        #[inline(always)]
        || routing.scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
    );
    if !pass.frozen_routing {
        routing.choose(config, slots.e_score_correction_bias.of(pass.weights), scratch);
    }
    routing.weigh(config);
    routing.sort(experts);
}

impl Routing {
    fn choose(&mut self, config: &Config, bias: &[f32], scratch: &mut Scratch) {
        self.experts.clear();
        for scores in self.scores.chunks_exact(bias.len()) {
            scratch.choice.clear();
            scratch.choice.extend(scores.iter().zip(bias).map(|(score, bias)| score + bias));
            if config.n_group > 1 {
                drop_groups(config, scratch);
            }
            top_k(&scratch.choice, config.num_experts_per_tok, &mut scratch.chosen);
            self.experts.extend_from_slice(&scratch.chosen);
        }
    }

    fn weigh(&mut self, config: &Config) {
        let k = config.num_experts_per_tok;
        self.weights.resize(self.experts.len(), 0.0);
        let tokens = self.scores.chunks_exact(config.n_routed_experts).zip(self.experts.chunks_exact(k));
        for ((scores, experts), weights) in tokens.zip(self.weights.chunks_exact_mut(k)) {
            for (weight, expert) in weights.iter_mut().zip(experts) {
                *weight = scores[*expert as usize];
            }
            let sum = if config.norm_topk_prob { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
            for weight in weights {
                *weight = *weight / sum * config.routed_scaling_factor;
            }
        }
    }

    /// Adds how many tokens each expert was given, of those that count, and remembers which those are.
    pub(crate) fn count(&mut self, counting: &[bool], loads: &mut [u64]) {
        self.counting.clear();
        self.counting.extend_from_slice(counting);
        let k = self.experts.len() / counting.len().max(1);
        for (experts, counts) in self.experts.chunks_exact(k.max(1)).zip(counting) {
            experts.iter().for_each(|expert| loads[*expert as usize] += u64::from(*counts));
        }
    }

    /// A counting sort: tokens of one expert stay in their order.
    fn sort(&mut self, experts: usize) {
        self.starts.clear();
        self.starts.resize(experts + 1, 0);
        for expert in &self.experts {
            self.starts[*expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.by_expert.resize(self.experts.len(), 0);
        for (position, expert) in self.experts.iter().enumerate() {
            let place = &mut self.starts[*expert as usize];
            self.by_expert[*place] = position as u32;
            *place += 1;
        }
        // Each start has moved to the next expert's; move them back.
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }
}

/// Sets the selection scores of all but the best groups to minus infinity; a group counts as the sum of its
/// two best.
fn drop_groups(config: &Config, scratch: &mut Scratch) {
    let size = scratch.choice.len() / config.n_group;
    scratch.groups.clear();
    scratch.groups.extend(scratch.choice.chunks_exact(size).map(best_two));
    top_k(&scratch.groups, config.topk_group, &mut scratch.chosen);
    for (group, values) in scratch.choice.chunks_exact_mut(size).enumerate() {
        if !scratch.chosen.contains(&(group as u32)) {
            values.fill(f32::NEG_INFINITY);
        }
    }
}

fn best_two(group: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &value in group {
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    if group.len() == 1 { first } else { first + second }
}
