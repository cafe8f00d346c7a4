//! 16 numbers in a 256-bit vector of AVX2: `vpmaddwd` multiplies pairs and adds their products to 32 bits.

use std::arch::x86_64::*;

use super::{GROUP, Group, Products, TILE};

/// Made only in functions compiled for AVX2.
pub(super) struct Avx2;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Avx2` is used only inside functions compiled for the features, on machines that have them; what
        // is loaded is a reference, within what has been asserted or the caller of an unsafe function has promised.
        unsafe { $expression }
    }};
}

impl Products for Avx2 {
    #[inline(always)]
    fn dots<const Q: usize, const K: usize>(queries: [&[Group]; Q], rows: [&[Group]; K]) -> [[i32; K]; Q] {
        let groups = queries[0].len();
        assert!(queries.iter().all(|query| query.len() == groups), "queries of {groups} groups");
        assert!(rows.iter().all(|row| row.len() == groups), "rows of {groups} groups");
        let mut sums = [[zero(); K]; Q];
        for group in 0..groups {
            let mut keys = [zero(); K];
            for k in 0..K {
                keys[k] = simd!(load(rows[k].get_unchecked(group)));
            }
            for q in 0..Q {
                let query = simd!(load(queries[q].get_unchecked(group)));
                for k in 0..K {
                    sums[q][k] = multiply_add(query, keys[k], sums[q][k]);
                }
            }
        }
        // Loops, as what `map` calls may be compiled for any machine.
        let mut totals = [[0; K]; Q];
        for q in 0..Q {
            for k in (0..K).step_by(2) {
                let two = totals_of_two(sums[q][k], sums[q][(k + 1).min(K - 1)]);
                for (total, of_key) in totals[q][k..].iter_mut().zip(two) {
                    *total = of_key;
                }
            }
        }
        totals
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn columns<const Q: usize, const G: usize>(
        rows: &[&[Group]],
        group: usize,
        weights: &[[i16; TILE]; Q],
    ) -> [[[i32; GROUP]; G]; Q] {
        let mut columns = [[[0; GROUP]; G]; Q];
        for g in 0..G {
            // SAFETY: each row has `G` groups from this one on.
            let sums = unsafe { columns_of_group(rows, group + g, weights) };
            for q in 0..Q {
                columns[q][g] = in_order(sums[q]);
            }
        }
        columns
    }
}

/// Of two rows the numbers of each column become neighbours, as their weights are.
///
/// # Safety
///
/// Each row has the group; AVX2.
#[inline(always)]
unsafe fn columns_of_group<const Q: usize>(
    rows: &[&[Group]],
    group: usize,
    weights: &[[i16; TILE]; Q],
) -> [[__m256i; 2]; Q] {
    let mut sums = [[zero(); 2]; Q];
    for pair in 0..rows.len().min(TILE) / 2 {
        let a = simd!(load(rows.get_unchecked(2 * pair).get_unchecked(group)));
        let b = simd!(load(rows.get_unchecked(2 * pair + 1).get_unchecked(group)));
        let numbers = simd!([_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]);
        for q in 0..Q {
            let weights = simd!(weights[q].as_ptr().add(2 * pair).cast::<i32>().read_unaligned());
            let weights = simd!(_mm256_set1_epi32(weights));
            for half in 0..2 {
                sums[q][half] = multiply_add(numbers[half], weights, sums[q][half]);
            }
        }
    }
    sums
}

#[inline(always)]
fn zero() -> __m256i {
    simd!(_mm256_setzero_si256())
}

#[inline(always)]
fn load(group: &Group) -> __m256i {
    simd!(_mm256_loadu_si256(group.as_ptr().cast()))
}

/// `sum + a b`, pairs of products in every lane.
#[inline(always)]
fn multiply_add(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
    simd!(_mm256_add_epi32(sum, _mm256_madd_epi16(a, b)))
}

/// The sums of eight numbers each.
#[inline(always)]
fn totals_of_two(a: __m256i, b: __m256i) -> [i32; 2] {
    simd!({
        let pairs = _mm256_hadd_epi32(a, b);
        let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let two = _mm_hadd_epi32(four, four);
        [_mm_cvtsi128_si32(two), _mm_extract_epi32::<1>(two)]
    })
}

/// Columns 0 to 3 and 8 to 11, and 4 to 7 and 12 to 15, as unpacking has left them.
#[inline(always)]
fn in_order([low, high]: [__m256i; 2]) -> [i32; GROUP] {
    let mut numbers = [0; GROUP];
    simd!({
        let out = numbers.as_mut_ptr().cast::<__m256i>();
        _mm256_storeu_si256(out, _mm256_permute2x128_si256::<0x20>(low, high));
        _mm256_storeu_si256(out.add(1), _mm256_permute2x128_si256::<0x31>(low, high));
    });
    numbers
}
