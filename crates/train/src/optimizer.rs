//! One step of the optimizer over all tensors: MuonClip, or AdamW alone as the baseline.
//!
//! Muon takes every matrix inside the layers, the router's too; AdamW takes `embed_tokens`, `lm_head` and the
//! gains (Moonlight's example splits so; the K2 report does not list its split). Learning rate and weight
//! decay are shared. Threads take tensor after tensor; who takes which makes no difference to the numbers.

use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

use crate::adamw::{AdamW, Moments};
use crate::muon::{self, Muon, MuonScratch};
use crate::params::{Layout, Rule};
use crate::vectors::sum_of_squares;

/// Which optimizer, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSettings {
    /// For matrices inside the layers.
    pub matrices: MatrixRule,
    /// Decoupled weight decay, times the learning rate.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f32,
    /// Muon's settings.
    #[serde(default)]
    pub muon: Muon,
    /// AdamW's settings.
    #[serde(default)]
    pub adamw: AdamW,
    /// QK-Clip's threshold; left out, nothing is clipped.
    #[serde(default)]
    pub qk_clip_tau: Option<f32>,
    /// Gradients of a larger norm are scaled down to it; left out, they are not.
    #[serde(default)]
    pub max_gradient_norm: Option<f64>,
}

/// What trains a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixRule {
    /// Muon.
    Muon,
    /// AdamW, as everything else.
    AdamW,
}

fn default_weight_decay() -> f32 {
    0.1
}

/// Moments, and how often they were moved.
pub struct Optimizer {
    settings: OptimizerSettings,
    layout: Arc<Layout>,
    /// Muon's momentum, or Adam's first moment; in the weights' layout.
    first: Vec<f32>,
    /// Adam's second moment of the tensors that have one, one after the other.
    second: Vec<f32>,
    steps: u64,
    scratch: Vec<MuonScratch>,
}

/// One tensor's share of a step.
struct Job<'a> {
    muon: bool,
    cols: usize,
    weights: &'a mut [f32],
    gradient: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Optimizer {
    /// Moments of zero.
    pub fn new(layout: &Arc<Layout>, settings: OptimizerSettings, threads: usize) -> Optimizer {
        let numbers = |tensor: &crate::params::Tensor| match is_adamw(settings.matrices, tensor.rule) {
            true => tensor.slot.len(),
            false => 0,
        };
        let second = layout.tensors().iter().map(numbers).sum();
        Optimizer {
            settings,
            layout: Arc::clone(layout),
            first: vec![0.0; layout.len()],
            second: vec![0.0; second],
            steps: 0,
            scratch: (0..threads.max(1)).map(|_| MuonScratch::default()).collect(),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &OptimizerSettings {
        &self.settings
    }

    /// How many steps have been taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// First moments, second moments, for a checkpoint.
    pub fn moments(&self) -> (&[f32], &[f32]) {
        (&self.first, &self.second)
    }

    /// First moments, second moments and the step count, to be read from a checkpoint.
    pub fn moments_mut(&mut self) -> (&mut [f32], &mut [f32], &mut u64) {
        (&mut self.first, &mut self.second, &mut self.steps)
    }

    /// Changes `weights` by `gradient`, which is scaled by `gradient_scale` on the way.
    pub fn step(&mut self, weights: &mut [f32], gradient: &mut [f32], gradient_scale: f32, lr: f32) {
        self.steps += 1;
        let (settings, t) = (self.settings, self.steps);
        let mut jobs =
            jobs(&self.layout, settings.matrices, weights, gradient, &mut self.first, &mut self.second);
        // The longest first: nobody waits for one that was begun last.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.cost()));
        let queue = Mutex::new(jobs.into_iter());
        std::thread::scope(|scope| {
            for scratch in &mut self.scratch {
                let queue = &queue;
                scope.spawn(move || {
                    while let Some(job) = take(queue) {
                        job.run(&settings, gradient_scale, t, lr, scratch);
                    }
                });
            }
        });
    }
}

/// Each tensor's sum of squares of the gradient.
pub fn squared_norms(layout: &Layout, gradient: &[f32]) -> Vec<f64> {
    layout.tensors().iter().map(|tensor| sum_of_squares(tensor.slot.of(gradient))).collect()
}

fn take<'a>(queue: &Mutex<std::vec::IntoIter<Job<'a>>>) -> Option<Job<'a>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn is_adamw(matrices: MatrixRule, rule: Rule) -> bool {
    match rule {
        Rule::Matrix => matrices == MatrixRule::AdamW,
        Rule::Table | Rule::Gain => true,
        Rule::SelectionBias => false,
    }
}

/// Cuts the vectors into tensors; selection biases take no part.
fn jobs<'a>(
    layout: &Layout,
    matrices: MatrixRule,
    mut weights: &'a mut [f32],
    mut gradient: &'a mut [f32],
    mut first: &'a mut [f32],
    mut second: &'a mut [f32],
) -> Vec<Job<'a>> {
    let mut jobs = Vec::with_capacity(layout.tensors().len());
    for tensor in layout.tensors() {
        let (len, adamw) = (tensor.slot.len(), is_adamw(matrices, tensor.rule));
        let job = Job {
            muon: !adamw,
            cols: tensor.slot.cols,
            weights: cut(&mut weights, len),
            gradient: cut(&mut gradient, len),
            first: cut(&mut first, len),
            second: cut(&mut second, if adamw { len } else { 0 }),
        };
        if tensor.rule != Rule::SelectionBias {
            jobs.push(job);
        }
    }
    jobs
}

fn cut<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}

impl Job<'_> {
    fn cost(&self) -> usize {
        let (len, rows) = (self.weights.len(), self.weights.len() / self.cols);
        if self.muon { len * rows.min(self.cols) * 20 } else { len * 10 }
    }

    fn run(self, settings: &OptimizerSettings, scale: f32, t: u64, lr: f32, scratch: &mut MuonScratch) {
        if scale != 1.0 {
            self.gradient.iter_mut().for_each(|g| *g *= scale);
        }
        if self.muon {
            let update = settings.muon.update(self.gradient, self.first, self.cols, scratch);
            muon::apply(self.weights, update, lr, settings.weight_decay);
        } else {
            let moments = Moments { first: self.first, second: self.second };
            settings.adamw.step(self.weights, self.gradient, moments, t, lr, settings.weight_decay);
        }
    }
}
