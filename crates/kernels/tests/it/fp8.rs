//! FP8 that no model should have: codes of NaN, scales at both ends of f32 and beyond. Compared bit by bit with the
//! order of summation spelled out, on as many tokens as take each path.

use k2_kernels::dtype::e4m3_to_f32;
use k2_kernels::matmul::{matmul, matmul_heads_transposed};
use k2_kernels::matrix::{FP8_BLOCK, TILE};
use k2_kernels::{Matrix, Pool, ScaleInv, Storage};
use proptest::{prelude::*, sample::select};

use crate::random::Random;

/// Subnormal, ordinary, around 256 (which leaves the range when what the codes lack is put into it), infinite, NaN.
const SCALES: [f32; 16] = [
    f32::from_bits(1),
    1e-40,
    -1e-39,
    f32::MIN_POSITIVE,
    0.0,
    -0.0,
    0.37,
    -3.0,
    255.999_98,
    256.0,
    -257.5,
    1e30,
    f32::MAX,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

fn fp8(rows: usize, cols: usize, codes: Vec<u8>, scales: &[f32]) -> Matrix {
    let scale_inv = ScaleInv::F32(scales.iter().flat_map(|scale| scale.to_le_bytes()).collect());
    Matrix::new(rows, cols, Storage::Fp8 { weight: codes.into(), scale_inv, first_row: 0 }).unwrap()
}

/// Any codes, those of NaN nowhere, once or everywhere; in some blocks a scale of the above.
pub(crate) fn hostile(random: &mut Random, rows: usize, cols: usize) -> Matrix {
    let mut codes = random.bytes(rows * cols);
    let nans = random.below(3);
    if nans < 2 {
        codes.iter_mut().filter(|code| **code & 0x7f == 0x7f).for_each(|code| *code = 0x80);
    }
    if nans == 1 {
        codes[random.below(rows * cols)] = [0x7f, 0xff][random.below(2)];
    }
    let blocks = rows.div_ceil(FP8_BLOCK) * cols.div_ceil(FP8_BLOCK);
    let mut scales = random.floats(blocks);
    for scale in &mut scales {
        if random.below(3) == 0 {
            *scale = SCALES[random.below(SCALES.len())];
        }
    }
    fp8(rows, cols, codes, &scales)
}

/// Every number by the definition of the format.
fn numbers(w: &Matrix) -> Vec<f32> {
    let Storage::Fp8 { weight, scale_inv: ScaleInv::F32(scales), first_row } = w.storage() else {
        panic!("{} is not made here", w.format());
    };
    let scale = |i: usize| f32::from_le_bytes(scales[4 * i..4 * i + 4].try_into().unwrap());
    let place = |i: usize| ((first_row + i / w.cols()) / FP8_BLOCK, i % w.cols() / FP8_BLOCK);
    let block = |(row, col): (usize, usize)| row * w.cols().div_ceil(FP8_BLOCK) + col;
    weight.iter().enumerate().map(|(i, code)| e4m3_to_f32(*code) * scale(block(place(i)))).collect()
}

/// Sixteen sums, joined by halves; a row ends in zeros.
fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for k in 0..w.len().next_multiple_of(16) {
        let (w, x) = (w.get(k).unwrap_or(&0.0), x.get(k).unwrap_or(&0.0));
        sums[k % 16] = x.mul_add(*w, sums[k % 16]);
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| sums[i] += sums[i + half]);
    }
    sums[0]
}

/// The same bits; a NaN may be any NaN.
fn check(what: &str, found: &[f32], want: &[f32]) {
    assert_eq!(found.len(), want.len());
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        let same = found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan());
        assert!(same, "{what}: number {i} is {found:e}, expected {want:e}");
    }
}

fn check_widening(w: &Matrix) {
    let (cols, mut found) = (w.cols(), vec![0.5; w.rows() * w.cols()]);
    for (row, found) in found.chunks_exact_mut(cols).enumerate() {
        for (tile, found) in found.chunks_mut(TILE).enumerate() {
            w.dequantize(row, tile * TILE, found);
        }
    }
    check("widened", &found, &numbers(w));
}

fn check_product(w: &Matrix, tokens: usize, random: &mut Random) {
    let (weights, x) = (numbers(w), random.floats(tokens * w.cols()));
    let rows = |x| weights.chunks_exact(w.cols()).map(move |row| dot(row, x));
    let want: Vec<f32> = x.chunks_exact(w.cols()).flat_map(rows).collect();
    let mut y = vec![0.5; want.len()];
    matmul(&Pool::new(1), w, &x, &mut y);
    check(&format!("{tokens} tokens"), &y, &want);
}

fn check_transposed(w: &Matrix, tokens: usize, random: &mut Random) {
    let (weights, x) = (numbers(w), random.floats(tokens * w.rows()));
    let mut want = vec![0f32; tokens * w.cols()];
    for (x, want) in x.chunks_exact(w.rows()).zip(want.chunks_exact_mut(w.cols())) {
        for (x, row) in x.iter().zip(weights.chunks_exact(w.cols())) {
            want.iter_mut().zip(row).for_each(|(want, w)| *want = x.mul_add(*w, *want));
        }
    }
    let mut y = vec![0.5; want.len()];
    matmul_heads_transposed(&Pool::new(1), w, 1, 0..w.rows(), &x, &mut y);
    check(&format!("{tokens} tokens, transposed"), &y, &want);
}

fn check_all(w: &Matrix, random: &mut Random) {
    check_widening(w);
    for tokens in [1, 2, 3, 4, 5, 9] {
        check_product(w, tokens, random);
    }
    for tokens in [1, 2, 5] {
        check_transposed(w, tokens, random);
    }
}

#[test]
fn every_code_with_every_scale() {
    let mut random = Random(1);
    for scale in SCALES {
        let all: Vec<u8> = (0..=255).collect();
        // NaN in both blocks of the first row, in the second of the next, in none of the others.
        let tame = |code: &u8| if code & 0x7f == 0x7f { 0x08 } else { *code };
        let second: Vec<u8> = all.iter().map(|code| if *code == 0x7f { 0x7e } else { *code }).collect();
        let third: Vec<u8> = all.iter().map(tame).collect();
        let codes = [&all[..], &second, &third, &third, &third, &all].concat();
        check_all(&fp8(6, 256, codes, &[scale, 0.5]), &mut random);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn broken_blocks_show_alike_on_every_path(
        rows in prop_oneof![1..20usize, 100..150usize],
        cols in prop_oneof![1..40usize, 60..70usize, 120..136usize, 1..420usize, select(vec![128, 256, 384])],
        seed: u64,
    ) {
        let mut random = Random(seed);
        check_all(&hostile(&mut random, rows, cols), &mut random);
    }
}

/// Rows that are taken together lie under one scale, wherever a slice begins, and one with NaN is none of the others'.
#[test]
fn neighbouring_rows_under_other_scales() {
    let (rows, cols) = (2 * FP8_BLOCK + 5, 2 * FP8_BLOCK);
    let mut random = Random(3);
    for nan in [None, Some(126), Some(127), Some(128), Some(129), Some(rows - 1)] {
        let mut codes = random.bytes(rows * cols);
        codes.iter_mut().filter(|code| **code & 0x7f == 0x7f).for_each(|code| *code = 0x31);
        if let Some(row) = nan {
            codes[row * cols + 200] = 0x7f;
        }
        let w = fp8(rows, cols, codes, &random.floats(6));
        for first in [0, 1, 2, 125, 126, 127, 128, 129] {
            check_product(&w.slice_rows(first..rows), 1, &mut random);
        }
    }
}

/// Padding is no number: an infinite scale times its zeros would be NaN.
#[test]
fn an_infinite_scale_is_infinite_in_rows_of_any_length() {
    for cols in [1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 250] {
        let w = fp8(5, cols, vec![0x38; 5 * cols], &vec![f32::INFINITY; cols.div_ceil(FP8_BLOCK)]);
        for tokens in [1, 4, 5] {
            let (mut y, mut turned) = (vec![0.0; tokens * 5], vec![0.0; tokens * cols]);
            matmul(&Pool::new(1), &w, &vec![1.0; tokens * cols], &mut y);
            matmul_heads_transposed(&Pool::new(1), &w, 1, 0..5, &vec![1.0; tokens * 5], &mut turned);
            assert!(y.iter().chain(&turned).all(|y| *y == f32::INFINITY), "{cols} columns, {tokens} tokens");
        }
    }
}
