//! The latent KV cache, in pages of tokens.
//!
//! MLA caches one row per token and layer, shared by all heads: the normalised latent and the rotated
//! key (`kv_lora_rank + qk_rope_head_dim` numbers). Rows live in blocks of [`BLOCK_TOKENS`]; a sequence
//! names its blocks in a `block_table` (vLLM's word), so sequences grow without moving and may share.
//! Rows are rounded to the cache's [`CacheDtype`] as they are written; attention multiplies 16-bit integers as they are, and
//! widens the other formats to f32 as it reads.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use k2_kernels::attention::Pages;
use k2_kernels::huge_pages::Lines;
use k2_kernels::latents::{I16Rows, Latents, Q8_GROUP, narrow_bf16, narrow_i16, narrow_q8, q8_bytes};

use crate::config::Config;

/// Tokens per block.
pub const BLOCK_TOKENS: usize = 32;

/// Rows are padded with zeros to a multiple of this: the width of a kernel's lanes, and of a group of eight-bit
/// numbers.
const ROW_MULTIPLE: usize = Q8_GROUP;

/// The format of cached latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheDtype {
    /// As computed.
    #[default]
    F32,
    /// Integers of 16 bits under two scales a row: half of the memory, nearer to what was computed than BF16, and attention's
    /// products take half of the instructions.
    I16,
    /// Rounded to BF16: half of the memory.
    Bf16,
    /// Eight bits and a scale for 32 numbers: a little more than a quarter.
    Q8,
}

/// A name that is none of a cache's format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is none of f32, i16, bf16, q8")]
pub struct UnknownCacheDtype {
    found: String,
}

/// Blocks of latent rows for all layers. Which block belongs to whom is the caller's affair.
pub struct KvCache {
    layers: Vec<Rows>,
    blocks: usize,
    width: usize,
}

/// One layer's rows, block after block.
enum Rows {
    F32(Lines<f32>),
    I16(Integers),
    Bf16(Lines<u16>),
    Q8(Lines<u8>),
}

/// Rows of 16-bit integers.
struct Integers {
    numbers: Lines<i16>,
    /// Of a row's latent, and of its other numbers.
    scales: Vec<[f32; 2]>,
    width: usize,
    latent: usize,
}

impl KvCache {
    /// Room for `blocks` blocks of [`BLOCK_TOKENS`] tokens. Memory is committed as rows are written.
    pub fn new(config: &Config, blocks: usize, dtype: CacheDtype) -> KvCache {
        let width = row_width(config);
        let numbers = blocks * BLOCK_TOKENS * width;
        let layer = || match dtype {
            CacheDtype::F32 => Rows::F32(Lines::zeros(numbers)),
            CacheDtype::I16 => Rows::I16(Integers {
                numbers: Lines::zeros(numbers),
                scales: vec![[0.0; 2]; numbers / width],
                width,
                latent: config.kv_lora_rank,
            }),
            CacheDtype::Bf16 => Rows::Bf16(Lines::zeros(numbers)),
            CacheDtype::Q8 => Rows::Q8(Lines::zeros(q8_bytes(numbers))),
        };
        KvCache { layers: (0..config.num_hidden_layers).map(|_| layer()).collect(), blocks, width }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes that one token takes in all layers.
    pub fn bytes_per_token(config: &Config, dtype: CacheDtype) -> usize {
        let width = row_width(config);
        let row = match dtype {
            CacheDtype::F32 => width * size_of::<f32>(),
            CacheDtype::I16 => width * size_of::<i16>() + size_of::<[f32; 2]>(),
            CacheDtype::Bf16 => width * size_of::<u16>(),
            CacheDtype::Q8 => q8_bytes(width),
        };
        config.num_hidden_layers * row
    }

    /// Blocks that hold this many tokens.
    pub fn blocks_for(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }

    /// Numbers from one row to the next.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Writes the row of a sequence's token in one layer, [`width`](Self::width) numbers, rounded to the cache's
    /// format.
    pub fn write(&mut self, layer: usize, block_table: &[u32], position: usize, row: &[f32]) {
        let block = block_table[position / BLOCK_TOKENS] as usize;
        let at = (block * BLOCK_TOKENS + position % BLOCK_TOKENS) * self.width;
        match &mut self.layers[layer] {
            Rows::F32(rows) => rows[at..at + self.width].copy_from_slice(row),
            Rows::I16(rows) => {
                let numbers = &mut rows.numbers[at..at + self.width];
                rows.scales[at / self.width] = narrow_i16(row, rows.latent, numbers);
            }
            Rows::Bf16(rows) => narrow_bf16(row, &mut rows[at..at + self.width]),
            Rows::Q8(rows) => {
                narrow_q8(row, &mut rows[q8_bytes(at)..q8_bytes(at + self.width)]);
            }
        }
    }

    /// The row of a sequence's token in one layer, as f32.
    pub fn row(&self, layer: usize, block_table: &[u32], position: usize) -> Vec<f32> {
        let block = block_table[position / BLOCK_TOKENS] as usize;
        let at = (block * BLOCK_TOKENS + position % BLOCK_TOKENS) * self.width;
        self.layers[layer].latents(at..at + self.width).to_f32()
    }

    /// The first `keys` rows of a sequence in one layer.
    pub fn pages(&self, layer: usize, block_table: &[u32], keys: usize) -> Pages<'_> {
        let page = BLOCK_TOKENS * self.width;
        let of_block = |block: &u32| {
            let at = *block as usize * page;
            self.layers[layer].latents(at..at + page)
        };
        let pages = block_table[..Self::blocks_for(keys)].iter().map(of_block).collect();
        Pages { pages, page_len: BLOCK_TOKENS, width: self.width, keys }
    }

    /// Bytes of a block in all layers.
    pub fn block_bytes(&self) -> usize {
        let page = BLOCK_TOKENS * self.width;
        self.layers.iter().map(|rows| rows.bytes_of(page)).sum()
    }

    /// Appends a block's rows of all layers in the cache's format, little-endian.
    pub fn export(&self, block: u32, out: &mut Vec<u8>) {
        let page = BLOCK_TOKENS * self.width;
        let numbers = block as usize * page..(block as usize + 1) * page;
        for rows in &self.layers {
            match rows {
                Rows::F32(rows) => out.extend(rows[numbers.clone()].iter().flat_map(|n| n.to_le_bytes())),
                Rows::I16(rows) => {
                    out.extend(rows.numbers[numbers.clone()].iter().flat_map(|n| n.to_le_bytes()));
                    let scales = &rows.scales[rows.rows(&numbers)];
                    out.extend(scales.as_flattened().iter().flat_map(|n| n.to_le_bytes()));
                }
                Rows::Bf16(rows) => out.extend(rows[numbers.clone()].iter().flat_map(|n| n.to_le_bytes())),
                Rows::Q8(rows) => {
                    out.extend_from_slice(&rows[q8_bytes(numbers.start)..q8_bytes(numbers.end)])
                }
            }
        }
    }

    /// Fills a block with what [`export`](Self::export) gave; false if the length is another.
    pub fn import(&mut self, block: u32, bytes: &[u8]) -> bool {
        if bytes.len() != self.block_bytes() {
            return false;
        }
        let page = BLOCK_TOKENS * self.width;
        let numbers = block as usize * page..(block as usize + 1) * page;
        let mut left = bytes;
        for rows in &mut self.layers {
            let (mine, others) = left.split_at(rows.bytes_of(page));
            left = others;
            match rows {
                Rows::F32(rows) => {
                    let pairs = rows[numbers.clone()].iter_mut().zip(mine.as_chunks().0);
                    pairs.for_each(|(number, bytes)| *number = f32::from_le_bytes(*bytes));
                }
                Rows::I16(rows) => {
                    let (mine, scales) = mine.split_at(page * size_of::<i16>());
                    let pairs = rows.numbers[numbers.clone()].iter_mut().zip(mine.as_chunks().0);
                    pairs.for_each(|(number, bytes)| *number = i16::from_le_bytes(*bytes));
                    let of_rows = rows.rows(&numbers);
                    let pairs = rows.scales[of_rows].as_flattened_mut().iter_mut().zip(scales.as_chunks().0);
                    pairs.for_each(|(scale, bytes)| *scale = f32::from_le_bytes(*bytes));
                }
                Rows::Bf16(rows) => {
                    let pairs = rows[numbers.clone()].iter_mut().zip(mine.as_chunks().0);
                    pairs.for_each(|(number, bytes)| *number = u16::from_le_bytes(*bytes));
                }
                Rows::Q8(rows) => {
                    rows[q8_bytes(numbers.start)..q8_bytes(numbers.end)].copy_from_slice(mine);
                }
            }
        }
        true
    }
}

impl Rows {
    /// Bytes of so many numbers.
    fn bytes_of(&self, numbers: usize) -> usize {
        match self {
            Rows::F32(_) => numbers * size_of::<f32>(),
            Rows::I16(rows) => numbers * size_of::<i16>() + numbers / rows.width * size_of::<[f32; 2]>(),
            Rows::Bf16(_) => numbers * size_of::<u16>(),
            Rows::Q8(_) => q8_bytes(numbers),
        }
    }

    /// Some numbers, of whole rows.
    fn latents(&self, numbers: Range<usize>) -> Latents<'_> {
        match self {
            Rows::F32(rows) => Latents::F32(&rows[numbers]),
            Rows::I16(rows) => Latents::I16(I16Rows {
                scales: &rows.scales[rows.rows(&numbers)],
                numbers: &rows.numbers[numbers],
                width: rows.width,
                latent: rows.latent,
            }),
            Rows::Bf16(rows) => Latents::Bf16(&rows[numbers]),
            Rows::Q8(rows) => Latents::Q8(&rows[q8_bytes(numbers.start)..q8_bytes(numbers.end)]),
        }
    }
}

impl Integers {
    /// The rows of some numbers.
    fn rows(&self, numbers: &Range<usize>) -> Range<usize> {
        numbers.start / self.width..numbers.end / self.width
    }
}

impl FromStr for CacheDtype {
    type Err = UnknownCacheDtype;

    fn from_str(name: &str) -> Result<CacheDtype, UnknownCacheDtype> {
        let all = [CacheDtype::F32, CacheDtype::I16, CacheDtype::Bf16, CacheDtype::Q8];
        all.into_iter()
            .find(|dtype| dtype.to_string() == name)
            .ok_or_else(|| UnknownCacheDtype { found: name.chars().take(32).collect() })
    }
}

impl fmt::Display for CacheDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheDtype::F32 => "f32",
            CacheDtype::I16 => "i16",
            CacheDtype::Bf16 => "bf16",
            CacheDtype::Q8 => "q8",
        })
    }
}

fn row_width(config: &Config) -> usize {
    config.latent_width().next_multiple_of(ROW_MULTIPLE)
}
