//! The whole model: embedding, layers, final norm, head.

use k2_kernels::matmul::{Product, products};
use k2_kernels::matrix::TILE;
use k2_kernels::rmsnorm::rmsnorm;
use k2_kernels::{Matrix, Pool, Precision};

use crate::batch::{Batch, BatchError, Chunk};
use crate::config::Config;
use crate::kv_cache::KvCache;
use crate::layer::Layer;
use crate::mla::Step;
use crate::rope::{Angles, Rope};
use crate::scratch::{Scratch, sized};
use crate::trace::Trace;

/// A loaded model: the config, the weights as they lie in the checkpoint, and threads to compute with.
pub struct KimiK2 {
    /// What the checkpoint's `config.json` says.
    pub config: Config,
    /// Frequencies and scales, from the config.
    pub rope: Rope,
    /// `[vocab_size, hidden]`.
    pub embed_tokens: Matrix,
    /// The transformer layers.
    pub layers: Vec<Layer>,
    /// The final norm, `[hidden]`.
    pub norm: Vec<f32>,
    /// `[vocab_size, hidden]`.
    pub lm_head: Matrix,
    /// How products are computed; fast, unless set otherwise.
    pub precision: Precision,
    /// The threads.
    pub pool: Pool,
}

impl KimiK2 {
    /// Computes one step: writes the chunks' latents into the cache and returns the logits of the rows
    /// that asked for them, `[rows, vocab_size]`, in the order of the chunks. A row's bits do not depend
    /// on what else is in the batch, on how its sequence was cut into chunks, on which rows ask for logits, or on the
    /// threads. With a trace all rows go through all layers.
    pub fn forward<'s>(
        &self,
        cache: &mut KvCache,
        chunks: &[Chunk<'_>],
        scratch: &'s mut Scratch,
        trace: Option<&mut Trace>,
    ) -> Result<&'s [f32], BatchError> {
        self.pass(cache, chunks, scratch, trace, &mut |_| ())
    }

    /// The same, and calls `between` after each layer but the last: who waits can have a step of its own, with a scratch of
    /// its own, in the blocks of the cache that are not these chunks'.
    pub fn forward_in_layers<'s>(
        &self,
        cache: &mut KvCache,
        chunks: &[Chunk<'_>],
        scratch: &'s mut Scratch,
        between: &mut dyn FnMut(&mut KvCache),
    ) -> Result<&'s [f32], BatchError> {
        self.pass(cache, chunks, scratch, None, between)
    }

    fn pass<'s>(
        &self,
        cache: &mut KvCache,
        chunks: &[Chunk<'_>],
        scratch: &'s mut Scratch,
        mut trace: Option<&mut Trace>,
        between: &mut dyn FnMut(&mut KvCache),
    ) -> Result<&'s [f32], BatchError> {
        let batch = Batch::new(chunks, &self.config, cache)?;
        self.embed(&batch, scratch);
        let mut angles = std::mem::take(&mut scratch.angles);
        self.rope.angles(batch.positions().map(|(_, position)| position), &mut angles);
        if let Some(trace) = trace.as_deref_mut() {
            trace.hidden_states.push(scratch.x[..batch.rows() * self.config.hidden_size].to_vec());
        }
        let wanted = if trace.is_some() { batch.chunks.to_vec() } else { batch.chunks_with_logits() };
        let wanted = Batch { chunks: &wanted };
        for (layer, weights) in self.layers.iter().enumerate() {
            let is_last = layer + 1 == self.layers.len();
            if is_last && wanted.rows() < batch.rows() {
                self.keep_wanted(&batch, &wanted, &mut angles, cache, scratch);
            }
            let batch = if is_last { &wanted } else { &batch };
            if batch.rows() > 0 {
                weights.forward(&self.step(batch, &angles, layer), cache, scratch, trace.as_deref_mut());
            }
            if !is_last {
                between(cache);
            }
        }
        scratch.angles = angles;
        Ok(self.head(&wanted, scratch, trace))
    }

    /// Before the last layer: rows that get no logits leave their latents there, and nothing else of them is needed.
    fn keep_wanted(
        &self,
        batch: &Batch<'_>,
        wanted: &Batch<'_>,
        angles: &mut Angles,
        cache: &mut KvCache,
        scratch: &mut Scratch,
    ) {
        let (layer, hidden) = (self.layers.len() - 1, self.config.hidden_size);
        self.layers[layer].write_latents(&self.step(batch, angles, layer), cache, scratch);
        for (to, from) in batch.logit_rows().into_iter().enumerate() {
            scratch.x.copy_within(from * hidden..(from + 1) * hidden, to * hidden);
        }
        self.rope.angles(wanted.positions().map(|(_, position)| position), angles);
    }

    fn step<'a>(&'a self, batch: &'a Batch<'a>, angles: &'a Angles, layer: usize) -> Step<'a> {
        Step {
            config: &self.config,
            pool: &self.pool,
            batch,
            angles,
            layer,
            softmax_scale: self.rope.softmax_scale,
            precision: self.precision,
        }
    }

    /// `scratch.x`: the embedding row of each token.
    fn embed(&self, batch: &Batch<'_>, scratch: &mut Scratch) {
        let hidden = self.config.hidden_size;
        let x = sized(&mut scratch.x, batch.rows() * hidden);
        let tokens = batch.chunks.iter().flat_map(|chunk| chunk.tokens);
        for (row, token) in x.chunks_exact_mut(hidden).zip(tokens) {
            for (i, piece) in row.chunks_mut(TILE).enumerate() {
                self.embed_tokens.dequantize(*token as usize, i * TILE, piece);
            }
        }
    }

    /// Final norm and head, for the rows that want logits.
    fn head<'s>(&self, batch: &Batch<'_>, scratch: &'s mut Scratch, trace: Option<&mut Trace>) -> &'s [f32] {
        let (hidden, rows) = (self.config.hidden_size, batch.logit_rows());
        let normed = sized(&mut scratch.normed, rows.len() * hidden);
        for (normed, row) in normed.chunks_exact_mut(hidden).zip(&rows) {
            rmsnorm(&scratch.x[row * hidden..][..hidden], &self.norm, self.config.rms_norm_eps, normed);
        }
        let logits = sized(&mut scratch.logits, rows.len() * self.config.vocab_size);
        if !rows.is_empty() {
            scratch.head_inputs.set(&self.pool, self.precision, [&self.lm_head].into_iter(), 1, normed);
            products(&self.pool, &scratch.head_inputs, [Product::new(&self.lm_head, logits)]);
        }
        if let Some(trace) = trace {
            trace.final_hidden = normed.to_vec();
        }
        logits
    }
}
