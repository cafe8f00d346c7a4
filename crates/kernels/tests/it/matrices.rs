//! Random matrices of every format, and their numbers by the definitions of the formats, in f64.

use k2_kernels::coded_bf16::code;
use k2_kernels::dtype::f32_to_bf16;
use k2_kernels::matrix::{FP8_BLOCK, INT4_GROUP};
use k2_kernels::{GgmlType, Matrix, Pool, ScaleInv, Storage, ggml};

use crate::random::Random;

/// What a matrix can be stored as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    CodedBf16,
    Fp8,
    Fp8PowersOfTwo,
    Int4,
    Ggml(GgmlType),
}

impl Format {
    pub(crate) fn all() -> Vec<Format> {
        use Format::{Bf16, CodedBf16, F16, F32, Fp8, Fp8PowersOfTwo, Int4};
        let plain = [F32, F16, Bf16, CodedBf16, Fp8, Fp8PowersOfTwo, Int4];
        plain.into_iter().chain(GgmlType::all().map(Format::Ggml)).collect()
    }

    /// The number of columns nearest above that fills whole blocks; FP8's edge blocks may be cut.
    pub(crate) fn whole_columns(self, cols: usize) -> usize {
        cols.next_multiple_of(match self {
            Format::Int4 => INT4_GROUP,
            Format::CodedBf16 => 128,
            Format::Ggml(kind) => kind.block_len(),
            _ => 1,
        })
    }

    /// A matrix of finite numbers of moderate size, subnormal ones among them where the format has some.
    pub(crate) fn matrix(self, random: &mut Random, rows: usize, cols: usize) -> Matrix {
        let numbers = rows * cols;
        let scales = rows.div_ceil(FP8_BLOCK) * cols.div_ceil(FP8_BLOCK);
        let storage = match self {
            Format::F32 => {
                Storage::F32(random.floats(numbers).into_iter().flat_map(f32::to_le_bytes).collect())
            }
            Format::F16 => {
                Storage::F16((0..numbers).flat_map(|_| moderate_f16(random.next()).to_le_bytes()).collect())
            }
            Format::Bf16 => Storage::Bf16(bf16(&random.floats(numbers))),
            Format::CodedBf16 => {
                let near = |number: f32| if number.abs() < 1e-3 { 0.0 } else { number };
                let numbers: Vec<f32> = random.floats(numbers).into_iter().map(near).collect();
                return coded(&Matrix::new(rows, cols, Storage::Bf16(bf16(&numbers))).unwrap());
            }
            Format::Fp8 => {
                let scales = random.floats(scales).into_iter().map(|scale| scale * 3.0);
                let scale_inv = ScaleInv::F32(scales.flat_map(f32::to_le_bytes).collect());
                Storage::Fp8 { weight: e4m3(random, numbers), scale_inv, first_row: 0 }
            }
            Format::Fp8PowersOfTwo => {
                let scales: Vec<u8> = (0..scales).map(|_| 120 + random.below(12) as u8).collect();
                let scale_inv = ScaleInv::Ue8m0(scales.into());
                Storage::Fp8 { weight: e4m3(random, numbers), scale_inv, first_row: 0 }
            }
            Format::Int4 => Storage::Int4 {
                packed: random.bytes(numbers / 2).into(),
                scale: bf16(&random.floats(numbers / INT4_GROUP)),
            },
            Format::Ggml(kind) => Storage::Ggml { kind, blocks: blocks(kind, random, numbers).into() },
        };
        Matrix::new(rows, cols, storage).unwrap()
    }

    /// A matrix of integer codes in which every byte is the same, but for the outer scales, which are 1.
    pub(crate) fn filled(self, byte: u8, rows: usize, cols: usize) -> Matrix {
        let numbers = rows * cols;
        let storage = match self {
            Format::Int4 => Storage::Int4 {
                packed: vec![byte; numbers / 2].into(),
                scale: bf16(&vec![1.0; numbers / INT4_GROUP]),
            },
            Format::Ggml(kind) => {
                let mut blocks = vec![byte; numbers / kind.block_len() * kind.block_bytes()];
                for block in blocks.chunks_exact_mut(kind.block_bytes()) {
                    for &at in halves(kind) {
                        block[at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes());
                    }
                    if kind == GgmlType::MXFP4 {
                        block[0] = 127;
                    }
                }
                Storage::Ggml { kind, blocks: blocks.into() }
            }
            _ => panic!("{self:?} has no integer codes"),
        };
        Matrix::new(rows, cols, storage).unwrap()
    }
}

/// `[rows, cols]` of a whole matrix. GGUF blocks are widened by the crate itself: its unit tests compare
/// those bits with the `gguf` package's.
pub(crate) fn numbers(matrix: &Matrix) -> Vec<f64> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut whole = vec![0.0; rows * cols];
    if let Storage::Ggml { kind, blocks } = matrix.storage() {
        ggml::dequantize(*kind, blocks, &mut whole);
    }
    let of = |row: usize, col: usize| {
        let i = row * cols + col;
        match matrix.storage() {
            Storage::F32(b) => f64::from(f32::from_bits(little_endian(b, i, 4))),
            Storage::F16(b) => float(little_endian(b, i, 2), 5, 10),
            Storage::Bf16(b) => float(little_endian(b, i, 2), 8, 7),
            Storage::CodedBf16 { blocks, bases, .. } => {
                let (block, half, in_half) = (i / 128, i / 64 % 2, i % 64);
                let [group, lane] = [in_half / 16, in_half % 16];
                let at = lane / 4 * 16 + [0, 1, 8, 9][group] + lane % 4 * 2;
                let fraction = u32::from(blocks[block * 192 + half * 64 + at]);
                let exponent = match blocks[block * 192 + 128 + at] >> (4 * half) & 15 {
                    15 => 0,
                    below => u32::from(bases[block] - below),
                };
                float((fraction & 0x80) << 8 | exponent << 7 | fraction & 0x7f, 8, 7)
            }
            Storage::Fp8 { weight, scale_inv, first_row } => {
                let block = (first_row + row) / 128 * cols.div_ceil(128) + col / 128;
                let scale = match scale_inv {
                    ScaleInv::F32(b) => f64::from(f32::from_bits(little_endian(b, block, 4))),
                    ScaleInv::Ue8m0(b) => 2f64.powi(i32::from(b[block]) - 127),
                };
                float(u32::from(weight[i]), 4, 3) * scale
            }
            Storage::Int4 { packed, scale } => {
                let nibble = little_endian(packed, i / 8, 4) >> (4 * (i % 8)) & 15;
                (f64::from(nibble) - 8.0) * float(little_endian(scale, i / 32, 2), 8, 7)
            }
            Storage::Ggml { .. } => f64::from(whole[i]),
            Storage::Interleaved { .. } => panic!("{} in panels", matrix.format()),
        }
    };
    (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))).map(|(row, col)| of(row, col)).collect()
}

/// The `i`-th word of `width` bytes.
fn little_endian(bytes: &[u8], i: usize, width: usize) -> u32 {
    bytes[i * width..][..width].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// A finite floating-point number by IEEE 754's definition: sign, exponent, fraction.
fn float(bits: u32, exponent_bits: u32, fraction_bits: u32) -> f64 {
    let exponent = (bits >> fraction_bits & ((1 << exponent_bits) - 1)) as i32;
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1u32 << fraction_bits);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    };
    if bits >> (exponent_bits + fraction_bits) == 0 { magnitude } else { -magnitude }
}

/// Below 16 in size, one in twenty subnormal.
fn moderate_f16(random: u64) -> u16 {
    let magnitude = (random >> 16) as u16 % 0x4c00;
    random as u16 & 0x8000 | magnitude
}

/// BF16 in twelve bits, or as it was.
pub(crate) fn coded(w: &Matrix) -> Matrix {
    let mut coded = w.clone();
    code(&Pool::new(2), &mut [&mut coded]);
    coded
}

pub(crate) fn bf16<B: FromIterator<u8>>(numbers: &[f32]) -> B {
    numbers.iter().flat_map(|number| f32_to_bf16(*number).to_le_bytes()).collect()
}

/// Any code but the two of NaN.
fn e4m3<B: FromIterator<u8>>(random: &mut Random, len: usize) -> B {
    (0..len)
        .map(|_| random.next() as u8)
        .map(|code| if code & 0x7f == 0x7f { code & 0x80 } else { code })
        .collect()
}

/// Where a block has f16 scales and minima.
fn halves(kind: GgmlType) -> &'static [usize] {
    match kind {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        GgmlType::MXFP4 => &[],
        _ => &[0],
    }
}

/// Random blocks whose f16 scales and minima are moderate.
fn blocks(kind: GgmlType, random: &mut Random, numbers: usize) -> Vec<u8> {
    let mut blocks = random.bytes(numbers / kind.block_len() * kind.block_bytes());
    for block in blocks.chunks_exact_mut(kind.block_bytes()) {
        for &at in halves(kind) {
            block[at..at + 2].copy_from_slice(&moderate_f16(random.next()).to_le_bytes());
        }
        if kind == GgmlType::MXFP4 {
            block[0] = 120 + block[0] % 12; // a power of two
        }
    }
    blocks
}
