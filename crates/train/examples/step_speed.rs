//! How fast a training step is on this machine: `cargo run --release -p k2-train --example step_speed -- [threads] [steps]`.
//!
//! Architecture and batch of the shipped model, as `recipes/tiny.toml` has them, with random tokens, each sequence one document
//! and all positions in the loss: nothing to learn, only time.

use k2_model::Config;
use k2_train::optimizer::{MatrixRule, Optimizer, OptimizerSettings};
use k2_train::recipe::{BatchSettings, Overrides, Recipe};
use k2_train::rng::Rng;
use k2_train::step::Workers;
use k2_train::{Batch, Params};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let threads = arguments.next().transpose()?.unwrap_or(2);
    let steps = arguments.next().transpose()?.unwrap_or(6);
    let recipe = Recipe::read(Path::new("recipes/tiny.toml"), Overrides::default())?;
    let (config, BatchSettings { length, sequences, .. }) = (recipe.config()?, recipe.batch);
    let mut params = Params::random(&config, 1, None);
    let batch = batch(&config, sequences, length);
    let mut workers = Workers::new(params.layout(), threads);
    let settings: OptimizerSettings = serde_json::from_value(json!({ "matrices": "muon" }))?;
    assert_eq!(settings.matrices, MatrixRule::Muon);
    let mut optimizer = Optimizer::new(params.layout(), settings, threads);
    let tokens = (sequences * length) as f64;
    println!("{} weights, {threads} threads, {tokens} tokens per step", params.values().len());
    for step in 0..steps {
        let start = Instant::now();
        let losses = workers.gradients(params.values(), std::slice::from_ref(&batch), 0.0);
        let gradient_seconds = start.elapsed().as_secs_f64();
        optimizer.step(params.values_mut(), workers.gradient_mut(), 1.0, 1e-3);
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "step {step}: loss {:.4}, gradient {gradient_seconds:.3} s, optimizer {:.3} s, {:.0} tokens/s",
            losses.cross_entropy,
            seconds - gradient_seconds,
            tokens / seconds
        );
    }
    Ok(())
}

fn batch(config: &Config, sequences: usize, length: usize) -> Batch {
    let mut rng = Rng::new(2);
    let positions = sequences * length;
    let mut ids = || -> Vec<u32> { (0..positions).map(|_| rng.below(config.vocab_size) as u32).collect() };
    Batch {
        tokens: ids(),
        targets: ids(),
        loss_mask: vec![1.0; positions],
        document_ids: vec![0; positions],
        sequences,
        length,
    }
}
