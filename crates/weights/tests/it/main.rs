//! Tests of the `weights` crate as its users see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

mod fixtures;
mod gguf;
mod gguf_config;
mod identity;
mod large;
mod malformed;
mod save;
mod schemes;
mod situations;

use k2_kernels::matrix::TILE;
use k2_weights::Checkpoint;
use std::path::{Path, PathBuf};

/// A file or folder of this crate's test data.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"))
}

/// All numbers of a weight of one or two dimensions.
fn numbers(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Vec<f32> {
    let &[rows, cols] = shape else {
        assert_eq!(shape.len(), 1, "{name} has shape {shape:?}");
        return checkpoint.vector(name, shape[0]).unwrap_or_else(|error| panic!("{error}"));
    };
    let matrix = checkpoint.matrix(name, rows, cols).unwrap_or_else(|error| panic!("{error}"));
    let mut numbers = vec![0.0; rows * cols];
    for (row, out) in numbers.chunks_exact_mut(cols).enumerate() {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            matrix.dequantize(row, tile * TILE, out);
        }
    }
    numbers
}
