//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! Keys and values of all heads come from one latent per token, which is what the cache holds. Three
//! forms of the same sum: *absorbed* moves `kv_b_proj` over to the query and to the output and attends to
//! the latents themselves; *decompressed* computes every head's keys and values, as the formula reads, range by
//! range; *naive* does so all at once, and is the oracle of the others. Each gives a token the same bits in any batch;
//! which one a row has, its sequence says (`attention_form`).

use k2_kernels::attention::{
    AttentionScratch, DecompressedShape, Decompression, HeadRows, Pages, Row, Run, Shape, attend,
    attend_decompressed,
};
use k2_kernels::matmul::{Product, matmul_heads, matmul_heads_transposed, products};
use k2_kernels::rmsnorm::rmsnorm;
use k2_kernels::{Inputs, Matrix, Pool, Precision};

use crate::attention_form::AttentionForm;
use crate::batch::{Batch, Chunk};
use crate::config::Config;
use crate::kv_cache::KvCache;
use crate::rope::Angles;
use crate::scratch::sized;

/// `q_a_layernorm` and `kv_a_layernorm` use this whatever `rms_norm_eps` says, as the official code does.
const LATENT_NORM_EPS: f32 = 1e-6;

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
    values: Vec<f32>,
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
        let per_row = step.config.num_attention_heads * step.config.v_head_dim;
        scratch.heads_out.resize(step.batch.rows() * per_row, 0.0);
        self.attend_absorbed(step, cache, scratch);
        self.attend_decompressed(step, cache, scratch);
        self.attend_naive(step, cache, scratch);
        let MlaScratch { inputs, heads_out, .. } = scratch;
        inputs.set(step.pool, step.precision, [&self.o_proj].into_iter(), 1, heads_out);
        products(step.pool, inputs, [Product::new(&self.o_proj, out)]);
    }

    /// Writes the rows' latents into the cache, and that is all.
    pub(crate) fn only_latents(
        &self,
        step: &Step<'_>,
        x: &[f32],
        cache: &mut KvCache,
        scratch: &mut MlaScratch,
    ) {
        let (w, MlaScratch { inputs, kv_a, .. }) = (&self.kv_a_proj_with_mqa, &mut *scratch);
        inputs.set(step.pool, step.precision, [w].into_iter(), 1, x);
        products(step.pool, inputs, [Product::new(w, sized(kv_a, step.batch.rows() * w.rows()))]);
        self.write_latents(step, cache, scratch);
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

    /// `scratch.heads_out`, `[T, heads, v_head_dim]`, of the rows in the absorbed form.
    fn attend_absorbed(&self, step: &Step<'_>, cache: &KvCache, scratch: &mut MlaScratch) {
        let (heads, latent, width) =
            (step.config.num_attention_heads, step.config.kv_lora_rank, cache.width());
        let chunks: Vec<(usize, &Chunk<'_>, Pages<'_>)> =
            of_form(step, cache, AttentionForm::Absorbed).collect();
        let rows =
            || chunks.iter().flat_map(|(first_row, chunk, _)| *first_row..first_row + chunk.tokens.len());
        if chunks.is_empty() {
            return;
        }
        self.absorb_queries(step, rows(), width, scratch);
        let sees = chunks.iter().flat_map(|(_, chunk, pages)| {
            (0..chunk.tokens.len()).map(move |i| Row { pages, keys: chunk.start + i + 1 })
        });
        let sees: Vec<Row<'_>> = sees.collect();
        let shape = Shape { heads, width, value_len: latent, scale: step.softmax_scale };
        let query = &scratch.query[..sees.len() * heads * width];
        let attended = sized(&mut scratch.attended, sees.len() * heads * latent);
        attend(step.pool, &shape, &sees, query, &mut scratch.attention, attended);
        self.values(step, rows(), sees.len(), scratch);
    }

    /// `scratch.query`: `[rows, heads, width]`, each `[q_nope through kv_b_proj's key rows | q_rope | 0]`.
    fn absorb_queries(
        &self,
        step: &Step<'_>,
        rows: impl Iterator<Item = usize> + Clone,
        width: usize,
        scratch: &mut MlaScratch,
    ) {
        let (count, c) = (rows.clone().count(), step.config);
        let (heads, nope, latent) = (c.num_attention_heads, c.qk_nope_head_dim, c.kv_lora_rank);
        let inputs = &mut scratch.inputs;
        let q_nope = sized(&mut scratch.q_nope, count * heads * nope);
        let q =
            |row: usize| scratch.q[row * heads * c.qk_head_dim()..].chunks_exact(c.qk_head_dim()).take(heads);
        for (to, from) in q_nope.chunks_exact_mut(nope).zip(rows.clone().flat_map(q)) {
            to.copy_from_slice(&from[..nope]);
        }
        let q_latent = sized(&mut scratch.q_latent, count * heads * latent);
        match &self.kv_b {
            KeyValueProjection::Joint { kv_b_proj } => {
                matmul_heads_transposed(step.pool, kv_b_proj, heads, 0..nope, q_nope, q_latent);
            }
            KeyValueProjection::Split { k_b_proj, .. } => {
                inputs.set(step.pool, step.precision, [k_b_proj].into_iter(), heads, q_nope);
                products(step.pool, inputs, [Product { w: k_b_proj, rows: 0..latent, y: q_latent }]);
            }
        }
        let query = sized(&mut scratch.query, count * heads * width);
        let parts = q_latent.chunks_exact(latent).zip(rows.flat_map(q));
        for (query, (q_latent, q)) in query.chunks_exact_mut(width).zip(parts) {
            query[..latent].copy_from_slice(q_latent);
            query[latent..c.latent_width()].copy_from_slice(&q[nope..]);
            query[c.latent_width()..].fill(0.0);
        }
    }

    /// `scratch.heads_out` of `count` rows, from the attended latents.
    fn values(
        &self,
        step: &Step<'_>,
        rows: impl Iterator<Item = usize>,
        count: usize,
        scratch: &mut MlaScratch,
    ) {
        let c = step.config;
        let (heads, nope, v) = (c.num_attention_heads, c.qk_nope_head_dim, c.v_head_dim);
        let (w, of_head) = match &self.kv_b {
            KeyValueProjection::Joint { kv_b_proj } => (kv_b_proj, nope..nope + v),
            KeyValueProjection::Split { v_b_proj, .. } => (v_b_proj, 0..v),
        };
        let MlaScratch { inputs, attended, values, heads_out, .. } = scratch;
        let attended = &attended[..count * heads * c.kv_lora_rank];
        let values = sized(values, count * heads * v);
        inputs.set(step.pool, step.precision, [w].into_iter(), heads, attended);
        products(step.pool, inputs, [Product { w, rows: of_head, y: values }]);
        for (row, values) in rows.zip(values.chunks_exact(heads * v)) {
            heads_out[row * heads * v..][..heads * v].copy_from_slice(values);
        }
    }

    /// `scratch.heads_out` of the rows in the decompressed form.
    fn attend_decompressed(&self, step: &Step<'_>, cache: &KvCache, scratch: &mut MlaScratch) {
        let c = step.config;
        let chunks: Vec<(usize, &Chunk<'_>, Pages<'_>)> =
            of_form(step, cache, AttentionForm::Decompressed).collect();
        let runs: Vec<Run<'_>> = chunks
            .iter()
            .map(|(first_row, chunk, pages)| Run {
                pages,
                start: chunk.start,
                count: chunk.tokens.len(),
                first_row: *first_row,
            })
            .collect();
        let shape = DecompressedShape {
            heads: c.num_attention_heads,
            latent: c.kv_lora_rank,
            key_len: c.qk_nope_head_dim,
            shared_len: c.qk_rope_head_dim,
            value_len: c.v_head_dim,
            scale: step.softmax_scale,
        };
        if !runs.is_empty() {
            let weights = self.kv_b.decompression(c.qk_nope_head_dim);
            attend_decompressed(step.pool, &shape, &weights, &runs, &scratch.q, &mut scratch.heads_out);
        }
    }

    /// `scratch.heads_out` of the rows in the naive form.
    fn attend_naive(&self, step: &Step<'_>, cache: &KvCache, scratch: &mut MlaScratch) {
        let c = step.config;
        let (query_row, out_row) =
            (c.num_attention_heads * c.qk_head_dim(), c.num_attention_heads * c.v_head_dim);
        for (first_row, chunk, _) in of_form(step, cache, AttentionForm::Naive) {
            let keys = chunk.start + chunk.tokens.len();
            let cached: Vec<Vec<f32>> =
                (0..keys).map(|key| cache.row(step.layer, chunk.block_table, key)).collect();
            let (k_nope, v) = self.decompress(step, &cached);
            for (row, position) in (first_row..).zip(chunk.start..keys) {
                let query = &scratch.q[row * query_row..][..query_row];
                let out = &mut scratch.heads_out[row * out_row..][..out_row];
                naive_row(step, query, &cached[..=position], &k_nope, &v, out);
            }
        }
    }

    /// Keys `[keys, heads, qk_nope_head_dim]` and values `[keys, heads, v_head_dim]` of cached rows.
    fn decompress(&self, step: &Step<'_>, cached: &[Vec<f32>]) -> (Vec<f32>, Vec<f32>) {
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

impl KeyValueProjection {
    fn decompression(&self, nope: usize) -> Decompression<'_> {
        match self {
            KeyValueProjection::Joint { kv_b_proj: w } => Decompression {
                keys: HeadRows { w, first: 0, is_transposed: false },
                values: HeadRows { w, first: nope, is_transposed: false },
            },
            KeyValueProjection::Split { k_b_proj, v_b_proj } => Decompression {
                keys: HeadRows { w: k_b_proj, first: 0, is_transposed: true },
                values: HeadRows { w: v_b_proj, first: 0, is_transposed: false },
            },
        }
    }
}

/// The chunks in a form: the number of the first row, and what is in the cache with the chunk's own rows.
fn of_form<'s>(
    step: &'s Step<'_>,
    cache: &'s KvCache,
    form: AttentionForm,
) -> impl Iterator<Item = (usize, &'s Chunk<'s>, Pages<'s>)> {
    let pages =
        |chunk: &Chunk<'_>| cache.pages(step.layer, chunk.block_table, chunk.start + chunk.tokens.len());
    let chunks = step.batch.chunks_with_rows().filter(move |(_, chunk)| chunk.form == form);
    chunks.map(move |(row, chunk)| (row, chunk, pages(chunk)))
}

/// `softmax((q_nope·k_nope + q_rope·k_rope) * scale) v` for one token, head by head.
fn naive_row(
    step: &Step<'_>,
    query: &[f32],
    cached: &[Vec<f32>],
    k_nope: &[f32],
    v: &[f32],
    out: &mut [f32],
) {
    let c = step.config;
    let (heads, nope) = (c.num_attention_heads, c.qk_nope_head_dim);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (head, out) in out.chunks_exact_mut(c.v_head_dim).enumerate() {
        let (q_nope, q_rope) = query[head * c.qk_head_dim()..][..c.qk_head_dim()].split_at(nope);
        let score = |(key, row): (usize, &Vec<f32>)| {
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
