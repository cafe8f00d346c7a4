//! Random weights of any K2 shape in each format, made in memory: what `k2 bench --synthetic` computes.
//!
//! Each format is laid out as checkpoints of its kind are: INT4 experts with everything else in BF16
//! (compressed-tensors), FP8 for all but embedding, router and head, GGUF files with `kv_b_proj` in two halves.
//! Numbers have about the spread of a trained layer's (`1 / sqrt(columns)`), so activations stay finite and
//! routing is nearly uniform: the worst case for whoever hopes for the same experts again.

use bytes::Bytes;
use k2_kernels::matrix::{FP8_BLOCK, INT4_GROUP, ScaleInv, Storage};
use k2_kernels::{GgmlType, Matrix};
use k2_weights::WeightsError;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::config::{Config, Yarn};

/// Random numbers of a matrix are made in pieces of this many bytes, so that they do not depend on the processors.
const PIECE: usize = 1 << 20;

/// A model to be made up.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    /// Its widths.
    pub shape: Shape,
    /// Its formats.
    pub format: SyntheticFormat,
    /// Routed experts per layer, if not as many as the shape has: not every format of every shape fits into memory.
    pub n_routed_experts: Option<usize>,
}

/// Widths of a synthetic model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 1024 wide, 8 layers (one dense), 64 experts of width 512, 16 heads, a vocabulary of 16,384.
    Small,
    /// Kimi K2's widths, 384 experts, 2 layers (one dense), a vocabulary of 16,384.
    Slice,
    /// Kimi K2's widths and vocabulary, one layer, of experts.
    FullOneLayer,
}

/// Formats of a synthetic model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticFormat {
    /// Routed experts INT4 in groups of 32 with BF16 scales, everything else BF16: Kimi-K2-Thinking.
    Int4,
    /// FP8 in blocks of 128x128; embedding, router and head BF16: Kimi-K2-Instruct.
    Fp8,
    /// Everything BF16.
    Bf16,
    /// GGUF: everything Q8_0, the router F32.
    Q8_0,
    /// GGUF: feed-forward parts and embedding Q4_K, attention Q8_0, head Q6_K, the router F32.
    Q4K,
}

impl Synthetic {
    /// The config of Kimi K2 with the shape's widths.
    pub fn config(&self) -> Config {
        let small = self.shape == Shape::Small;
        let of = |small_one, k2| if small { small_one } else { k2 };
        Config {
            model_type: "kimi_k2".into(),
            vocab_size: if self.shape == Shape::FullOneLayer { 163_840 } else { 16_384 },
            hidden_size: of(1024, 7168),
            intermediate_size: of(4608, 18_432),
            moe_intermediate_size: of(512, 2048),
            num_hidden_layers: [8, 2, 1][self.shape as usize],
            first_k_dense_replace: [1, 1, 0][self.shape as usize],
            moe_layer_freq: 1,
            num_attention_heads: of(16, 64),
            q_lora_rank: Some(of(384, 1536)),
            kv_lora_rank: 512,
            qk_nope_head_dim: 128,
            qk_rope_head_dim: 64,
            v_head_dim: 128,
            n_routed_experts: self.n_routed_experts.unwrap_or(of(64, 384)),
            n_shared_experts: 1,
            num_experts_per_tok: 8,
            n_group: 1,
            topk_group: 1,
            norm_topk_prob: true,
            routed_scaling_factor: 2.827,
            rms_norm_eps: 1e-6,
            rope_theta: 50_000.0,
            rope_scaling: Some(Yarn {
                factor: 32.0,
                original_max_position_embeddings: 4096,
                beta_fast: 1.0,
                beta_slow: 1.0,
                mscale: 1.0,
                mscale_all_dim: 1.0,
            }),
            max_position_embeddings: 131_072,
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
        }
    }

    /// Bytes of the routed experts, most of a model, and of embedding and head.
    pub fn bytes_at_least(&self) -> u64 {
        let c = self.config();
        let layers = c.num_hidden_layers - c.first_k_dense_replace;
        let experts = layers * c.n_routed_experts * 3 * c.hidden_size * c.moe_intermediate_size;
        let bits = |name| self.encoding(name).bits() as u64;
        let vocabulary = (c.vocab_size * c.hidden_size) as u64;
        let embedding_and_head = vocabulary * (bits("model.embed_tokens.weight") + bits("lm_head.weight"));
        (experts as u64 * bits(".mlp.experts.0.up_proj.weight") + embedding_and_head) / 8
    }

    /// Whether a tensor of this name exists, where layouts differ.
    pub(crate) fn has(&self, name: &str) -> bool {
        let split = matches!(self.format, SyntheticFormat::Q8_0 | SyntheticFormat::Q4K);
        split && (name.ends_with("k_b_proj.weight") || name.ends_with("v_b_proj.weight"))
    }

    /// Norms near one, the router's bias near zero.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Vec<f32> {
        let center = if name.ends_with("bias") { 0.0 } else { 1.0 };
        let mut random = Random::named(name);
        (0..len).map(|_| center + (random.next() as i32 as f32 / i32::MIN as f32) * 0.05).collect()
    }

    /// A matrix whose numbers depend on its name alone.
    pub(crate) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, WeightsError> {
        let storage = self.encoding(name).storage(name, rows, cols);
        let named = |error| WeightsError::Matrix { path: "synthetic".into(), tensor: name.to_owned(), error };
        Matrix::new(rows, cols, storage).map_err(named)
    }

    fn encoding(&self, name: &str) -> Encoding {
        use Encoding::*;
        let router = name.ends_with(".mlp.gate.weight");
        let vocabulary = name.contains("embed_tokens") || name.contains("lm_head");
        match self.format {
            SyntheticFormat::Int4 if name.contains(".mlp.experts.") => Int4,
            SyntheticFormat::Fp8 if !router && !vocabulary => Fp8,
            SyntheticFormat::Int4 | SyntheticFormat::Fp8 | SyntheticFormat::Bf16 => Bf16,
            SyntheticFormat::Q8_0 | SyntheticFormat::Q4K if router => F32,
            SyntheticFormat::Q8_0 => Ggml(GgmlType::Q8_0),
            SyntheticFormat::Q4K if name.contains("lm_head") => Ggml(GgmlType::Q6_K),
            SyntheticFormat::Q4K if name.contains(".self_attn.") => Ggml(GgmlType::Q8_0),
            SyntheticFormat::Q4K => Ggml(GgmlType::Q4_K),
        }
    }
}

impl Shape {
    /// Every shape.
    pub const ALL: [Shape; 3] = [Shape::Small, Shape::Slice, Shape::FullOneLayer];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["small", "slice", "full-1-layer"][self as usize]
    }
}

impl SyntheticFormat {
    /// Every format.
    pub const ALL: [SyntheticFormat; 5] = [
        SyntheticFormat::Int4,
        SyntheticFormat::Fp8,
        SyntheticFormat::Bf16,
        SyntheticFormat::Q8_0,
        SyntheticFormat::Q4K,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["int4", "fp8", "bf16", "q8_0", "q4_k"][self as usize]
    }
}

/// How one matrix is stored.
#[derive(Clone, Copy)]
enum Encoding {
    F32,
    Bf16,
    Fp8,
    Int4,
    Ggml(GgmlType),
}

impl Encoding {
    fn bits(self) -> usize {
        match self {
            Encoding::F32 => 32,
            Encoding::Bf16 => 16,
            Encoding::Fp8 => 8,
            Encoding::Int4 => 5, // four and a half
            Encoding::Ggml(kind) => kind.block_bytes() * 8 / kind.block_len(),
        }
    }

    fn storage(self, name: &str, rows: usize, cols: usize) -> Storage {
        let (numbers, spread) = (rows * cols, (cols as f32).powf(-0.5));
        match self {
            Encoding::F32 => Storage::F32(blocks(name, numbers, |raw: &mut [u8; 4]| {
                let code = u32::from_le_bytes(*raw) & 0x807f_ffff | spread.to_bits() & 0x7f80_0000;
                *raw = code.to_le_bytes();
            })),
            Encoding::Bf16 => Storage::Bf16(blocks(name, numbers, |raw: &mut [u8; 2]| {
                *raw = below(bf16(spread), u16::from_le_bytes(*raw)).to_le_bytes();
            })),
            Encoding::Fp8 => {
                let scales = rows.div_ceil(FP8_BLOCK) * cols.div_ceil(FP8_BLOCK);
                let scale_inv = ScaleInv::F32(spread.to_le_bytes().repeat(scales).into());
                // Without the highest bit of the exponent numbers are below two, and none is NaN. Subnormal ones are
                // rare in trained blocks, whose largest number fills the format, and slow: here there are none.
                let weight = blocks(name, numbers, |raw: &mut [u8; 1]| {
                    raw[0] &= 0xbf;
                    raw[0] |= if raw[0] & 0x38 == 0 { 0x08 } else { 0 };
                });
                Storage::Fp8 { weight, scale_inv, first_row: 0 }
            }
            Encoding::Int4 => Storage::Int4 {
                packed: blocks(name, numbers / 2, |_: &mut [u8; 1]| ()),
                scale: bf16(spread / 4.6).to_le_bytes().repeat(rows * cols.div_ceil(INT4_GROUP)).into(),
            },
            Encoding::Ggml(kind) => Storage::Ggml { kind, blocks: ggml(kind, name, numbers, spread) },
        }
    }
}

/// The number of these random bits below one of BF16: half of them have its exponent, a quarter that before, and so on, a
/// little faster, so that as many lie far below as of normally distributed numbers.
fn below(most: u16, random: u16) -> u16 {
    let steps = (random >> 7 & 0xff | (random & 0x7f) << 8 | 1 << 15).trailing_zeros() as u16 * 6 / 5;
    random & 0x807f | (most >> 7).saturating_sub(steps) << 7
}

/// Random blocks with scales under which the numbers have about this spread.
fn ggml(kind: GgmlType, name: &str, numbers: usize, spread: f32) -> Bytes {
    let count = numbers / kind.block_len();
    match kind {
        // 4-bit numbers of 7.5 +- 4.6 under 6-bit scales of about 31, less as many minima.
        GgmlType::Q4_K => blocks(name, count, |raw: &mut [u8; 144]| {
            let scale = spread / (31.0 * 4.6);
            raw[..2].copy_from_slice(&f16(scale).to_le_bytes());
            raw[2..4].copy_from_slice(&f16(scale * 7.5).to_le_bytes());
        }),
        // Signed 6-bit numbers under signed 8-bit scales.
        GgmlType::Q6_K => blocks(name, count, |raw: &mut [u8; 210]| {
            raw[208..].copy_from_slice(&f16(spread / (73.0 * 18.5)).to_le_bytes());
        }),
        // Q8_0, the only other one that is used: signed bytes under one scale.
        _ => blocks(name, count, |raw: &mut [u8; 34]| {
            raw[..2].copy_from_slice(&f16(spread / 73.0).to_le_bytes());
        }),
    }
}

/// `count` blocks of random bytes, each corrected by `correct`, piece by piece on all processors.
fn blocks<const N: usize>(name: &str, count: usize, correct: impl Fn(&mut [u8; N]) + Sync) -> Bytes {
    let mut bytes = vec![0; count * N];
    let pieces = bytes.chunks_mut(PIECE / N * N).enumerate();
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    let threads = processors.min(pieces.len());
    let pieces = Mutex::new(pieces);
    let fill = || {
        let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some((number, piece)) = next() {
            let mut random = Random::named(name);
            random.0 ^= (number as u64) << 40;
            for word in piece.chunks_mut(8) {
                word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
            }
            piece.as_chunks_mut().0.iter_mut().for_each(&correct);
        }
    };
    thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(fill)));
        fill();
    });
    bytes.into()
}

fn bf16(number: f32) -> u16 {
    k2_kernels::dtype::f32_to_bf16(number)
}

/// binary16 of a small positive number, cut, not rounded; below the normal ones, the smallest of those.
fn f16(number: f32) -> u16 {
    let bits = number.to_bits() >> 13;
    (bits.saturating_sub((127 - 15) << 10) as u16).max(1 << 10)
}

/// SplitMix64 (Steele, Lea and Flood 2014), begun by a name.
struct Random(u64);

impl Random {
    fn named(name: &str) -> Random {
        // FNV-1a.
        Random(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the format, a matrix has about the spread that its columns ask for, and no number that is not one.
    #[test]
    fn every_format_has_the_spread_of_a_trained_layer() {
        for format in SyntheticFormat::ALL {
            let synthetic = Synthetic { shape: Shape::Small, format, n_routed_experts: None };
            for name in [
                "model.embed_tokens.weight",
                "model.layers.3.self_attn.o_proj.weight",
                "model.layers.3.mlp.gate.weight",
                "model.layers.3.mlp.experts.7.up_proj.weight",
                "lm_head.weight",
            ] {
                let matrix = synthetic.matrix(name, 64, 256).unwrap();
                let mut numbers = vec![0.0; 64 * 256];
                for (row, numbers) in numbers.chunks_exact_mut(256).enumerate() {
                    matrix.dequantize(row, 0, numbers);
                }
                let square = numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32;
                let spread = square.sqrt() * 16.0;
                assert!((0.3..3.0).contains(&spread), "{format:?} {name}: {spread}");
            }
        }
    }
}
