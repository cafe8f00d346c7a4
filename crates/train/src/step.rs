//! Loss and gradient of a step, on threads that each take their own sequences.
//!
//! Which thread takes which sequences is fixed, and the threads' gradients are added in their order: the
//! same batch on the same number of threads gives the same bits. Threads begin and end with the work;
//! nobody spins.

use std::sync::Arc;

use crate::backward::backward;
use crate::batch::{Batch, MicroBatch};
use crate::forward::rope::AngleTable;
use crate::forward::{self, Pass};
use crate::loss::loss;
use crate::params::Layout;
use crate::workspace::{Observed, Workspace};

/// Tokens that a thread takes through the model together: enough rows for an expert's products, few enough
/// for the processor's caches.
const MICRO_TOKENS: usize = 1024;

/// Threads with their buffers.
pub struct Workers {
    layout: Arc<Layout>,
    workers: Vec<Worker>,
    angles: AngleTable,
    length: usize,
}

#[derive(Default)]
struct Worker {
    workspace: Workspace,
    gradient: Vec<f32>,
    loss: f64,
    balance: f64,
}

/// What a step has computed besides the gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean cross entropy over the positions that count.
    pub cross_entropy: f64,
    /// The sequence-wise balance loss, its weight included.
    pub balance: f64,
    /// The sum of the positions' weights.
    pub weight: f64,
    /// Largest attention logits and expert loads.
    pub observed: Observed,
}

impl Workers {
    /// As many workers as threads are wanted.
    pub fn new(layout: &Arc<Layout>, threads: usize) -> Workers {
        let workers = (0..threads.max(1)).map(|_| Worker::default()).collect();
        let angles = AngleTable::new(layout.config(), 0);
        Workers { layout: Arc::clone(layout), workers, angles, length: 0 }
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.workers.len()
    }

    /// The loss alone.
    pub fn loss(&mut self, weights: &[f32], batches: &[Batch]) -> Losses {
        self.run(weights, batches, None)
    }

    /// Loss and gradient over all batches together; the gradient is then in [`Workers::gradient_mut`].
    /// `balance` is the weight of the sequence-wise balance loss.
    pub fn gradients(&mut self, weights: &[f32], batches: &[Batch], balance: f32) -> Losses {
        let losses = self.run(weights, batches, Some(balance));
        self.reduce();
        losses
    }

    /// The gradient of the last step, in the weights' layout.
    pub fn gradient_mut(&mut self) -> &mut [f32] {
        &mut self.workers[0].gradient
    }

    /// Where the residual stream of these batches, which a step has just seen, is first not finite.
    pub fn not_finite(&self, weights: &[f32], batches: &[Batch]) -> Option<String> {
        let (layout, angles, mut workspace) = (&*self.layout, &self.angles, Workspace::default());
        let sequences = batches.iter().map(|batch| batch.sequences).sum();
        split(batches, sequences, self.workers.len()).into_iter().find_map(|batch| {
            let pass = Pass { layout, weights, batch, angles, frozen_routing: false };
            forward::not_finite(&pass, &mut workspace)
        })
    }

    fn run(&mut self, weights: &[f32], batches: &[Batch], balance: Option<f32>) -> Losses {
        let length = batches.iter().map(|batch| batch.length).max().unwrap_or(0);
        if self.length < length {
            (self.angles, self.length) = (AngleTable::new(self.layout.config(), length), length);
        }
        let sequences: usize = batches.iter().map(|batch| batch.sequences).sum();
        let weight: f64 = batches.iter().map(Batch::weight).sum();
        let scale = Scale {
            loss: (1.0 / weight.max(1e-30)) as f32,
            balance: balance.map(|balance| balance / sequences.max(1) as f32),
        };
        let (layout, angles, threads) = (&*self.layout, &self.angles, self.workers.len());
        let pass = |batch| Pass { layout, weights, batch, angles, frozen_routing: false };
        let micro_batches = split(batches, sequences, threads);
        std::thread::scope(|scope| {
            for (thread, worker) in self.workers.iter_mut().enumerate() {
                let mine = micro_batches.iter().skip(thread).step_by(threads);
                scope.spawn(move || worker.run(layout, mine.map(|batch| pass(*batch)), scale));
            }
        });
        self.collect(weight)
    }

    fn collect(&self, weight: f64) -> Losses {
        let mut losses = Losses { weight, ..Losses::default() };
        for worker in &self.workers {
            losses.cross_entropy += worker.loss / weight.max(1e-30);
            losses.balance += worker.balance;
            losses.observed.merge(&worker.workspace.observed);
        }
        losses
    }

    /// Adds the other workers' gradients to the first one's, each thread its part of the vector.
    fn reduce(&mut self) {
        let threads = self.workers.len();
        let Some((first, others)) = self.workers.split_first_mut() else { return };
        let part = first.gradient.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for (i, sum) in first.gradient.chunks_mut(part).enumerate() {
                let others = &*others;
                scope.spawn(move || {
                    for other in others {
                        let other = &other.gradient[i * part..][..sum.len()];
                        sum.iter_mut().zip(other).for_each(|(sum, g)| *sum += g);
                    }
                });
            }
        });
    }
}

/// Factors of the gradient; without a balance factor there is none to compute.
#[derive(Clone, Copy)]
struct Scale {
    loss: f32,
    balance: Option<f32>,
}

impl Worker {
    fn run<'a>(&mut self, layout: &Layout, passes: impl Iterator<Item = Pass<'a>>, scale: Scale) {
        (self.loss, self.balance) = (0.0, 0.0);
        self.workspace.observed.clear();
        if scale.balance.is_some() {
            self.gradient.clear();
            self.gradient.resize(layout.len(), 0.0);
        }
        for pass in passes {
            forward::forward(&pass, &mut self.workspace);
            let gradient = scale.balance.map(|_| &mut *self.gradient);
            self.loss += loss(&pass, &mut self.workspace, scale.loss, gradient);
            if let Some(balance) = scale.balance {
                self.balance += backward(&pass, &mut self.workspace, balance, &mut self.gradient);
            }
        }
    }
}

/// Tokens that a thread's buffers hold for sequences of this length.
pub(crate) fn micro_tokens(length: usize) -> usize {
    length.max(MICRO_TOKENS)
}

/// Cuts the batches into pieces of neighbouring sequences.
fn split(batches: &[Batch], sequences: usize, threads: usize) -> Vec<MicroBatch<'_>> {
    let each = |batch: &Batch| {
        let fair = sequences.div_ceil(threads);
        (MICRO_TOKENS / batch.length.max(1)).clamp(1, fair.max(1))
    };
    let pieces = |batch: &Batch| {
        let (step, end) = (each(batch), batch.sequences);
        (0..end).step_by(step).map(move |first| first..(first + step).min(end))
    };
    batches.iter().flat_map(|batch| pieces(batch).map(|piece| batch.micro(piece))).collect()
}
