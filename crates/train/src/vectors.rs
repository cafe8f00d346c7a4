//! Loops over numbers, compiled for the vectors of the machine at hand.
//!
//! A sum has sixteen partial sums in a fixed order, so that it vectorises and gives the same bits again.

/// Runs a closure compiled for the best instruction set found at run time. What it calls must be
/// `#[inline(always)]`, and so must the closure itself, to be compiled along with it.
#[inline(always)]
pub(crate) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

const LANES: usize = 16;

/// `sum(map(a_i, b_i))`.
#[inline(always)]
pub(crate) fn sum_of(a: &[f32], b: &[f32], map: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_head, a_tail) = a.split_at(a.len() / LANES * LANES);
    let (b_head, b_tail) = b.split_at(a_head.len());
    for (a, b) in a_head.chunks_exact(LANES).zip(b_head.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += map(a[lane], b[lane]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| map(*a, *b)).sum();
    sums.iter().sum::<f32>() + tail
}

/// The inner product.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(
        a,
        b,
        #[inline(always)]
        |a, b| a * b,
    )
}

/// The largest number; minus infinity of none.
#[inline(always)]
pub(crate) fn max_of(a: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (head, tail) = a.split_at(a.len() / LANES * LANES);
    for a in head.chunks_exact(LANES) {
        for lane in 0..LANES {
            best[lane] = if a[lane] > best[lane] { a[lane] } else { best[lane] };
        }
    }
    tail.iter().chain(&best).fold(f32::NEG_INFINITY, |best, a| best.max(*a))
}

/// `y += factor x`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// The sum of squares, accumulated in f64: whole tensors are summed with it.
pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
    vectorized(
        #[inline(always)]
        || values.chunks(1024).map(|chunk| f64::from(dot(chunk, chunk))).sum(),
    )
}

/// The first `len` numbers of a buffer, which grows if it has fewer. Contents are left over.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
