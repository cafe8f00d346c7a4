//! Rows of latents in the formats of the cache: f32 as computed, 16-bit integers, BF16, or eight bits.
//!
//! 16-bit integers are `I16`: a row's latent and its rotated key, each times a scale of its own. The scale is so large that
//! the sum of squares stays below 2^31: so does, by Cauchy and Schwarz, the product of any two such rows, and attention
//! multiplies them in integers without losing a bit. Eight bits are `Q8`: groups of 32 numbers, each a signed byte times
//! the group's scale, which is the largest magnitude / 127 rounded to BF16. What a row holds is decided when it is written,
//! so what is read never depends on when it is read.

use crate::dot::LANES;
use crate::dtype::{bf16_to_f32, f32_to_bf16};
use crate::exp::ROUND;
use crate::isa::{isa, per_isa};

/// Numbers that share a scale.
pub const Q8_GROUP: usize = 32;

/// Bytes of a group: its scale, then its numbers.
pub const Q8_BYTES: usize = 2 + Q8_GROUP;

/// Largest magnitude of a 16-bit number.
const I16_MOST: f32 = 32_767.0;

/// Largest root of the sum of squares of 16-bit numbers before they are rounded: with half a step for each of some
/// thousand numbers more, its square is still below 2^31.
const I16_NORM: f32 = 46_000.0;

/// Rows of latents as the cache keeps them, one behind the other.
#[derive(Clone, Copy, Debug)]
pub enum Latents<'a> {
    /// As computed.
    F32(&'a [f32]),
    /// Integers under two scales a row.
    I16(I16Rows<'a>),
    /// Upper halves of f32.
    Bf16(&'a [u16]),
    /// Groups of [`Q8_BYTES`].
    Q8(&'a [u8]),
}

/// Rows of 16-bit numbers.
#[derive(Clone, Copy, Debug)]
pub struct I16Rows<'a> {
    /// `[rows, width]`.
    pub numbers: &'a [i16],
    /// Each row's scales: of its first `latent` numbers, and of the others.
    pub scales: &'a [[f32; 2]],
    /// Numbers of a row.
    pub width: usize,
    /// Numbers under a row's first scale.
    pub latent: usize,
}

impl<'a> Latents<'a> {
    /// Where the row lies that begins at a number, and its bytes.
    #[inline(always)]
    pub(crate) fn place(self, first: usize, width: usize) -> (*const u8, usize) {
        match self {
            Latents::F32(rows) => (rows[first..].as_ptr().cast(), width * size_of::<f32>()),
            Latents::I16(rows) => (rows.numbers[first..].as_ptr().cast(), width * size_of::<i16>()),
            Latents::Bf16(rows) => (rows[first..].as_ptr().cast(), width * size_of::<u16>()),
            Latents::Q8(rows) => (rows[q8_bytes(first)..].as_ptr(), q8_bytes(width)),
        }
    }

    /// `width` numbers from `first` on: as they lie, or widened into the front of `room`, which is shortened by them.
    #[inline(always)]
    pub(crate) fn row<'r>(self, first: usize, width: usize, room: &mut &'r mut [f32]) -> &'r [f32]
    where
        'a: 'r,
    {
        match self {
            Latents::F32(rows) => &rows[first..first + width],
            Latents::I16(rows) => {
                let row = front(room, width);
                let scales = rows.scales[first / rows.width];
                widen_i16_body(&rows.numbers[first..first + width], scales, rows.latent, row);
                row
            }
            Latents::Bf16(rows) => {
                let row = front(room, width);
                widen_bf16_body(&rows[first..first + width], row);
                row
            }
            Latents::Q8(rows) => {
                let row = front(room, width);
                widen_q8_body(&rows[q8_bytes(first)..q8_bytes(first + width)], row);
                row
            }
        }
    }

    /// All numbers.
    pub fn to_f32(self) -> Vec<f32> {
        match self {
            Latents::F32(rows) => rows.to_vec(),
            Latents::I16(rows) => {
                let mut numbers = vec![0.0; rows.numbers.len()];
                widen_i16(isa(), rows, &mut numbers);
                numbers
            }
            Latents::Bf16(rows) => {
                let mut numbers = vec![0.0; rows.len()];
                widen_bf16(isa(), rows, &mut numbers);
                numbers
            }
            Latents::Q8(rows) => {
                let mut numbers = vec![0.0; rows.len() / Q8_BYTES * Q8_GROUP];
                widen_q8(isa(), rows, &mut numbers);
                numbers
            }
        }
    }
}

/// Cuts the first numbers off.
#[inline(always)]
fn front<'r>(room: &mut &'r mut [f32], len: usize) -> &'r mut [f32] {
    let (front, rest) = std::mem::take(room).split_at_mut(len);
    *room = rest;
    front
}

/// Bytes of so many numbers in groups of eight bits.
pub fn q8_bytes(numbers: usize) -> usize {
    numbers / Q8_GROUP * Q8_BYTES
}

/// Rounds a row to 16-bit numbers, its first `latent` under one scale and the others under another; the scales.
pub fn narrow_i16(row: &[f32], latent: usize, out: &mut [i16]) -> [f32; 2] {
    assert!(
        row.len() == out.len() && latent <= row.len(),
        "{latent} of {} numbers, {}",
        row.len(),
        out.len()
    );
    let (mut scales, (front, back)) = ([0.0; 2], out.split_at_mut(latent));
    for (scale, (numbers, out)) in scales.iter_mut().zip([(&row[..latent], front), (&row[latent..], back)]) {
        narrow_i16_part(isa(), numbers, out, scale);
    }
    scales
}

per_isa! {
    /// Rounds numbers to 16 bits under one scale. A scale that is no number keeps in mind that one of them was none.
    pub(crate) fn narrow_i16_part(numbers: &[f32], out: &mut [i16], scale: &mut f32) = narrow_i16_body
}

#[inline(always)]
fn narrow_i16_body(numbers: &[f32], out: &mut [i16], scale: &mut f32) {
    let mut lanes = [0.0f32; LANES];
    for_lanes(numbers, |l, number| lanes[l] = if number.abs() > lanes[l] { number.abs() } else { lanes[l] });
    let largest = lanes.into_iter().fold(0.0, |largest: f32, lane| largest.max(lane));
    // Relative to the largest: squares neither overflow nor vanish.
    let inverse = if largest >= f32::MIN_POSITIVE { 1.0 / largest } else { 0.0 };
    let mut squares = [0.0f32; LANES];
    for_lanes(numbers, |l, number| squares[l] += (number * inverse) * (number * inverse));
    let norm = largest * squares.into_iter().sum::<f32>().sqrt();
    *scale = (norm / I16_NORM).max(largest / I16_MOST) + norm * 0.0;
    let inverse = if *scale >= f32::MIN_POSITIVE { 1.0 / *scale } else { 0.0 };
    for (out, number) in out.iter_mut().zip(numbers) {
        *out = nearest(*number * inverse) as i16;
    }
}

/// The nearest whole number, of two the even one, within 16 bits without their lowest value; of what is no number any.
#[inline(always)]
pub(crate) fn nearest(number: f32) -> i32 {
    (number.clamp(-I16_MOST, I16_MOST) + ROUND).to_bits() as i32 - ROUND.to_bits() as i32
}

/// Calls `each` with every number and its lane, `i mod 16`.
#[inline(always)]
fn for_lanes(numbers: &[f32], mut each: impl FnMut(usize, f32)) {
    let (groups, rest) = numbers.as_chunks::<LANES>();
    for group in groups {
        for l in 0..LANES {
            each(l, group[l]);
        }
    }
    rest.iter().enumerate().for_each(|(l, number)| each(l, *number));
}

per_isa! {
    fn widen_i16(rows: I16Rows<'_>, out: &mut [f32]) = widen_i16_rows
}

#[inline(always)]
fn widen_i16_rows(rows: I16Rows<'_>, out: &mut [f32]) {
    let pairs = rows.numbers.chunks_exact(rows.width).zip(out.chunks_exact_mut(rows.width));
    for ((numbers, out), scales) in pairs.zip(rows.scales) {
        widen_i16_body(numbers, *scales, rows.latent, out);
    }
}

#[inline(always)]
fn widen_i16_body(numbers: &[i16], scales: [f32; 2], latent: usize, out: &mut [f32]) {
    let ((latents, others), (front, back)) = (numbers.split_at(latent), out.split_at_mut(latent));
    for (scale, (numbers, out)) in scales.into_iter().zip([(latents, front), (others, back)]) {
        out.iter_mut().zip(numbers).for_each(|(out, number)| *out = scale * f32::from(*number));
    }
}

/// Rounds each number to the nearest BF16.
pub fn narrow_bf16(row: &[f32], out: &mut [u16]) {
    assert_eq!(row.len(), out.len(), "a number each");
    out.iter_mut().zip(row).for_each(|(out, number)| *out = f32_to_bf16(*number));
}

per_isa! {
    fn widen_bf16(rows: &[u16], out: &mut [f32]) = widen_bf16_body
}

#[inline(always)]
fn widen_bf16_body(rows: &[u16], out: &mut [f32]) {
    out.iter_mut().zip(rows).for_each(|(out, bits)| *out = bf16_to_f32(*bits));
}

/// Rounds a row to groups of eight-bit numbers; its length is a multiple of [`Q8_GROUP`].
pub fn narrow_q8(row: &[f32], out: &mut [u8]) {
    assert_eq!(row.len() / Q8_GROUP * Q8_BYTES, out.len(), "a group of bytes for each of numbers");
    for (numbers, bytes) in row.chunks_exact(Q8_GROUP).zip(out.chunks_exact_mut(Q8_BYTES)) {
        // Not `max`: what is not a number must not be lost.
        let larger = |number: f32, largest: f32| number > largest || number.is_nan();
        let largest = numbers.iter().fold(0.0, |l, n| if larger(n.abs(), l) { n.abs() } else { l });
        let scale = f32_to_bf16(largest / 127.0);
        bytes[..2].copy_from_slice(&scale.to_le_bytes());
        let scale = bf16_to_f32(scale);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (byte, number) in bytes[2..].iter_mut().zip(numbers) {
            *byte = (number * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
        }
    }
}

per_isa! {
    fn widen_q8(rows: &[u8], out: &mut [f32]) = widen_q8_body
}

#[inline(always)]
fn widen_q8_body(rows: &[u8], out: &mut [f32]) {
    for (bytes, numbers) in rows.chunks_exact(Q8_BYTES).zip(out.chunks_exact_mut(Q8_GROUP)) {
        let scale = bf16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]));
        for (number, byte) in numbers.iter_mut().zip(&bytes[2..]) {
            *number = scale * f32::from(*byte as i8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use proptest::prelude::*;

    proptest! {
        /// Each format gives a number back within its own rounding, on every instruction set the same.
        #[test]
        fn rows_come_back_within_their_rounding(
            numbers in prop::collection::vec(-1.0f32..1.0, 96), exponent in -60i32..60,
        ) {
            let row: Vec<f32> = numbers.iter().map(|number| number * 2f32.powi(exponent)).collect();
            let (mut i16, mut bf16, mut q8) = (vec![0; 96], vec![0; 96], vec![0; 3 * Q8_BYTES]);
            let scales = narrow_i16(&row, 61, &mut i16);
            let rows = I16Rows { numbers: &i16, scales: &[scales], width: 96, latent: 61 };
            let from_i16 = Latents::I16(rows).to_f32();
            narrow_bf16(&row, &mut bf16);
            narrow_q8(&row, &mut q8);
            let (from_bf16, from_q8) = (Latents::Bf16(&bf16).to_f32(), Latents::Q8(&q8).to_f32());
            for isa in Isa::available() {
                let mut out = vec![0.0; 96];
                widen_i16(isa, rows, &mut out);
                prop_assert_eq!(&out, &from_i16);
                widen_bf16(isa, &bf16, &mut out);
                prop_assert_eq!(&out, &from_bf16);
                widen_q8(isa, &q8, &mut out);
                prop_assert_eq!(&out, &from_q8);
            }
            for (scale, part) in scales.into_iter().zip([0..61, 61..96]) {
                let squares = i16[part.clone()].iter().map(|number| i64::from(*number).pow(2)).sum::<i64>();
                prop_assert!(squares < 1 << 31, "{squares}");
                for i in part {
                    // Half a step, and the scale's own rounding.
                    prop_assert!((row[i] - from_i16[i]).abs() <= scale * 0.502, "{} {}", row[i], from_i16[i]);
                    prop_assert!(scale <= row.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 4096.0);
                }
            }
            // Where numbers become subnormal, steps are no longer relative.
            let tiny = f32::MIN_POSITIVE;
            for group in 0..3 {
                let here = group * Q8_GROUP..(group + 1) * Q8_GROUP;
                let largest = row[here.clone()].iter().fold(0.0f32, |a, b| a.max(b.abs()));
                for i in here {
                    prop_assert!((row[i] - from_bf16[i]).abs() <= row[i].abs() / 256.0 + tiny);
                    // Half a step; the scale is rounded too.
                    prop_assert!((row[i] - from_q8[i]).abs() <= largest / 127.0 * 0.503 + 127.0 * tiny, "{} {}", row[i], from_q8[i]);
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_stays_none() {
        let mut bytes = [1; Q8_BYTES];
        narrow_q8(&[0.0; Q8_GROUP], &mut bytes);
        let mut numbers = Latents::Q8(&bytes).to_f32();
        assert_eq!(numbers, [0.0; Q8_GROUP]);
        let mut integers = [1; Q8_GROUP];
        assert_eq!((narrow_i16(&numbers, 5, &mut integers), integers), ([0.0; 2], [0; Q8_GROUP]));
        // Too small to have a scale.
        assert!(narrow_i16(&[1e-39; Q8_GROUP], 5, &mut integers)[0] < 1e-39);
        assert_eq!(integers, [0; Q8_GROUP]);
        for wrong in [f32::NAN, f32::INFINITY] {
            numbers[3] = wrong;
            narrow_q8(&numbers, &mut bytes);
            assert!(!Latents::Q8(&bytes).to_f32()[3].is_finite(), "{wrong}");
            let [of_latents, of_others] = narrow_i16(&numbers, 5, &mut integers);
            assert!(of_latents.is_nan() && of_others == 0.0, "{wrong}: {of_latents} {of_others}");
        }
    }
}
