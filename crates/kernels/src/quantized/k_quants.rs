//! Unpacking of ggml's super-blocks of 256 columns. Layouts: see [`crate::ggml`], whose exact widening is the
//! oracle of this.

use std::cmp::Ordering;

use super::Format;
use super::blocks_of_32::{looked_up, two_halves};
use super::groups::{Halves, HalvesWithMin, Plain, Sink, WithMin};
use super::lanes::{Lanes, Rows};
use crate::ggml::IQ4;

/// Scales and minima of Q4_K and Q5_K: 6 bits each.
struct ScalesAndMins<L: Lanes> {
    scale: L::Float,
    /// Less than nothing: minima are subtracted.
    min: L::Float,
    scales: [L::Int; 2],
    mins: [L::Int; 2],
}

impl<L: Lanes> ScalesAndMins<L> {
    /// The first 16 bytes of a block: two f16, and 12 bytes of codes. The first four scales and minima are the low
    /// six bits of bytes 0-3 and 4-7; the others have their low four bits in bytes 8-11, their upper two above
    /// the first four.
    #[inline(always)]
    fn new([halves, first, second, third]: [L::Int; 4]) -> Self {
        let (six, low, upper) = (L::splat(0x3f3f_3f3f), L::splat(0x0f0f_0f0f), L::splat(0x3030_3030));
        let (scale, min) = two_halves::<L>(halves);
        Self {
            scale,
            min: L::multiply(min, L::floats([-1.0; 8])),
            scales: [L::and(first, six), L::or(L::and(third, low), L::and(L::shift_right(first, 2), upper))],
            mins: [
                L::and(second, six),
                L::or(L::and(L::shift_right(third, 4), low), L::and(L::shift_right(second, 2), upper)),
            ],
        }
    }

    #[inline(always)]
    fn group(&self, group: usize) -> (L::Float, L::Float) {
        let (scale, min) = (code::<L>(&self.scales, group), code::<L>(&self.mins, group));
        (L::multiply(self.scale, scale), L::multiply(self.min, min))
    }
}

/// One of eight unsigned bytes.
#[inline(always)]
fn code<L: Lanes>(codes: &[L::Int; 2], group: usize) -> L::Float {
    let shifted = L::shift_right(codes[group / 4], 8 * (group % 4) as u32);
    L::to_float(if group % 4 == 3 { shifted } else { L::and(shifted, L::splat(0xff)) })
}

/// 32 bytes of each row.
///
/// # Safety
/// The rows have these bytes.
#[inline(always)]
unsafe fn load_32<L: Lanes>(rows: &Rows, at: usize) -> [L::Int; 8] {
    // SAFETY: by the caller's promise.
    let (a, b) = unsafe { (L::load_16(&rows.blocks, at), L::load_16(&rows.blocks, at + 16)) };
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Bits `shift` and up of each byte, cut by a mask.
#[inline(always)]
fn bits<L: Lanes>(bytes: [L::Int; 8], shift: u32, mask: u8) -> [L::Int; 8] {
    let (mask, mut codes) = (L::splat(u32::from(mask) * 0x0101_0101), bytes);
    for code in &mut codes {
        *code = L::and(if shift == 0 { *code } else { L::shift_right(*code, shift) }, mask);
    }
    codes
}

/// The low bits of codes, and above them, from bit `at` on, as many bits of each byte of `bytes` as `mask` has there,
/// from bit `from` on. One shift to their place: what it brings from the next byte is outside of the mask.
#[inline(always)]
fn joined<L: Lanes>(low: [L::Int; 8], bytes: [L::Int; 8], from: u32, at: u32, mask: u8) -> [L::Int; 8] {
    let (mask, mut codes) = (L::splat(u32::from(mask) * 0x0101_0101), low);
    for (code, bytes) in codes.iter_mut().zip(bytes) {
        let moved = match from.cmp(&at) {
            Ordering::Less => L::shift_left(bytes, at - from),
            Ordering::Equal => bytes,
            Ordering::Greater => L::shift_right(bytes, from - at),
        };
        *code = L::or(*code, L::and(moved, mask));
    }
    codes
}

pub(super) struct Q4K;

impl Format for Q4K {
    const GROUPS: usize = 8;
    const BYTES: usize = 144;
    type Group<L: Lanes> = WithMin<L, 4>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 144 bytes.
        let factors = ScalesAndMins::<L>::new(unsafe { L::load_16(&rows.blocks, at) });
        unrolled!(RUN in 0, 1, 2, 3 => {
            // SAFETY: as above.
            let bytes = unsafe { load_32::<L>(rows, at + 16 + 32 * RUN) };
            unrolled!(PART in 0, 1 => {
                let (scale, min) = factors.group(2 * RUN + PART);
                sink.take(WithMin { codes: bits::<L>(bytes, 4 * PART as u32, 15), scale, min });
            });
        });
    }
}

pub(super) struct Q5K;

impl Format for Q5K {
    const GROUPS: usize = 8;
    const BYTES: usize = 176;
    type Group<L: Lanes> = WithMin<L, 5>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 176 bytes.
        let (factors, fifth) =
            unsafe { (ScalesAndMins::<L>::new(L::load_16(&rows.blocks, at)), load_32::<L>(rows, at + 16)) };
        unrolled!(RUN in 0, 1, 2, 3 => {
            // SAFETY: as above.
            let bytes = unsafe { load_32::<L>(rows, at + 48 + 32 * RUN) };
            unrolled!(PART in 0, 1 => {
                let (scale, min) = factors.group(2 * RUN + PART);
                let low = bits::<L>(bytes, 4 * PART as u32, 15);
                let codes = joined::<L>(low, fifth, (2 * RUN + PART) as u32, 4, 0x10);
                sink.take(WithMin { codes, scale, min });
            });
        });
    }
}

pub(super) struct Q6K;

impl Format for Q6K {
    const GROUPS: usize = 8;
    const BYTES: usize = 210;
    #[cfg(target_arch = "x86_64")]
    const HALVES: bool = true;
    type Group<L: Lanes> = Halves<L, 6>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // Where half scales, the scale, upper and lower bits begin, and how far apart those of both sides are: in panels
        // as `crate::interleaved` has them.
        let (half_scales, scale, [upper, upper_step], [lower, lower_step]) =
            if L::PANELS { (0, 16, [18, 96], [50, 96]) } else { (192, 208, [128, 32], [0, 64]) };
        // SAFETY: a block has 210 bytes.
        let (half_scales, scale) =
            unsafe { (L::load_16(&rows.blocks, at + half_scales), L::load_f16(&rows.blocks, at + scale)) };
        unrolled!(SIDE in 0, 1 => {
            unrolled!(PASS in 0, 1, 2, 3 => {
                // SAFETY: as above.
                let (low, high) = unsafe {
                    let low = load_32::<L>(rows, at + lower + lower_step * SIDE + 32 * (PASS % 2));
                    (low, load_32::<L>(rows, at + upper + upper_step * SIDE))
                };
                let (group, shift) = (4 * SIDE + PASS, 4 * (PASS / 2) as u32);
                let place = 2 * (group % 2) as u32;
                let codes = joined::<L>(bits::<L>(low, shift, 15), high, 2 * PASS as u32, 4, 0x30);
                sink.take(scaled_halves(codes, half_scales[group / 2], place, 5, scale));
            });
        });
    }
}

/// Codes with signed half scales at two places of 32 bits, codes less `2^offset`.
#[inline(always)]
fn scaled_halves<L: Lanes, const BITS: u32>(
    codes: [L::Int; 8],
    half_scales: L::Int,
    place: u32,
    offset: u32,
    scale: L::Float,
) -> Halves<L, BITS> {
    Halves {
        codes,
        half_scales: [L::two_i16(half_scales, [place; 2], 0), L::two_i16(half_scales, [place + 1; 2], 0)],
        offsets: L::two_i16(half_scales, [place, place + 1], offset),
        scale,
    }
}

pub(super) struct Q3K;

impl Format for Q3K {
    const GROUPS: usize = 8;
    const BYTES: usize = 110;
    #[cfg(target_arch = "x86_64")]
    const HALVES: bool = true;
    type Group<L: Lanes> = Halves<L, 3>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 110 bytes.
        let (third, packed, scale) = unsafe {
            let packed = [
                L::load_4(&rows.blocks, at + 96),
                L::load_4(&rows.blocks, at + 100),
                L::load_4(&rows.blocks, at + 104),
            ];
            (load_32::<L>(rows, at), packed, L::load_f16(&rows.blocks, at + 108))
        };
        let half_scales = scales_of_16::<L>(packed);
        for side in 0..2 {
            // SAFETY: as above.
            let bytes = unsafe { load_32::<L>(rows, at + 32 + 32 * side) };
            for pass in 0..4 {
                let group = 4 * side + pass;
                let place = 2 * (group % 2) as u32;
                let codes = joined::<L>(bits::<L>(bytes, 2 * pass as u32, 3), third, group as u32, 2, 4);
                sink.take(scaled_halves(codes, half_scales[group / 2], place, 2, scale));
            }
        }
    }
}

/// The 16 scales of Q3_K, less 32, four to a vector: low nibbles, high nibbles, then pairs of upper bits.
#[inline(always)]
fn scales_of_16<L: Lanes>([first, second, upper]: [L::Int; 3]) -> [L::Int; 4] {
    let (low_mask, two, offset) = (L::splat(0x0f0f_0f0f), L::splat(0x0303_0303), L::splat(0x2020_2020));
    let mut scales = [first, second, first, second];
    for (i, scale) in scales.iter_mut().enumerate() {
        let low = L::and(L::shift_right(*scale, 4 * (i / 2) as u32), low_mask);
        let high = L::and(L::shift_right(upper, 2 * i as u32), two);
        *scale = L::subtract_bytes(L::or(low, L::shift_left(high, 4)), offset);
    }
    scales
}

pub(super) struct Q2K;

impl Format for Q2K {
    const GROUPS: usize = 8;
    const BYTES: usize = 84;
    #[cfg(target_arch = "x86_64")]
    const HALVES: bool = true;
    type Group<L: Lanes> = HalvesWithMin<L, 2>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 84 bytes.
        let (packed, halves) = unsafe { (L::load_16(&rows.blocks, at), L::load_4(&rows.blocks, at + 80)) };
        let (scale, min) = two_halves::<L>(halves);
        let min = L::multiply(min, L::floats([-1.0; 8]));
        let low = L::splat(0x0f0f_0f0f);
        for side in 0..2 {
            // SAFETY: as above.
            let bytes = unsafe { load_32::<L>(rows, at + 16 + 32 * side) };
            for pass in 0..4 {
                let (group, codes) = (4 * side + pass, bits::<L>(bytes, 2 * pass as u32, 3));
                let place = 2 * (group % 2) as u32;
                let scales = L::and(packed[group / 2], low);
                let mins = L::and(L::shift_right(packed[group / 2], 4), low);
                sink.take(HalvesWithMin {
                    codes,
                    half_scales: [L::two_i16(scales, [place; 2], 0), L::two_i16(scales, [place + 1; 2], 0)],
                    half_mins: L::two_i16(mins, [place, place + 1], 0),
                    scale,
                    min,
                });
            }
        }
    }
}

pub(super) struct Iq4Xs;

impl Format for Iq4Xs {
    const GROUPS: usize = 8;
    const BYTES: usize = 136;
    type Group<L: Lanes> = Plain<L, 8, 0>;

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>) {
        let at = Self::BYTES * block;
        // SAFETY: a block has 136 bytes.
        let (halves, lower) = unsafe { (L::load_4(&rows.blocks, at), L::load_4(&rows.blocks, at + 4)) };
        let (scale, upper) = (L::f16_to_float(L::and(halves, L::splat(0xffff))), L::shift_right(halves, 16));
        for group in 0..8 {
            // SAFETY: as above.
            let codes = unsafe { L::load_16(&rows.blocks, at + 8 + 16 * group) };
            let low = L::and(L::shift_right(lower, 4 * group as u32), L::splat(15));
            let high = L::and(L::shift_right(upper, 2 * group as u32), L::splat(3));
            let code = L::subtract(L::or(low, L::shift_left(high, 4)), L::splat(32));
            let scale = L::multiply(scale, L::to_float(code));
            sink.take(Plain { codes: looked_up::<L>(&IQ4, codes), scale });
        }
    }
}
