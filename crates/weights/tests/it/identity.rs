//! Which weights these are: the same wherever they lie, others as soon as something is different.

use k2_weights::safetensors::Dtype;
use k2_weights::{Checkpoint, IdentityDepth, save_safetensors};

const LARGE: usize = 200 << 10;

/// Name, shape, bytes.
type Tensor = (String, Vec<usize>, Vec<u8>);

/// A checkpoint of an expert's, a large and a small weight, after a change.
fn identity(place: &str, depth: IdentityDepth, change: impl FnOnce(&mut [Tensor])) -> [u8; 32] {
    let mut tensors =
        ["model.layers.1.mlp.experts.0.up_proj.weight", "model.large.weight", "model.small.weight"]
            .map(|name| (name.to_owned(), vec![LARGE / 2], vec![1; LARGE]));
    tensors[2] = (tensors[2].0.clone(), vec![2, 8], vec![1; 32]);
    change(&mut tensors);
    let file = std::env::temp_dir().join(format!("k2-weights-identity-{}", std::process::id()));
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), Dtype::BF16, &shape[..], &bytes[..]))
        .collect();
    save_safetensors(&file, &views).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    Checkpoint::from_bytes(place, b"{}", bytes).unwrap().identity(depth)
}

#[test]
fn weights_are_told_apart() {
    use IdentityDepth::{Full, Sampled};
    let [sampled, full] = [Sampled, Full].map(|depth| identity("here", depth, |_| ()));
    assert_ne!(sampled, full);
    assert_eq!(identity("elsewhere", Sampled, |_| ()), sampled);
    let check = |what: &str, seen_by_samples: bool, change: &dyn Fn(&mut [Tensor])| {
        assert_ne!(identity("here", Full, change), full, "{what}");
        assert_eq!(identity("here", Sampled, change) != sampled, seen_by_samples, "{what}");
    };
    check("a name", true, &|tensors| tensors[1].0.push('s'));
    check("a shape", true, &|tensors| tensors[2].1 = vec![8, 2]);
    check("the last byte of a small one", true, &|tensors| tensors[2].2[31] = 2);
    check("the middle of a large one", true, &|tensors| tensors[1].2[LARGE / 2 + 9] = 2);
    check("the middle of an expert's", true, &|tensors| tensors[0].2[LARGE / 2 + 9] = 2);
    check("the first byte of a large one", false, &|tensors| tensors[1].2[0] = 2);
}
