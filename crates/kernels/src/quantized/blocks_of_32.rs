//! Unpacking of formats with one scale per 32 columns: INT4 and ggml's first ones. Layouts: see
//! [`crate::matrix`] and [`crate::ggml`], whose exact widening is the oracle of this.

use super::Format;
use super::groups::{Plain, Sink, WithMin};
use super::lanes::{Lanes, ROWS, Rows};
use crate::ggml::{IQ4, half_of_e8m0};

const NIBBLES: u32 = 0x0f0f_0f0f;

/// The low halves of 16 bytes, then the high ones. Loops over arrays, here and below, because a closure would be
/// compiled apart, without the caller's vectors.
#[inline(always)]
pub(super) fn nibbles<L: Lanes>([a, b, c, d]: [L::Int; 4]) -> [L::Int; 8] {
    let mask = L::splat(NIBBLES);
    let mut codes = [a, b, c, d, a, b, c, d];
    for code in &mut codes[4..] {
        *code = L::shift_right(*code, 4);
    }
    for code in &mut codes {
        *code = L::and(*code, mask);
    }
    codes
}

/// compressed-tensors `pack-quantized`; its columns come out even first.
pub(super) struct Int4;

impl Format for Int4 {
    const GROUPS: usize = 1;
    const BYTES: usize = 16;
    const SCALE_BYTES: usize = 2;
    type Group<L: Lanes> = Plain<L, 4, 8>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        // SAFETY: each block has 16 bytes of codes and 2 of scale.
        let (codes, scale) =
            unsafe { (L::load_16(&rows.blocks, 16 * block), L::load_2(&rows.scales, 2 * block)) };
        sink.take(Plain { codes: nibbles::<L>(codes), scale: L::bits_to_float(L::shift_left(scale, 16)) });
    }
}

/// [`Int4`] in runs of 256 columns, whose scales are loaded together.
pub(super) struct Int4Runs;

impl Format for Int4Runs {
    const GROUPS: usize = 8;
    const BYTES: usize = 128;
    const SCALE_BYTES: usize = 16;
    type Group<L: Lanes> = Plain<L, 4, 8>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        // SAFETY: each run has 128 bytes of codes and 16 of scales.
        let scales = unsafe { L::load_16(&rows.scales, 16 * block) };
        let upper = L::splat(0xffff_0000);
        for (pair, scales) in scales.into_iter().enumerate() {
            let at = Self::BYTES * block + 32 * pair;
            // SAFETY: as above.
            let (low, high) = unsafe { (L::load_16(&rows.blocks, at), L::load_16(&rows.blocks, at + 16)) };
            let scale = L::bits_to_float(L::shift_left(scales, 16));
            sink.take(Plain { codes: nibbles::<L>(low), scale });
            sink.take(Plain { codes: nibbles::<L>(high), scale: L::bits_to_float(L::and(scales, upper)) });
        }
    }
}

pub(super) struct Q4_0;

impl Format for Q4_0 {
    const GROUPS: usize = 1;
    const BYTES: usize = 18;
    type Group<L: Lanes> = Plain<L, 4, 8>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 18 bytes.
        let (codes, scale) = unsafe { (L::load_16(&rows.blocks, at + 2), L::load_f16(&rows.blocks, at)) };
        sink.take(Plain { codes: nibbles::<L>(codes), scale });
    }
}

pub(super) struct Q4_1;

impl Format for Q4_1 {
    const GROUPS: usize = 1;
    const BYTES: usize = 20;
    type Group<L: Lanes> = WithMin<L, 4>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 20 bytes.
        let (codes, halves) = unsafe { (L::load_16(&rows.blocks, at + 4), L::load_4(&rows.blocks, at)) };
        let (scale, min) = two_halves::<L>(halves);
        sink.take(WithMin { codes: nibbles::<L>(codes), scale, min });
    }
}

pub(super) struct Q5_0;

impl Format for Q5_0 {
    const GROUPS: usize = 1;
    const BYTES: usize = 22;
    type Group<L: Lanes> = Plain<L, 5, 16>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 22 bytes.
        let (codes, high, scale) = unsafe {
            (L::load_16(&rows.blocks, at + 6), L::load_4(&rows.blocks, at + 2), L::load_f16(&rows.blocks, at))
        };
        sink.take(Plain { codes: five_bits::<L>(codes, high), scale });
    }
}

pub(super) struct Q5_1;

impl Format for Q5_1 {
    const GROUPS: usize = 1;
    const BYTES: usize = 24;
    type Group<L: Lanes> = WithMin<L, 5>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 24 bytes.
        let (codes, high, halves) = unsafe {
            (L::load_16(&rows.blocks, at + 8), L::load_4(&rows.blocks, at + 4), L::load_4(&rows.blocks, at))
        };
        let (scale, min) = two_halves::<L>(halves);
        sink.take(WithMin { codes: five_bits::<L>(codes, high), scale, min });
    }
}

pub(super) struct Q8_0;

impl Format for Q8_0 {
    const GROUPS: usize = 1;
    const BYTES: usize = 34;
    type Group<L: Lanes> = Plain<L, 8, 0>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 34 bytes.
        let (low, high, scale) = unsafe {
            (
                L::load_16(&rows.blocks, at + 2),
                L::load_16(&rows.blocks, at + 18),
                L::load_f16(&rows.blocks, at),
            )
        };
        let codes = [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]];
        sink.take(Plain { codes, scale });
    }
}

pub(super) struct Iq4Nl;

impl Format for Iq4Nl {
    const GROUPS: usize = 1;
    const BYTES: usize = 18;
    type Group<L: Lanes> = Plain<L, 8, 0>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 18 bytes.
        let (codes, scale) = unsafe { (L::load_16(&rows.blocks, at + 2), L::load_f16(&rows.blocks, at)) };
        sink.take(Plain { codes: looked_up::<L>(&IQ4, codes), scale });
    }
}

/// E2M1 doubled, as in [`crate::ggml`], plus 12: so codes are unsigned.
const E2M1_PLUS_12: [i8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

pub(super) struct Mxfp4;

impl Format for Mxfp4 {
    const GROUPS: usize = 1;
    const BYTES: usize = 17;
    type Group<L: Lanes> = Plain<L, 5, 12>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        let mut scales = [0.0; ROWS];
        for (scale, row) in scales.iter_mut().zip(rows.blocks) {
            // SAFETY: a block has 17 bytes.
            *scale = half_of_e8m0(unsafe { *row.add(at) });
        }
        // SAFETY: as above.
        let codes = looked_up::<L>(&E2M1_PLUS_12, unsafe { L::load_16(&rows.blocks, at + 1) });
        sink.take(Plain { codes, scale: L::floats(scales) });
    }
}

/// The f16s in the low and in the high half.
#[inline(always)]
pub(super) fn two_halves<L: Lanes>(halves: L::Int) -> (L::Float, L::Float) {
    (L::f16_to_float(L::and(halves, L::splat(0xffff))), L::f16_to_float(L::shift_right(halves, 16)))
}

#[inline(always)]
pub(super) fn looked_up<L: Lanes>(table: &[i8; 16], bytes: [L::Int; 4]) -> [L::Int; 8] {
    let mut codes = nibbles::<L>(bytes);
    for code in &mut codes {
        *code = L::look_up(table, *code);
    }
    codes
}

#[inline(always)]
fn five_bits<L: Lanes>(bytes: [L::Int; 4], high: L::Int) -> [L::Int; 8] {
    let mut codes = nibbles::<L>(bytes);
    for (i, code) in codes.iter_mut().enumerate() {
        *code = L::or(*code, L::fifth_bits(high, 4 * i as u32));
    }
    codes
}
