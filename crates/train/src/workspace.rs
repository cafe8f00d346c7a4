//! The buffers of one thread: what a forward pass leaves for the backward pass, and scratch.
//!
//! They grow to the largest batch seen and are then reused; a step allocates nothing.

use std::ops::Range;

use crate::forward::Pass;
use crate::forward::attention::AttentionScratch;
use crate::forward::layer::LayerActivations;

/// Everything one thread computes with.
#[derive(Default)]
pub struct Workspace {
    /// The residual stream, `[T, hidden]`.
    pub x: Vec<f32>,
    /// The loss's gradient for the residual stream, `[T, hidden]`.
    pub dx: Vec<f32>,
    /// Kept from the forward pass, one per layer.
    pub layers: Vec<LayerActivations>,
    /// What the passes so far have seen.
    pub observed: Observed,
    /// Rows of each document.
    pub(crate) documents: Vec<Range<usize>>,
    /// Each row's position in its document.
    pub(crate) positions: Vec<usize>,
    /// Which rows are not padding, and so are observed.
    pub(crate) counting: Vec<bool>,
    pub(crate) scratch: Scratch,
}

/// What a step wants to know besides the gradient; padding takes no part in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The largest input to each head's softmax, `[layers, heads]`.
    pub max_logits: Vec<f32>,
    /// How many tokens each expert was given, `[layers, experts]`; zeros for dense layers.
    pub expert_loads: Vec<u64>,
}

/// Contents last no longer than the function that fills them.
#[derive(Default)]
pub(crate) struct Scratch {
    pub attention: AttentionScratch,
    /// Rows with one expert's tokens.
    pub expert_x: Vec<f32>,
    pub expert_dx: Vec<f32>,
    pub expert_out: Vec<f32>,
    /// SwiGLU's product and gradients.
    pub h: Vec<f32>,
    pub dh: Vec<f32>,
    pub d_gate_up: Vec<f32>,
    /// Selection scores of one token.
    pub choice: Vec<f32>,
    pub groups: Vec<f32>,
    pub chosen: Vec<u32>,
    /// Gradients.
    pub d_normed: Vec<f32>,
    pub d_heads: Vec<f32>,
    pub dq: Vec<f32>,
    pub dq_a: Vec<f32>,
    pub dq_a_normed: Vec<f32>,
    pub dkv: Vec<f32>,
    pub dkv_a: Vec<f32>,
    pub d_latent: Vec<f32>,
    pub d_weights: Vec<f32>,
    pub d_router: Vec<f32>,
    /// The head: rows that count, their logits.
    pub rows: Vec<u32>,
    pub head_x: Vec<f32>,
    pub head_normed: Vec<f32>,
    pub head_inv_rms: Vec<f32>,
    pub logits: Vec<f32>,
}

impl Workspace {
    /// Makes the buffers fit a batch, and finds its documents.
    pub(crate) fn begin(&mut self, pass: &Pass<'_>) {
        let config = pass.layout.config();
        let rows = pass.batch.tokens.len();
        self.x.resize(rows * config.hidden_size, 0.0);
        self.layers.resize_with(config.num_hidden_layers, LayerActivations::default);
        self.observed.fit(config);
        pass.batch.documents(&mut self.documents);
        self.positions.clear();
        self.positions.extend(self.documents.iter().flat_map(|rows| 0..rows.len()));
        self.counting.clear();
        for rows in &self.documents {
            self.counting.resize(rows.end, pass.batch.counts(rows));
        }
    }
}

impl Observed {
    fn fit(&mut self, config: &k2_model::Config) {
        self.max_logits.resize(config.num_hidden_layers * config.num_attention_heads, f32::NEG_INFINITY);
        self.expert_loads.resize(config.num_hidden_layers * config.n_routed_experts, 0);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.max_logits.fill(f32::NEG_INFINITY);
        self.expert_loads.fill(0);
    }

    /// Takes in what another thread has seen.
    pub fn merge(&mut self, other: &Observed) {
        if self.max_logits.is_empty() {
            self.clone_from(other);
            return;
        }
        for (a, b) in self.max_logits.iter_mut().zip(&other.max_logits) {
            *a = a.max(*b);
        }
        for (a, b) in self.expert_loads.iter_mut().zip(&other.expert_loads) {
            *a += b;
        }
    }
}
