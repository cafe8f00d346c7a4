//! Gradients against central differences of the loss, the choice of experts being held fixed (a choice that
//! flips makes a right gradient look wrong).

use k2_model::Config;
use k2_train::backward::backward;
use k2_train::balance::sequence_loss;
use k2_train::forward::rope::AngleTable;
use k2_train::forward::{Pass, forward};
use k2_train::loss::loss;
use k2_train::params::Layout;
use k2_train::rng::Rng;
use k2_train::workspace::Workspace;
use k2_train::{Batch, Params};
use serde_json::{Value, json};

use crate::models::{batch, config, params};

#[test]
fn gradients_agree_with_differences() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale": 0.7, "mscale_all_dim": 1.0});
    for (name, changes, balance) in [
        ("plain", json!({}), 0.0),
        ("balance loss", json!({}), 0.5),
        ("no q LoRA, groups, two shared experts", no_lora_groups(), 0.3),
        ("YaRN with a factor on cosines", json!({"rope_scaling": yarn, "qk_rope_head_dim": 8}), 0.0),
        (
            "no shared experts, weights not normalised",
            json!({"n_shared_experts": 0, "norm_topk_prob": false}),
            0.0,
        ),
        ("dense only, tied head", json!({"first_k_dense_replace": 3, "tie_word_embeddings": true}), 0.0),
        (
            "all layers experts, every other one",
            json!({"first_k_dense_replace": 0, "moe_layer_freq": 2}),
            0.2,
        ),
    ] {
        check(name, changes, balance);
    }
}

fn no_lora_groups() -> Value {
    json!({"q_lora_rank": null, "n_routed_experts": 9, "n_group": 3, "topk_group": 2, "n_shared_experts": 2,
        "num_experts_per_tok": 3})
}

/// For each tensor, the derivative along a random direction.
fn check(name: &str, changes: Value, balance: f32) {
    let config = config(changes);
    let mut params = params(&config, 3);
    let batch = batch(&config, 2, 75, 4);
    let mut model = Model::new(&config, &params, &batch, balance);
    let gradient = model.gradient(&params);
    let mut rng = Rng::new(5);
    let layout = params.layout().clone();
    for tensor in layout.tensors() {
        if tensor.name.ends_with("bias") {
            continue;
        }
        let place = tensor.slot;
        let direction: Vec<f32> = (0..place.len()).map(|_| rng.normal() as f32).collect();
        let norm = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
        let found: f64 =
            place.of(&gradient).iter().zip(&direction).map(|(g, d)| f64::from(g * d / norm)).sum();
        let slope: f64 = place.of(&gradient).iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let mut at = |step: f32| {
            let before = place.of(params.values()).to_vec();
            let values = place.of_mut(params.values_mut());
            values.iter_mut().zip(&direction).for_each(|(w, d)| *w += step * d / norm);
            let loss = model.loss(&params);
            place.of_mut(params.values_mut()).copy_from_slice(&before);
            loss
        };
        // Fourth order: two step lengths.
        let h = 0.02;
        let (near, far) = (at(h) - at(-h), at(2.0 * h) - at(-2.0 * h));
        let want = (8.0 * near - far) / (12.0 * f64::from(h));
        let error = (found - want).abs();
        let random_size = slope / (place.len() as f64).sqrt();
        assert!(
            error < 2e-3 * (want.abs() + random_size) + 1e-5,
            "{name}: {}: found {found:e}, differences say {want:e}",
            tensor.name
        );
    }
}

struct Model<'a> {
    config: &'a Config,
    batch: &'a Batch,
    angles: AngleTable,
    workspace: Workspace,
    balance: f32,
}

impl<'a> Model<'a> {
    /// Runs once, so that every later pass has a choice of experts to keep to.
    fn new(config: &'a Config, params: &Params, batch: &'a Batch, balance: f32) -> Model<'a> {
        let angles = AngleTable::new(config, batch.length);
        let model = Model { config, batch, angles, workspace: Workspace::default(), balance };
        let mut workspace = Workspace::default();
        forward(&model.pass(params.layout(), params.values(), false), &mut workspace);
        Model { workspace, ..model }
    }

    fn pass<'b>(&'b self, layout: &'b Layout, weights: &'b [f32], frozen: bool) -> Pass<'b> {
        let batch = self.batch.micro(0..self.batch.sequences);
        Pass { layout, weights, batch, angles: &self.angles, frozen_routing: frozen }
    }

    fn factor(&self) -> f32 {
        (1.0 / self.batch.weight()) as f32
    }

    fn balance_factor(&self) -> f32 {
        self.balance / self.batch.sequences as f32
    }

    fn gradient(&mut self, params: &Params) -> Vec<f32> {
        let mut workspace = std::mem::take(&mut self.workspace);
        let pass = self.pass(params.layout(), params.values(), true);
        let mut gradient = vec![0.0; params.values().len()];
        forward(&pass, &mut workspace);
        loss(&pass, &mut workspace, self.factor(), Some(&mut gradient));
        backward(&pass, &mut workspace, self.balance_factor(), &mut gradient);
        self.workspace = workspace;
        gradient
    }

    fn loss(&mut self, params: &Params) -> f64 {
        let mut workspace = std::mem::take(&mut self.workspace);
        let pass = self.pass(params.layout(), params.values(), true);
        forward(&pass, &mut workspace);
        let mut total = loss(&pass, &mut workspace, 1.0, None) / self.batch.weight();
        for layer in (0..self.config.num_hidden_layers).filter(|layer| self.config.is_moe(*layer)) {
            let routing = &workspace.layers[layer].moe.routing;
            total += sequence_loss(self.config, routing, self.batch.length, self.balance_factor(), None);
        }
        self.workspace = workspace;
        total
    }
}
