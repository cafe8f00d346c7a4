//! Where reference values come from: `K2_FIXTURES`, or a folder beside the repository.

use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::PathBuf;

/// The folder `name` of the reference values, if it is there.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let root = std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let folder = root.join(name);
    if !folder.exists() {
        eprintln!("skipped: {} does not exist; set K2_FIXTURES", folder.display());
        return None;
    }
    Some(folder)
}

/// A safetensors file with every tensor as numbers.
pub(crate) struct File {
    tensors: HashMap<String, Tensor>,
}

/// Shape and numbers.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl File {
    pub(crate) fn read(path: &std::path::Path) -> File {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let (data, width) =
                (view.data(), view.data().len() / view.shape().iter().product::<usize>().max(1));
            let number = |b: &[u8]| match view.dtype() {
                Dtype::F32 => f64::from(f32::from_le_bytes(b.try_into().unwrap())),
                Dtype::F64 => f64::from_le_bytes(b.try_into().unwrap()),
                Dtype::BF16 => {
                    f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16))
                }
                Dtype::I64 => i64::from_le_bytes(b.try_into().unwrap()) as f64,
                dtype => panic!("{name} is {dtype:?}"),
            };
            let values = data.chunks_exact(width.max(1)).map(number).collect();
            (name, Tensor { shape: view.shape().to_vec(), values })
        });
        File { tensors: tensors.collect() }
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn f32(&self, name: &str) -> Vec<f32> {
        self.get(name).values.iter().map(|x| *x as f32).collect()
    }
}

/// The largest difference.
pub(crate) fn max_difference(found: &[f32], want: &[f64]) -> f64 {
    assert_eq!(found.len(), want.len());
    found.iter().zip(want).map(|(found, want)| (f64::from(*found) - want).abs()).fold(0.0, f64::max)
}

/// The difference's length over the wanted length; 0 where both are zero.
pub(crate) fn relative_error(found: &[f32], want: &[f64]) -> f64 {
    assert_eq!(found.len(), want.len());
    let (mut difference, mut length) = (0.0, 0.0);
    for (found, want) in found.iter().zip(want) {
        difference += (f64::from(*found) - want).powi(2);
        length += want * want;
    }
    if difference == 0.0 { 0.0 } else { (difference / length).sqrt() }
}
