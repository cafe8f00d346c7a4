//! A run from its recipe to its last checkpoint.

use k2_model::Config;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::Batch;
use crate::checkpoint;
use crate::data::{DataSettings, Skipped, Stream};
use crate::error::TrainError;
use crate::memory;
use crate::metrics::Metrics;
use crate::params::Params;
use crate::recipe::Recipe;
use crate::trainer::{StepReport, Trainer};

/// How often a step's batches are drawn until there is something to learn from.
const DRAWS: usize = 100;

/// Where batches come from, and how to get back to where one was.
pub trait Source {
    /// The next batch; data begins again when it is at its end.
    fn next_batch(&mut self) -> Result<Batch, TrainError>;
    /// Where the next batch begins.
    fn cursor(&self) -> Value;
    /// Goes to where a cursor was taken.
    fn seek(&mut self, cursor: &Value) -> Result<(), TrainError>;
}

/// What happens in a run, for those who watch it.
#[derive(Debug)]
#[allow(missing_docs)] // fields say what they are
pub enum Event<'a> {
    /// Records were left out of the data.
    Skipped { skipped: &'a Skipped },
    /// Weights and data are there.
    Started { step: u64, parameters: usize, threads: usize },
    /// A step is done.
    Step { report: &'a StepReport, tokens_per_second: f64 },
    /// The held-out loss was taken.
    Evaluated { step: u64, loss: f64 },
    /// A checkpoint is on the disk.
    Saved { path: &'a Path },
    /// All steps are done, or the watcher has asked to stop.
    Finished { step: u64 },
}

/// Who watches a run; `Break` ends it after a checkpoint.
pub type Watcher<'a> = dyn FnMut(&Event<'_>) -> ControlFlow<()> + 'a;

/// Trains on the data of the recipe. With `resume`, goes on from the last checkpoint of the recipe's folder;
/// without, the folder must not hold one. Returns the last checkpoint.
pub fn run(recipe: &Recipe, resume: bool, watcher: &mut Watcher<'_>) -> Result<PathBuf, TrainError> {
    let config = recipe.config()?;
    let settings = DataSettings::from_recipe(&recipe.data)?;
    memory::check(recipe, &config, recipe.threads(), memory::records(&settings))?;
    let mut stream = Stream::open(&settings, recipe.batch.sequences, recipe.batch.length)?;
    let held_out = stream.held_out(recipe.evaluation.batches)?;
    check_evaluation(recipe, &held_out)?;
    let skipped = stream.skipped();
    if skipped.records > 0 {
        let _ = watcher(&Event::Skipped { skipped: &skipped });
    }
    run_on(recipe, &mut stream, &held_out, resume, watcher)
}

/// A held-out loss that was asked for needs something that is held out.
fn check_evaluation(recipe: &Recipe, held_out: &[Batch]) -> Result<(), TrainError> {
    let settings = &recipe.evaluation;
    if settings.every_steps == 0 || !held_out.is_empty() {
        return Ok(());
    }
    let expected = match settings.batches {
        0 => "0, because `evaluation.batches` is 0",
        _ => "0, because no source holds anything out: lines and pieces never do, files by `data.held_out`",
    };
    let (field, found) = ("evaluation.every_steps", settings.every_steps.to_string());
    Err(TrainError::Value { field, found, expected: expected.to_owned() })
}

/// Trains on any source of batches. `held_out` is what the held-out loss is taken over.
pub fn run_on(
    recipe: &Recipe,
    source: &mut dyn Source,
    held_out: &[Batch],
    resume: bool,
    watcher: &mut Watcher<'_>,
) -> Result<PathBuf, TrainError> {
    let config = recipe.config()?;
    let folder = recipe.run.join("checkpoints");
    let last = checkpoint::latest(&folder)?;
    let recipe = &with_threads(recipe, last.as_deref().filter(|_| resume))?;
    memory::check(recipe, &config, recipe.threads(), 0)?;
    let mut trainer = match (&last, resume) {
        (Some(_), false) => return Err(TrainError::Occupied { path: recipe.run.clone() }),
        (None, true) => return Err(TrainError::NoCheckpoint { path: folder }),
        (Some(path), true) => {
            let mut trainer = Trainer::new(recipe, Params::zeros(&config));
            source.seek(&checkpoint::resume(&mut trainer, recipe, path)?)?;
            trainer
        }
        (None, false) => Trainer::new(recipe, initial(recipe, &config)?),
    };
    std::fs::create_dir_all(&folder).map_err(|error| TrainError::Io { path: folder.clone(), error })?;
    checkpoint::remove_unfinished(&folder)?;
    let metrics = Metrics::open(&recipe.run, trainer.progress().step)?;
    let parameters = trainer.params().values().len();
    let started = Event::Started { step: trainer.progress().step, parameters, threads: trainer.threads() };
    // Nothing has been done yet that a checkpoint could save.
    let _ = watcher(&started);
    let mut run = Run { recipe, source, held_out, watcher, metrics, folder, saved: Instant::now(), last };
    run.train(&mut trainer)
}

/// The number of threads is a part of the result: one that the recipe leaves open is that of the checkpoint, or fixed now.
fn with_threads(recipe: &Recipe, last: Option<&Path>) -> Result<Recipe, TrainError> {
    let begun_with = match (recipe.threads, last) {
        (0, Some(path)) => checkpoint::threads(path)?,
        (threads, _) => threads,
    };
    let recipe = Recipe { threads: begun_with, ..recipe.clone() };
    Ok(Recipe { threads: recipe.threads(), ..recipe })
}

/// Weights to begin with: of another checkpoint, the mean of several, or new ones.
fn initial(recipe: &Recipe, config: &Config) -> Result<Params, TrainError> {
    let Some(path) = &recipe.init else { return Ok(Params::random(config, recipe.seed, recipe.init_std)) };
    let mut params = load(path, recipe, config)?;
    for path in &recipe.init_mean_with {
        let more = load(path, recipe, config)?;
        params.values_mut().iter_mut().zip(more.values()).for_each(|(value, more)| *value += more);
    }
    let share = 1.0 / (1 + recipe.init_mean_with.len()) as f32;
    params.values_mut().iter_mut().for_each(|value| *value *= share);
    Ok(params)
}

fn load(path: &Path, recipe: &Recipe, config: &Config) -> Result<Params, TrainError> {
    let checkpoint = k2_weights::Checkpoint::open(path, &mut |_| ())?;
    match recipe.init_layers.as_slice() {
        [] => Ok(Params::load_as(&checkpoint, config)?),
        layers => Ok(Params::load_deeper(&checkpoint, config, layers)?),
    }
}

struct Run<'a, 'w> {
    recipe: &'a Recipe,
    source: &'a mut dyn Source,
    held_out: &'a [Batch],
    watcher: &'a mut Watcher<'w>,
    metrics: Metrics,
    folder: PathBuf,
    saved: Instant,
    last: Option<PathBuf>,
}

impl Run<'_, '_> {
    fn train(&mut self, trainer: &mut Trainer) -> Result<PathBuf, TrainError> {
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue() && !trainer.is_done() {
            flow = self.step(trainer)?;
            self.evaluate(trainer)?;
            if self.is_due(trainer.progress().step) {
                self.save(trainer)?;
            }
        }
        let step = trainer.progress().step;
        let path = match self.last.take() {
            Some(path) if path.ends_with(format!("step-{step:08}")) => path,
            _ => self.save(trainer)?,
        };
        let _ = (self.watcher)(&Event::Finished { step });
        Ok(path)
    }

    fn step(&mut self, trainer: &mut Trainer) -> Result<ControlFlow<()>, TrainError> {
        let start = Instant::now();
        let batches = self.draw()?;
        let report = trainer.step(&batches)?;
        let tokens: usize = batches.iter().map(|batch| batch.tokens.len()).sum();
        let seconds = start.elapsed().as_secs_f64();
        let tokens_per_second = tokens as f64 / seconds;
        self.metrics.step(&report, seconds, tokens_per_second)?;
        Ok((self.watcher)(&Event::Step { report: &report, tokens_per_second }))
    }

    /// The batches of a step. A sequence can be the beginning of a document whose end is to be learned; if all
    /// of a step are, it is drawn again.
    fn draw(&mut self) -> Result<Vec<Batch>, TrainError> {
        let mut batches = Vec::new();
        for _ in 0..DRAWS {
            batches = (0..self.recipe.batch.accumulation)
                .map(|_| self.source.next_batch())
                .collect::<Result<_, _>>()?;
            if batches.iter().any(|batch| batch.weight() > 0.0) {
                break;
            }
        }
        Ok(batches)
    }

    fn evaluate(&mut self, trainer: &mut Trainer) -> Result<(), TrainError> {
        let progress = trainer.progress();
        let every = self.recipe.evaluation.every_steps;
        let due = every > 0 && (progress.step.is_multiple_of(every) || trainer.is_done());
        if !due || self.held_out.is_empty() {
            return Ok(());
        }
        let loss = trainer.evaluate(self.held_out)?;
        self.metrics.evaluation(progress.step, progress.tokens, loss)?;
        let _ = (self.watcher)(&Event::Evaluated { step: progress.step, loss });
        Ok(())
    }

    fn is_due(&self, step: u64) -> bool {
        let settings = &self.recipe.checkpoint;
        let by_steps = settings.every_steps > 0 && step.is_multiple_of(settings.every_steps);
        let minutes = self.saved.elapsed().as_secs_f64() / 60.0;
        by_steps || (settings.every_minutes > 0.0 && minutes >= settings.every_minutes)
    }

    fn save(&mut self, trainer: &Trainer) -> Result<PathBuf, TrainError> {
        let path = checkpoint::save(trainer, self.recipe, self.source.cursor(), &self.folder)?;
        (self.saved, self.last) = (Instant::now(), Some(path.clone()));
        let _ = (self.watcher)(&Event::Saved { path: &path });
        Ok(path)
    }
}
