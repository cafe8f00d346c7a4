//! `k2 bench`: every case has its row, the peer is asked for the same one, and what cannot be measured is refused.

use serde_json::{Value, json};
use std::fs;

use crate::fixtures::own;
use crate::k2::{k2, output};

fn bench(args: &[&str]) -> Value {
    let args: Vec<&str> = ["bench", "--json", "-r", "2", "-t", "2"].iter().chain(args).copied().collect();
    serde_json::from_str(&output(&args, "")).unwrap()
}

/// Phase, tokens, depth and batch of each result, in order.
fn cases(report: &Value) -> Vec<Value> {
    let case = |result: &Value| json!([result["phase"], result["tokens"], result["depth"], result["batch"]]);
    report["results"].as_array().unwrap().iter().map(case).collect()
}

fn positive(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value[field].as_f64().unwrap() > 0.0, "{field}: {value}");
    }
}

#[test]
fn every_case_is_measured() {
    let path = own("bytes");
    let report = bench(&[
        path.to_str().unwrap(),
        "-p",
        "40,3",
        "-n",
        "5",
        "-d",
        "0,33",
        "-b",
        "1,3",
        "--prefill-chunk",
        "7",
    ]);
    let expected = [
        ("prefill", 40, 0, 1),
        ("prefill", 40, 33, 1),
        ("prefill", 3, 0, 1),
        ("prefill", 3, 33, 1),
        ("decode", 5, 0, 1),
        ("decode", 5, 0, 3),
        ("decode", 5, 33, 1),
        ("decode", 5, 33, 3),
    ];
    let expected = expected.map(|(phase, tokens, depth, batch)| json!([phase, tokens, depth, batch]));
    assert_eq!(cases(&report), expected);
    positive(&report["limits"], &["read_bytes_per_second", "f32_operations_per_second"]);
    for result in report["results"].as_array().unwrap() {
        positive(result, &["tokens_per_second", "bytes_per_token", "operations_per_token", "share_of_read"]);
        assert_eq!(result["samples"].as_array().unwrap().len(), 2);
        assert_eq!(result["ratio"], Value::Null);
    }
}

#[test]
fn synthetic_models_need_no_file() {
    for format in ["q4_k", "int4"] {
        let report =
            bench(&["--synthetic", "small", "--format", format, "--experts", "8", "-p", "2", "-n", "1"]);
        assert_eq!(cases(&report), [json!(["prefill", 2, 0, 1]), json!(["decode", 1, 0, 1])]);
        assert_eq!(report["model"], format!("synthetic small {format}, 8 experts"));
    }
}

/// A prompt of all rows' logits asks for the whole last layer, here the second of two.
#[test]
fn prompt_logits_cost_the_last_layer() {
    let operations = |options: &[&str]| {
        let path = own("bytes");
        let report = bench(&[&[path.to_str().unwrap(), "-p", "24", "-n", "24"], options].concat());
        [0, 1].map(|result| report["results"][result]["operations_per_token"].as_f64().unwrap())
    };
    let ([last, decode], [all, same_decode]) = (operations(&[]), operations(&["--prompt-logits"]));
    assert!(
        last < 0.9 * all && decode == same_decode && all == decode,
        "{last} {all} {decode} {same_decode}"
    );
}

/// The bytes of a step are those of the weights, wherever these lie; of BF16 about three quarters.
#[test]
fn weights_can_be_rearranged_or_left() {
    let bytes = |format, option| {
        let shape = ["--synthetic", "small", "--format", format, "--experts", "8", "-p", "0", "-n", "1"];
        let report = bench(&[&shape[..], &[option]].concat());
        report["results"][0]["bytes_per_token"].as_f64().unwrap()
    };
    assert_eq!(bytes("q4_k", "--repack"), bytes("q4_k", "--no-repack"));
    let of_bf16 = bytes("bf16", "--repack") / bytes("bf16", "--no-repack");
    assert!((0.75..0.8).contains(&of_bf16), "{of_bf16}");
}

/// The peer here is a script that answers as llama-bench does and notes what it was asked.
#[test]
fn a_peer_is_asked_for_the_same_case() {
    let folder = std::env::temp_dir().join(format!("k2-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (script, notes) = (folder.join("peer.sh"), folder.join("asked"));
    let answer =
        r#"[{"n_prompt": 9, "n_gen": 0, "avg_ts": 0.5}, {"n_prompt": 0, "n_gen": 4, "avg_ts": 0.25}]"#;
    fs::write(&script, format!("echo \"$@\" >> {}\necho '{answer}'\n", notes.display())).unwrap();
    let (peer, path) = (format!("sh {} --repack 0", script.display()), own("bytes"));
    let model = path.to_str().unwrap();
    let report = bench(&[model, "-p", "9", "-n", "4", "-d", "6", "--compare", &peer]);
    for (result, speed) in report["results"].as_array().unwrap().iter().zip([0.5, 0.25]) {
        assert_eq!(result["peer_samples"], json!([speed, speed]));
        assert_eq!(result["ratio"].as_f64().unwrap(), result["tokens_per_second"].as_f64().unwrap() / speed);
    }
    let asked = |p: u8, n: u8| format!("--repack 0 -m {model} -o json -t 2 -p {p} -n {n} -d 6 -r 1\n");
    assert_eq!(fs::read_to_string(&notes).unwrap(), asked(9, 0).repeat(2) + &asked(0, 4).repeat(2));
    bench(&[model, "-p", "9", "-n", "0", "--compare", &peer]);
    let without_depth = format!("-m {model} -o json -t 2 -p 9 -n 0 -r 1\n");
    assert!(fs::read_to_string(&notes).unwrap().ends_with(&without_depth));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let path = own("bytes");
    let model = path.to_str().unwrap();
    for (args, expected) in [
        (&[model, "-p", "0", "-n", "0"][..], "nothing to measure: no length is above 0"),
        (&[model, "-n", "4", "-b", "0"], "sequences must be 1 or more"),
        (&[model, "-p", "9999999"], "numbers at most 1048576"),
        (&[model, "-p", "1000000"], "are more than the context of"),
        (&[model, "--compare", "true"], "--compare true: no result of prefill 128 in its output: "),
        (&[model, "--compare", "false"], "--compare false: exit status: 1: "),
        (&[model, "--prompt-logits", "--compare", "true"], "cannot be used with"),
        (&[model, "-b", "1,2", "--compare", "true"], "decode 64 x 2: llama-bench has no batches"),
        (&["--repack", "--no-repack", model], "cannot be used with"),
        (&["--repack", "--exact", model], "cannot be used with"),
        (&["--repack", model], "no weights of this model have whole panels of INT4"),
        (&["--synthetic", "large"], "expected small, slice or full-1-layer"),
        (&["--synthetic", "slice", "--format", "q3"], "expected int4, fp8, bf16, q8_0 or q4_k"),
    ] {
        let args: Vec<&str> = ["bench", "-r", "1"].iter().chain(args).copied().collect();
        let ran = k2(&args, "");
        assert_ne!(ran.code, 0, "{args:?}");
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    }
}
