//! The mixture of experts: each token through its chosen experts, all tokens through the shared one.
//!
//! Tokens are grouped by expert, so an expert's weights are read once per step, and the experts go through the
//! kernels together, many tokens' in several rounds. A token's sum is taken in ascending order of expert number,
//! starting from the shared experts' output, whoever else is in the batch.

use k2_kernels::swiglu::{Expert, Share, swiglu};
use k2_kernels::{Matrix, Pool, Precision};
use std::ops::Range;

use crate::mlp::{Mlp, MlpScratch};
use crate::router::{Router, Routing};

/// Rows of a round: their intermediate results stay in the last-level cache.
const ROUND_ROWS: usize = 1024;

/// A layer's router, routed experts and (if any) shared experts, which are stored as one MLP.
pub struct Moe {
    /// Chooses the experts.
    pub gate: Router,
    /// The routed experts.
    pub experts: Vec<Mlp>,
    /// The shared experts.
    pub shared_experts: Option<Mlp>,
}

/// Rows on their way through the experts.
#[derive(Default)]
pub struct MoeScratch {
    /// The last routing.
    pub routing: Routing,
    /// Places in `routing.experts`, by expert, then by token; the token and the weight of each.
    order: Vec<u32>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// The chosen experts, ascending.
    chosen: Vec<Chosen>,
    mlp: MlpScratch,
}

/// An expert that some tokens have chosen.
struct Chosen {
    expert: usize,
    /// Its places in the order.
    places: Range<usize>,
    /// Its tokens' rows among the inputs of a round.
    segment: usize,
}

impl Moe {
    /// `out = shared(x) + Σ weight_e expert_e(x)`; `x` and `out` are `[T, hidden]`.
    pub fn forward(
        &self,
        pool: &Pool,
        precision: Precision,
        x: &[f32],
        scratch: &mut MoeScratch,
        out: &mut [f32],
    ) {
        self.gate.route(pool, x, &mut scratch.routing);
        scratch.group(self.gate.num_experts_per_tok);
        let inputs = &mut scratch.mlp.inputs;
        inputs.set(pool, precision, self.first_weights(&scratch.chosen), 1, x);
        if self.shared_experts.is_none() {
            out.fill(0.0);
        }
        let (mut begin, mut shared) = (0, self.shared_experts.as_ref());
        while begin < scratch.chosen.len() || shared.is_some() {
            begin = self.round(pool, begin, shared.take(), scratch, out);
        }
    }

    /// The experts from `begin` on up to [`ROUND_ROWS`] rows, the shared ones first; where the next round begins.
    fn round(
        &self,
        pool: &Pool,
        begin: usize,
        shared: Option<&Mlp>,
        scratch: &mut MoeScratch,
        out: &mut [f32],
    ) -> usize {
        let MoeScratch { tokens, weights, chosen, mlp, .. } = scratch;
        mlp.inputs.forget_gathered();
        let (mut end, mut rows) = (begin, 0);
        while end < chosen.len() && rows < ROUND_ROWS {
            let chosen = &mut chosen[end];
            chosen.segment = mlp.inputs.gather(&tokens[chosen.places.clone()]);
            (end, rows) = (end + 1, rows + chosen.places.len());
        }
        let routed = |chosen: &Chosen| {
            let (tokens, weights) = (&tokens[chosen.places.clone()], &weights[chosen.places.clone()]);
            self.experts[chosen.expert].expert(chosen.segment, Share::Weighted { tokens, weights })
        };
        let first = usize::from(shared.is_some());
        let expert = |number: usize| -> Expert<'_> {
            match shared {
                Some(shared) if number == 0 => shared.expert(0, Share::Whole),
                _ => routed(&chosen[begin + number - first]),
            }
        };
        swiglu(pool, first + end - begin, expert, &mlp.inputs, &mut mlp.hidden, out);
        end
    }

    /// What multiplies the input of a step.
    fn first_weights<'a>(&'a self, chosen: &'a [Chosen]) -> impl Iterator<Item = &'a Matrix> + Clone {
        let routed = chosen.iter().map(|chosen| &self.experts[chosen.expert]);
        self.shared_experts.iter().chain(routed).flat_map(Mlp::first_weights)
    }
}

impl MoeScratch {
    /// Sorts the choices of all tokens by expert.
    fn group(&mut self, per_token: usize) {
        let MoeScratch { routing, order, tokens, weights, chosen, .. } = self;
        order.clear();
        order.extend(0..routing.experts.len() as u32);
        order.sort_unstable_by_key(|place| (routing.experts[*place as usize], *place));
        tokens.clear();
        tokens.extend(order.iter().map(|place| place / per_token as u32));
        weights.clear();
        weights.extend(order.iter().map(|place| routing.weights[*place as usize]));
        chosen.clear();
        let mut end = 0;
        let expert = |place: &u32| routing.experts[*place as usize];
        chosen.extend(order.chunk_by(|a, b| expert(a) == expert(b)).map(|group| {
            end += group.len();
            Chosen { expert: expert(&group[0]) as usize, places: end - group.len()..end, segment: 0 }
        }));
    }
}
