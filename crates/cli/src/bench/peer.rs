//! A peer's benchmark, one case at a time: llama-bench of llama.cpp, or what takes its options and prints its JSON.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::case::{Case, Phase};

/// Most of a peer's output that an error message quotes.
const QUOTED: usize = 400;

/// A program and the options that it always gets.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    program: String,
    options: Vec<String>,
}

impl Peer {
    /// Cuts a command at its blanks.
    pub(super) fn from_command(command: &str) -> Result<Peer, String> {
        let mut words = command.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or("expected a program, and options if it needs any")?;
        Ok(Peer { program, options: words.collect() })
    }

    /// Tokens per second of one repetition; the peer warms up by itself.
    pub(super) fn measure(&self, model: &Path, threads: usize, case: Case) -> Result<f64, Box<dyn Error>> {
        let (prompt, generate) = match case.phase {
            Phase::Prefill => (case.len, 0),
            Phase::Decode => (0, case.len),
        };
        let mut numbers = vec![("-t", threads), ("-p", prompt), ("-n", generate)];
        // ik_llama.cpp's llama-bench does not know this one.
        if case.depth > 0 {
            numbers.push(("-d", case.depth));
        }
        numbers.push(("-r", 1));
        let mut command = Command::new(&self.program);
        command.args(&self.options).arg("-m").arg(model).args(["-o", "json"]);
        command.args(numbers.iter().flat_map(|(option, number)| [(*option).to_owned(), number.to_string()]));
        let ran = command.output().map_err(|error| format!("--compare {}: {error}", self.program))?;
        let stdout = String::from_utf8_lossy(&ran.stdout);
        if !ran.status.success() {
            let stderr = String::from_utf8_lossy(&ran.stderr);
            return Err(format!("--compare {}: {}: {}", self.program, ran.status, end(&stderr)).into());
        }
        speed(&stdout, prompt, generate).ok_or_else(|| {
            format!("--compare {}: no result of {case} in its output: {}", self.program, end(&stdout)).into()
        })
    }
}

/// The speed of the case among the objects of llama-bench's JSON array.
fn speed(json: &str, prompt: usize, generate: usize) -> Option<f64> {
    let results: Vec<Value> = serde_json::from_str(json).ok()?;
    let of_case = |result: &&Value| result["n_prompt"] == prompt && result["n_gen"] == generate;
    results.iter().find(of_case)?["avg_ts"].as_f64().filter(|speed| *speed > 0.0)
}

fn end(text: &str) -> String {
    let skipped = text.trim().chars().count().saturating_sub(QUOTED);
    text.trim().chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_is_found_in_what_llama_bench_prints() {
        let json = r#"[{"n_prompt": 128, "n_gen": 0, "avg_ts": 271.5, "samples_ts": [271.5]},
            {"n_prompt": 0, "n_gen": 64, "avg_ts": 97.25}, {"n_prompt": 0, "n_gen": 8, "avg_ts": 0.0}]"#;
        for (output, prompt, generate, expected) in [
            (json, 128, 0, Some(271.5)),
            (json, 0, 64, Some(97.25)),
            (json, 0, 8, None),
            (json, 512, 0, None),
            ("model failed to load", 128, 0, None),
        ] {
            assert_eq!(speed(output, prompt, generate), expected, "{prompt} {generate}");
        }
    }
}
