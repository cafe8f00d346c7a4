//! Large files are cheap to open: a checkpoint of K2.5's size (208,550 tensors in 64 shards, 554 GB) takes
//! less than two seconds. And small files do not become large: what is made of them is counted.
//!
//! The files are sparse with real headers; nothing but headers is read, so nothing else is there. The best
//! of three attempts counts: a test shares its machine.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use k2_weights::{Checkpoint, Progress};

use crate::gguf_config::{front, front_of};
use crate::situations::fresh;

const SHARDS: usize = 64;
const LAYERS: usize = 61;
const EXPERTS: usize = 384;
const HIDDEN: usize = 7168;
const EXPERT_WIDTH: usize = 2048;

const CONFIG: &str = r#"{"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2", "quantization_config": {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
    "kv_cache_scheme": null, "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
        "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": null, "output_activations": null,
        "weights": {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32,
            "actorder": null, "block_structure": null, "dynamic": false}}}}}}"#;

#[test]
fn an_index_of_208550_tensors_opens_in_under_two_seconds() {
    let folder = fresh("large");
    write_checkpoint(&folder);
    let mut files = 0;
    let (checkpoint, taken) = best_of_three(&folder, &mut |progress| files = progress.files);
    println!("opened in {} ms", taken.as_millis());
    assert_eq!((files, checkpoint.skipped().tensors), (SHARDS, 335));
    let name = "model.layers.60.mlp.experts.383.down_proj.weight";
    let entry = checkpoint.tensors().find(|entry| entry.name == name).unwrap();
    assert_eq!((entry.format, entry.shape), ("INT4", vec![HIDDEN, EXPERT_WIDTH]));
    fs::remove_dir_all(&folder).unwrap();
    let slower = if cfg!(debug_assertions) { 5 } else { 1 };
    assert!(taken < Duration::from_secs(2) * slower, "opened in {taken:?}");
}

#[test]
fn a_gguf_of_11_gb_costs_no_more_than_its_front() {
    let path = fresh("large-gguf").join("large.gguf");
    let bytes = 2 * (EXPERTS * HIDDEN * EXPERT_WIDTH) as u64;
    let front = front("blk.1.ffn_down_exps.weight", [EXPERT_WIDTH, HIDDEN, EXPERTS].map(|n| n as u64), 1);
    let mut file = File::create(&path).unwrap();
    file.write_all(&front).unwrap();
    file.set_len((front.len() as u64).next_multiple_of(32) + bytes).unwrap();
    let (checkpoint, taken) = best_of_three(&path, &mut |_| ());
    println!("opened {} MB in {} us", bytes >> 20, taken.as_micros());
    let name = "model.layers.1.mlp.experts.383.down_proj.weight";
    assert_eq!(checkpoint.matrix(name, HIDDEN, EXPERT_WIDTH).unwrap().format(), "F16");
    assert!(taken < Duration::from_millis(200), "opened in {taken:?}");
    fs::remove_file(path).unwrap();
}

#[test]
fn stacks_of_experts_in_a_small_gguf_are_counted() {
    let path = fresh("many-stacks").join("many-stacks.gguf");
    let (experts, stacks) = (4096, (1 << 18) / 4096 + 1);
    let stack = |n| (format!("blk.{n}.ffn_up_exps.weight"), [1, 1, experts], 1, n * 2 * experts);
    let front = front_of(&(0..stacks).map(stack).collect::<Vec<_>>());
    let mut file = File::create(&path).unwrap();
    file.write_all(&front).unwrap();
    file.set_len((front.len() as u64).next_multiple_of(32) + stacks * 2 * experts).unwrap();
    let error = Checkpoint::open(&path, &mut |_| ()).unwrap_err().to_string();
    assert!(error.ends_with("the weight count is 266240, at most 262144 are accepted"), "{error}");
    fs::remove_file(path).unwrap();
}

/// An opened checkpoint, and the time that the fastest of three openings took.
fn best_of_three(path: &Path, progress: &mut dyn FnMut(Progress)) -> (Checkpoint, Duration) {
    let mut open = || {
        let start = Instant::now();
        let checkpoint = Checkpoint::open(path, progress).unwrap();
        (checkpoint, start.elapsed())
    };
    [open(), open(), open()].into_iter().min_by_key(|(_, taken)| *taken).unwrap()
}

/// A tensor's name, dtype, shape and bytes.
type Spec = (String, &'static str, Vec<usize>, usize);

fn write_checkpoint(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), CONFIG).unwrap();
    let tensors = tensors();
    assert_eq!(tensors.len(), 208_550);
    let mut index = String::from(r#"{"metadata": {"total_size": 0}, "weight_map": {"#);
    for (shard, tensors) in tensors.chunks(tensors.len().div_ceil(SHARDS)).enumerate() {
        let file = format!("model-{:05}-of-{SHARDS:05}.safetensors", shard + 1);
        write_shard(&folder.join(&file), tensors);
        for (name, ..) in tensors {
            let comma = if index.ends_with('{') { "" } else { ", " };
            write!(index, r#"{comma}"{name}": "{file}""#).unwrap();
        }
    }
    fs::write(folder.join("model.safetensors.index.json"), index + "}}").unwrap();
}

fn write_shard(path: &Path, tensors: &[Spec]) {
    let (mut header, mut end) = (String::from(r#"{"__metadata__": {"format": "pt"}"#), 0);
    for (name, dtype, shape, bytes) in tensors {
        let begin = end;
        end += bytes;
        let info = format!(r#"{{"dtype": "{dtype}", "shape": {shape:?}, "data_offsets": [{begin}, {end}]}}"#);
        write!(header, r#", "{name}": {info}"#).unwrap();
    }
    header.push('}');
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

fn tensors() -> Vec<Spec> {
    let mut tensors: Vec<Spec> = Vec::new();
    let mut bf16 = |name: String, shape: &[usize]| {
        tensors.push((name, "BF16", shape.to_vec(), 2 * shape.iter().product::<usize>()));
    };
    for layer in 0..LAYERS {
        let prefix = format!("language_model.model.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            bf16(format!("{prefix}.{norm}.weight"), &[HIDDEN]);
        }
        for part in
            ["q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj"]
        {
            bf16(format!("{prefix}.self_attn.{part}.weight"), &[64]);
        }
        bf16(format!("{prefix}.self_attn.o_proj.weight"), &[HIDDEN, 64]);
        if layer > 0 {
            bf16(format!("{prefix}.mlp.gate.weight"), &[EXPERTS, HIDDEN]);
            bf16(format!("{prefix}.mlp.gate.e_score_correction_bias"), &[EXPERTS]);
        }
        let shared = if layer > 0 { "mlp.shared_experts" } else { "mlp" };
        for part in ["gate", "up", "down"] {
            bf16(format!("{prefix}.{shared}.{part}_proj.weight"), &[HIDDEN, EXPERT_WIDTH]);
        }
    }
    for name in ["model.embed_tokens", "model.norm", "lm_head"] {
        bf16(format!("language_model.{name}.weight"), &[HIDDEN]);
    }
    for i in 0..335 {
        bf16(format!("vision_tower.encoder.blocks.{i}.weight"), &[1152]);
    }
    for layer in 1..LAYERS {
        for expert in 0..EXPERTS {
            for (part, rows, cols) in
                [("gate", EXPERT_WIDTH, HIDDEN), ("up", EXPERT_WIDTH, HIDDEN), ("down", HIDDEN, EXPERT_WIDTH)]
            {
                let name =
                    format!("language_model.model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight");
                tensors.push((format!("{name}_packed"), "I32", vec![rows, cols / 8], rows * cols / 2));
                tensors.push((format!("{name}_scale"), "BF16", vec![rows, cols / 32], rows * cols / 16));
                tensors.push((format!("{name}_shape"), "I32", vec![2], 8));
            }
        }
    }
    tensors
}
