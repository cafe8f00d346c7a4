//! Muon (Jordan et al., 2024) in the form of Moonlight (arXiv 2502.16982) and Kimi K2 (arXiv 2507.20534,
//! algorithm 1): the momentum of each matrix is made nearly orthogonal by Newton–Schulz iterations and scaled
//! so that its update is about as large as Adam's.
//!
//! Each matrix of the checkpoint is one matrix here: an expert's projections one by one, a projection of all
//! heads as a whole (split by head, updates get too large, as Moonlight reports).

use serde::{Deserialize, Serialize};

use crate::gemm::{Into, View, ViewMut, gemm};
use crate::vectors::{sum_of_squares, vectorized};

/// Muon's settings besides learning rate and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Muon {
    /// How much of the momentum stays.
    pub momentum: f32,
    /// Whether the gradient is added once more in front of the iterations (Moonlight's code) or not (K2).
    pub nesterov: bool,
    /// Newton–Schulz steps.
    pub newton_schulz_steps: usize,
    /// Root mean square of an update, before the learning rate.
    pub update_rms: f32,
}

impl Default for Muon {
    fn default() -> Muon {
        Muon { momentum: 0.95, nesterov: false, newton_schulz_steps: 5, update_rms: 0.2 }
    }
}

/// Buffers of the iterations.
#[derive(Default)]
pub struct MuonScratch {
    x: Vec<f32>,
    next: Vec<f32>,
    gram: Vec<f32>,
    polynomial: Vec<f32>,
}

impl Muon {
    /// Moves `momentum` by the gradient (`[rows, cols]`) and returns the update
    /// `update_rms sqrt(max(rows, cols)) NewtonSchulz(momentum)`.
    pub fn update<'a>(
        &self,
        gradient: &[f32],
        momentum: &mut [f32],
        cols: usize,
        scratch: &'a mut MuonScratch,
    ) -> &'a [f32] {
        let (mu, nesterov) = (self.momentum, self.nesterov);
        scratch.x.resize(gradient.len(), 0.0);
        let x = &mut scratch.x;
        vectorized(
            #[inline(always)]
            || {
                for ((x, m), g) in x.iter_mut().zip(momentum).zip(gradient) {
                    *m = mu * *m + g;
                    *x = if nesterov { g + mu * *m } else { *m };
                }
            },
        );
        let longer = cols.max(gradient.len() / cols);
        newton_schulz(cols, self.newton_schulz_steps, scratch);
        let scale = self.update_rms * (longer as f32).sqrt();
        scratch.x.iter_mut().for_each(|x| *x *= scale);
        &scratch.x
    }
}

/// `w -= lr (update + weight_decay w)`.
pub fn apply(weights: &mut [f32], update: &[f32], lr: f32, weight_decay: f32) {
    vectorized(
        #[inline(always)]
        || {
            for (w, update) in weights.iter_mut().zip(update) {
                *w -= lr * (update + weight_decay * *w);
            }
        },
    );
}

/// The nearly orthogonal matrix to `matrix` (rows of `cols`): five steps bring singular values to 0.7 to 1.2.
pub fn orthogonalize(matrix: &[f32], cols: usize, steps: usize, scratch: &mut MuonScratch) -> Vec<f32> {
    scratch.x.clear();
    scratch.x.extend_from_slice(matrix);
    newton_schulz(cols, steps, scratch);
    scratch.x.clone()
}

/// `X /= |X| + 1e-7`, then `A = X Xᵀ`, `X = (a + b A + c A²) X`, repeated; in `scratch.x`. The product is
/// taken on the shorter side: `X (a + b A + c A²)` with `A = Xᵀ X` is the same for a tall matrix.
fn newton_schulz(cols: usize, steps: usize, scratch: &mut MuonScratch) {
    const A: f32 = 3.4445;
    const B: f32 = -4.7750;
    const C: f32 = 2.0315;
    let MuonScratch { x, next, gram, polynomial } = scratch;
    let rows = x.len() / cols;
    let (n, wide) = (rows.min(cols), rows <= cols);
    let norm = sum_of_squares_f64(x).sqrt();
    let scale = (1.0 / (norm + 1e-7)) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
    next.resize(x.len(), 0.0);
    gram.resize(n * n, 0.0);
    polynomial.resize(n * n, 0.0);
    for _ in 0..steps {
        let view = View::rows_of(x, cols);
        let (left, right) = if wide { (view, view.transposed()) } else { (view.transposed(), view) };
        gemm(ViewMut::rows_of(gram, n), Into::Replace, 1.0, left, right);
        let square = View::rows_of(gram, n);
        gemm(ViewMut::rows_of(polynomial, n), Into::Replace, C, square, square);
        polynomial.iter_mut().zip(&*gram).for_each(|(p, a)| *p += B * a);
        polynomial.iter_mut().step_by(n + 1).for_each(|p| *p += A);
        let polynomial = View::rows_of(polynomial, n);
        let (left, right) = if wide { (polynomial, view) } else { (view, polynomial) };
        gemm(ViewMut::rows_of(next, cols), Into::Replace, 1.0, left, right);
        std::mem::swap(x, next);
    }
}

/// Gradients can be so small that their squares vanish in f32; such a matrix is summed in f64.
fn sum_of_squares_f64(values: &[f32]) -> f64 {
    let sum = sum_of_squares(values);
    if sum > 1e-30 { sum } else { values.iter().map(|x| f64::from(*x).powi(2)).sum() }
}
