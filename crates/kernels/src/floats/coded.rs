//! BF16 in twelve bits ([`crate::coded_bf16`]) against few tokens, and widened for many.

use super::{GROUPS, Piece, Vectors, each_panel, widen_coded};
use crate::coded_bf16::{BLOCK, BLOCK_BYTES, Block, Coded, EXPONENTS, HALF, WHOLE};
use crate::dot::LANES;
use crate::isa::isa;
use crate::matrix::TILE;
use crate::prefetch::prefetch_second_level;

/// Groups of numbers that are widened together.
const TOGETHER: usize = HALF / LANES;

/// How many blocks before its use one is asked for, where a few blocks of a row at a time are widened for many tokens.
const AHEAD: usize = TILE / BLOCK;

/// `R` rows at a time against `T` tokens.
#[inline(always)]
pub(super) fn rows<V: Vectors, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    weights: &Coded<'_>,
    out: &mut [f32],
    out_stride: usize,
) {
    each_panel::<V, R, T>(
        piece,
        out,
        out_stride,
        #[inline(always)]
        |row| panel::<V, R, T>(piece, weights, row),
        #[inline(always)]
        |row| panel::<V, 1, T>(piece, weights, row),
    );
}

#[inline(always)]
fn panel<V: Vectors, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    weights: &Coded<'_>,
    row: usize,
) -> [[V::Lanes; R]; T] {
    let blocks = piece.w.cols() / BLOCK;
    let rows: [_; R] = std::array::from_fn(|r| weights.row(row + r, blocks));
    let mut sums = [[V::zero(); R]; T];
    prefetch_second_level(weights.bases.as_ptr().wrapping_add((row + R) * blocks), R * blocks);
    for block in 0..blocks {
        let behind = weights.blocks.as_ptr().wrapping_add((row + R) * blocks + R * block);
        prefetch_second_level(behind.cast(), R * BLOCK_BYTES);
        let first = block * BLOCK;
        let x: [&[[f32; LANES]; GROUPS]; T] = std::array::from_fn(|t| {
            let x = &piece.x[first / TILE * piece.stride + t * TILE + first % TILE..][..BLOCK];
            &x.as_chunks().0.as_chunks().0[0]
        });
        let (mut numbers, mut bases) = ([&[0; BLOCK_BYTES]; R], [0; R]);
        for r in 0..R {
            (numbers[r], bases[r]) = (&rows[r].0[block], rows[r].1[block]);
        }
        if bases.iter().all(|base| *base != WHOLE) {
            let tables = bases.map(|base| &EXPONENTS[usize::from(base)]);
            add_half::<V, R, T, false>(&numbers, &tables, &x, &mut sums);
            add_half::<V, R, T, true>(&numbers, &tables, &x, &mut sums);
        } else {
            for r in 0..R {
                let wide = widened(weights, (row + r) * blocks + block);
                for k in 0..GROUPS {
                    for t in 0..T {
                        sums[t][r] = V::fma(V::load(&x[t][k]), V::load(&wide[k]), sums[t][r]);
                    }
                }
            }
        }
    }
    sums
}

/// The lower or upper half of a block of each row.
#[inline(always)]
fn add_half<V: Vectors, const R: usize, const T: usize, const UPPER: bool>(
    numbers: &[&[u8; BLOCK_BYTES]; R],
    tables: &[&[u8; 32]; R],
    x: &[&[[f32; LANES]; GROUPS]; T],
    sums: &mut [[V::Lanes; R]; T],
) {
    let first = if UPPER { TOGETHER } else { 0 };
    for r in 0..R {
        let parts: &[[u8; HALF]] = numbers[r].as_chunks().0;
        let wide = V::coded_bf16(&parts[usize::from(UPPER)], &parts[2], UPPER, tables[r]);
        for k in 0..TOGETHER {
            for t in 0..T {
                sums[t][r] = V::fma(V::load(&x[t][first + k]), wide[k], sums[t][r]);
            }
        }
    }
}

/// Any block. Not inlined: the loop beside it needs the registers.
#[inline(never)]
fn widened(weights: &Coded<'_>, number: usize) -> [[f32; LANES]; GROUPS] {
    let mut wide = [[0.0; LANES]; GROUPS];
    widen_coded(isa(), weights, number * BLOCK, wide.as_flattened_mut());
    wide
}

/// Numbers from number `first` of all on, block by block; what follows is asked for.
#[inline(always)]
pub(super) fn widen<V: Vectors>(weights: &Coded<'_>, first: usize, out: &mut [f32]) {
    let (mut at, mut rest) = (first, out);
    while !rest.is_empty() {
        let (number, skipped) = (at / BLOCK, at % BLOCK);
        let (out, behind) = rest.split_at_mut((BLOCK - skipped).min(rest.len()));
        at += out.len();
        prefetch_second_level(weights.blocks.as_ptr().wrapping_add(number + AHEAD).cast(), BLOCK_BYTES);
        match out.as_chunks_mut().0.first_chunk_mut() {
            Some(whole) => widen_block::<V>(weights.block(number), whole),
            None => {
                let mut block = [[0.0; LANES]; GROUPS];
                widen_block::<V>(weights.block(number), &mut block);
                out.copy_from_slice(&block.as_flattened()[skipped..][..out.len()]);
            }
        }
        rest = behind;
    }
}

#[inline(always)]
fn widen_block<V: Vectors>(block: Block<'_>, out: &mut [[f32; LANES]; GROUPS]) {
    match block {
        Block::Coded(block, exponents) => {
            let parts: &[[u8; HALF]] = block.as_chunks().0;
            for (half, out) in out.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
                let wide = V::coded_bf16(&parts[half], &parts[2], half > 0, exponents);
                for (out, wide) in out.iter_mut().zip(wide) {
                    *out = V::store(wide);
                }
            }
        }
        Block::Whole(numbers) => {
            for (out, group) in out.iter_mut().zip(numbers.as_chunks().0) {
                *out = V::store(V::bf16(group));
            }
        }
    }
}
