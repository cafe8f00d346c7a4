//! The eight rows in two 128-bit vectors of NEON, rows 0 to 3 and rows 4 to 7.
//!
//! Products of bytes: `sdot` multiplies four signed bytes of each row with four activations and adds them to 32 bits.
//! Without the extension (ARMv8.2 `dotprod`), `smull` makes i16 and pairs of them are added; two products of
//! `-128 * 127` are just above -2^15. Codes of up to six bits are signed bytes as well. The matrix products of `i8mm` are of no
//! use here: they want eight columns of a row side by side. Names are those of Arm's *Neon Intrinsics Reference*.

use std::arch::aarch64::*;
use std::arch::asm;

use super::activations::{BLOCK, Block};
use super::lanes::{Lanes, ROWS};
use crate::neon::f16_bits_to_f32;

/// Made only in functions compiled for NEON, and on machines with `dotprod` if so said.
#[derive(Clone, Copy)]
pub(super) struct Neon<const DOTPROD: bool, const PANELS: bool>;

/// 32 bits of each row.
type Ints = [uint32x4_t; 2];

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Neon` is used only inside functions compiled for the features, on machines that have them; what
        // is loaded is a reference, or promised by the caller of an unsafe function.
        unsafe { $expression }
    }};
}

/// Calls for rows 0 to 3 and rows 4 to 7.
macro_rules! both {
    (|$half:ident| $expression:expr) => {{
        let [low, high] = [0, 1];
        simd!([
            {
                let $half = low;
                $expression
            },
            {
                let $half = high;
                $expression
            }
        ])
    }};
}

/// `Σ code * x` of 16 codes, four of each row, added to `sum`; `x` are the four activations, four times.
#[inline(always)]
fn dot_4<const DOTPROD: bool>(mut sum: int32x4_t, codes: uint32x4_t, x: int8x16_t) -> int32x4_t {
    let codes = simd!(vreinterpretq_s8_u32(codes));
    if DOTPROD {
        // SAFETY: registers alone; `DOTPROD` is said only where the machine has the extension. The intrinsic
        // (`vdotq_s32`) is not stable yet.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        return sum;
    }
    simd!({
        let low = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
        let high = vmull_high_s8(codes, x);
        vpadalq_s16(sum, vpaddq_s16(low, high))
    })
}

/// Codes from `first` to before `last` with x.
#[inline(always)]
fn dot<const DOTPROD: bool>(
    codes: &[Ints; 8],
    x: &[i8; BLOCK],
    (first, last): (usize, usize),
) -> [int32x4_t; 2] {
    let mut sums = simd!([vdupq_n_s32(0), vdupq_n_s32(0)]);
    for i in first..last {
        let x = simd!(vreinterpretq_s8_s32(vld1q_dup_s32(x.as_ptr().cast::<i32>().add(i))));
        sums = [dot_4::<DOTPROD>(sums[0], codes[i][0], x), dot_4::<DOTPROD>(sums[1], codes[i][1], x)];
    }
    sums
}

impl<const DOTPROD: bool, const PANELS: bool> Lanes for Neon<DOTPROD, PANELS> {
    const PANELS: bool = PANELS;
    type Int = Ints;
    type Float = [float32x4_t; 2];

    /// Two rounds of interleaving transpose 4x4.
    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_16(rows: &[*const u8; ROWS], at: usize) -> [Ints; 4] {
        if PANELS {
            return simd!([panel(rows, at), panel(rows, at + 4), panel(rows, at + 8), panel(rows, at + 12)]);
        }
        let [low, high] = simd!([four_rows(&rows[..4], at), four_rows(&rows[4..], at)]);
        std::array::from_fn(|i| [low[i], high[i]])
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_4(rows: &[*const u8; ROWS], at: usize) -> Ints {
        if PANELS {
            return simd!(panel(rows, at));
        }
        let numbers = rows.map(|row| simd!(row.add(at).cast::<u32>().read_unaligned()));
        both!(|half| vld1q_u32(numbers[4 * half..].as_ptr()))
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_2(rows: &[*const u8; ROWS], at: usize) -> Ints {
        simd!({
            let words = words::<PANELS>(rows, at);
            [vmovl_u16(vget_low_u16(words)), vmovl_high_u16(words)]
        })
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_f16(rows: &[*const u8; ROWS], at: usize) -> [float32x4_t; 2] {
        // SAFETY: by the caller's promise.
        let bits = unsafe { Self::load_2(rows, at) };
        both!(|half| f16_bits_to_f32(bits[half]))
    }

    #[inline(always)]
    fn zero() -> [float32x4_t; 2] {
        both!(|_half| vdupq_n_f32(0.0))
    }

    #[inline(always)]
    fn splat(bits: u32) -> Ints {
        both!(|_half| vdupq_n_u32(bits))
    }

    #[inline(always)]
    fn and(a: Ints, b: Ints) -> Ints {
        both!(|half| vandq_u32(a[half], b[half]))
    }

    #[inline(always)]
    fn or(a: Ints, b: Ints) -> Ints {
        both!(|half| vorrq_u32(a[half], b[half]))
    }

    #[inline(always)]
    fn shift_left(a: Ints, bits: u32) -> Ints {
        both!(|half| vshlq_u32(a[half], vdupq_n_s32(bits as i32)))
    }

    /// To the left by less than nothing is to the right.
    #[inline(always)]
    fn shift_right(a: Ints, bits: u32) -> Ints {
        both!(|half| vshlq_u32(a[half], vdupq_n_s32(-(bits as i32))))
    }

    #[inline(always)]
    fn subtract_bytes(a: Ints, b: Ints) -> Ints {
        both!(|half| vreinterpretq_u32_u8(vsubq_u8(
            vreinterpretq_u8_u32(a[half]),
            vreinterpretq_u8_u32(b[half])
        )))
    }

    #[inline(always)]
    fn subtract(a: Ints, b: Ints) -> Ints {
        both!(|half| vsubq_u32(a[half], b[half]))
    }

    #[inline(always)]
    fn look_up(table: &[i8; 16], codes: Ints) -> Ints {
        both!(|half| vreinterpretq_u32_s8(vqtbl1q_s8(
            vld1q_s8(table.as_ptr()),
            vandq_u8(vreinterpretq_u8_u32(codes[half]), vdupq_n_u8(15))
        )))
    }

    #[inline(always)]
    fn fifth_bits(bits: Ints, first: u32) -> Ints {
        /// The byte of each row, four times.
        const PLACES: [u8; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12];
        let mask = if first.is_multiple_of(8) { 0x0804_0201 } else { 0x8040_2010 };
        both!(|half| {
            let place = vaddq_u8(vld1q_u8(PLACES.as_ptr()), vdupq_n_u8((first / 8) as u8));
            let four = vqtbl1q_u8(vreinterpretq_u8_u32(bits[half]), place);
            let set = vtstq_u8(four, vreinterpretq_u8_u32(vdupq_n_u32(mask)));
            vreinterpretq_u32_u8(vandq_u8(set, vdupq_n_u8(16)))
        })
    }

    /// Each byte to the top of its i16 (a place outside the table: zero below), then down with its sign.
    #[inline(always)]
    fn two_i16(bytes: Ints, places: [u32; 2], shift: u32) -> Ints {
        const LANES: [u32; 4] = [0, 0x0400_0400, 0x0800_0800, 0x0c00_0c00];
        both!(|half| {
            let places = vdupq_n_u32(places[0] << 8 | places[1] << 24 | 0x00ff_00ff);
            let places = vreinterpretq_u8_u32(vaddq_u32(vld1q_u32(LANES.as_ptr()), places));
            let top = vqtbl1q_u8(vreinterpretq_u8_u32(bytes[half]), places);
            vreinterpretq_u32_s16(vshlq_s16(vreinterpretq_s16_u8(top), vdupq_n_s16(shift as i16 - 8)))
        })
    }

    #[inline(always)]
    fn to_float(a: Ints) -> [float32x4_t; 2] {
        both!(|half| vcvtq_f32_s32(vreinterpretq_s32_u32(a[half])))
    }

    #[inline(always)]
    fn f16_to_float(a: Ints) -> [float32x4_t; 2] {
        both!(|half| f16_bits_to_f32(vandq_u32(a[half], vdupq_n_u32(0xffff))))
    }

    #[inline(always)]
    fn bits_to_float(a: Ints) -> [float32x4_t; 2] {
        both!(|half| vreinterpretq_f32_u32(a[half]))
    }

    #[inline(always)]
    fn floats(numbers: [f32; ROWS]) -> [float32x4_t; 2] {
        both!(|half| vld1q_f32(numbers[4 * half..].as_ptr()))
    }

    #[inline(always)]
    fn multiply(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] {
        both!(|half| vmulq_f32(a[half], b[half]))
    }

    #[inline(always)]
    fn fma(a: [float32x4_t; 2], b: f32, c: [float32x4_t; 2]) -> [float32x4_t; 2] {
        both!(|half| vfmaq_n_f32(c[half], a[half], b))
    }

    #[inline(always)]
    fn fma_scaled(a: Ints, b: [float32x4_t; 2], x: f32, c: [float32x4_t; 2]) -> [float32x4_t; 2] {
        let a = Self::to_float(a);
        both!(|half| vfmaq_f32(c[half], a[half], vmulq_n_f32(b[half], x)))
    }

    #[inline(always)]
    fn store(a: [float32x4_t; 2]) -> [f32; ROWS] {
        let mut out = [0.0; ROWS];
        for (out, half) in out.chunks_exact_mut(4).zip(a) {
            simd!(vst1q_f32(out.as_mut_ptr(), half));
        }
        out
    }

    #[inline(always)]
    fn dot<const BITS: u32>(codes: &[Ints; 8], x: &Block) -> Ints {
        let sums = dot::<DOTPROD>(codes, &x.codes, (0, 8));
        both!(|half| vreinterpretq_u32_s32(sums[half]))
    }

    #[inline(always)]
    fn dot_scaled<const BITS: u32>(codes: &[Ints; 8], x: &Block, scales: &[Ints; 2]) -> Ints {
        let (first, second) =
            (dot::<DOTPROD>(codes, &x.codes, (0, 4)), dot::<DOTPROD>(codes, &x.codes, (4, 8)));
        both!(|half| {
            let scale = |scales: &Ints| vshrq_n_s32::<16>(vreinterpretq_s32_u32(scales[half]));
            let sum = vmulq_s32(first[half], scale(&scales[0]));
            vreinterpretq_u32_s32(vmlaq_s32(sum, second[half], scale(&scales[1])))
        })
    }

    #[inline(always)]
    fn dot_sums(factors: Ints, x: &Block) -> Ints {
        let [first, second] = x.sums.map(i32::from);
        both!(|half| {
            let factors = vreinterpretq_s32_u32(factors[half]);
            let sum = vmulq_n_s32(vshrq_n_s32::<16>(vshlq_n_s32::<16>(factors)), first);
            vreinterpretq_u32_s32(vmlaq_n_s32(sum, vshrq_n_s32::<16>(factors), second))
        })
    }
}

/// 4 bytes of each row of a panel.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn panel(rows: &[*const u8; ROWS], at: usize) -> Ints {
    simd!({
        let start = rows[0].add(ROWS * at);
        [vreinterpretq_u32_u8(vld1q_u8(start)), vreinterpretq_u32_u8(vld1q_u8(start.add(16)))]
    })
}

/// 16 bytes of four rows: four times 32 bits of each.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn four_rows(rows: &[*const u8], at: usize) -> [uint32x4_t; 4] {
    simd!({
        let row = |r: usize| vreinterpretq_u32_u8(vld1q_u8(rows[r].add(at)));
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let pair = |a, b| {
            let (even, odd) = (vtrn1q_u32(a, b), vtrn2q_u32(a, b));
            (vreinterpretq_u64_u32(even), vreinterpretq_u64_u32(odd))
        };
        let ((ab_even, ab_odd), (cd_even, cd_odd)) = (pair(a, b), pair(c, d));
        [
            vreinterpretq_u32_u64(vtrn1q_u64(ab_even, cd_even)),
            vreinterpretq_u32_u64(vtrn1q_u64(ab_odd, cd_odd)),
            vreinterpretq_u32_u64(vtrn2q_u64(ab_even, cd_even)),
            vreinterpretq_u32_u64(vtrn2q_u64(ab_odd, cd_odd)),
        ]
    })
}

/// 16 bits of each row.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn words<const PANELS: bool>(rows: &[*const u8; ROWS], at: usize) -> uint16x8_t {
    if PANELS {
        return simd!(vreinterpretq_u16_u8(vld1q_u8(rows[0].add(ROWS * at))));
    }
    let numbers = rows.map(|row| simd!(row.add(at).cast::<u16>().read_unaligned()));
    simd!(vld1q_u16(numbers.as_ptr()))
}
