//! Which experts a token goes to, and how much each counts.
//!
//! DeepSeek-V3's `noaux_tc` (arXiv 2412.19437, section 2.1.2): sigmoid scores; `e_score_correction_bias`
//! is added for the selection only; the weights are the chosen experts' own scores, normalised and
//! scaled by `routed_scaling_factor`. With groups, only the best `topk_group` groups take part, a group
//! counting as the sum of its two best.

use k2_kernels::exp::sigmoid_each;
use k2_kernels::matmul::{Product, products};
use k2_kernels::topk::top_k;
use k2_kernels::{Inputs, Matrix, Pool, Precision};

use crate::config::Config;

/// `gate.weight` `[n_routed_experts, hidden]` and its selection bias.
pub struct Router {
    /// The router's matrix.
    pub gate: Matrix,
    /// One number per expert, for the selection only.
    pub e_score_correction_bias: Vec<f32>,
    /// Groups of experts, and how many of them stay.
    pub n_group: usize,
    /// Groups that stay.
    pub topk_group: usize,
    /// Experts per token.
    pub num_experts_per_tok: usize,
    /// Whether weights are divided by their sum.
    pub norm_topk_prob: bool,
    /// What weights are multiplied with at the end.
    pub routed_scaling_factor: f32,
}

/// The experts of some tokens.
#[derive(Default)]
pub struct Routing {
    /// `[T, n_routed_experts]`, before the sigmoid.
    pub logits: Vec<f32>,
    /// `[T, num_experts_per_tok]`, ascending.
    pub experts: Vec<u32>,
    /// `[T, num_experts_per_tok]`, in the order of `experts`.
    pub weights: Vec<f32>,
    inputs: Inputs,
    /// Of one token, one per expert.
    scores: Vec<f32>,
    choice: Vec<f32>,
    chosen: Vec<u32>,
}

impl Router {
    /// Takes the routing rules from the config.
    pub fn new(config: &Config, gate: Matrix, e_score_correction_bias: Vec<f32>) -> Router {
        Router {
            gate,
            e_score_correction_bias,
            n_group: config.n_group,
            topk_group: config.topk_group,
            num_experts_per_tok: config.num_experts_per_tok,
            norm_topk_prob: config.norm_topk_prob,
            routed_scaling_factor: config.routed_scaling_factor,
        }
    }

    /// Routes each row of `x` (`[T, hidden]`). Always exact: a choice of experts has no small errors.
    pub fn route(&self, pool: &Pool, x: &[f32], routing: &mut Routing) {
        let experts = self.gate.rows();
        let tokens = x.len() / self.gate.cols();
        routing.logits.resize(tokens * experts, 0.0);
        routing.inputs.set(pool, Precision::Exact, [&self.gate].into_iter(), 1, x);
        products(pool, &routing.inputs, [Product::new(&self.gate, &mut routing.logits)]);
        routing.experts.clear();
        routing.weights.clear();
        for token in 0..tokens {
            self.choose(token, routing);
        }
    }

    fn choose(&self, token: usize, routing: &mut Routing) {
        let logits = &routing.logits[token * self.gate.rows()..][..self.gate.rows()];
        let Routing { scores, choice, .. } = routing;
        scores.clear();
        scores.extend_from_slice(logits);
        sigmoid_each(scores);
        choice.clear();
        choice.extend(scores.iter().zip(&self.e_score_correction_bias).map(|(score, bias)| score + bias));
        if self.n_group > 1 {
            self.drop_groups(choice, &mut routing.chosen);
        }
        top_k(choice, self.num_experts_per_tok, &mut routing.chosen);
        let first = routing.weights.len();
        routing.weights.extend(routing.chosen.iter().map(|expert| scores[*expert as usize]));
        routing.experts.extend_from_slice(&routing.chosen);
        let weights = &mut routing.weights[first..];
        let sum = if self.norm_topk_prob { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
        for weight in weights {
            *weight = *weight / sum * self.routed_scaling_factor;
        }
    }

    /// Sets the choice values of all but the best groups to minus infinity.
    fn drop_groups(&self, choice: &mut [f32], chosen: &mut Vec<u32>) {
        let size = choice.len() / self.n_group;
        let best_two = |group: &[f32]| {
            let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            for &value in group {
                if value > first {
                    (first, second) = (value, first);
                } else if value > second {
                    second = value;
                }
            }
            if size == 1 { first } else { first + second }
        };
        let scores: Vec<f32> = choice.chunks_exact(size).map(best_two).collect();
        top_k(&scores, self.topk_group, chosen);
        for (group, values) in choice.chunks_exact_mut(size).enumerate() {
            if !chosen.contains(&(group as u32)) {
                values.fill(f32::NEG_INFINITY);
            }
        }
    }
}
