//! What is exported is what was trained: read back, the weights are the rounded ones.

use k2_train::Params;
use k2_train::export::{ExportFormat, export};
use k2_train::params::Tensor;
use k2_train::quantize::{Format, round_all};
use k2_weights::Checkpoint;
use std::path::Path;

use crate::copy_task::recipe;

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
