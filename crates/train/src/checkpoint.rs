//! Checkpoints: a run that is killed at any moment goes on from the last one to the same bits.
//!
//! A checkpoint is a folder `step-NNNNNNNN`: the model in the official layout (`config.json`,
//! `model.safetensors` in F32, so that it can be run or trained on as any other), the moments in
//! `optimizer.safetensors`, and `trainer.json` with the step and the data's cursor. It is written under
//! another name, flushed, and renamed when it is whole.

use k2_weights::safetensors::{self, Dtype};
use k2_weights::{Checkpoint, replace_file, save_safetensors};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::data::DataSettings;
use crate::error::TrainError;
use crate::params::{Layout, Params, Tensor};
use crate::recipe::{MOST_THREADS, Recipe};
use crate::trainer::{Progress, Trainer};

const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const TRAINER_FILE: &str = "trainer.json";

/// Sections of a recipe that a run cannot change on the way.
const FIXED: [&str; 4] = ["model", "data", "batch", "seed"];

/// `trainer.json`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct State {
    progress: Progress,
    cursor: Value,
    recipe: Value,
}

/// Writes a checkpoint below `folder`, and removes all but the last `keep`. Returns where it is.
pub fn save(trainer: &Trainer, recipe: &Recipe, cursor: Value, folder: &Path) -> Result<PathBuf, TrainError> {
    trainer.params().check_finite()?;
    let name = format!("step-{:08}", trainer.progress().step);
    let (path, unfinished) = (folder.join(&name), folder.join(format!(".{name}.tmp")));
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).map_err(io_at(&unfinished))?;
    let config = pretty(&recipe.config_json());
    replace_file(&unfinished.join("config.json"), |file| file.write_all(config.as_bytes()))?;
    save_weights(trainer.params(), &unfinished)?;
    save_moments(trainer, &unfinished.join(OPTIMIZER_FILE))?;
    let state = State { progress: trainer.progress(), cursor, recipe: to_json(recipe) };
    let text = pretty(&to_json(&state));
    replace_file(&unfinished.join(TRAINER_FILE), |file| file.write_all(text.as_bytes()))?;
    remove(&path)?;
    fs::rename(&unfinished, &path).map_err(io_at(&path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_at(folder))?;
    let checkpoints = list(folder)?;
    let old = checkpoints.len().saturating_sub(recipe.checkpoint.keep.max(1));
    checkpoints[..old].iter().try_for_each(|path| remove(path))?;
    Ok(path)
}

/// Removes what a run that was killed while it saved has left below `folder`.
pub fn remove_unfinished(folder: &Path) -> Result<(), TrainError> {
    let is_unfinished = |name: &str| name.starts_with(".step-") && name.ends_with(".tmp");
    for path in entries(folder)? {
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_unfinished) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The latest checkpoint below `folder`.
pub fn latest(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    Ok(list(folder)?.pop())
}

/// The folder of the tokenizer that a checkpoint's model reads with: its own, or its recipe's.
pub fn tokenizer(path: &Path) -> Result<PathBuf, TrainError> {
    match path.join(TRAINER_FILE).exists() {
        true => {
            let recipe = read_state(path)?.recipe;
            let data = recipe.get("data").and_then(Value::as_object);
            Ok(DataSettings::from_recipe(data.unwrap_or(&Map::new()))?.tokenizer)
        }
        false => Ok(path.to_owned()),
    }
}

/// How many threads a checkpoint was computed with; older ones may leave it open with 0.
pub fn threads(path: &Path) -> Result<usize, TrainError> {
    let found = &read_state(path)?.recipe["threads"];
    match found.as_u64() {
        Some(threads) if threads <= MOST_THREADS as u64 => Ok(threads as usize),
        _ => {
            let problem = format!("recipe.threads is {found}, expected 0 to {MOST_THREADS}");
            Err(TrainError::Checkpoint { path: path.join(TRAINER_FILE), problem })
        }
    }
}

/// Brings a trainer to where a checkpoint was written; returns the data's cursor.
pub fn resume(trainer: &mut Trainer, recipe: &Recipe, path: &Path) -> Result<Value, TrainError> {
    let state = read_state(path)?;
    let now = to_json(recipe);
    if let Some(section) = FIXED.into_iter().find(|section| state.recipe[*section] != now[*section]) {
        return Err(TrainError::OtherRecipe { path: path.to_owned(), section });
    }
    let params = Params::load_as(&Checkpoint::open(path, &mut |_| ())?, trainer.params().config())?;
    let (to, optimizer, progress) = trainer.state_mut();
    to.values_mut().copy_from_slice(params.values());
    let layout = to.layout().clone();
    let (first, second, steps) = optimizer.moments_mut();
    load_moments(&layout, &path.join(OPTIMIZER_FILE), first, second)?;
    (*steps, *progress) = (state.progress.step, state.progress);
    Ok(state.cursor)
}

fn read_state(path: &Path) -> Result<State, TrainError> {
    let path = path.join(TRAINER_FILE);
    let state = fs::read(&path).map_err(io_at(&path))?;
    let wrong = |error: serde_json::Error| TrainError::Checkpoint { problem: error.to_string(), path };
    serde_json::from_slice(&state).map_err(wrong)
}

fn save_weights(params: &Params, folder: &Path) -> Result<(), TrainError> {
    let bytes = to_bytes(params.values());
    let shapes: Vec<Vec<usize>> = params.layout().tensors().iter().map(Tensor::shape).collect();
    let tensors = params.layout().tensors().iter().zip(&shapes).map(|(tensor, shape)| {
        let at = 4 * tensor.slot.start..4 * (tensor.slot.start + tensor.slot.len());
        (tensor.name.as_str(), Dtype::F32, shape.as_slice(), &bytes[at])
    });
    Ok(save_safetensors(&folder.join("model.safetensors"), &tensors.collect::<Vec<_>>())?)
}

/// The moments as two tensors; the layout of the model says which number is whose.
fn save_moments(trainer: &Trainer, path: &Path) -> Result<(), TrainError> {
    let (first, second) = trainer.optimizer().moments();
    let bytes = (to_bytes(first), to_bytes(second));
    let shapes = ([first.len()], [second.len()]);
    let tensors: [(&str, _, &[usize], &[u8]); 2] =
        [("first", Dtype::F32, &shapes.0, &bytes.0), ("second", Dtype::F32, &shapes.1, &bytes.1)];
    Ok(save_safetensors(path, &tensors)?)
}

fn load_moments(
    layout: &Layout,
    path: &Path,
    first: &mut [f32],
    second: &mut [f32],
) -> Result<(), TrainError> {
    let bytes = fs::read(path).map_err(io_at(path))?;
    let wrong = |problem: String| TrainError::Checkpoint { path: path.to_owned(), problem };
    let header = safetensors::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
    for (name, to) in [("first", first), ("second", second)] {
        let info = header.tensors.iter().find(|(found, _)| found == name).map(|(_, info)| info);
        let info = info.ok_or_else(|| wrong(format!("no tensor `{name}`")))?;
        if info.dtype != Dtype::F32 || info.shape != [to.len()] {
            let (shape, numbers) = (&info.shape, layout.len());
            let expected = to.len();
            return Err(wrong(format!(
                "`{name}` is {:?} {shape:?}, a model of {numbers} numbers needs F32 [{expected}]",
                info.dtype
            )));
        }
        for (to, b) in to.iter_mut().zip(bytes[info.range.clone()].chunks_exact(4)) {
            *to = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
    }
    Ok(())
}

/// Whole checkpoints below `folder`, the oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let step = name.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// What is in a folder; nothing in one that is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    match folder.exists() {
        true => {
            let entries = fs::read_dir(folder).map_err(io_at(folder))?;
            entries.map(|entry| Ok(entry.map_err(io_at(folder))?.path())).collect()
        }
        false => Ok(Vec::new()),
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at(path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> TrainError + '_ {
    |error| TrainError::Io { path: path.to_owned(), error }
}

/// What is written here has string keys and finite numbers only: it always is JSON.
fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
