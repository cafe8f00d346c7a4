//! One model under training: a step takes batches and changes the weights.
//!
//! The order within a step is that of the K2 report's algorithm 1: gradient, Muon or AdamW, then QK-Clip with
//! the maxima of this step's forward pass, then (DeepSeek-V3) the selection biases.

use serde::{Deserialize, Serialize};

use crate::balance;
use crate::batch::{Batch, BatchError};
use crate::error::TrainError;
use crate::optimizer::{Optimizer, squared_norms};
use crate::params::Params;
use crate::qk_clip;
use crate::quantize::{Format, round_all};
use crate::recipe::{BalanceSettings, Recipe};
use crate::schedule::Schedule;
use crate::step::{Losses, Workers};

/// Weights, moments and how far they have come.
pub struct Trainer {
    params: Params,
    /// The weights as they will be published, in the last stage.
    rounded: Vec<f32>,
    optimizer: Optimizer,
    workers: Workers,
    schedule: Schedule,
    balance: BalanceSettings,
    quantized_steps: u64,
    progress: Progress,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Positions seen.
    pub tokens: u64,
}

/// What a step has to say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Its number; the first is 1.
    pub step: u64,
    /// Positions seen so far.
    pub tokens: u64,
    /// Mean cross entropy over the positions that count.
    pub loss: f64,
    /// The sequence-wise balance loss, its weight included.
    pub balance_loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Norm of the whole gradient, before it was scaled down.
    pub gradient_norm: f64,
    /// The largest input to a softmax.
    pub max_logit: f32,
    /// How many heads QK-Clip has changed.
    pub clipped_heads: usize,
    /// How far the busiest expert is above the mean, in means.
    pub max_violation: f32,
}

impl Trainer {
    /// Begins with these weights.
    pub fn new(recipe: &Recipe, params: Params) -> Trainer {
        let threads = recipe.threads();
        Trainer {
            rounded: Vec::new(),
            optimizer: Optimizer::new(params.layout(), recipe.optimizer, threads),
            workers: Workers::new(params.layout(), threads),
            schedule: recipe.schedule,
            balance: recipe.balance,
            quantized_steps: recipe.quantization.map_or(0, |quantization| quantization.last_steps),
            progress: Progress::default(),
            params,
        }
    }

    /// The weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Steps and tokens.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.workers.threads()
    }

    /// Whether all steps have been taken.
    pub fn is_done(&self) -> bool {
        self.progress.step >= self.schedule.steps
    }

    pub(crate) fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// What a checkpoint is read into.
    pub(crate) fn state_mut(&mut self) -> (&mut Params, &mut Optimizer, &mut Progress) {
        (&mut self.params, &mut self.optimizer, &mut self.progress)
    }

    /// Takes one step over all the batches together.
    pub fn step(&mut self, batches: &[Batch]) -> Result<StepReport, TrainError> {
        self.check(batches)?;
        self.round();
        let weights = weights(&self.params, &self.rounded, self.is_quantized());
        let losses = self.workers.gradients(weights, batches, self.balance.sequence_loss);
        let gradient_norm = self.finite_norm(&losses, batches)?;
        let lr = self.schedule.lr(self.progress.step);
        let limit = self.optimizer.settings().max_gradient_norm.unwrap_or(f64::INFINITY);
        let scale = if gradient_norm > limit { (limit / gradient_norm) as f32 } else { 1.0 };
        self.optimizer.step(self.params.values_mut(), self.workers.gradient_mut(), scale, lr as f32);
        let clipped_heads = self.after(&losses, lr);
        if let Some(tensor) = self.params.not_finite() {
            return Err(self.not_finite(format!("{tensor} after the update")));
        }
        self.progress.step += 1;
        self.progress.tokens += batches.iter().map(|batch| batch.tokens.len() as u64).sum::<u64>();
        let observed = &losses.observed;
        Ok(StepReport {
            step: self.progress.step,
            tokens: self.progress.tokens,
            loss: losses.cross_entropy,
            balance_loss: losses.balance,
            lr,
            gradient_norm,
            max_logit: observed.max_logits.iter().fold(f32::NEG_INFINITY, |most, logit| most.max(*logit)),
            clipped_heads,
            max_violation: balance::max_violation(self.params.layout(), &observed.expert_loads),
        })
    }

    /// The mean loss over batches, with the weights that a step would compute with now.
    pub fn evaluate(&mut self, batches: &[Batch]) -> Result<f64, TrainError> {
        self.check(batches)?;
        self.round();
        let weights = weights(&self.params, &self.rounded, self.is_quantized());
        Ok(self.workers.loss(weights, batches).cross_entropy)
    }

    fn check(&self, batches: &[Batch]) -> Result<(), TrainError> {
        batches.iter().try_for_each(|batch| batch.check(self.params.config().vocab_size))?;
        match batches.iter().any(|batch| batch.weight() > 0.0) {
            true => Ok(()),
            false => Err(BatchError::Nothing.into()),
        }
    }

    fn is_quantized(&self) -> bool {
        self.progress.step + self.quantized_steps >= self.schedule.steps && self.quantized_steps > 0
    }

    fn round(&mut self) {
        if self.is_quantized() {
            self.rounded.resize(self.params.values().len(), 0.0);
            let (layout, threads) = (self.params.layout(), self.workers.threads());
            let format = Format::with_int4_experts;
            round_all(layout, format, self.params.values(), &mut self.rounded, threads);
        }
    }

    /// QK-Clip and the selection biases; returns how many heads were clipped.
    fn after(&mut self, losses: &Losses, lr: f64) -> usize {
        let layout = self.params.layout().clone();
        let values = self.params.values_mut();
        let clipped = match self.optimizer.settings().qk_clip_tau {
            Some(tau) => qk_clip::clip(&layout, values, &losses.observed.max_logits, tau),
            None => 0,
        };
        let frozen = self.progress.step + self.balance.bias_frozen_steps >= self.schedule.steps;
        if self.balance.bias_rate > 0.0 && !(frozen && self.balance.bias_frozen_steps > 0) {
            let rate = f64::from(self.balance.bias_rate) * lr / self.schedule.peak_lr.max(1e-30);
            balance::update_biases(&layout, values, &losses.observed.expert_loads, rate as f32);
        }
        clipped
    }

    /// The norm of the gradient; or, if anything is not finite, what was the first not to be.
    fn finite_norm(&mut self, losses: &Losses, batches: &[Batch]) -> Result<f64, TrainError> {
        let norms = squared_norms(self.params.layout(), self.workers.gradient_mut());
        let norm = norms.iter().sum::<f64>().sqrt();
        if losses.cross_entropy.is_finite() && losses.balance.is_finite() && norm.is_finite() {
            return Ok(norm);
        }
        Err(self.not_finite(self.cause(&norms, batches)))
    }

    /// A weight, else what the forward pass makes of finite weights, else a gradient. Gradients go from the last tensor
    /// to the first, so the last one that is not finite was there first.
    fn cause(&self, norms: &[f64], batches: &[Batch]) -> String {
        if let Some(tensor) = self.params.not_finite() {
            return tensor.to_owned();
        }
        let weights = weights(&self.params, &self.rounded, self.is_quantized());
        if let Some(place) = self.workers.not_finite(weights, batches) {
            return place;
        }
        match norms.iter().rposition(|norm| !norm.is_finite()) {
            Some(tensor) => format!("the gradient of {}", self.params.layout().tensors()[tensor].name),
            None => "the loss".to_owned(),
        }
    }

    fn not_finite(&self, what: String) -> TrainError {
        TrainError::NotFinite { step: self.progress.step + 1, what }
    }
}

fn weights<'a>(params: &'a Params, rounded: &'a [f32], is_quantized: bool) -> &'a [f32] {
    if is_quantized { rounded } else { params.values() }
}
