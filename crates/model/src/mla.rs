//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! Keys and values of all heads come from one latent per token, which is what the cache holds. Two
//! forms of the same sum: *absorbed* (default) moves `kv_b_proj` over to the query and to the output
//! and attends to the latents themselves; *naive* computes every head's keys and values, as the
//! formula reads, and is the oracle of the first. Either one gives a token the same bits in any batch.

use k2_kernels::attention::{AttentionScratch, Pages, Row, Shape, attend};
use k2_kernels::matmul::{Product, matmul_heads, matmul_heads_transposed, products};
use k2_kernels::rmsnorm::rmsnorm;
use k2_kernels::{Inputs, Matrix, Pool, Precision};

use crate::batch::Batch;
use crate::config::Config;
use crate::kv_cache::KvCache;
use crate::rope::Angles;
use crate::scratch::sized;

/// `q_a_layernorm` and `kv_a_layernorm` use this whatever `rms_norm_eps` says, as the official code does.
const LATENT_NORM_EPS: f32 = 1e-6;

/// How attention over the latents is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionForm {
    /// Queries and outputs go through `kv_b_proj`; keys and values stay latents.
    #[default]
    Absorbed,
    /// Keys and values of every head are computed from the latents at each step: slow and obvious.
    Naive,
}

/// One layer's attention weights, by their checkpoint names.
pub struct Mla {
    /// Hidden to queries.
    pub q: QueryProjection,
    /// `[kv_lora_rank + qk_rope_head_dim, hidden]`: the latent and the shared rotated key.
    pub kv_a_proj_with_mqa: Matrix,
    /// `[kv_lora_rank]`.
    pub kv_a_layernorm: Vec<f32>,
    /// Latent to keys and values.
    pub kv_b: KeyValueProjection,
    /// `[hidden, heads * v_head_dim]`.
    pub o_proj: Matrix,
}

/// How queries are made.
pub enum QueryProjection {
    /// `q_lora_rank` null: one matrix, `[heads * qk_head_dim, hidden]`.
    Direct {
        /// The matrix.
        q_proj: Matrix,
    },
    /// Through a normalised low-rank vector.
    LowRank {
        /// `[q_lora_rank, hidden]`.
        q_a_proj: Matrix,
        /// `[q_lora_rank]`.
        q_a_layernorm: Vec<f32>,
        /// `[heads * qk_head_dim, q_lora_rank]`.
        q_b_proj: Matrix,
    },
}

/// How a checkpoint stores the way from the latent to keys and values.
pub enum KeyValueProjection {
    /// Official: per head `qk_nope_head_dim` key rows, then `v_head_dim` value rows, of `kv_lora_rank`.
    Joint {
        /// `[heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]`.
        kv_b_proj: Matrix,
    },
    /// Newer GGUF files: the key part transposed for the absorbed form.
    Split {
        /// `[heads * kv_lora_rank, qk_nope_head_dim]`.
        k_b_proj: Matrix,
        /// `[heads * v_head_dim, kv_lora_rank]`.
        v_b_proj: Matrix,
    },
}

/// Intermediate rows of attention.
#[derive(Default)]
pub struct MlaScratch {
    inputs: Inputs,
    q_a: Vec<f32>,
    q_a_normed: Vec<f32>,
    q: Vec<f32>,
    q_nope: Vec<f32>,
    q_latent: Vec<f32>,
    query: Vec<f32>,
    kv_a: Vec<f32>,
    latents: Vec<f32>,
    attention: AttentionScratch,
    attended: Vec<f32>,
    heads_out: Vec<f32>,
}

/// What attention needs to know of the step besides weights and rows.
pub(crate) struct Step<'a> {
    pub config: &'a Config,
    pub pool: &'a Pool,
    pub batch: &'a Batch<'a>,
    pub angles: &'a Angles,
    pub layer: usize,
    pub softmax_scale: f32,
    pub form: AttentionForm,
    pub precision: Precision,
}

impl Mla {
    /// Writes the rows' latents into the cache and attends; `x` and `out` are `[T, hidden]`.
    pub(crate) fn forward(
        &self,
        step: &Step<'_>,
        x: &[f32],
        cache: &mut KvCache,
        scratch: &mut MlaScratch,
        out: &mut [f32],
    ) {
        self.project(step, x, scratch);
        self.write_latents(step, cache, scratch);
        self.queries(step, scratch);
        let read =
            step.batch.chunks.iter().map(|chunk| (chunk.block_table, chunk.start + chunk.tokens.len()));
        cache.widen(step.pool, step.layer, read);
        match step.form {
            AttentionForm::Absorbed => self.attend_absorbed(step, cache, scratch),
            AttentionForm::Naive => self.attend_naive(step, cache, scratch),
        }
        let MlaScratch { inputs, heads_out, .. } = scratch;
        inputs.set(step.pool, step.precision, [&self.o_proj].into_iter(), 1, heads_out);
        products(step.pool, inputs, [Product::new(&self.o_proj, out)]);
    }

    /// `scratch.kv_a`, and `scratch.q_a` or, without a low rank, `scratch.q`.
    fn project(&self, step: &Step<'_>, x: &[f32], scratch: &mut MlaScratch) {
        let (rows, c) = (step.batch.rows(), step.config);
        let MlaScratch { inputs, kv_a, q_a, q, .. } = scratch;
        let (first_q, q) = match &self.q {
            QueryProjection::Direct { q_proj } => {
                q.resize(rows * c.num_attention_heads * c.qk_head_dim(), 0.0);
                (q_proj, &mut q[..])
            }
            QueryProjection::LowRank { q_a_proj, .. } => (q_a_proj, sized(q_a, rows * q_a_proj.rows())),
        };
        let (kv_a, kv_a_proj) = (sized(kv_a, rows * c.latent_width()), &self.kv_a_proj_with_mqa);
        inputs.set(step.pool, step.precision, [kv_a_proj, first_q].into_iter(), 1, x);
        products(step.pool, inputs, [Product::new(kv_a_proj, kv_a), Product::new(first_q, q)]);
    }

    /// `[latent | rotated key | padding]` of each row goes to its place in the cache.
    fn write_latents(&self, step: &Step<'_>, cache: &mut KvCache, scratch: &mut MlaScratch) {
        let (latent, width) = (step.config.kv_lora_rank, step.config.latent_width());
        let kv_a = sized(&mut scratch.kv_a, step.batch.rows() * width);
        let latents = sized(&mut scratch.latents, cache.width());
        latents[width..].fill(0.0);
        for (row, (kv_a, (chunk, position))) in
            kv_a.chunks_exact_mut(width).zip(step.batch.positions()).enumerate()
        {
            rmsnorm(&kv_a[..latent], &self.kv_a_layernorm, LATENT_NORM_EPS, &mut latents[..latent]);
            step.angles.rotate(row, &mut kv_a[latent..]);
            latents[latent..width].copy_from_slice(&kv_a[latent..]);
            cache.write(step.layer, chunk.block_table, position, latents);
        }
    }

    /// `scratch.q`: `[T, heads, qk_nope_head_dim + qk_rope_head_dim]`, the rope part rotated.
    fn queries(&self, step: &Step<'_>, scratch: &mut MlaScratch) {
        let (rows, c) = (step.batch.rows(), step.config);
        let per_row = c.num_attention_heads * c.qk_head_dim();
        if let QueryProjection::LowRank { q_a_proj, q_a_layernorm, q_b_proj } = &self.q {
            let MlaScratch { inputs, q_a, q_a_normed, q, .. } = scratch;
            let q_a = sized(q_a, rows * q_a_proj.rows());
            let normed = sized(q_a_normed, rows * q_a_proj.rows());
            rmsnorm(q_a, q_a_layernorm, LATENT_NORM_EPS, normed);
            q.resize(rows * per_row, 0.0);
            inputs.set(step.pool, step.precision, [q_b_proj].into_iter(), 1, normed);
            products(step.pool, inputs, [Product::new(q_b_proj, q)]);
        }
        for (row, heads) in scratch.q.chunks_exact_mut(per_row).enumerate() {
            for head in heads.chunks_exact_mut(c.qk_head_dim()) {
                step.angles.rotate(row, &mut head[c.qk_nope_head_dim..]);
            }
        }
    }

    fn attend_absorbed(&self, step: &Step<'_>, cache: &KvCache, scratch: &mut MlaScratch) {
        let (rows, heads, latent) =
            (step.batch.rows(), step.config.num_attention_heads, step.config.kv_lora_rank);
        let width = cache.width();
        self.absorb_queries(step, width, scratch);
        let pages: Vec<Pages<'_>> = step
            .batch
            .chunks
            .iter()
            .map(|chunk| cache.pages(step.layer, chunk.block_table, chunk.start + chunk.tokens.len()))
            .collect();
        let chunks = step.batch.chunks.iter().zip(&pages);
        let of_chunk = chunks.flat_map(|(chunk, pages)| {
            (0..chunk.tokens.len()).map(|i| Row { pages, keys: chunk.start + i + 1 })
        });
        let rows_of_batch: Vec<Row<'_>> = of_chunk.collect();
        let shape = Shape { heads, width, value_len: latent, scale: step.softmax_scale };
        let query = &scratch.query[..rows * heads * width];
        let attended = sized(&mut scratch.attended, rows * heads * latent);
        attend(step.pool, &shape, &rows_of_batch, query, &mut scratch.attention, attended);
        self.values(step, scratch);
    }

    /// `scratch.query`: `[T, heads, width]`, each `[q_nope through kv_b_proj's key rows | q_rope | 0]`.
    fn absorb_queries(&self, step: &Step<'_>, width: usize, scratch: &mut MlaScratch) {
        let (rows, c) = (step.batch.rows(), step.config);
        let (heads, nope, latent) = (c.num_attention_heads, c.qk_nope_head_dim, c.kv_lora_rank);
        let inputs = &mut scratch.inputs;
        let q_nope = sized(&mut scratch.q_nope, rows * heads * nope);
        for (to, from) in q_nope.chunks_exact_mut(nope).zip(scratch.q.chunks_exact(c.qk_head_dim())) {
            to.copy_from_slice(&from[..nope]);
        }
        let q_latent = sized(&mut scratch.q_latent, rows * heads * latent);
        match &self.kv_b {
            KeyValueProjection::Joint { kv_b_proj } => {
                matmul_heads_transposed(step.pool, kv_b_proj, heads, 0..nope, q_nope, q_latent);
            }
            KeyValueProjection::Split { k_b_proj, .. } => {
                inputs.set(step.pool, step.precision, [k_b_proj].into_iter(), heads, q_nope);
                products(step.pool, inputs, [Product { w: k_b_proj, rows: 0..latent, y: q_latent }]);
            }
        }
        let query = sized(&mut scratch.query, rows * heads * width);
        for (i, query) in query.chunks_exact_mut(width).enumerate() {
            let rope = &scratch.q[i * c.qk_head_dim()..][nope..c.qk_head_dim()];
            query[..latent].copy_from_slice(&q_latent[i * latent..][..latent]);
            query[latent..c.latent_width()].copy_from_slice(rope);
            query[c.latent_width()..].fill(0.0);
        }
    }

    /// `scratch.heads_out`: `[T, heads, v_head_dim]` from the attended latents.
    fn values(&self, step: &Step<'_>, scratch: &mut MlaScratch) {
        let c = step.config;
        let (heads, nope, v) = (c.num_attention_heads, c.qk_nope_head_dim, c.v_head_dim);
        scratch.heads_out.resize(step.batch.rows() * heads * v, 0.0);
        let of_batch = step.batch.rows() * heads * c.kv_lora_rank;
        let (w, rows) = match &self.kv_b {
            KeyValueProjection::Joint { kv_b_proj } => (kv_b_proj, nope..nope + v),
            KeyValueProjection::Split { v_b_proj, .. } => (v_b_proj, 0..v),
        };
        let MlaScratch { inputs, attended, heads_out, .. } = scratch;
        inputs.set(step.pool, step.precision, [w].into_iter(), heads, &attended[..of_batch]);
        products(step.pool, inputs, [Product { w, rows, y: heads_out }]);
    }

    fn attend_naive(&self, step: &Step<'_>, cache: &KvCache, scratch: &mut MlaScratch) {
        let c = step.config;
        let (query_row, out_row) =
            (c.num_attention_heads * c.qk_head_dim(), c.num_attention_heads * c.v_head_dim);
        scratch.heads_out.resize(step.batch.rows() * out_row, 0.0);
        let mut row = 0;
        for chunk in step.batch.chunks {
            let keys = chunk.start + chunk.tokens.len();
            let cached: Vec<&[f32]> =
                (0..keys).map(|key| cache.row(step.layer, chunk.block_table, key)).collect();
            let (k_nope, v) = self.decompress(step, &cached);
            for position in chunk.start..keys {
                let query = &scratch.q[row * query_row..][..query_row];
                let out = &mut scratch.heads_out[row * out_row..][..out_row];
                naive_row(step, query, &cached[..=position], &k_nope, &v, out);
                row += 1;
            }
        }
    }

    /// Keys `[keys, heads, qk_nope_head_dim]` and values `[keys, heads, v_head_dim]` of cached rows.
    fn decompress(&self, step: &Step<'_>, cached: &[&[f32]]) -> (Vec<f32>, Vec<f32>) {
        let c = step.config;
        let (heads, nope, v) = (c.num_attention_heads, c.qk_nope_head_dim, c.v_head_dim);
        // Every head reads the same latent: one copy per head.
        let latents: Vec<f32> =
            cached.iter().flat_map(|row| (0..heads).flat_map(|_| &row[..c.kv_lora_rank])).copied().collect();
        let mut k_nope = vec![0.0; cached.len() * heads * nope];
        let mut values = vec![0.0; cached.len() * heads * v];
        match &self.kv_b {
            KeyValueProjection::Joint { kv_b_proj } => {
                matmul_heads(step.pool, kv_b_proj, heads, 0..nope, &latents, &mut k_nope);
                matmul_heads(step.pool, kv_b_proj, heads, nope..nope + v, &latents, &mut values);
            }
            KeyValueProjection::Split { k_b_proj, v_b_proj } => {
                matmul_heads_transposed(step.pool, k_b_proj, heads, 0..c.kv_lora_rank, &latents, &mut k_nope);
                matmul_heads(step.pool, v_b_proj, heads, 0..v, &latents, &mut values);
            }
        }
        (k_nope, values)
    }
}

/// `softmax((q_nope·k_nope + q_rope·k_rope) * scale) v` for one token, head by head.
fn naive_row(step: &Step<'_>, query: &[f32], cached: &[&[f32]], k_nope: &[f32], v: &[f32], out: &mut [f32]) {
    let c = step.config;
    let (heads, nope) = (c.num_attention_heads, c.qk_nope_head_dim);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (head, out) in out.chunks_exact_mut(c.v_head_dim).enumerate() {
        let (q_nope, q_rope) = query[head * c.qk_head_dim()..][..c.qk_head_dim()].split_at(nope);
        let score = |(key, row): (usize, &&[f32])| {
            let k_rope = &row[c.kv_lora_rank..c.latent_width()];
            step.softmax_scale
                * (dot(q_nope, &k_nope[(key * heads + head) * nope..][..nope]) + dot(q_rope, k_rope))
        };
        let scores: Vec<f32> = cached.iter().enumerate().map(score).collect();
        let max = scores.iter().fold(f32::NEG_INFINITY, |max, s| max.max(*s));
        let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f32 = weights.iter().sum();
        out.fill(0.0);
        for (key, weight) in weights.iter().enumerate() {
            let value = &v[(key * heads + head) * c.v_head_dim..][..c.v_head_dim];
            out.iter_mut().zip(value).for_each(|(out, v)| *out += weight / sum * v);
        }
    }
}
