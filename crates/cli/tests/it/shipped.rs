//! The model inside the program: whole, small enough, and good for what it is shipped for.

use std::path::PathBuf;

use serde_json::Value;

use crate::k2::{folder, output};

/// Cases of each of the eight cells.
const CASES: usize = 25;

/// What cells must reach, below what `models/tiny/README.md` has: these are fewer cases, of another seed.
const LEAST: [(&str, f64); 8] = [
    ("seen phrase, seen value", 0.75),
    ("seen phrase, held-out value", 0.7),
    ("held-out phrase and value", 0.65),
    ("held-out tool", 0.6),
    ("two calls", 0.55),
    ("no call: no tool fits", 0.75),
    ("no call: talk", 0.45),
    ("no call: value missing", 0.6),
];

#[test]
fn it_does_on_200_held_out_cases_what_it_is_shipped_for() {
    let report = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("shipped.json");
    let (cases, to) = (CASES.to_string(), report.to_str().unwrap());
    output(&["train", "evaluate", "--cases", &cases, "--seed", "7", "-o", to], "");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(to).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    for (name, least) in LEAST {
        let cell = cells.iter().find(|cell| cell["name"] == name).unwrap();
        assert_eq!(cell["end_to_end"]["of"], CASES);
        let share = cell["end_to_end"]["share"].as_f64().unwrap();
        assert!(share >= least, "{name}: {share}, {}", cell["failures"]);
    }
}

#[test]
fn it_can_be_written_out_and_says_the_same_from_there() {
    let folder = folder("shipped");
    let to = folder.to_str().unwrap();
    output(&["export-embedded", to], "");
    let size = std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(size <= 16_000_000, "{size} bytes");
    let run = |model: &[&str]| {
        output(&[&["run"], model, &["-p", "Hi", "--greedy", "--max-tokens", "8"]].concat(), "")
    };
    assert_eq!(run(&[]), run(&[to]));
    let card: Value = serde_json::from_str(&output(&["inspect", to, "--json"], "")).unwrap();
    let experts =
        card["formats"].as_array().unwrap().iter().find(|class| class["class"] == "routed_experts").unwrap();
    assert_eq!(experts["format"], "INT4");
}
