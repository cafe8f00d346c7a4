//! 32 numbers in a 512-bit vector of AVX-512 with VNNI: `vpdpwssd` multiplies pairs and adds their products to 32-bit sums. There
//! are 32 registers, so that four keys or two groups of values have their sums in them together.

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Avx512` is used only inside functions compiled for the features, on machines that have them; what
        // is loaded is a reference, within what has been asserted or the caller of an unsafe function has promised.
        unsafe { $expression }
    }};
}

mod weights;

use std::arch::x86_64::*;

use super::{GROUP, Group, Keys, PER_LINE, Products, Queries, TILE, Tile};
use crate::attention::tile::Partial;

/// Made only in functions compiled for AVX-512 F, BW, DQ, VL and VNNI.
pub(super) struct Avx512;

impl Products for Avx512 {
    const WIDE: bool = true;

    #[inline(always)]
    fn dots<const Q: usize, const K: usize>(queries: [&[Group]; Q], rows: [&[Group]; K]) -> [[i32; K]; Q] {
        let groups = queries[0].len();
        assert!(queries.iter().all(|query| query.len() == groups), "queries of {groups} groups");
        assert!(rows.iter().all(|row| row.len() == groups), "rows of {groups} groups");
        let mut sums = [[simd!(_mm512_setzero_si512()); K]; Q];
        let whole = groups / PER_LINE * PER_LINE;
        for group in (0..whole).step_by(PER_LINE) {
            add_products(&mut sums, |q| simd!(two(queries[q], group)), |k| simd!(two(rows[k], group)));
        }
        if whole < groups {
            add_products(&mut sums, |q| simd!(one(queries[q], whole)), |k| simd!(one(rows[k], whole)));
        }
        // Loops, as what `map` calls may be compiled for any machine.
        let mut totals = [[0; K]; Q];
        for q in 0..Q {
            match (sums[q].first_chunk(), totals[q].first_chunk_mut()) {
                (Some(four), Some(totals)) => *totals = totals_of_four(*four),
                _ => {
                    for k in 0..K {
                        totals[q][k] = simd!(_mm512_reduce_add_epi32(sums[q][k]));
                    }
                }
            }
        }
        totals
    }

    /// Of two rows the numbers of each column become neighbours, as their weights are.
    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn columns<const Q: usize, const G: usize>(
        rows: &[&[Group]],
        group: usize,
        weights: &[[i16; TILE]; Q],
    ) -> [[[i32; GROUP]; G]; Q] {
        let mut sums = [[simd!(_mm512_setzero_si512()); 2]; Q];
        for pair in 0..rows.len().min(TILE) / 2 {
            let a = simd!(groups::<G>(rows.get_unchecked(2 * pair), group));
            let b = simd!(groups::<G>(rows.get_unchecked(2 * pair + 1), group));
            let numbers = simd!([_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)]);
            for q in 0..Q {
                let weights = simd!(weights[q].as_ptr().add(2 * pair).cast::<i32>().read_unaligned());
                let weights = simd!(_mm512_set1_epi32(weights));
                for half in 0..2 {
                    sums[q][half] = simd!(_mm512_dpwssd_epi32(sums[q][half], numbers[half], weights));
                }
            }
        }
        let mut columns = [[[0; GROUP]; G]; Q];
        for q in 0..Q {
            let in_order = in_order(sums[q]);
            columns[q].copy_from_slice(&in_order[..G]);
        }
        columns
    }

    #[inline(always)]
    fn weigh(tile: &mut Tile, keys: &Keys<'_>, queries: &Queries, scale: f32, partial: &mut Partial<'_>) {
        match keys.count {
            TILE => weights::weigh(tile, keys, queries, scale, partial),
            _ => tile.weigh(keys, queries, scale, partial),
        }
    }
}

/// `sums[q][k] += query(q) row(k)`.
#[inline(always)]
fn add_products<const Q: usize, const K: usize>(
    sums: &mut [[__m512i; K]; Q],
    query: impl Fn(usize) -> __m512i,
    row: impl Fn(usize) -> __m512i,
) {
    let mut keys = [simd!(_mm512_setzero_si512()); K];
    for k in 0..K {
        keys[k] = row(k);
    }
    for q in 0..Q {
        let query = query(q);
        for k in 0..K {
            sums[q][k] = simd!(_mm512_dpwssd_epi32(sums[q][k], query, keys[k]));
        }
    }
}

/// `G` groups of a row, one or two.
///
/// # Safety
///
/// The row has them; AVX-512 F.
#[inline(always)]
unsafe fn groups<const G: usize>(row: &[Group], group: usize) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe { if G == PER_LINE { two(row, group) } else { one(row, group) } }
}

/// A group and the next.
///
/// # Safety
///
/// The row has both; AVX-512 F.
#[inline(always)]
unsafe fn two(row: &[Group], group: usize) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe { _mm512_loadu_si512(row.as_ptr().add(group).cast()) }
}

/// A group and zeros.
///
/// # Safety
///
/// The row has the group; AVX-512 F.
#[inline(always)]
unsafe fn one(row: &[Group], group: usize) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe { _mm512_zextsi256_si512(_mm256_loadu_si256(row.as_ptr().add(group).cast())) }
}

/// The sums of 16 numbers each.
#[inline(always)]
fn totals_of_four([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    let mut totals = [0; 4];
    simd!({
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
        let total = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        _mm_storeu_si128(totals.as_mut_ptr().cast(), total);
    });
    totals
}

/// Two groups of columns: unpacking has left the first four of every eight in one vector, the others in the other.
#[inline(always)]
fn in_order([low, high]: [__m512i; 2]) -> [[i32; GROUP]; PER_LINE] {
    let mut numbers = [[0; GROUP]; PER_LINE];
    simd!({
        let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        _mm512_storeu_si512(numbers[0].as_mut_ptr().cast(), _mm512_permutex2var_epi64(low, first, high));
        _mm512_storeu_si512(numbers[1].as_mut_ptr().cast(), _mm512_permutex2var_epi64(low, second, high));
    });
    numbers
}
