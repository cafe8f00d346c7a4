//! Everything a forward pass computes on the way, kept for comparison with a reference.

use crate::router::Routing;

/// Intermediate results of one forward pass; names follow the golden fixtures.
#[derive(Default)]
pub struct Trace {
    /// Embeddings, then the residual stream after each layer: `[layers + 1]` of `[T, hidden]`.
    pub hidden_states: Vec<Vec<f32>>,
    /// Each layer's attention output before the residual: `[layers]` of `[T, hidden]`.
    pub attn_out: Vec<Vec<f32>>,
    /// Each layer's feed-forward output before the residual: `[layers]` of `[T, hidden]`.
    pub mlp_out: Vec<Vec<f32>>,
    /// Each mixture-of-experts layer's routing.
    pub router: Vec<RouterTrace>,
    /// After `model.norm`: `[rows with logits, hidden]`.
    pub final_hidden: Vec<f32>,
}

/// One layer's routing.
pub struct RouterTrace {
    /// The layer's number.
    pub layer: usize,
    /// `[T, n_routed_experts]`.
    pub logits: Vec<f32>,
    /// `[T, num_experts_per_tok]`, ascending.
    pub indices: Vec<u32>,
    /// `[T, num_experts_per_tok]`.
    pub weights: Vec<f32>,
}

impl RouterTrace {
    pub(crate) fn of(layer: usize, routing: &Routing) -> RouterTrace {
        RouterTrace {
            layer,
            logits: routing.logits.clone(),
            indices: routing.experts.clone(),
            weights: routing.weights.clone(),
        }
    }
}
