//! The eight rows as arrays: what every machine runs, and the twin that the others are tested against. Its operations are
//! called, not copied into every format's unrolled unpacking, which would take long to compile.

use super::activations::{BLOCK, Block};
use super::lanes::{Lanes, ROWS};
use crate::dtype::f16_to_f32;

/// Plain arrays.
#[derive(Clone, Copy)]
pub(super) struct Scalar<const PANELS: bool>;

type Ints = [u32; ROWS];
type Floats = [f32; ROWS];

#[inline(always)]
fn each(a: Ints, b: Ints, f: impl Fn(u32, u32) -> u32) -> Ints {
    std::array::from_fn(|r| f(a[r], b[r]))
}

/// `N` bytes of each row; of a panel those of round `round`.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn bytes<const N: usize, const PANELS: bool>(
    rows: &[*const u8; ROWS],
    at: usize,
    round: usize,
) -> [[u8; N]; ROWS] {
    if PANELS {
        // SAFETY: by the caller's promise.
        return unsafe { rows[0].add(ROWS * (at + N * round)).cast::<[[u8; N]; ROWS]>().read_unaligned() };
    }
    let at = at + N * round;
    // SAFETY: by the caller's promise; bytes lie anywhere.
    rows.map(|row| unsafe { row.add(at).cast::<[u8; N]>().read_unaligned() })
}

/// The `i`-th of four codes, signed if they have all 8 bits.
fn code<const BITS: u32>(codes: u32, i: usize) -> i32 {
    let byte = codes.to_le_bytes()[i];
    if BITS == 8 { i32::from(byte as i8) } else { i32::from(byte) }
}

/// The two i16 of 32 bits.
fn halves(bits: u32) -> [i32; 2] {
    [i32::from(bits as i16), i32::from((bits >> 16) as i16)]
}

impl<const PANELS: bool> Lanes for Scalar<PANELS> {
    const PANELS: bool = PANELS;
    type Int = Ints;
    type Float = Floats;

    #[inline(never)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_16(rows: &[*const u8; ROWS], at: usize) -> [Ints; 4] {
        // SAFETY: by the caller's promise.
        std::array::from_fn(|round| unsafe { bytes::<4, PANELS>(rows, at, round) }.map(u32::from_le_bytes))
    }

    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_4(rows: &[*const u8; ROWS], at: usize) -> Ints {
        // SAFETY: by the caller's promise.
        unsafe { bytes::<4, PANELS>(rows, at, 0) }.map(u32::from_le_bytes)
    }

    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_2(rows: &[*const u8; ROWS], at: usize) -> Ints {
        // SAFETY: by the caller's promise.
        unsafe { bytes::<2, PANELS>(rows, at, 0) }.map(|bytes| u32::from(u16::from_le_bytes(bytes)))
    }

    #[inline(never)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn load_f16(rows: &[*const u8; ROWS], at: usize) -> Floats {
        // SAFETY: by the caller's promise.
        unsafe { bytes::<2, PANELS>(rows, at, 0) }.map(|bytes| f16_to_f32(u16::from_le_bytes(bytes)))
    }

    fn zero() -> Floats {
        [0.0; ROWS]
    }

    fn splat(bits: u32) -> Ints {
        [bits; ROWS]
    }

    #[inline(never)]
    fn and(a: Ints, b: Ints) -> Ints {
        each(a, b, |a, b| a & b)
    }

    #[inline(never)]
    fn or(a: Ints, b: Ints) -> Ints {
        each(a, b, |a, b| a | b)
    }

    #[inline(never)]
    fn shift_left(a: Ints, bits: u32) -> Ints {
        a.map(|a| a << bits)
    }

    #[inline(never)]
    fn shift_right(a: Ints, bits: u32) -> Ints {
        a.map(|a| a >> bits)
    }

    fn subtract_bytes(a: Ints, b: Ints) -> Ints {
        each(a, b, |a, b| {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            u32::from_le_bytes(std::array::from_fn(|i| a[i].wrapping_sub(b[i])))
        })
    }

    fn subtract(a: Ints, b: Ints) -> Ints {
        each(a, b, u32::wrapping_sub)
    }

    #[inline(never)]
    fn look_up(table: &[i8; 16], codes: Ints) -> Ints {
        codes.map(|codes| u32::from_le_bytes(codes.to_le_bytes().map(|code| table[code as usize & 15] as u8)))
    }

    #[inline(never)]
    fn fifth_bits(bits: Ints, first: u32) -> Ints {
        bits.map(|bits| u32::from_le_bytes([0, 1, 2, 3].map(|i| (bits >> (first + i) & 1) as u8 * 16)))
    }

    #[inline(never)]
    fn two_i16(bytes: Ints, places: [u32; 2], shift: u32) -> Ints {
        let byte =
            |bytes: u32, place: u32| u32::from((i16::from((bytes >> (8 * place)) as i8) << shift) as u16);
        bytes.map(|bytes| byte(bytes, places[0]) | byte(bytes, places[1]) << 16)
    }

    fn to_float(a: Ints) -> Floats {
        a.map(|a| a as i32 as f32)
    }

    fn f16_to_float(a: Ints) -> Floats {
        a.map(|a| f16_to_f32(a as u16))
    }

    fn bits_to_float(a: Ints) -> Floats {
        a.map(f32::from_bits)
    }

    fn floats(numbers: [f32; ROWS]) -> Floats {
        numbers
    }

    fn multiply(a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|r| a[r] * b[r])
    }

    fn fma(a: Floats, b: f32, c: Floats) -> Floats {
        std::array::from_fn(|r| a[r].mul_add(b, c[r]))
    }

    #[inline(never)]
    fn fma_scaled(a: Ints, b: Floats, x: f32, c: Floats) -> Floats {
        std::array::from_fn(|r| (a[r] as i32 as f32).mul_add(b[r] * x, c[r]))
    }

    fn store(a: Floats) -> [f32; ROWS] {
        a
    }

    #[inline(never)]
    fn dot<const BITS: u32>(codes: &[Ints; 8], x: &Block) -> Ints {
        let product = |r: usize, i: usize| code::<BITS>(codes[i / 4][r], i % 4) * i32::from(x.codes[i]);
        std::array::from_fn(|r| (0..BLOCK).map(|i| product(r, i)).sum::<i32>() as u32)
    }

    #[inline(never)]
    fn dot_scaled<const BITS: u32>(codes: &[Ints; 8], x: &Block, scales: &[Ints; 2]) -> Ints {
        let product = |r: usize, i: usize| {
            halves(scales[i / 16][r])[0] * code::<BITS>(codes[i / 4][r], i % 4) * i32::from(x.codes[i])
        };
        std::array::from_fn(|r| (0..BLOCK).map(|i| product(r, i)).sum::<i32>() as u32)
    }

    /// As the twin of those that are faster so.
    const MOST_TILE_BITS: u32 = 8;

    #[inline(never)]
    fn dot_sums(factors: Ints, x: &Block) -> Ints {
        factors.map(|factors| {
            let [a, b] = halves(factors);
            (a * i32::from(x.sums[0]) + b * i32::from(x.sums[1])) as u32
        })
    }
}
