//! The forward pass of training: whole sequences at once, keeping what the backward pass needs.
//!
//! Mirrors the `model` crate file by file. Attention computes every head's keys and values (the naive form
//! of MLA), which for whole sequences costs less than the absorbed one.

pub mod attention;
pub mod embed;
pub mod layer;
pub mod mla;
pub mod mlp;
pub mod moe;
pub mod rmsnorm;
pub mod rope;
pub mod router;
mod yarn;

use crate::batch::MicroBatch;
use crate::params::Layout;
use crate::workspace::Workspace;

/// What a pass needs besides its buffers.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Where the weights lie.
    pub layout: &'a Layout,
    /// The weights as they are computed with: the trained ones, or those rounded to a storage format.
    pub weights: &'a [f32],
    /// The sequences.
    pub batch: MicroBatch<'a>,
    /// Cosines and sines.
    pub angles: &'a rope::AngleTable,
    /// Use the choice of experts of the pass before, for finite differences.
    pub frozen_routing: bool,
}

/// Runs all layers until the residual stream is not finite; returns which one made it so.
pub(crate) fn not_finite(pass: &Pass<'_>, workspace: &mut Workspace) -> Option<String> {
    let is_finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
    workspace.begin(pass);
    embed::forward(pass, &mut workspace.x);
    for layer in 0..pass.layout.layers.len() {
        layer::forward(pass, layer, workspace);
        let part = match is_finite(&workspace.layers[layer].mid) {
            true if is_finite(&workspace.x) => continue,
            true => "mlp",
            false => "self_attn",
        };
        return Some(format!("what model.layers.{layer}.{part} adds"));
    }
    None
}

/// Runs all layers; `workspace.x` then holds the residual stream after the last, before `model.norm`.
pub fn forward(pass: &Pass<'_>, workspace: &mut Workspace) {
    workspace.begin(pass);
    embed::forward(pass, &mut workspace.x);
    for layer in 0..pass.layout.layers.len() {
        layer::forward(pass, layer, workspace);
    }
}
