//! Every folder of fixtures: logits, hidden states layer by layer, cache, experts, greedy tokens, in all
//! forms of attention, within the tolerances that the fixtures' README measured.

use k2_model::{AttentionForm, KimiK2, Trace};
use std::path::Path;

use crate::fixtures::{Expected, folders, load};
use crate::sequences::Sequences;

/// Residual stream and block outputs, absolute.
const HIDDEN: f32 = 1e-3;
/// Experts' weights, absolute.
const ROUTER_WEIGHTS: f32 = 1e-4;
/// Below this gap between chosen and rejected the choice of experts is a matter of rounding.
const MARGIN: f32 = 5e-5;

#[test]
fn every_folder_absorbed() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Absorbed));
}

#[test]
fn every_folder_decompressed() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Decompressed));
}

#[test]
fn every_folder_naive() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Naive));
}

/// Both prompts in one ragged batch, then the greedy continuation of the first.
fn check(folder: &Path, form: AttentionForm) {
    let model = load(folder, 2);
    let expected = Expected::of(folder);
    let (prompt, second) = (expected.ids("input_ids"), expected.ids("input_ids_2"));
    let greedy = expected.ids("greedy_tokens");
    let mut sequences = Sequences::new(&model, 2, prompt.len().max(second.len()) + greedy.len());
    sequences.form = form;
    let mut trace = Trace::default();
    let logits = sequences.step(&[(0, &prompt), (1, &second)], Some(&mut trace));

    let near = Near { folder, logits: logit_tolerance(&prompt) };
    let (first_logits, second_logits) = logits.split_at(prompt.len() * model.config.vocab_size);
    near.check("logits", first_logits, &expected, near.logits);
    near.check("logits_2", second_logits, &expected, near.logits);
    check_layers(&near, &model, &trace, prompt.len(), &expected);
    check_router(&near, &model, &trace, prompt.len(), &expected);
    check_cache(&near, &model, &sequences, prompt.len(), &expected);

    let last = first_logits[first_logits.len() - model.config.vocab_size..].to_vec();
    let (tokens, rows) = sequences.greedy(0, last, greedy.len());
    assert_eq!(tokens, greedy, "{}: greedy tokens", folder.display());
    near.check("greedy_logits", &rows, &expected, near.logits);
}

/// Short prompts have been measured to be closer than long ones.
fn logit_tolerance(prompt: &[u32]) -> f32 {
    if prompt.len() <= 64 { 2e-4 } else { 1e-3 }
}

fn check_layers(near: &Near<'_>, model: &KimiK2, trace: &Trace, tokens: usize, expected: &Expected) {
    let width = tokens * model.config.hidden_size;
    let first_prompt =
        |layers: &[Vec<f32>]| layers.iter().flat_map(|layer| &layer[..width]).copied().collect();
    let found: [(&str, Vec<f32>); 4] = [
        ("hidden_states", first_prompt(&trace.hidden_states)),
        ("final_hidden", trace.final_hidden[..width].to_vec()),
        ("attn_out", first_prompt(&trace.attn_out)),
        ("mlp_out", first_prompt(&trace.mlp_out)),
    ];
    for (name, found) in found {
        near.check(name, &found, expected, HIDDEN);
    }
}

fn check_router(near: &Near<'_>, model: &KimiK2, trace: &Trace, tokens: usize, expected: &Expected) {
    let c = &model.config;
    let layers: Vec<u32> = trace.router.iter().map(|router| router.layer as u32).collect();
    assert_eq!(layers, expected.ids("router_layers"), "{}: layers with experts", near.folder.display());
    let per_layer = tokens * c.num_experts_per_tok;
    let logits: Vec<f32> = trace
        .router
        .iter()
        .flat_map(|router| &router.logits[..tokens * c.n_routed_experts])
        .copied()
        .collect();
    near.check("router_logits", &logits, expected, HIDDEN);
    let found = trace.router.iter().flat_map(|router| {
        router.indices[..per_layer]
            .chunks(c.num_experts_per_tok)
            .zip(router.weights.chunks(c.num_experts_per_tok))
    });
    let (indices, weights) =
        (expected.experts("router_indices"), expected.numbers("router_weights").unwrap());
    let wanted = indices.chunks(c.num_experts_per_tok).zip(weights.chunks(c.num_experts_per_tok));
    for ((found, wanted), margin) in found.zip(wanted).zip(expected.numbers("router_margin").unwrap()) {
        if margin > MARGIN {
            assert_eq!(found.0, wanted.0, "{}: experts at a margin of {margin}", near.folder.display());
            near.compare("router_weights", found.1, wanted.1, ROUTER_WEIGHTS);
        }
    }
}

/// The cache holds `[latent | key]`, pairs as neighbours; the fixtures list all first, then all second
/// channels of the pairs.
fn check_cache(
    near: &Near<'_>,
    model: &KimiK2,
    sequences: &Sequences<'_>,
    tokens: usize,
    expected: &Expected,
) {
    let c = &model.config;
    let (mut latents, mut keys) = (Vec::new(), Vec::new());
    for layer in 0..c.num_hidden_layers {
        for position in 0..tokens {
            let row = sequences.cache.row(layer, &sequences.block_tables[0], position);
            latents.extend_from_slice(&row[..c.kv_lora_rank]);
            let key = &row[c.kv_lora_rank..c.latent_width()];
            keys.extend(key.iter().step_by(2).chain(key.iter().skip(1).step_by(2)));
        }
    }
    near.check("cache_kv_latent", &latents, expected, HIDDEN);
    near.check("cache_k_rope", &keys, expected, HIDDEN);
}

/// Compares with the tolerance, and names the folder and the tensor if it fails.
struct Near<'a> {
    folder: &'a Path,
    logits: f32,
}

impl Near<'_> {
    /// With the folder's tensor, if it has it: folders with long prompts leave some out.
    fn check(&self, name: &str, found: &[f32], expected: &Expected, tolerance: f32) {
        match expected.numbers(name) {
            Some(wanted) => self.compare(name, found, &wanted, tolerance),
            None => {
                assert!(!["logits", "hidden_states", "router_logits"].contains(&name), "no tensor {name}")
            }
        }
    }

    fn compare(&self, name: &str, found: &[f32], wanted: &[f32], tolerance: f32) {
        assert_eq!(found.len(), wanted.len(), "{}: {name}: size", self.folder.display());
        let error = found.iter().zip(wanted).map(|(f, w)| (f - w).abs()).fold(0.0, f32::max);
        let nan = found.iter().any(|number| number.is_nan());
        assert!(
            error <= tolerance && !nan,
            "{}: {name} is off by {error}, NaN: {nan}",
            self.folder.display()
        );
    }
}
