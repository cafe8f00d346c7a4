//! How fast a training step is on this machine: `cargo run --release -p k2-train --example step_speed -- [threads] [steps]`.
//!
//! The architecture of the shipped model (hidden 192, 6 layers, 32 experts of width 96, vocabulary 4096),
//! sixteen sequences of 512 random tokens per step, all positions in the loss: nothing to learn, only time.

use k2_model::Config;
use k2_train::optimizer::{MatrixRule, Optimizer, OptimizerSettings};
use k2_train::rng::Rng;
use k2_train::step::Workers;
use k2_train::{Batch, Params};
use serde_json::json;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let threads = arguments.next().transpose()?.unwrap_or(2);
    let steps = arguments.next().transpose()?.unwrap_or(6);
    let config = config()?;
    let mut params = Params::random(&config, 1, None);
    let (sequences, length) = (16, 512);
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

fn config() -> Result<Config, k2_model::ConfigError> {
    Config::from_json(&json!({
        "model_type": "kimi_k2", "hidden_act": "silu", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "vocab_size": 4096, "hidden_size": 192, "intermediate_size": 576, "moe_intermediate_size": 96,
        "num_hidden_layers": 6, "first_k_dense_replace": 1, "num_attention_heads": 4,
        "q_lora_rank": 96, "kv_lora_rank": 48, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
        "n_routed_experts": 32, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": true, "routed_scaling_factor": 1.996, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "rope_scaling": null, "max_position_embeddings": 1024, "tie_word_embeddings": false,
    }))
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
