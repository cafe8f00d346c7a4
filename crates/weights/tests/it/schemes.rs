//! Each storage scheme gives the numbers that its definition says, written out here the slow way.

use k2_kernels::dtype::{e4m3_to_f32, e8m0_to_f32, f32_to_bf16};
use k2_weights::safetensors::Dtype;
use k2_weights::{NewTensor, Skipped, save_safetensors};
use std::path::PathBuf;

use crate::situations::fresh;
use crate::{numbers, open};

const FP8: &str = r#"{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
    "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}}"#;

const INT4: &str = r#"{"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2", "quantization_config": {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "sparsity_config": {}, "transform_config": {},
    "ignore": ["language_model.lm_head", "re:language_model\\.model\\.layers\\.0\\..*"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int",
        "symmetric": true, "strategy": "group", "group_size": 32}}}}}, "vision_config": {}}"#;

/// A checkpoint of that config and those tensors.
fn folder(name: &str, config: &str, tensors: &[NewTensor<'_>]) -> PathBuf {
    let folder = fresh(name);
    std::fs::write(folder.join("config.json"), config).unwrap();
    save_safetensors(&folder.join("model.safetensors"), tensors).unwrap();
    folder
}

fn bytes_of<const N: usize, T>(numbers: &[T], encode: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(encode).collect()
}

#[test]
fn fp8_blocks_are_cut_at_the_edges_and_scaled_by_either_kind_of_scale() {
    let (rows, cols, grid) = (130, 257, 2 * 3);
    let codes: Vec<u8> = (0..rows * cols).map(|i| (i * 37 % 127) as u8).collect();
    let floats: Vec<f32> = (0..grid).map(|i| 0.5 + i as f32).collect();
    let powers: Vec<u8> = (0..grid).map(|i| 125 + i as u8).collect();
    let name = "model.layers.0.mlp.up_proj.weight";
    let cases = [
        (Dtype::F32, bytes_of(&floats, |x| x.to_le_bytes()), floats.clone()),
        (Dtype::F8_E8M0, powers.clone(), powers.iter().map(|&code| e8m0_to_f32(code)).collect()),
    ];
    for (dtype, scale_bytes, scales) in cases {
        let scale_name = format!("{name}_scale_inv");
        let tensors: [NewTensor<'_>; 2] =
            [(name, Dtype::F8_E4M3, &[rows, cols], &codes), (&scale_name, dtype, &[2, 3], &scale_bytes)];
        let checkpoint = open(&folder(&format!("fp8-{}", dtype.name()), FP8, &tensors));
        let entry = checkpoint.tensors().next().unwrap();
        assert_eq!((entry.format, entry.shape.as_slice()), ("FP8", [rows, cols].as_slice()));
        assert_eq!(entry.bytes, (codes.len() + scale_bytes.len()) as u64);
        let want = |i: usize| e4m3_to_f32(codes[i]) * scales[i / cols / 128 * 3 + i % cols / 128];
        for (i, number) in numbers(&checkpoint, name, &[rows, cols]).into_iter().enumerate() {
            assert_eq!(number, want(i), "number {i} with {} scales", dtype.name());
        }
    }
}

#[test]
fn int4_nibbles_are_joined_from_their_parts_under_a_wrapper() {
    let (rows, cols) = (3, 64);
    let packed: Vec<u8> = (0..rows * cols / 2).map(|i| (i * 151 % 256) as u8).collect();
    let scales: Vec<f32> = (0..rows * cols / 32).map(|i| 0.25 * (1 + i) as f32).collect();
    let scale_bytes = bytes_of(&scales, |&x| f32_to_bf16(x).to_le_bytes());
    for dtype in [Dtype::I32, Dtype::I64] {
        let shape: Vec<u8> = match dtype {
            Dtype::I32 => bytes_of(&[rows as i32, cols as i32], |n| n.to_le_bytes()),
            _ => bytes_of(&[rows as i64, cols as i64], |n| n.to_le_bytes()),
        };
        let tensors: [NewTensor<'_>; 7] = [
            ("language_model.model.layers.1.x.up_proj.weight_packed", Dtype::I32, &[rows, cols / 8], &packed),
            (
                "language_model.model.layers.1.x.up_proj.weight_scale",
                Dtype::BF16,
                &[rows, cols / 32],
                &scale_bytes,
            ),
            ("language_model.model.layers.1.x.up_proj.weight_shape", dtype, &[2], &shape),
            ("language_model.model.layers.0.x.up_proj.weight", Dtype::BF16, &[1, 2], &[0; 4]),
            ("language_model.lm_head.weight", Dtype::BF16, &[1, 2], &[0; 4]),
            ("vision_tower.blocks.0.weight", Dtype::BF16, &[2, 2], &[0; 8]),
            ("mm_projector.proj.0.weight", Dtype::F32, &[1], &[0; 4]),
        ];
        let checkpoint = open(&folder(&format!("int4-{}", dtype.name()), INT4, &tensors));
        assert_eq!(checkpoint.config()["model_type"], "kimi_k2");
        assert_eq!(checkpoint.skipped(), Skipped { tensors: 2, bytes: 12 });
        assert_eq!(checkpoint.tensors().count(), 3);
        let name = "model.layers.1.x.up_proj.weight";
        let want = |i: usize| f32::from((packed[i / 2] >> (4 * (i % 2)) & 15) as i8 - 8) * scales[i / 32];
        for (i, number) in numbers(&checkpoint, name, &[rows, cols]).into_iter().enumerate() {
            assert_eq!(number, want(i), "number {i}");
        }
    }
}

#[test]
fn plain_numbers_of_every_width_widen_exactly() {
    let want = [1.0f32, -0.5, 3.25, 0.0, -2.0, 96.0];
    let f16: [u16; 6] = [0x3c00, 0xb800, 0x4280, 0x0000, 0xc000, 0x5600];
    let cases = [
        (Dtype::F32, bytes_of(&want, |x| x.to_le_bytes())),
        (Dtype::BF16, bytes_of(&want, |&x| f32_to_bf16(x).to_le_bytes())),
        (Dtype::F16, bytes_of(&f16, |bits| bits.to_le_bytes())),
    ];
    for (dtype, bytes) in cases {
        let tensors: [NewTensor<'_>; 2] =
            [("model.matrix", dtype, &[2, 3], &bytes), ("model.vector", dtype, &[6], &bytes)];
        let checkpoint = open(&folder(&format!("plain-{}", dtype.name()), "{}", &tensors));
        assert_eq!(numbers(&checkpoint, "model.matrix", &[2, 3]), want);
        assert_eq!(numbers(&checkpoint, "model.vector", &[6]), want);
    }
}
