//! The eight rows in 256-bit vectors of AVX2, with FMA and F16C.
//!
//! Products of bytes: `vpmaddubsw` multiplies unsigned with signed bytes and adds pairs to i16, `vpmaddwd` with
//! ones adds those to 32 bits; as many of the former are added first as an i16 surely holds. With VNNI one
//! instruction, `vpdpbusd`, does all that.

use std::arch::x86_64::*;

use super::activations::{BLOCK, Block};
use super::groups::Group;
use super::lanes::{Lanes, ROWS, TOKENS, Tile, in_tiles};
use super::wide;

/// Made only in functions compiled for AVX2, FMA and F16C, and AVX-512 VNNI and VL if so said.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool, const PANELS: bool>;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Avx2` is used only inside functions compiled for the features, on machines that have them; what
        // is loaded is a reference, or promised by the caller of an unsafe function.
        unsafe { $expression }
    }};
}

/// Four activations in every lane.
#[inline(always)]
fn four(x: &[i8; BLOCK], i: usize) -> __m256i {
    simd!(_mm256_set1_epi32(x.as_ptr().cast::<i32>().add(i).read_unaligned()))
}

/// Codes as unsigned bytes, and x with their sign; `BITS` as in [`Lanes::dot`].
#[inline(always)]
fn unsigned<const BITS: u32>(codes: __m256i, x: __m256i) -> (__m256i, __m256i) {
    match BITS {
        8 => simd!((_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))),
        _ => (codes, x),
    }
}

/// Pairs of products as i16: even `128 * 127 * 2` is below 2^15.
#[inline(always)]
fn pairs<const BITS: u32>(codes: __m256i, x: __m256i) -> __m256i {
    let (codes, x) = unsigned::<BITS>(codes, x);
    simd!(_mm256_maddubs_epi16(codes, x))
}

/// Codes from `first` to before `last` with x. Signed ones, which are all or none of a block, are made unsigned by 128
/// more, and the sums begin with 128 times the activations less.
#[inline(always)]
fn dot_vnni<const BITS: u32>(codes: &[__m256i; 8], x: &Block, (first, last): (usize, usize)) -> __m256i {
    let mut sum = first_sum_vnni::<BITS>(x);
    for i in first..last {
        sum = simd!(_mm256_dpbusd_epi32(sum, unsigned_vnni::<BITS>(codes[i]), four(&x.codes, i)));
    }
    sum
}

#[inline(always)]
fn unsigned_vnni<const BITS: u32>(codes: __m256i) -> __m256i {
    match BITS {
        8 => simd!(_mm256_xor_si256(codes, _mm256_set1_epi8(-128))),
        _ => codes,
    }
}

#[inline(always)]
fn first_sum_vnni<const BITS: u32>(x: &Block) -> __m256i {
    match BITS {
        8 => simd!(_mm256_set1_epi32(-128 * (i32::from(x.sums[0]) + i32::from(x.sums[1])))),
        _ => simd!(_mm256_setzero_si256()),
    }
}

/// Codes from `first` to before `last` with x, each pair of i16 products times a factor.
#[inline(always)]
fn dot<const BITS: u32>(
    codes: &[__m256i; 8],
    x: &[i8; BLOCK],
    (first, last): (usize, usize),
    factors: __m256i,
) -> __m256i {
    let together = most_in_i16(BITS).min(last - first);
    let mut sum = simd!(_mm256_setzero_si256());
    let mut i = first;
    while i < last {
        let mut small = pairs::<BITS>(codes[i], four(x, i));
        for j in i + 1..i + together {
            small = simd!(_mm256_add_epi16(small, pairs::<BITS>(codes[j], four(x, j))));
        }
        let wide = simd!(_mm256_madd_epi16(small, factors));
        sum = if i == first { wide } else { simd!(_mm256_add_epi32(sum, wide)) };
        i += together;
    }
    sum
}

/// [`dot`] of two groups with four tokens.
#[inline(always)]
fn tile<const BITS: u32>(
    codes: [&[__m256i; 8]; 2],
    x: [&Block; TOKENS],
    (first, last): (usize, usize),
    factors: [__m256i; 2],
) -> [[__m256i; 2]; TOKENS] {
    let together = most_in_i16(BITS).min(last - first);
    let zero = simd!(_mm256_setzero_si256());
    let mut sums = [[zero; 2]; TOKENS];
    let mut i = first;
    while i < last {
        let mut small = [[zero; 2]; TOKENS];
        unrolled!(STEP in 0, 1, 2, 3, 4, 5, 6, 7 => {
            if STEP < together {
                let i = i + STEP;
                add_pairs::<BITS>(&mut small, [codes[0][i], codes[1][i]], x, i);
            }
        });
        for (sums, small) in sums.iter_mut().zip(small) {
            for ((sum, small), factors) in sums.iter_mut().zip(small).zip(factors) {
                *sum = simd!(_mm256_add_epi32(*sum, _mm256_madd_epi16(small, factors)));
            }
        }
        i += together;
    }
    sums
}

/// Adds the products of four columns to the sums of a tile.
#[inline(always)]
fn add_pairs<const BITS: u32>(
    sums: &mut [[__m256i; 2]; TOKENS],
    codes: [__m256i; 2],
    x: [&Block; TOKENS],
    i: usize,
) {
    for (sums, x) in sums.iter_mut().zip(x) {
        let x = four(&x.codes, i);
        for (sum, codes) in sums.iter_mut().zip(codes) {
            *sum = simd!(in_register(_mm256_add_epi16(*sum, pairs::<BITS>(codes, x))));
        }
    }
}

/// The same number; nothing that leads to it is done later, nor in another order. Without it, sums of a tile are made into
/// trees for which there are not registers enough.
#[inline]
#[target_feature(enable = "avx2")]
fn in_register(mut sum: __m256i) -> __m256i {
    // SAFETY: no instruction, only a place in a register.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) sum, options(nomem, nostack, preserves_flags));
    }
    sum
}

impl<const VNNI: bool, const PANELS: bool> Lanes for Avx2<VNNI, PANELS> {
    const PANELS: bool = PANELS;
    type Int = __m256i;
    type Float = __m256;

    /// Rows 0-3 go to the lower halves, rows 4-7 to the upper; two rounds of unpacking transpose 4x4.
    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_16(rows: &[*const u8; ROWS], at: usize) -> [__m256i; 4] {
        if PANELS {
            return simd!([panel(rows, at), panel(rows, at + 4), panel(rows, at + 8), panel(rows, at + 12)]);
        }
        simd!({
            let (a, b) = (two_rows(rows, 0, at), two_rows(rows, 1, at));
            let (c, d) = (two_rows(rows, 2, at), two_rows(rows, 3, at));
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        })
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_4(rows: &[*const u8; ROWS], at: usize) -> __m256i {
        if PANELS {
            return simd!(panel(rows, at));
        }
        let mut numbers = [0; ROWS];
        for (number, row) in numbers.iter_mut().zip(rows) {
            *number = simd!(row.add(at).cast::<i32>().read_unaligned());
        }
        let [a, b, c, d, e, f, g, h] = numbers;
        simd!(_mm256_setr_epi32(a, b, c, d, e, f, g, h))
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_2(rows: &[*const u8; ROWS], at: usize) -> __m256i {
        simd!(_mm256_cvtepu16_epi32(words::<PANELS>(rows, at)))
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_f16(rows: &[*const u8; ROWS], at: usize) -> __m256 {
        simd!(_mm256_cvtph_ps(words::<PANELS>(rows, at)))
    }

    #[inline(always)]
    fn zero() -> __m256 {
        simd!(_mm256_setzero_ps())
    }

    #[inline(always)]
    fn splat(bits: u32) -> __m256i {
        simd!(_mm256_set1_epi32(bits as i32))
    }

    #[inline(always)]
    fn and(a: __m256i, b: __m256i) -> __m256i {
        simd!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(a: __m256i, b: __m256i) -> __m256i {
        simd!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shift_left(a: __m256i, bits: u32) -> __m256i {
        simd!(_mm256_sll_epi32(a, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn shift_right(a: __m256i, bits: u32) -> __m256i {
        simd!(_mm256_srl_epi32(a, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn subtract_bytes(a: __m256i, b: __m256i) -> __m256i {
        simd!(_mm256_sub_epi8(a, b))
    }

    #[inline(always)]
    fn subtract(a: __m256i, b: __m256i) -> __m256i {
        simd!(_mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn look_up(table: &[i8; 16], codes: __m256i) -> __m256i {
        simd!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, codes)
        })
    }

    #[inline(always)]
    fn fifth_bits(bits: __m256i, first: u32) -> __m256i {
        simd!({
            // The byte that has the four bits four times, then one bit of each.
            let byte = (first / 8) as i32 * 0x0101_0101;
            let place = _mm256_setr_epi32(
                0,
                0x0404_0404,
                0x0808_0808,
                0x0c0c_0c0c,
                0,
                0x0404_0404,
                0x0808_0808,
                0x0c0c_0c0c,
            );
            let four = _mm256_shuffle_epi8(bits, _mm256_add_epi32(place, _mm256_set1_epi32(byte)));
            let mask =
                _mm256_set1_epi32(if first.is_multiple_of(8) { 0x0804_0201 } else { 0x8040_2010_u32 as i32 });
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(four, mask), mask);
            _mm256_and_si256(set, _mm256_set1_epi8(16))
        })
    }

    #[inline(always)]
    fn two_i16(bytes: __m256i, places: [u32; 2], shift: u32) -> __m256i {
        simd!({
            // Each byte to the top of its i16 (0x80: zero below), then down with its sign.
            let places = (places[0] << 8 | places[1] << 24 | 0x0080_0080) as i32;
            let lane = _mm256_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12);
            let lane = _mm256_or_si256(_mm256_slli_epi32::<8>(lane), _mm256_slli_epi32::<24>(lane));
            let top = _mm256_shuffle_epi8(bytes, _mm256_or_si256(lane, _mm256_set1_epi32(places)));
            _mm256_sra_epi16(top, _mm_cvtsi32_si128(8 - shift as i32))
        })
    }

    #[inline(always)]
    fn to_float(a: __m256i) -> __m256 {
        simd!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn f16_to_float(a: __m256i) -> __m256 {
        simd!({
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(a, a));
            _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
        })
    }

    #[inline(always)]
    fn bits_to_float(a: __m256i) -> __m256 {
        simd!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn floats(numbers: [f32; ROWS]) -> __m256 {
        simd!(_mm256_loadu_ps(numbers.as_ptr()))
    }

    #[inline(always)]
    fn multiply(a: __m256, b: __m256) -> __m256 {
        simd!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(a: __m256, b: f32, c: __m256) -> __m256 {
        simd!(_mm256_fmadd_ps(a, _mm256_set1_ps(b), c))
    }

    #[inline(always)]
    fn fma_scaled(a: __m256i, b: __m256, x: f32, c: __m256) -> __m256 {
        simd!(_mm256_fmadd_ps(_mm256_cvtepi32_ps(a), _mm256_mul_ps(b, _mm256_set1_ps(x)), c))
    }

    #[inline(always)]
    fn store(a: __m256) -> [f32; ROWS] {
        let mut out = [0.0; ROWS];
        simd!(_mm256_storeu_ps(out.as_mut_ptr(), a));
        out
    }

    #[inline(always)]
    fn dot<const BITS: u32>(codes: &[__m256i; 8], x: &Block) -> __m256i {
        if VNNI {
            return dot_vnni::<BITS>(codes, x, (0, 8));
        }
        dot::<BITS>(codes, &x.codes, (0, 8), simd!(_mm256_set1_epi16(1)))
    }

    #[inline(always)]
    fn dot_scaled<const BITS: u32>(codes: &[__m256i; 8], x: &Block, scales: &[__m256i; 2]) -> __m256i {
        if VNNI {
            let (first, second) = (dot_vnni::<BITS>(codes, x, (0, 4)), dot_vnni::<BITS>(codes, x, (4, 8)));
            return simd!(_mm256_add_epi32(
                _mm256_mullo_epi32(first, _mm256_srai_epi32::<16>(scales[0])),
                _mm256_mullo_epi32(second, _mm256_srai_epi32::<16>(scales[1])),
            ));
        }
        let (first, second) = (
            dot::<BITS>(codes, &x.codes, (0, 4), scales[0]),
            dot::<BITS>(codes, &x.codes, (4, 8), scales[1]),
        );
        simd!(_mm256_add_epi32(first, second))
    }

    // Without VNNI codes of more bits are widened so often that sums do not stay in registers (LOG.md).
    const MOST_TILE_BITS: u32 = if VNNI { 8 } else { 5 };

    #[inline(always)]
    fn dots<const BITS: u32>(codes: [&[__m256i; 8]; 2], x: [&Block; TOKENS]) -> Tile<Self> {
        let ones = simd!(_mm256_set1_epi16(1));
        tile::<BITS>(codes, x, (0, 8), [ones; 2])
    }

    #[inline(always)]
    fn dots_scaled<const BITS: u32>(
        codes: [&[__m256i; 8]; 2],
        x: [&Block; TOKENS],
        [a, b]: [&[__m256i; 2]; 2],
    ) -> Tile<Self> {
        let mut sums = tile::<BITS>(codes, x, (0, 4), [a[0], b[0]]);
        for (sums, more) in sums.iter_mut().zip(tile::<BITS>(codes, x, (4, 8), [a[1], b[1]])) {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = simd!(_mm256_add_epi32(*sum, more));
            }
        }
        sums
    }

    #[inline(always)]
    fn add_products<G: Group<Self>>(groups: [&G; 2], x: &[Block], sums: &mut [[__m256; 2]]) {
        let [a, b] = groups;
        match (a.linear(), b.linear(), a.scaled_halves(), b.scaled_halves()) {
            (Some(a), Some(b), ..) if VNNI => wide::add_all(&wide::Pair::new(G::BITS, [a, b]), x, sums),
            (.., Some(a), Some(b)) if VNNI => wide::add_all(&wide::PairOfHalves::new([a, b]), x, sums),
            _ => in_tiles(groups, x, sums),
        }
    }

    #[inline(always)]
    fn dot_sums(factors: __m256i, x: &Block) -> __m256i {
        simd!(_mm256_madd_epi16(factors, _mm256_set1_epi32(x.sums.as_ptr().cast::<i32>().read_unaligned())))
    }
}

/// 4 bytes of each row of a panel.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn panel(rows: &[*const u8; ROWS], at: usize) -> __m256i {
    simd!(_mm256_loadu_si256(rows[0].add(ROWS * at).cast()))
}

/// 16 bytes of row `r` and of row `r + 4`.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn two_rows(rows: &[*const u8; ROWS], r: usize, at: usize) -> __m256i {
    simd!({
        let low = _mm_loadu_si128(rows[r].add(at).cast());
        let high = _mm_loadu_si128(rows[r + 4].add(at).cast());
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
    })
}

/// An i16 of each row.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn words<const PANELS: bool>(rows: &[*const u8; ROWS], at: usize) -> __m128i {
    if PANELS {
        return simd!(_mm_loadu_si128(rows[0].add(ROWS * at).cast()));
    }
    let mut numbers = [0; ROWS];
    for (number, row) in numbers.iter_mut().zip(rows) {
        *number = simd!(row.add(at).cast::<i16>().read_unaligned());
    }
    let [a, b, c, d, e, f, g, h] = numbers;
    simd!(_mm_setr_epi16(a, b, c, d, e, f, g, h))
}

/// How many products `code * x + code * x` of codes with `BITS` bits an i16 surely holds, as a power of two.
const fn most_in_i16(bits: u32) -> usize {
    match bits {
        0..=4 => 8, // 8 * 2 * 15 * 127 = 30,480
        5 => 4,
        6 => 2,
        _ => 1,
    }
}
