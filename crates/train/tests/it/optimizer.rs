//! Newton–Schulz, Muon, AdamW, QK-Clip and the whole MuonClip step against other implementations' values.

use k2_train::adamw::{AdamW, Moments};
use k2_train::muon::{self, Muon, MuonScratch, orthogonalize};
use k2_train::qk_clip::{clip_keys, clip_queries};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

use crate::fixtures::{File, folder, max_difference};
use crate::models::config;

fn meta(train: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(train.join("meta.json")).unwrap()).unwrap()
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

/// The part of each name before its first dot.
fn groups(file: &File) -> BTreeSet<&str> {
    file.names().into_iter().filter_map(|name| name.split('.').next()).collect()
}

#[test]
fn newton_schulz() {
    let Some(train) = folder("model/train") else { return };
    let file = File::read(&train.join("newton_schulz.safetensors"));
    for case in groups(&file) {
        let input = file.get(&format!("{case}.input"));
        let found = orthogonalize(
            &file.f32(&format!("{case}.input")),
            input.shape[1],
            5,
            &mut MuonScratch::default(),
        );
        for want in ["out_f32", "out_f64"] {
            let error = max_difference(&found, &file.get(&format!("{case}.{want}")).values);
            assert!(error < 5e-5, "{case}.{want}: {error:e}");
        }
    }
}

#[test]
fn muon_steps() {
    let Some(train) = folder("model/train") else { return };
    let (file, meta) = (File::read(&train.join("muon_step.safetensors")), meta(&train));
    let settings = &meta["muon_step"];
    let (lr, decay) = (number(&settings["lr"]), number(&settings["weight_decay"]));
    for case in groups(&file).into_iter().filter(|case| *case != "adamw") {
        for nesterov in [false, true] {
            let rule = Muon { momentum: number(&settings["momentum"]), nesterov, ..Muon::default() };
            let cols = file.get(&format!("{case}.w0")).shape[1];
            let mut weights = file.f32(&format!("{case}.w0"));
            let (mut momentum, mut scratch) = (vec![0.0; weights.len()], MuonScratch::default());
            for step in 1..=settings["steps"].as_u64().unwrap() {
                let gradient = file.f32(&format!("{case}.grad{step}"));
                let update = rule.update(&gradient, &mut momentum, cols, &mut scratch).to_vec();
                muon::apply(&mut weights, &update, lr, decay);
                let prefix = format!("{case}.nesterov{}.ns_f32.step{step}", u8::from(nesterov));
                for (name, found) in [("w", &weights), ("momentum", &momentum), ("update", &update)] {
                    let error = max_difference(found, &file.get(&format!("{prefix}.{name}")).values);
                    assert!(error < 5e-5, "{prefix}.{name}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn adamw_steps() {
    let Some(train) = folder("model/train") else { return };
    let (file, meta) = (File::read(&train.join("muon_step.safetensors")), meta(&train));
    let settings = &meta["muon_step"];
    let (lr, decay) = (number(&settings["lr"]), number(&settings["weight_decay"]));
    let adamw = AdamW {
        beta1: number(&settings["adamw"]["betas"][0]),
        beta2: number(&settings["adamw"]["betas"][1]),
        eps: number(&settings["adamw"]["eps"]),
    };
    let mut weights = file.f32("adamw.p0");
    let (mut first, mut second) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
    for step in 1..=settings["steps"].as_u64().unwrap() {
        let moments = Moments { first: &mut first, second: &mut second };
        adamw.step(&mut weights, &file.f32(&format!("adamw.grad{step}")), moments, step, lr, decay);
        let error = max_difference(&weights, &file.get(&format!("adamw.step{step}.p")).values);
        assert!(error < 1e-6, "step {step}: {error:e}");
    }
}

#[test]
fn qk_clip_and_a_whole_step() {
    let Some(train) = folder("model/train") else { return };
    let (file, meta) = (File::read(&train.join("qk_clip.safetensors")), meta(&train));
    let settings = &meta["qk_clip"];
    let dims = &settings["dims"];
    let model = config(json!({
        "num_attention_heads": dims["heads"], "qk_nope_head_dim": dims["nope"], "qk_rope_head_dim": dims["rope"],
        "v_head_dim": dims["v"], "kv_lora_rank": dims["kv_lora"], "q_lora_rank": dims["q_lora"],
        "hidden_size": dims["hidden"],
    }));
    let (tau, s_max) = (number(&settings["tau"]), file.f32("s_max"));
    let clip = |projection: &str, weights: &mut [f32]| match projection {
        "q_b_proj" => clip_queries(&model, weights, &s_max, tau),
        "kv_b_proj" => clip_keys(&model, weights, &s_max, tau),
        _ => {}
    };
    for projection in ["q_b_proj", "kv_b_proj"] {
        let mut weights = file.f32(&format!("{projection}.w0"));
        clip(projection, &mut weights);
        let error = max_difference(&weights, &file.get(&format!("clip_only.{projection}")).values);
        assert!(error < 1e-5, "clip_only.{projection}: {error:e}");
    }
    for (nesterov, projection) in
        [false, true].into_iter().flat_map(|n| groups(&file).into_iter().map(move |p| (n, p)))
    {
        if !projection.contains("_proj") {
            continue;
        }
        let rule = Muon { momentum: number(&settings["momentum"]), nesterov, ..Muon::default() };
        let cols = file.get(&format!("{projection}.w0")).shape[1];
        let mut weights = file.f32(&format!("{projection}.w0"));
        let mut momentum = file.f32(&format!("{projection}.momentum0"));
        let (gradient, mut scratch) = (file.f32(&format!("{projection}.grad")), MuonScratch::default());
        let update = rule.update(&gradient, &mut momentum, cols, &mut scratch);
        muon::apply(&mut weights, update, number(&settings["lr"]), number(&settings["weight_decay"]));
        clip(projection, &mut weights);
        for (name, found) in [("w1", &weights), ("momentum1", &momentum)] {
            let name = format!("nesterov{}.{projection}.{name}", u8::from(nesterov));
            let error = max_difference(found, &file.get(&name).values);
            assert!(error < 5e-5, "{name}: {error:e}");
        }
    }
}
