//! `k2 run`: logits and tokens of every model folder, and the options about text.

use std::path::Path;

use serde_json::Value;

use crate::fixtures::{ids, models, numbers, own};
use crate::k2::{k2, output};

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&output(args, "")).unwrap()
}

fn listed(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Largest difference of the written logits from an expected tensor of the same shape.
fn error_of(written: &Path, folder: &Path, name: &str) -> f32 {
    let (shape, found) = numbers(written, "logits");
    let (expected_shape, expected) = numbers(&folder.join("expected.safetensors"), name);
    assert_eq!(shape, expected_shape, "{}", folder.display());
    found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_and_greedy_tokens_of_every_folder() {
    let written = std::env::temp_dir().join(format!("k2-cli-logits-{}.safetensors", std::process::id()));
    let file = written.to_str().unwrap();
    for folder in models() {
        let (model, expected) = (folder.to_str().unwrap(), folder.join("expected.safetensors"));
        let prompt = listed(&ids(&expected, "input_ids"));
        let tokens = ids(&expected, "greedy_tokens");
        let max = tokens.len().to_string();
        let exact = ["run", model, "--prompt-ids", &prompt, "--exact", "--logits", file];
        let answer = json(&[&exact[..], &["--greedy", "--max-tokens", &max, "--json"]].concat());
        assert_eq!(answer["ids"], serde_json::to_value(&tokens).unwrap(), "{model}");
        assert_eq!(answer["finish_reason"], "length");
        let error = error_of(&written, &folder, "logits");
        assert!(error < 1e-3, "{model}: {error}");
        let prompt = listed(&ids(&expected, "input_ids_2"));
        let ran = k2(&["run", model, "--prompt-ids", &prompt, "--exact", "--logits", file], "");
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "\n"), "logits alone: {}", ran.stderr);
        let error = error_of(&written, &folder, "logits_2");
        assert!(error < 1e-3, "{model}: {error}");
    }
    std::fs::remove_file(written).unwrap();
}

#[test]
fn the_seed_decides_and_streaming_changes_nothing() {
    let folder = own("bytes");
    let run = |more: &[&str]| {
        output(
            &[&["run", folder.to_str().unwrap(), "-p", "The tide", "--max-tokens", "40"], more].concat(),
            "",
        )
    };
    let first = run(&["--seed", "8", "--temperature", "1", "--top-p", "0.9"]);
    assert_eq!(first, run(&["--seed", "8", "--temperature", "1", "--top-p", "0.9", "--threads", "1"]));
    assert_ne!(first, run(&["--seed", "9", "--temperature", "1", "--top-p", "0.9"]));
    let whole: Value = serde_json::from_str(&run(&["--greedy", "--json"])).unwrap();
    assert_eq!(run(&["--greedy"]), format!("{}\n", whole["text"].as_str().unwrap()));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let folder = own("bytes");
    let run = |more: &[&str]| {
        // A prompt and a seed whose continuation is long enough.
        let args = ["run", folder.to_str().unwrap(), "-p", "The tide", "--seed", "8", "--temperature", "1"];
        json(&[&args[..], &["--max-tokens", "40", "--json"], more].concat())
    };
    let text = run(&[])["text"].as_str().unwrap().to_owned();
    let characters: Vec<(usize, char)> = text.char_indices().collect();
    let at = characters[characters.len() / 2].0;
    let stop = &text[at..at + characters[characters.len() / 2].1.len_utf8()];
    let stopped = run(&["--stop", stop]);
    assert_eq!(stopped["text"], text[..text.find(stop).unwrap()]);
    assert_eq!(stopped["finish_reason"], "stop");
}

#[test]
fn speed_and_seed_are_told_at_the_end() {
    let folder = own("bytes");
    let args = ["run", folder.to_str().unwrap(), "--prompt-ids", "1,2", "--max-tokens", "3", "--seed", "5"];
    let ran = k2(&args, "");
    assert_eq!(ran.stdout.trim_end().split(',').count(), 3, "{}", ran.stdout);
    for part in
        ["prompt: 2 tokens (", "/s); first token after ", "answer: 3 tokens (", "/s), length; seed 5\n"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}
