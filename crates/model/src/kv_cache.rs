//! The latent KV cache, in pages of tokens.
//!
//! MLA caches one row per token and layer, shared by all heads: the normalised latent and the rotated
//! key (`kv_lora_rank + qk_rope_head_dim` numbers). Rows live in blocks of [`BLOCK_TOKENS`]; a sequence
//! names its blocks in a `block_table` (vLLM's word), so sequences grow without moving and may share.

use k2_kernels::attention::Pages;

use crate::config::Config;

/// Tokens per block.
pub const BLOCK_TOKENS: usize = 32;

/// Rows are padded with zeros to a multiple of this, the width of a kernel's lanes.
const LANES: usize = 16;

/// Blocks of latent rows for all layers. Which block belongs to whom is the caller's affair.
pub struct KvCache {
    layers: Vec<Vec<f32>>,
    blocks: usize,
    width: usize,
}

impl KvCache {
    /// Room for `blocks` blocks of [`BLOCK_TOKENS`] tokens. Memory is committed as rows are written.
    pub fn new(config: &Config, blocks: usize) -> KvCache {
        let width = row_width(config);
        let layer = || vec![0.0; blocks * BLOCK_TOKENS * width];
        KvCache { layers: (0..config.num_hidden_layers).map(|_| layer()).collect(), blocks, width }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes that one token takes in all layers.
    pub fn bytes_per_token(config: &Config) -> usize {
        config.num_hidden_layers * row_width(config) * size_of::<f32>()
    }

    /// Blocks that hold this many tokens.
    pub fn blocks_for(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }

    /// Numbers from one row to the next.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The row of a sequence's token in one layer.
    pub fn row_mut(&mut self, layer: usize, block_table: &[u32], position: usize) -> &mut [f32] {
        let block = block_table[position / BLOCK_TOKENS] as usize;
        let row = (block * BLOCK_TOKENS + position % BLOCK_TOKENS) * self.width;
        &mut self.layers[layer][row..row + self.width]
    }

    /// The row of a sequence's token in one layer.
    pub fn row(&self, layer: usize, block_table: &[u32], position: usize) -> &[f32] {
        let block = block_table[position / BLOCK_TOKENS] as usize;
        let row = (block * BLOCK_TOKENS + position % BLOCK_TOKENS) * self.width;
        &self.layers[layer][row..row + self.width]
    }

    /// The first `keys` rows of a sequence in one layer.
    pub fn pages(&self, layer: usize, block_table: &[u32], keys: usize) -> Pages<'_> {
        let page = BLOCK_TOKENS * self.width;
        let of_block = |block: &u32| &self.layers[layer][*block as usize * page..][..page];
        let pages = block_table[..Self::blocks_for(keys)].iter().map(of_block).collect();
        Pages { pages, page_len: BLOCK_TOKENS, width: self.width, keys }
    }
}

fn row_width(config: &Config) -> usize {
    config.latent_width().next_multiple_of(LANES)
}
