//! The weights under training: one vector of f32, and a table that says which tensor lies where.
//!
//! Gradients and optimizer moments are vectors of the same layout. Tensors go by their official names and
//! shapes (`y = x Wᵀ`, rows = outputs); `gate_proj` and `up_proj` of an MLP lie side by side, so that one
//! product computes both.

mod deepen;
mod init;
mod layout;
mod load;

pub use layout::{Layout, Rule, Slot, Tensor};
pub(crate) use layout::{MlaSlots, MlpSlots, MoeSlots, QuerySlots, TransformSlots};
pub use load::LoadError;

use k2_model::Config;
use std::sync::Arc;

use crate::error::TrainError;

/// A model's weights.
#[derive(Clone)]
pub struct Params {
    layout: Arc<Layout>,
    values: Vec<f32>,
}

impl Params {
    /// All zeros.
    pub fn zeros(config: &Config) -> Params {
        let layout = Arc::new(Layout::new(config));
        let values = vec![0.0; layout.len()];
        Params { layout, values }
    }

    /// Which tensor lies where.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The config that the layout is made from.
    pub fn config(&self) -> &Config {
        self.layout.config()
    }

    /// Every weight.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Every weight, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The first tensor with a number that is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        // All of them, without a branch: so it takes vectors.
        let is_finite = |values: &[f32]| values.iter().fold(true, |all, value| all & value.is_finite());
        let tensor = self.layout.tensors().iter().find(|tensor| !is_finite(tensor.slot.of(&self.values)))?;
        Some(&tensor.name)
    }

    /// Refuses weights with a number that is not finite.
    pub fn check_finite(&self) -> Result<(), TrainError> {
        match self.not_finite() {
            Some(tensor) => Err(TrainError::NotFiniteWeights { tensor: tensor.to_owned() }),
            None => Ok(()),
        }
    }

    /// A tensor by its official name.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.layout.find(name).map(|tensor| tensor.slot.of(&self.values))
    }

    /// A tensor by its official name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        let slot = self.layout.find(name)?.slot;
        Some(slot.of_mut(&mut self.values))
    }
}
