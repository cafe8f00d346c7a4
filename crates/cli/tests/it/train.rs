//! Training as a user does it: a tokenizer, a run that is resumed, its curves, its model published and asked.

use serde_json::Value;

use crate::k2::{folder, k2, output};

#[test]
fn a_micro_run_lowers_the_loss_and_gives_a_model() {
    let run = folder("micro-run");
    let run = run.to_str().unwrap();
    let train = ["train", "--config", "recipes/micro.toml", "--run", run];
    assert_eq!(output(&train, "").trim(), format!("{run}/model"));

    let metrics = std::fs::read_to_string(format!("{run}/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses: Vec<f64> = lines.iter().filter_map(|line| line["loss"].as_f64()).collect();
    // Single batches vary by half a nat.
    let last = &losses[losses.len() - 8..];
    let (first, last) = (losses[0], last.iter().sum::<f64>() / last.len() as f64);
    assert!(first > 8.0 && last < 4.7, "{first} to {last}");

    let again = k2(&train, "");
    assert!(again.code == 1 && again.stderr.contains("holds a run already"), "{}", again.stderr);
    output(&[&train[..], &["--resume"]].concat(), "");

    let curves = format!("{run}/curves");
    output(&["train", "plot", run, "-o", &curves], "");
    assert!(std::fs::read_to_string(curves.clone() + ".svg").unwrap().contains("micro-run"));
    assert!(std::fs::read(curves + ".png").unwrap().starts_with(b"\x89PNG"));

    let table = output(&["train", "evaluate", run, "--cases", "1"], "");
    assert!(table.contains("held-out tool"), "{table}");
    output(&["train", "publish", run, "-o", &format!("{run}/bf16")], "");
    for model in ["model", "bf16"] {
        let said = k2(&["run", &format!("{run}/{model}"), "-p", "Hi", "--max-tokens", "3"], "");
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
}

#[test]
fn a_tokenizer_is_what_was_asked_for() {
    let folder = folder("tokenizer");
    let to = folder.to_str().unwrap();
    let train = ["tokenizer", "train", "-o", to, "--dialogues", "300"];
    let said = output(&[&train[..], &["--vocab-size", "1024", "--blank-words", "32"]].concat(), "");
    assert!(said.starts_with("768 tokens and 256 reserved ids"), "{said}");
    let ids = output(&["tokenize", to], "{\"text\": \"What's the weather in Oslo?\"}\n");
    assert!(ids.starts_with("{\"ids\":["), "{ids}");
    let few = k2(&[&train[..], &["--vocab-size", "300"]].concat(), "");
    assert!(few.code == 1 && few.stderr.contains("need at least"), "{}", few.stderr);
}

/// A forced instruction set would be passed over by the products of a training; what cannot be read is no name of one.
#[test]
#[cfg(unix)]
fn instruction_sets_are_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    let check = |isa: &[u8], expected: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_k2"));
        command
            .args(["train", "--config", "recipes/micro.toml"])
            .env("K2_ISA", std::ffi::OsStr::from_bytes(isa));
        let ran = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && stderr.contains(expected), "{stderr}");
    };
    check(b"scalar", "K2_ISA=scalar: a training's products choose for themselves");
    check(b"\xff", "is not available here");
}
