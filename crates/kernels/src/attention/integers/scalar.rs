//! Plain loops: what every machine runs, and the twin that the others are tested against.

use super::{GROUP, Group, Products, QueryGroup, TILE};

/// Plain loops.
pub(super) struct Scalar;

impl Products for Scalar {
    #[inline(always)]
    fn dots<const Q: usize, const K: usize>(
        queries: [&[QueryGroup]; Q],
        rows: [&[Group]; K],
    ) -> [[i32; K]; Q] {
        queries.map(|query| {
            rows.map(|row| query.iter().zip(row).fold(0i32, |sum, (a, b)| sum.wrapping_add(dot(&a.0, b))))
        })
    }

    #[inline(always)]
    // SAFETY: the caller promises what the trait asks for.
    unsafe fn columns<const Q: usize>(
        rows: &[&[Group]],
        group: usize,
        weights: &[[i16; TILE]; Q],
    ) -> [[i32; GROUP]; Q] {
        let mut sums = [[0i32; GROUP]; Q];
        for (key, row) in rows.iter().enumerate() {
            for q in 0..Q {
                for l in 0..GROUP {
                    let product = i32::from(weights[q][key]) * i32::from(row[group][l]);
                    sums[q][l] = sums[q][l].wrapping_add(product);
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
