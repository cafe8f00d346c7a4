//! Products and sums over f32 rows in one fixed order.
//!
//! The order is the heart of the bit-identical promise: element `i` of a sum goes to lane `i mod 16`,
//! each lane adds its elements in order with fused multiply-add, and the lanes are joined by a fixed
//! tree. Blocks of several rows and tokens only keep more such sums in registers at a time.

/// Partial sums of one output.
pub(crate) const LANES: usize = 16;

/// The running sums of one output element.
pub(crate) type Sum = [f32; LANES];

/// Numbers that begin where a cache line does: a load across two lines costs two.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Aligned<T>(pub(crate) T);

/// Aligned numbers as one row.
#[inline(always)]
pub(crate) fn flat<T, const N: usize>(aligned: &[Aligned<[T; N]>]) -> &[T] {
    const { assert!(size_of::<Aligned<[T; N]>>() == size_of::<[T; N]>(), "padding") };
    // SAFETY: an aligned array is its numbers and no padding, as asserted.
    unsafe { std::slice::from_raw_parts(aligned.as_ptr().cast(), aligned.len() * N) }
}

/// The same, to be written.
#[inline(always)]
pub(crate) fn flat_mut<T, const N: usize>(aligned: &mut [Aligned<[T; N]>]) -> &mut [T] {
    const { assert!(size_of::<Aligned<[T; N]>>() == size_of::<[T; N]>(), "padding") };
    // SAFETY: an aligned array is its numbers and no padding, as asserted.
    unsafe { std::slice::from_raw_parts_mut(aligned.as_mut_ptr().cast(), aligned.len() * N) }
}

/// Joins the lanes by halves: 16, 8, 4, 2, 1.
#[inline(always)]
pub(crate) fn total(mut sum: Sum) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sum[i] += sum[i + half];
        }
        half /= 2;
    }
    sum[0]
}

/// `sum += a * b` over rows whose length is a multiple of [`LANES`]; `A` rows of one against `B` rows of the other.
/// Row `r` of `a` begins at `r * a_stride`, likewise `b`.
#[inline(always)]
pub(crate) fn accumulate<const A: usize, const B: usize>(
    sums: &mut [[Sum; B]; A],
    a: &[f32],
    a_stride: usize,
    b: &[f32],
    b_stride: usize,
    len: usize,
) {
    let mut local = *sums;
    let a: [&[f32]; A] = std::array::from_fn(|r| &a[r * a_stride..r * a_stride + len]);
    let b: [&[f32]; B] = std::array::from_fn(|r| &b[r * b_stride..r * b_stride + len]);
    for k in 0..len / LANES {
        let b: [Sum; B] = std::array::from_fn(|r| *lanes(b[r], k));
        for i in 0..A {
            let a = *lanes(a[i], k);
            for j in 0..B {
                for l in 0..LANES {
                    local[i][j][l] = a[l].mul_add(b[j][l], local[i][j][l]);
                }
            }
        }
    }
    *sums = local;
}

/// The `k`-th group of lanes of a row.
#[inline(always)]
fn lanes(row: &[f32], k: usize) -> &[f32; LANES] {
    let (groups, _) = row.as_chunks::<LANES>();
    &groups[k]
}

/// The dot product of two rows of any length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() / LANES * LANES;
    let mut sums = [[[0.0; LANES]; 1]; 1];
    accumulate(&mut sums, &a[..whole], 0, &b[..whole], 0, whole);
    let mut sum = sums[0][0];
    for (l, (a, b)) in a[whole..].iter().zip(&b[whole..]).enumerate() {
        sum[l] = a.mul_add(*b, sum[l]);
    }
    total(sum)
}

/// `y += factor * x`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = factor.mul_add(*x, *y);
    }
}
