//! Plain loops: what every machine runs, and the twin that the others are tested against.

use super::{GROUP, Group, Products, TILE};

/// Plain loops.
pub(super) struct Scalar;

impl Products for Scalar {
    #[inline(always)]
    fn dots<const Q: usize, const K: usize>(queries: [&[Group]; Q], rows: [&[Group]; K]) -> [[i32; K]; Q] {
        queries.map(|query| {
            rows.map(|row| query.iter().zip(row).fold(0i32, |sum, (a, b)| sum.wrapping_add(dot(a, b))))
        })
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn columns<const Q: usize, const G: usize>(
        rows: &[&[Group]],
        group: usize,
        weights: &[[i16; TILE]; Q],
    ) -> [[[i32; GROUP]; G]; Q] {
        let mut sums = [[[0i32; GROUP]; G]; Q];
        for (key, row) in rows.iter().enumerate() {
            for (sums, weights) in sums.iter_mut().zip(weights) {
                for (sums, numbers) in sums.iter_mut().zip(&row[group..]) {
                    for l in 0..GROUP {
                        sums[l] = sums[l].wrapping_add(i32::from(weights[key]) * i32::from(numbers[l]));
                    }
                }
            }
        }
        sums
    }
}

/// Wraps around, as vectors do, where numbers are larger than what is written here: those of a broken file.
#[inline(always)]
fn dot(a: &Group, b: &Group) -> i32 {
    let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b));
    products.fold(0, i32::wrapping_add)
}
