//! The backward pass: each file undoes the file of the same name in `forward`.
//!
//! Gradients of weights are added to a vector of the weights' layout; `workspace.dx` carries the gradient
//! for the residual stream from the head down to the embeddings.

pub mod attention;
pub mod embed;
pub mod layer;
pub mod mla;
pub mod mlp;
pub mod moe;
pub mod rmsnorm;
pub mod router;

use crate::forward::Pass;
use crate::workspace::Workspace;

/// Takes `workspace.dx` (what `loss` has left) through all layers. `balance` is the factor of the
/// sequence-wise balance loss; returns that loss, times the factor.
pub fn backward(pass: &Pass<'_>, workspace: &mut Workspace, balance: f32, gradient: &mut [f32]) -> f64 {
    let layers = (0..pass.layout.layers.len()).rev();
    let loss = layers.map(|layer| layer::backward(pass, layer, workspace, balance, gradient)).sum();
    embed::backward(pass, &workspace.dx, gradient);
    loss
}
