//! What is exported is what was trained: read back, the weights are the rounded ones, and turns have the form that was
//! learned.

use k2_chat::Template;
use k2_train::Params;
use k2_train::export::{ExportFormat, export, publish};
use k2_train::params::Tensor;
use k2_train::quantize::{Format, round_all};
use k2_train::step::Workers;
use k2_weights::Checkpoint;
use serde_json::json;
use std::path::Path;

use crate::copy_task::recipe;
use crate::data::thinking_folder;
use crate::models::{batch, config, config_json, params};

#[test]
fn exported_weights_are_the_rounded_ones() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("export");
    let recipe = recipe(&folder, 10, "");
    let params = Params::random(&recipe.config().unwrap(), 8, None);
    check(&recipe, &params, ExportFormat::Int4, Format::with_int4_experts, &folder.join("int4"));
    check(&recipe, &params, ExportFormat::Bf16, Format::plain, &folder.join("bf16"));
}

fn check(
    recipe: &k2_train::Recipe,
    params: &Params,
    format: ExportFormat,
    rule: fn(&Tensor) -> Format,
    folder: &Path,
) {
    export(params, &recipe.config_json(), format, folder).unwrap();
    let checkpoint = Checkpoint::open(folder, &mut |_| ()).unwrap();
    let read = Params::load(&checkpoint).unwrap();
    let mut rounded = vec![0.0; params.values().len()];
    round_all(params.layout(), rule, params.values(), &mut rounded, 2);
    assert!(read.values() == rounded, "{format:?}");
    let formats: Vec<&str> = checkpoint
        .tensors()
        .filter(|tensor| tensor.name.contains("experts.0.gate_proj"))
        .map(|tensor| tensor.format)
        .collect();
    assert_eq!(formats, [if format == ExportFormat::Int4 { "INT4" } else { "BF16" }]);
}

/// The same folder each time: nothing of a form that was there before may stay.
#[test]
fn what_is_published_is_served_in_the_form_that_was_trained() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("publish");
    let recipe = recipe(&folder, 10, "");
    let params = Params::random(&recipe.config().unwrap(), 8, None);
    let checkpoint = folder.join("checkpoint");
    export(&params, &recipe.config_json(), ExportFormat::Bf16, &checkpoint).unwrap();
    for (name, its_own, served) in [
        ("publish-k2.5", Some("<|im_middle|>{{ tools_ts_str }}"), Template::K25),
        ("publish-thinking", None, Template::K2Thinking),
        ("publish-instruct", Some("<|im_middle|># Tools"), Template::K2Instruct0905Initial),
    ] {
        let tokenizer = thinking_folder(name, its_own);
        publish(&checkpoint, &tokenizer, ExportFormat::Bf16, &folder.join("model")).unwrap();
        assert_eq!(Template::from_dir(&folder.join("model")).unwrap(), served, "{name}");
    }
}

/// A model with layers said twice is, before it learns, the one it began with; with other layers it is not.
#[test]
fn a_deeper_model_begins_as_the_shallower_one() {
    let shallow = params(&config(json!({})), 4);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shallow");
    export(&shallow, &config_json(json!({})), ExportFormat::Bf16, &folder).unwrap();
    let checkpoint = Checkpoint::open(&folder, &mut |_| ()).unwrap();
    let shallow = Params::load(&checkpoint).unwrap();
    let loss = |params: &Params| {
        let batch = batch(params.config(), 2, 40, 5);
        Workers::new(params.layout(), 1).loss(params.values(), &[batch]).cross_entropy
    };
    let deeper = |layers: &[usize]| {
        let changes = json!({"num_hidden_layers": layers.len()});
        Params::load_deeper(&checkpoint, &config(changes), layers)
    };
    assert_eq!(loss(&deeper(&[0, 1, 2]).unwrap()), loss(&shallow));
    assert_eq!(loss(&deeper(&[0, 1, 1, 2, 2]).unwrap()), loss(&shallow));
    assert_ne!(loss(&deeper(&[0, 2, 1]).unwrap()), loss(&shallow));
    let gate = |params: &Params, layer| {
        params.get(&format!("model.layers.{layer}.mlp.gate.weight")).unwrap().to_vec()
    };
    assert_eq!(gate(&deeper(&[0, 1, 1, 2, 2]).unwrap(), 4), gate(&shallow, 2));

    let refused = |layers: &[usize]| deeper(layers).err().unwrap().to_string();
    assert!(refused(&[0, 1, 3]).contains("names layer 3, the checkpoint has 3"));
    assert!(refused(&[0, 0, 1, 2]).contains("begins layer 1 as layer 0; one is dense"));
    let missing = Params::load_deeper(&checkpoint, shallow.config(), &[0, 1]).err().unwrap().to_string();
    assert!(missing.contains("names 2 layers, expected 3"), "{missing}");
}
