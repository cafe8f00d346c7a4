//! One transformer layer: attention and feed-forward, each after a norm and added to the residual.

use k2_kernels::rmsnorm::rmsnorm;

use crate::kv_cache::KvCache;
use crate::mla::{Mla, Step};
use crate::mlp::Mlp;
use crate::moe::Moe;
use crate::scratch::{Scratch, sized};
use crate::trace::{RouterTrace, Trace};

/// A layer's weights, by their checkpoint names.
pub struct Layer {
    /// `[hidden]`.
    pub input_layernorm: Vec<f32>,
    /// Attention.
    pub self_attn: Mla,
    /// `[hidden]`.
    pub post_attention_layernorm: Vec<f32>,
    /// Feed-forward.
    pub mlp: FeedForward,
}

/// The feed-forward part: dense in the first layers, a mixture of experts in the others.
pub enum FeedForward {
    /// One MLP.
    Dense(Box<Mlp>),
    /// Router, routed and shared experts.
    Moe(Box<Moe>),
}

impl Layer {
    /// `x += attention(norm(x)); x += feed_forward(norm(x))` on the residual stream in `scratch`.
    pub(crate) fn forward(
        &self,
        step: &Step<'_>,
        cache: &mut KvCache,
        scratch: &mut Scratch,
        mut trace: Option<&mut Trace>,
    ) {
        let c = step.config;
        let len = step.batch.rows() * c.hidden_size;
        let (x, normed, out) =
            (&mut scratch.x[..len], sized(&mut scratch.normed, len), sized(&mut scratch.out, len));
        rmsnorm(x, &self.input_layernorm, c.rms_norm_eps, normed);
        self.self_attn.forward(step, normed, cache, &mut scratch.mla, out);
        add(x, out);
        if let Some(trace) = trace.as_deref_mut() {
            trace.attn_out.push(out.to_vec());
        }
        rmsnorm(x, &self.post_attention_layernorm, c.rms_norm_eps, normed);
        match &self.mlp {
            FeedForward::Dense(mlp) => mlp.forward(step.pool, step.precision, normed, &mut scratch.mlp, out),
            FeedForward::Moe(moe) => moe.forward(step.pool, step.precision, normed, &mut scratch.moe, out),
        }
        add(x, out);
        if let Some(trace) = trace {
            trace.mlp_out.push(out.to_vec());
            trace.hidden_states.push(x.to_vec());
            if let FeedForward::Moe(_) = &self.mlp {
                trace.router.push(RouterTrace::of(step.layer, &scratch.moe.routing));
            }
        }
    }

    /// The rows' latents into the cache, of rows that go no further.
    pub(crate) fn write_latents(&self, step: &Step<'_>, cache: &mut KvCache, scratch: &mut Scratch) {
        let len = step.batch.rows() * step.config.hidden_size;
        let normed = sized(&mut scratch.normed, len);
        rmsnorm(&scratch.x[..len], &self.input_layernorm, step.config.rms_norm_eps, normed);
        self.self_attn.only_latents(step, normed, cache, &mut scratch.mla);
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
