//! Matrix products in f32 over the `gemm` crate's single-threaded kernel.
//!
//! The one file of this crate with `unsafe`: the kernel takes raw pointers, the checked views here give it
//! nothing that is out of bounds or shared. Threads are the caller's: each calls this with its own rows.

#![allow(unsafe_code)] // one call under a checked entry

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

/// A matrix to read: any rows and columns with constant strides.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix to write: rows of neighbouring numbers, with a constant stride between rows.
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// What happens to the numbers that are in the output already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = alpha a b`, or `out += alpha a b`. Panics if the shapes do not fit.
pub fn gemm(out: ViewMut<'_>, into: Into, alpha: f32, a: View<'_>, b: View<'_>) {
    assert!(
        a.cols == b.rows && out.rows == a.rows && out.cols == b.cols,
        "[{}, {}] = [{}, {}] [{}, {}]",
        out.rows,
        out.cols,
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    let kernel = get_gemm_fn();
    // SAFETY: `View::strided` and `ViewMut::strided` have checked that every element of the three matrices
    // is inside its slice; the output is borrowed mutably and has no element twice (row_stride >= cols);
    // strides and sizes are those of slices, so that they fit `isize`.
    unsafe {
        // The kernel stores columns: of the transposed product these are our rows.
        kernel(
            out.cols,
            out.rows,
            a.cols,
            out.data.as_mut_ptr(),
            out.row_stride as isize,
            1,
            into == Into::Add,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.col_stride as isize,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.col_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `y = x Wᵀ`: a linear layer, `w` as in checkpoints `[outputs, inputs]`.
pub fn linear(y: ViewMut<'_>, into: Into, x: View<'_>, w: View<'_>) {
    gemm(y, into, 1.0, x, w.transposed());
}

/// `dx = dy W`: a linear layer's gradient for its input.
pub fn linear_input_gradient(dx: ViewMut<'_>, into: Into, dy: View<'_>, w: View<'_>) {
    gemm(dx, into, 1.0, dy, w);
}

/// `dW += dyᵀ x`: a linear layer's gradient for its weight.
pub fn linear_weight_gradient(dw: ViewMut<'_>, dy: View<'_>, x: View<'_>) {
    gemm(dw, Into::Add, 1.0, dy.transposed(), x);
}

impl<'a> View<'a> {
    /// The whole slice as rows of `cols`.
    pub fn rows_of(data: &'a [f32], cols: usize) -> View<'a> {
        View::strided(data, data.len() / cols, cols, cols)
    }

    /// `rows` rows of `cols` numbers, `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> View<'a> {
        check(data.len(), rows, cols, row_stride);
        View { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Rows for columns.
    pub fn transposed(self) -> View<'a> {
        View {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

impl<'a> ViewMut<'a> {
    /// The whole slice as rows of `cols`.
    pub fn rows_of(data: &'a mut [f32], cols: usize) -> ViewMut<'a> {
        let rows = data.len() / cols;
        ViewMut::strided(data, rows, cols, cols)
    }

    /// `rows` rows of `cols` numbers, `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> ViewMut<'a> {
        check(data.len(), rows, cols, row_stride);
        ViewMut { data, rows, cols, row_stride }
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    let end = match rows {
        0 => Some(0),
        _ => (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols)),
    };
    assert!(
        cols <= row_stride && end.is_some_and(|end| end <= len),
        "{rows} rows of {cols}, {row_stride} apart, in {len} numbers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the triple loop, at odd sizes and strides.
    #[test]
    fn products_are_those_of_the_formula() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 48, 31), (5, 130, 2), (4, 4, 0)] {
            let numbers = |len: usize, step: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * step) % 19) as f32 / 19.0 - 0.5).collect()
            };
            let (a, b, old) = (numbers(m * (k + 2), 7), numbers(n * (k + 1), 5), numbers(m * (n + 3), 3));
            for into in [Into::Replace, Into::Add] {
                let mut out = old.clone();
                gemm(
                    ViewMut::strided(&mut out, m, n, n + 3),
                    into,
                    0.5,
                    View::strided(&a, m, k, k + 2),
                    View::strided(&b, n, k, k + 1).transposed(),
                );
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let sum: f32 = (0..k).map(|x| a[i * (k + 2) + x] * b[j * (k + 1) + x]).sum();
                    let before = if into == Into::Add { old[i * (n + 3) + j] } else { 0.0 };
                    let found = out[i * (n + 3) + j];
                    assert!((found - (before + 0.5 * sum)).abs() < 1e-5, "{m}x{n}x{k} {into:?} at {i},{j}");
                }
            }
        }
    }
}
