//! What the targets share: a checkpoint on disk is opened and everything in it is touched.

use k2_kernels::matrix::TILE;
use k2_weights::Checkpoint;
use std::path::{Path, PathBuf};

/// A folder of this process for its files, in memory where the system has such a place.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = root.join(format!("k2-fuzz-{}", std::process::id())).join(name);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// Opens and, if that works, widens a little of every tensor.
pub(crate) fn open_and_touch(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path, &mut |_| ()) else { return };
    let _ = k2_model::Config::from_json(checkpoint.config());
    for entry in checkpoint.tensors() {
        let Ok(matrix) = (match entry.shape[..] {
            [len] => {
                let _ = checkpoint.vector(entry.name, len);
                continue;
            }
            [rows, cols] => checkpoint.matrix(entry.name, rows, cols),
            _ => continue,
        }) else {
            continue;
        };
        let mut tile = [0.0; TILE];
        if matrix.rows() > 0 && matrix.cols() > 0 {
            let len = matrix.cols().min(TILE);
            matrix.dequantize(matrix.rows() - 1, 0, &mut tile[..len]);
        }
    }
}
