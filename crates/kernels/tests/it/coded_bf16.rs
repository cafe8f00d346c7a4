//! BF16 in twelve bits: the same numbers and the same bits, whatever the numbers are.

use k2_kernels::coded_bf16::{can_code, code, most_bytes};
use k2_kernels::dtype::f32_to_bf16;
use k2_kernels::matmul::matmul_heads_transposed;
use k2_kernels::{Matrix, MatrixError, Pool, Precision, Storage};
use proptest::prelude::*;

use crate::fast::product as fast;
use crate::matrices::{Format, bf16, coded};
use crate::random::Random;

/// Zeros of both signs, the least and the largest subnormal number and normal ones, infinities and a NaN.
const ODD: [u16; 9] = [0, 0x8000, 1, 0x007f, 0x0080, 0x7f7f, 0x7f80, 0xff80, 0x7fc1];

/// Numbers whose sizes spread as those of weights do; in at most one block of nine one that lies far from the others.
pub(crate) fn hostile(random: &mut Random, rows: usize, blocks_of_row: usize) -> Matrix {
    let mut numbers: Vec<u16> = (0..rows * blocks_of_row * 128)
        .map(|_| f32_to_bf16(random.floats(4).iter().sum::<f32>() * 0.02))
        .map(|number| if number & 0x7fff < 0x3780 { number & 0x8000 } else { number })
        .collect();
    for blocks in numbers.chunks_exact_mut(9 * 128) {
        let odd = ODD[random.below(ODD.len())];
        let at = random.below(blocks.len());
        blocks[at] = odd;
    }
    let bytes: Vec<u8> = numbers.into_iter().flat_map(u16::to_le_bytes).collect();
    Matrix::new(rows, blocks_of_row * 128, Storage::Bf16(bytes.into())).unwrap()
}

fn is_coded(w: &Matrix) -> bool {
    matches!(w.storage(), Storage::CodedBf16 { .. })
}

/// A NaN may be any NaN: which one comes out of two is the processor's affair.
fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| if number.is_nan() { f32::NAN } else { *number }.to_bits()).collect()
}

/// Every number, in pieces of any lengths within a tile.
fn widened(w: &Matrix, random: &mut Random) -> Vec<u32> {
    let mut all = vec![0.0; w.rows() * w.cols()];
    for (row, out) in all.chunks_exact_mut(w.cols()).enumerate() {
        for (tile, out) in out.chunks_mut(256).enumerate() {
            let (first, last) = out.split_at_mut(random.below(out.len() + 1));
            w.dequantize(row, 256 * tile, first);
            w.dequantize(row, 256 * tile + first.len(), last);
        }
    }
    all.iter().map(|number| number.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_and_numbers_keep_their_bits(
        (rows, blocks, tokens) in (1..40usize, 1..9usize, 1..=40usize),
        exact: bool,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let w = hostile(&mut random, rows, blocks);
        let other = coded(&w);
        if rows * blocks >= 9 {
            assert!(is_coded(&other) && other.stored_bytes() < w.stored_bytes() && other.format() == "BF16");
        }
        assert_eq!(widened(&other, &mut random), widened(&w, &mut random));
        let x = random.floats(tokens * w.cols());
        let precision = if exact { Precision::Exact } else { Precision::Fast };
        let product = |w: &Matrix| bits(&fast(&Pool::new(2), precision, w, 1, 0..w.rows(), &x));
        assert_eq!(product(&other), product(&w));
        let first = random.below(rows);
        let part = first..first + 1 + random.below(rows - first);
        assert_eq!(product(&other.slice_rows(part.clone())), product(&w.slice_rows(part)));
        let x = random.floats(tokens * rows);
        let transposed = |w: &Matrix| {
            let mut y = vec![f32::NAN; tokens * w.cols()];
            matmul_heads_transposed(&Pool::new(2), w, 1, 0..rows, &x, &mut y);
            bits(&y)
        };
        assert_eq!(transposed(&other), transposed(&w));
    }
}

#[test]
fn what_does_not_shrink_stays() {
    for format in Format::all() {
        for cols in [128, 384, 96] {
            let w = format.matrix(&mut Random(1), 16, format.whole_columns(cols));
            assert_eq!(can_code(&w), format == Format::Bf16 && cols != 96, "{format:?}, {cols} columns");
        }
    }
    // One number of each block lies 2^-15 below another.
    let mut numbers = vec![1.0f32; 16 * 128];
    numbers.iter_mut().step_by(128).for_each(|number| *number = (-15f32).exp2());
    let far = Matrix::new(16, 128, Storage::Bf16(bf16(&numbers))).unwrap();
    assert!(can_code(&far) && !is_coded(&coded(&far)));
    numbers.iter_mut().for_each(|number| *number = number.max((-14f32).exp2()));
    assert!(is_coded(&coded(&Matrix::new(16, 128, Storage::Bf16(bf16(&numbers))).unwrap())));
}

#[test]
fn several_matrices_share_a_buffer() {
    let mut random = Random(3);
    let mut old: Vec<Matrix> = (1..6).map(|blocks| hostile(&mut random, 24, blocks)).collect();
    old.insert(2, Format::F32.matrix(&mut random, 8, 128));
    old.insert(4, Format::Bf16.matrix(&mut random, 8, 100));
    let mut new = old.clone();
    code(&Pool::new(3), &mut new.iter_mut().collect::<Vec<_>>());
    for (new, old) in new.iter().zip(&old) {
        assert_eq!(is_coded(new), can_code(old));
        assert!(!is_coded(new) || new.stored_bytes() <= most_bytes(old));
        assert_eq!(widened(new, &mut random), widened(old, &mut random));
    }
    code(&Pool::new(1), &mut []);
}

#[test]
fn parts_of_the_wrong_size_are_refused() {
    let w = coded(&hostile(&mut Random(5), 9, 4));
    let Storage::CodedBf16 { blocks, bases, whole } = w.storage().clone() else { panic!("{w:?}") };
    let storage = |blocks, bases, whole| Storage::CodedBf16 { blocks, bases, whole };
    let check = |cols, storage, want: Result<(), MatrixError>| {
        assert_eq!(Matrix::new(9, cols, storage).map(drop), want);
    };
    let wrong = |what, found, expected| {
        Err(MatrixError::Length { what, format: "BF16", rows: 9, cols: 512, found, expected })
    };
    let (len, kept) = (blocks.len(), whole.len());
    assert!(kept > 0, "some are kept whole");
    check(512, storage(blocks.clone(), bases.clone(), whole.clone()), Ok(()));
    let short = storage(blocks.slice(1..), bases.clone(), whole.clone());
    check(512, short, wrong("blocks", len - 1, len));
    let short = storage(blocks.clone(), bases.slice(1..), whole.clone());
    check(512, short, wrong("bases", 35, 36));
    let short = storage(blocks.clone(), bases.clone(), whole.slice(1..));
    check(512, short, wrong("whole blocks", kept - 1, kept));
    let ragged = MatrixError::Ragged { format: "BF16", cols: 500, block: 128 };
    check(500, storage(blocks, bases, whole), Err(ragged));
}
