//! What `k2 train --config RECIPE.toml` reads. Unknown keys are refused.

mod model_fields;

use k2_kernels::matrix::INT4_GROUP;
use k2_model::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use toml::Table;

use crate::data::DataSettings;
use crate::error::TrainError;
use crate::optimizer::OptimizerSettings;
use crate::schedule::Schedule;

/// Largest recipe that is read.
const RECIPE_LIMIT: u64 = 1 << 20;

/// As many as anybody may ask for.
pub(crate) const MOST_THREADS: usize = 1024;

/// A training run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Folder of checkpoints and metrics.
    pub run: PathBuf,
    /// Seed of new weights; the data has its own.
    #[serde(default)]
    pub seed: u64,
    /// Threads; 0 is one per processor, and in a run that is resumed what it was begun with. Another number gives other
    /// roundings.
    #[serde(default)]
    pub threads: usize,
    /// A checkpoint to begin with, in place of new weights: fine-tuning.
    #[serde(default)]
    pub init: Option<PathBuf>,
    /// Checkpoints of the same shapes, such as further runs from the same weights: the mean of all these weights and those of
    /// `init` is what to begin with (model soups: Wortsman et al., arXiv 2203.05482).
    #[serde(default)]
    pub init_mean_with: Vec<PathBuf>,
    /// For a model deeper than `init`: the layer of `init` that each layer begins as. One named again begins
    /// without effect.
    #[serde(default)]
    pub init_layers: Vec<usize>,
    /// Standard deviation of new weights.
    #[serde(default)]
    pub init_std: Option<f32>,
    /// `config.json` by its official field names; those that this family has in common may be left out. All of
    /// it may be, if `init` says what to begin with.
    #[serde(default)]
    pub model: Map<String, Value>,
    /// Where the data comes from.
    pub data: Map<String, Value>,
    /// How much of it makes a step.
    pub batch: BatchSettings,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// What changes the weights.
    pub optimizer: OptimizerSettings,
    /// Keeping experts equally busy.
    #[serde(default)]
    pub balance: BalanceSettings,
    /// Rounding in the last stage.
    #[serde(default)]
    pub quantization: Option<QuantizationSettings>,
    /// How often the run is saved.
    #[serde(default)]
    pub checkpoint: CheckpointSettings,
    /// How often the held-out loss is taken.
    #[serde(default)]
    pub evaluation: EvaluationSettings,
}

/// A step's size.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSettings {
    /// Positions of a sequence.
    pub length: usize,
    /// Sequences of a batch.
    pub sequences: usize,
    /// Batches of a step.
    #[serde(default = "one")]
    pub accumulation: usize,
}

/// Balance of the experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BalanceSettings {
    /// How far the selection bias moves in a step; times the learning rate over its peak.
    pub bias_rate: f32,
    /// Steps at the end in which it does not move.
    pub bias_frozen_steps: u64,
    /// Weight of the sequence-wise balance loss.
    pub sequence_loss: f32,
}

/// Quantisation-aware training.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationSettings {
    /// The last steps compute with INT4 experts and BF16 for the rest.
    pub last_steps: u64,
}

/// Checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps between two; 0 leaves it to the time.
    pub every_steps: u64,
    /// Minutes between two; 0 leaves it to the steps.
    pub every_minutes: f64,
    /// How many are kept.
    pub keep: usize,
}

impl Default for CheckpointSettings {
    fn default() -> CheckpointSettings {
        CheckpointSettings { every_steps: 0, every_minutes: 5.0, keep: 2 }
    }
}

/// Held-out loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Steps between two; 0 is never.
    pub every_steps: u64,
    /// Batches that it is taken over.
    pub batches: usize,
}

/// What a command line says in place of the recipe.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `run`
    pub run: Option<PathBuf>,
    /// `init`
    pub init: Option<PathBuf>,
    /// `threads`
    pub threads: Option<usize>,
    /// Lines of TOML in place of the recipe's own: `optimizer.qk_clip_tau = 30.0`.
    pub set: Vec<String>,
}

fn one() -> usize {
    1
}

impl Recipe {
    /// Reads and checks a file.
    pub fn read(path: &Path, overrides: Overrides) -> Result<Recipe, TrainError> {
        let io = |error| TrainError::Io { path: path.to_owned(), error };
        if std::fs::metadata(path).map_err(io)?.len() > RECIPE_LIMIT {
            return Err(io(std::io::Error::other("too large for a recipe")));
        }
        Recipe::parse(&std::fs::read_to_string(path).map_err(io)?, path, overrides)
    }

    /// Reads and checks a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path, overrides: Overrides) -> Result<Recipe, TrainError> {
        let wrong = |error| TrainError::Recipe { path: path.to_owned(), error: Box::new(error) };
        let mut recipe: Recipe = match overrides.set.as_slice() {
            [] => toml::from_str(text).map_err(wrong)?,
            lines => {
                let mut table: Table = toml::from_str(text).map_err(wrong)?;
                lines.iter().try_for_each(|line| set(&mut table, line))?;
                table.try_into().map_err(wrong)?
            }
        };
        recipe.run = overrides.run.unwrap_or(recipe.run);
        recipe.init = overrides.init.or(recipe.init);
        recipe.threads = overrides.threads.unwrap_or(recipe.threads);
        model_fields::check(&recipe.model)?;
        model_fields::check_training(&recipe)?;
        recipe.take_model_of_init()?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Without a `[model]`, it is that of the checkpoint to begin with; how its weights are stored is no part of it.
    fn take_model_of_init(&mut self) -> Result<(), TrainError> {
        if let (true, Some(init)) = (self.model.is_empty(), &self.init)
            && let Value::Object(mut config) = k2_weights::read_config(init)?
        {
            config.remove("quantization_config");
            self.model = config;
        }
        Ok(())
    }

    /// The whole `config.json`: what the recipe says, and what all models of the family have in common.
    pub fn config_json(&self) -> Value {
        let mut config = model_fields::of_the_family();
        if let Some(fields) = config.as_object_mut() {
            fields.extend(self.model.clone());
            if let Some(heads) = fields.get("num_attention_heads").cloned() {
                fields.entry("num_key_value_heads").or_insert(heads);
            }
        }
        config
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads => threads,
        }
    }

    /// The model's config.
    pub fn config(&self) -> Result<Config, TrainError> {
        Ok(Config::from_json(&self.config_json())?)
    }

    /// What says more about `init` needs one.
    fn check_init(&self) -> Result<(), TrainError> {
        let layers = (!self.init_layers.is_empty()).then(|| format!("{:?}", self.init_layers));
        let mean_with = (!self.init_mean_with.is_empty()).then(|| format!("{:?}", self.init_mean_with));
        for (field, found) in [("init_layers", layers), ("init_mean_with", mean_with)] {
            if let (None, Some(found)) = (&self.init, found) {
                let expected = "nothing without `init`".to_owned();
                return Err(TrainError::Value { field, found, expected });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TrainError> {
        DataSettings::from_recipe(&self.data)?;
        self.check_init()?;
        let config = self.config()?;
        self.check_int4(&config)?;
        let (batch, schedule, optimizer) = (&self.batch, &self.schedule, &self.optimizer);
        let most = config.max_position_embeddings.min(1 << 20);
        within("batch.length", batch.length, 1, most)?;
        within("batch.sequences", batch.sequences, 1, 1 << 16)?;
        within("batch.accumulation", batch.accumulation, 1, 1 << 16)?;
        within("threads", self.threads, 0, MOST_THREADS)?;
        within("checkpoint.keep", self.checkpoint.keep, 1, 1000)?;
        within("schedule.steps", schedule.steps, 1, 1 << 40)?;
        let ramps = schedule.warmup_steps.saturating_add(schedule.decay_steps);
        within("schedule.warmup_steps + decay_steps", ramps, 0, schedule.steps)?;
        within("schedule.peak_lr", schedule.peak_lr, 0.0, 1.0)?;
        within("schedule.final_lr", schedule.final_lr, 0.0, schedule.peak_lr)?;
        schedule.check()?;
        within("optimizer.weight_decay", optimizer.weight_decay, 0.0, 10.0)?;
        within("optimizer.muon.momentum", optimizer.muon.momentum, 0.0, 1.0)?;
        within("optimizer.muon.update_rms", optimizer.muon.update_rms, 0.0, 100.0)?;
        within("optimizer.muon.newton_schulz_steps", optimizer.muon.newton_schulz_steps, 1, 100)?;
        within("optimizer.adamw.beta1", optimizer.adamw.beta1, 0.0, 0.999_999)?;
        within("optimizer.adamw.beta2", optimizer.adamw.beta2, 0.0, 0.999_999)?;
        within("optimizer.adamw.eps", optimizer.adamw.eps, 1e-16, 1.0)?;
        within("optimizer.qk_clip_tau", optimizer.qk_clip_tau.unwrap_or(1.0), 1e-3, 1e6)?;
        within("optimizer.max_gradient_norm", optimizer.max_gradient_norm.unwrap_or(1.0), 1e-9, 1e9)?;
        within("balance.bias_rate", self.balance.bias_rate, 0.0, 1.0)?;
        within("balance.sequence_loss", self.balance.sequence_loss, 0.0, 100.0)?;
        within("checkpoint.every_minutes", self.checkpoint.every_minutes, 0.0, 1e6)?;
        within("init_std", self.init_std.unwrap_or(0.0), 0.0, 10.0)
    }

    /// What is rounded to INT4 must consist of whole groups, or the run could not be written when it is done.
    fn check_int4(&self, config: &Config) -> Result<(), TrainError> {
        let has_experts = (0..config.num_hidden_layers).any(|layer| config.is_moe(layer));
        if self.quantization.is_none() || !has_experts {
            return Ok(());
        }
        let inputs = [
            ("model.hidden_size", config.hidden_size),
            ("model.moe_intermediate_size", config.moe_intermediate_size),
        ];
        match inputs.into_iter().find(|(_, size)| !size.is_multiple_of(INT4_GROUP)) {
            None => Ok(()),
            Some((field, size)) => Err(TrainError::Value {
                field,
                found: size.to_string(),
                expected: format!("a multiple of {INT4_GROUP}, because `quantization` makes experts INT4"),
            }),
        }
    }
}

/// Puts a line's values into a recipe.
fn set(table: &mut Table, line: &str) -> Result<(), TrainError> {
    let wrong = |error| TrainError::Set { line: line.to_owned(), error: Box::new(error) };
    merge(table, toml::from_str(line).map_err(wrong)?);
    Ok(())
}

/// Tables are joined key by key, everything else is replaced.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// NaN is within nothing.
fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    found: T,
    least: T,
    most: T,
) -> Result<(), TrainError> {
    match found >= least && found <= most {
        true => Ok(()),
        false => {
            Err(TrainError::Value { field, found: found.to_string(), expected: format!("{least} to {most}") })
        }
    }
}
