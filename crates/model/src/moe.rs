//! The mixture of experts: each token through its chosen experts, all tokens through the shared one.
//!
//! Tokens are grouped by expert, so an expert's weights are read once per step. A token's sum is taken
//! in ascending order of expert number, starting from the shared experts' output, whoever else is in
//! the batch.

use k2_kernels::Pool;

use crate::mlp::{Mlp, MlpScratch};
use crate::router::{Router, Routing};
use crate::scratch::sized;

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
    /// Places in `routing.experts`, by expert, then by token.
    order: Vec<u32>,
    x: Vec<f32>,
    y: Vec<f32>,
    mlp: MlpScratch,
}

impl Moe {
    /// `out = shared(x) + Σ weight_e expert_e(x)`; `x` and `out` are `[T, hidden]`.
    pub fn forward(&self, pool: &Pool, hidden: usize, x: &[f32], scratch: &mut MoeScratch, out: &mut [f32]) {
        self.gate.route(pool, x, &mut scratch.routing);
        match &self.shared_experts {
            Some(shared) => shared.forward(pool, x, &mut scratch.mlp, out),
            None => out.fill(0.0),
        }
        let MoeScratch { routing, order, x: gathered, y, mlp } = scratch;
        order.clear();
        order.extend(0..routing.experts.len() as u32);
        order.sort_by_key(|place| routing.experts[*place as usize]);
        let per_token = self.gate.num_experts_per_tok;
        for group in order.chunk_by(|a, b| routing.experts[*a as usize] == routing.experts[*b as usize]) {
            let gathered = sized(gathered, group.len() * hidden);
            let y = sized(y, group.len() * hidden);
            for (row, place) in gathered.chunks_exact_mut(hidden).zip(group) {
                row.copy_from_slice(&x[*place as usize / per_token * hidden..][..hidden]);
            }
            let expert = routing.experts[group[0] as usize] as usize;
            self.experts[expert].forward(pool, gathered, mlp, y);
            for (row, place) in y.chunks_exact(hidden).zip(group) {
                let weight = routing.weights[*place as usize];
                let out = &mut out[*place as usize / per_token * hidden..][..hidden];
                out.iter_mut().zip(row).for_each(|(out, y)| *out += weight * y);
            }
        }
    }
}
