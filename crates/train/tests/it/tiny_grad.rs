//! Loss and every gradient of a small checkpoint, against automatic differentiation in PyTorch.

use k2_train::forward::rope::AngleTable;
use k2_train::step::Workers;
use k2_train::{Batch, Params};
use k2_weights::Checkpoint;
use std::path::Path;

use crate::fixtures::{File, folder, relative_error};

#[test]
fn loss_and_gradients_are_those_of_automatic_differentiation() {
    let Some(train) = folder("model/train") else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(train).unwrap() {
        let path = entry.unwrap().path();
        if path.join("expected.safetensors").exists() {
            check(&path);
            seen += 1;
        }
    }
    assert!(seen > 0, "no folder with expected.safetensors");
}

fn check(path: &Path) {
    let expected = File::read(&path.join("expected.safetensors"));
    let checkpoint = Checkpoint::open(path, &mut |_| ()).unwrap();
    let params = Params::load(&checkpoint).unwrap();
    let batch = next_token_batch(&expected.get("input_ids").values);
    assert!(AngleTable::new(params.config(), 1).softmax_scale > 0.0);
    for threads in [1, 2] {
        let mut workers = Workers::new(params.layout(), threads);
        let losses = workers.gradients(params.values(), std::slice::from_ref(&batch), 0.0);
        let want = expected.get("loss").values[0];
        assert!((losses.cross_entropy - want).abs() < 1e-4 * want, "{} {want}", losses.cross_entropy);
        let mut worst = (0.0, String::new());
        let mut gradients = 0;
        for name in expected.names() {
            let Some(tensor) = name.strip_prefix("grad.") else { continue };
            let slot = params.layout().find(tensor).unwrap_or_else(|| panic!("{tensor}")).slot;
            let error = relative_error(slot.of(workers.gradient_mut()), &expected.get(name).values);
            assert!(error < 1e-4, "{}: {tensor}: {error:e}", path.display());
            worst = if error > worst.0 { (error, tensor.to_owned()) } else { worst };
            gradients += 1;
        }
        println!("{}: {gradients} gradients, worst {:e} in {}", path.display(), worst.0, worst.1);
    }
}

/// One sequence; each position but the last is asked for the next token.
fn next_token_batch(ids: &[f64]) -> Batch {
    let tokens: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
    let length = tokens.len();
    let mut targets = tokens[1..].to_vec();
    targets.push(0);
    let mut loss_mask = vec![1.0; length];
    loss_mask[length - 1] = 0.0;
    Batch { tokens, targets, loss_mask, document_ids: vec![0; length], sequences: 1, length }
}
