//! Files of requests: accuracy, F1, and what is wrong with a file.

use std::path::{Path, PathBuf};

use k2_eval::verify::{
    Group, ParameterRules, Report, RequestFile, Settings, ThinkMode, Trigger, Verdict, run, trigger_score,
};
use k2_eval::{Endpoint, Options};
use serde_json::{Value, json};

use crate::vendor::{self, Fault, Reply, flawless};

/// A file of the given lines, gone at the end of the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, lines: &[Value]) -> File {
        let path = std::env::temp_dir().join(format!("k2-eval-{}-{name}", std::process::id()));
        std::fs::write(&path, lines.iter().map(|line| format!("{line}\n\n")).collect::<String>()).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn request(tool_choice: &str, stream: bool) -> Value {
    json!({
        "model": "another",
        "messages": [{ "role": "_input", "content": "Be brief." }, { "role": "user", "content": "Weather?" }],
        "tools": [{ "type": "function", "function": { "name": "get_weather", "parameters": {
            "type": "object", "properties": { "city": { "type": "string", "minLength": 1 } }, "required": ["city"],
        } } }],
        "tool_choice": tool_choice,
        "stream": stream,
        "max_tokens": 64,
    })
}

fn verified(name: &str, fault: Fault, least_f1: f64) -> Report {
    let requests =
        [("required", false), ("required", true), ("none", true)].map(|(choice, s)| request(choice, s));
    let requests = File::new(&format!("{name}.requests"), &requests);
    let reference = File::new(
        &format!("{name}.reference"),
        &[
            json!({ "data_index": 1, "finish_reason": "tool_calls" }),
            json!({ "data_index": 3, "finish_reason": "stop" }),
            json!({ "data_index": 5, "finish_reason": "tool_calls" }),
        ],
    );
    let settings = Settings {
        groups: vec![Group::Requests],
        parameter_rules: ParameterRules::Kimi,
        think_mode: ThinkMode::None,
        renderer: None,
        requests: Some(RequestFile::read(&requests.0, Some(&reference.0), least_f1).unwrap()),
        concurrency: 2,
    };
    let endpoint = Endpoint::new(&vendor::start(fault), &Options::default()).unwrap();
    run(&endpoint, vendor::MODEL, &settings, |_, _| ())
}

#[test]
fn accuracy_and_f1_are_those_of_moonshots_verifier() {
    let check = |name: &str, fault: Fault, least_f1: f64, accuracy: Option<f64>, f1: f64, failed: &[&str]| {
        let report = verified(name, fault, least_f1);
        let Trigger { schema_accuracy, score, requests, .. } = report.tool_calls.clone().unwrap();
        assert_eq!((requests, schema_accuracy, score.unwrap().f1), (3, accuracy, f1), "{name}");
        let found: Vec<_> = report
            .checks
            .iter()
            .filter(|check| check.verdict != Verdict::Passed)
            .map(|check| &check.name)
            .collect();
        assert_eq!(found, failed, "{name}");
    };
    // The reference calls in the first and the third; the vendor in the first and the second.
    check("right", flawless, 0.5, Some(1.0), 0.5, &[]);
    check("least", flawless, 0.8, Some(1.0), 0.5, &["tool_call_f1 is at least 0.8"]);
    fn empty_city(_: &Value, reply: &mut Reply) {
        if let Some(arguments) = reply.whole.pointer_mut("/choices/0/message/tool_calls/0/function/arguments")
        {
            *arguments = json!("{\"city\":\"\"}");
        }
    }
    check("invalid", empty_city, 0.5, Some(0.5), 0.5, &["line 1"]);
    fn no_calls(_: &Value, reply: &mut Reply) {
        *reply = vendor::chat(&json!({ "messages": [], "stream": reply.streams }));
    }
    check("silent", no_calls, 0.5, None, 0.0, &["tool_call_f1 is at least 0.5"]);
}

#[test]
fn every_fault_of_a_file_has_its_error() {
    let check = |name: &str, lines: &[Value], expected: &str| {
        let file = File::new(name, lines);
        let error = RequestFile::read(&file.0, None, 0.8).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    };
    check("empty", &[], "has no requests");
    check("bare", &[json!({ "prompt": "x" })], "line 1: there is no list `messages`");
    check("list", &[request("auto", false), json!([])], "line 3: it is no JSON object");
    let error = RequestFile::read(Path::new("no/such/file"), None, 0.8).unwrap_err().to_string();
    assert!(error.contains("no/such/file"), "{error}");
    let (requests, results) =
        (File::new("a", &[request("auto", false)]), File::new("b", &[json!({ "x": 1 })]));
    let error = RequestFile::read(&requests.0, Some(&results.0), 0.8).unwrap_err().to_string();
    assert!(error.contains("line 1: there is no whole number `data_index`"), "{error}");
}

/// Golden lines, if there are any beside the repository (`K2_FIXTURES`).
#[test]
fn trigger_scores_are_golden() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let folder = std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let path = folder.join("eval/goldens/public/toolcall_f1.jsonl");
    let mut lines: Vec<Value> = vec![json!({
        "reference_finish_reason": ["tool_calls", "tool_calls", "stop", "stop", "length"],
        "model_finish_reason": ["tool_calls", "stop", "tool_calls", "stop", "tool_calls"],
        "tp": 1, "fp": 2, "fn": 1, "tn": 1, "precision": 1.0 / 3.0, "recall": 0.5, "f1": 0.4,
    })];
    match std::fs::read_to_string(&path) {
        Ok(text) => lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap())),
        Err(_) => println!("skipped: no {} (set K2_FIXTURES)", path.display()),
    }
    for line in lines {
        // Null: there was no answer.
        let list = |name: &str| {
            line[name].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap_or_default())
        };
        let pairs = list("reference_finish_reason").zip(list("model_finish_reason"));
        let score = serde_json::to_value(trigger_score(pairs)).unwrap();
        for field in ["tp", "fp", "fn", "tn", "precision", "recall", "f1"] {
            let difference = score[field].as_f64().unwrap() - line[field].as_f64().unwrap();
            assert!(difference.abs() < 1e-12, "{field} of {line}: {}", score[field]);
        }
    }
}
