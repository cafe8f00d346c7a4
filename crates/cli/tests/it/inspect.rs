//! `k2 inspect`: the model card's numbers.

use serde_json::{Value, json};

use crate::fixtures::{kimi_tokenizer, models, own};
use crate::k2::output;

fn inspect(path: &str) -> Value {
    serde_json::from_str(&output(&["inspect", path, "--json"], "")).unwrap()
}

/// Fields of the report, by name.
fn check(report: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&report[field], value, "{field}");
    }
}

#[test]
fn the_real_config_alone() {
    let Some(folder) = kimi_tokenizer() else { return };
    let config = folder.join("config.k2.5.json");
    let path = config.to_str().unwrap();
    check(
        &inspect(path),
        json!({"total_parameters": 1_026_408_232_448_u64, "activated_parameters": 31_687_095_808_u64,
            "num_hidden_layers": 61, "num_dense_layers": 1, "hidden_size": 7168, "moe_intermediate_size": 2048,
            "num_attention_heads": 64, "n_routed_experts": 384, "num_experts_per_tok": 8, "n_shared_experts": 1,
            "vocab_size": 163_840, "max_position_embeddings": 262_144, "attention": "MLA", "activation": "SwiGLU",
            "kv_bytes_per_token": 70_272, "weights": false}),
    );
    let table = output(&["inspect", path], "");
    for row in [
        "Total Parameters               1T (",
        "Activated Parameters           32B (",
        "Number of Layers               61 (",
        "Number of Experts              384\n",
        "Vocabulary Size                160K (",
        "Context Length                 256K (",
        "Attention Mechanism            MLA\n",
        "Activation Function            SwiGLU\n",
        "Bytes on Disk, announced       594.2 GB (",
        "Read per Token                 33.0 GB (",
        "routed_experts                 INT4, 69,120 tensors, 570.8 GB (",
    ] {
        assert!(table.contains(row), "{row}: {table}");
    }
}

/// Without the weights, the config says the same as with them: formats, numbers and, but for the width of the
/// numbers in `weight_shape`, bytes.
#[test]
fn a_config_announces_what_the_files_hold() {
    let formats = |report: &Value| {
        let entry = |entry: &Value| json!([entry["class"], entry["format"], entry["tensors"]]);
        report["formats"].as_array().unwrap().iter().map(entry).collect::<Vec<_>>()
    };
    for folder in models() {
        let stored = inspect(folder.to_str().unwrap());
        let announced = inspect(folder.join("config.json").to_str().unwrap());
        assert_eq!(formats(&stored), formats(&announced), "{}", folder.display());
        for field in ["bytes_on_disk", "bytes_read_per_token"] {
            let ratio = stored[field].as_f64().unwrap() / announced[field].as_f64().unwrap();
            assert!((ratio - 1.0).abs() < 0.005, "{}: {field} is {ratio} times as large", folder.display());
        }
        assert_eq!(stored["total_parameters"], announced["total_parameters"]);
        assert_eq!((&stored["weights"], &announced["weights"]), (&json!(true), &json!(false)));
    }
}

#[test]
fn vision_tensors_are_passed_over_and_said_so() {
    let path = own("int4_k25");
    let report = inspect(path.to_str().unwrap());
    assert_eq!(report["skipped"], json!({"tensors": 3, "bytes": 9552}));
    let table = output(&["inspect", path.to_str().unwrap()], "");
    assert!(table.contains("Passed over                    3 vision tensors, 9.6 kB"), "{table}");
}

/// Widths within their bounds whose products are beyond 64 bits are shown as the most that those hold.
#[test]
fn numbers_beyond_64_bits_do_not_wrap() {
    let folder = models().into_iter().next().unwrap();
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (field, number) in
        [("hidden_size", 1 << 24), ("moe_intermediate_size", 1 << 24), ("num_hidden_layers", 4096)]
    {
        config[field] = number.into();
    }
    config["n_routed_experts"] = 4096.into();
    config.as_object_mut().unwrap().remove("quantization_config");
    let path = std::env::temp_dir().join(format!("k2-inspect-{}.json", std::process::id()));
    std::fs::write(&path, config.to_string()).unwrap();
    let report = inspect(path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    check(&report, json!({"total_parameters": u64::MAX}));
}
