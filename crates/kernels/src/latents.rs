//! Rows of latents in the formats of the cache: f32 as computed, BF16, or eight bits.
//!
//! Eight bits are `Q8`: groups of 32 numbers, each a signed byte times the group's scale, which is the largest
//! magnitude / 127 rounded to BF16. What a row holds is decided when it is written, so what is read never
//! depends on when it is read.

use crate::dtype::{bf16_to_f32, f32_to_bf16};
use crate::isa::{isa, per_isa};

/// Numbers that share a scale.
pub const Q8_GROUP: usize = 32;

/// Bytes of a group: its scale, then its numbers.
pub const Q8_BYTES: usize = 2 + Q8_GROUP;

/// Rows of latents as the cache keeps them, one behind the other.
#[derive(Clone, Copy, Debug)]
pub enum Latents<'a> {
    /// As computed.
    F32(&'a [f32]),
    /// Upper halves of f32.
    Bf16(&'a [u16]),
    /// Groups of [`Q8_BYTES`].
    Q8(&'a [u8]),
}

impl<'a> Latents<'a> {
    /// Where the row lies that begins at a number, and its bytes.
    #[inline(always)]
    pub(crate) fn place(self, first: usize, width: usize) -> (*const u8, usize) {
        match self {
            Latents::F32(rows) => (rows[first..].as_ptr().cast(), width * size_of::<f32>()),
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
            let (mut bf16, mut q8) = (vec![0; 96], vec![0; 3 * Q8_BYTES]);
            narrow_bf16(&row, &mut bf16);
            narrow_q8(&row, &mut q8);
            let (from_bf16, from_q8) = (Latents::Bf16(&bf16).to_f32(), Latents::Q8(&q8).to_f32());
            for isa in Isa::available() {
                let mut out = vec![0.0; 96];
                widen_bf16(isa, &bf16, &mut out);
                prop_assert_eq!(&out, &from_bf16);
                widen_q8(isa, &q8, &mut out);
                prop_assert_eq!(&out, &from_q8);
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
        for wrong in [f32::NAN, f32::INFINITY] {
            numbers[3] = wrong;
            narrow_q8(&numbers, &mut bytes);
            assert!(!Latents::Q8(&bytes).to_f32()[3].is_finite(), "{wrong}");
        }
    }
}
