//! Checkpoints with expected tokens: the repository's own, and those that `K2_FIXTURES` names (default:
//! `shared/fixtures` beside the repository).

use std::path::{Path, PathBuf};

use k2_engine::{
    Engine, EngineOptions, Event, Events, FinishReason, Logprobs, Request, Sampling, Timings, Usage,
};
use k2_kernels::Pool;
use k2_model::{KimiK2, Precision};
use k2_weights::{Checkpoint, safetensors};

/// Every folder that holds a config and expected outputs.
pub(crate) fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model");
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let given = std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let given = given.join("model");
    if !given.exists() {
        println!("skipped: no fixtures at {}", given.display());
    }
    let mut folders = inside(&own);
    assert!(!folders.is_empty(), "the repository's own fixtures are gone: {}", own.display());
    folders.extend(inside(&given));
    folders
}

fn inside(root: &Path) -> Vec<PathBuf> {
    let Ok(folders) = std::fs::read_dir(root) else { return Vec::new() };
    let mut folders: Vec<_> = folders.map(|folder| folder.unwrap().path()).collect();
    folders.retain(|folder| folder.join("expected.safetensors").exists());
    folders.sort();
    folders
}

/// The repository's `bf16`.
pub(crate) fn bf16() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model/bf16")
}

/// The model that ships: the one here whose long prompts are decompressed.
pub(crate) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")
}

/// An engine on one of the folders.
pub(crate) fn start(folder: &Path, options: EngineOptions) -> Engine {
    Engine::start(load(folder), options).unwrap()
}

/// On the exact path, which the expected tokens are of.
pub(crate) fn load(folder: &Path) -> KimiK2 {
    let checkpoint = Checkpoint::open(folder, &mut |_| ()).unwrap();
    let model = KimiK2::load(&checkpoint, Pool::new(2), &mut |_, _| ()).unwrap();
    KimiK2 { precision: Precision::Exact, ..model }
}

/// An I64 tensor of `expected.safetensors`.
pub(crate) fn ids(folder: &Path, tensor: &str) -> Vec<u32> {
    bytes(folder, tensor).as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32).collect()
}

/// An F32 tensor of `expected.safetensors`.
pub(crate) fn numbers(folder: &Path, tensor: &str) -> Vec<f32> {
    bytes(folder, tensor).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bytes(folder: &Path, tensor: &str) -> Vec<u8> {
    let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let header = safetensors::parse(&file).unwrap();
    let (_, info) = header.tensors.iter().find(|(name, _)| name == tensor).unwrap();
    file[info.range.clone()].to_vec()
}

/// A request that takes the largest logit each time.
pub(crate) fn greedy(prompt: &[u32], max_tokens: usize) -> Request {
    let sampling = Sampling { greedy: true, ..Sampling::default() };
    Request { prompt: prompt.to_vec(), max_tokens, sampling, ..Request::default() }
}

/// All events of a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) ids: Vec<u32>,
    pub(crate) prompt_logits: Vec<f32>,
    pub(crate) prompt_logprobs: Vec<(u32, Logprobs)>,
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) reason: Option<FinishReason>,
    pub(crate) usage: Usage,
}

pub(crate) fn answer(mut events: Events) -> (Answer, Timings) {
    let mut answer = Answer::default();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Prefill { .. } => {}
            Event::PromptLogprobs { tokens } => answer.prompt_logprobs.extend(tokens),
            Event::Token { id, logprobs } => {
                answer.ids.push(id);
                answer.logprobs.extend(logprobs);
            }
            Event::PromptLogits { rows, .. } => answer.prompt_logits.extend(rows),
            Event::Finished { reason, usage, timings } => {
                answer.reason = Some(reason);
                answer.usage = usage;
                assert_eq!(events.blocking_recv(), None, "nothing follows the last event");
                return (answer, timings);
            }
        }
    }
    panic!("the events ended without a last one");
}
