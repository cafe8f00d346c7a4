//! `k2 run --prefix-store`, killed (`kill -9`) at random moments: the next run works, says the same, and nothing is
//! left over. `K2_KILLS` says how often (default: 4).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixtures::{ids, own};
use crate::k2::{k2, output};

/// Of the files in the store; about forty blocks of this model, fewer than all prompts and answers have.
const BUDGET: u64 = 500_000;

#[test]
fn a_killed_program_leaves_a_store_that_works() {
    let kills: u64 = std::env::var("K2_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let store = std::env::temp_dir().join(format!("k2-cli-prefix-store-{}", std::process::id()));
    let model = own("bf16");
    let prompts: Vec<String> = (0..3).map(|skipped| prompt(&model, skipped)).collect();
    let wanted: Vec<String> =
        prompts.iter().map(|prompt| output(&arguments(&model, prompt, None), "")).collect();
    let began = Instant::now();
    output(&arguments(&model, &prompts[0], Some(&store)), "");
    let whole = began.elapsed();
    for kill in 0..kills {
        let this = kill as usize % prompts.len();
        killed(&arguments(&model, &prompts[this], Some(&store)), moment(kill, whole));
        let next = (this + kill as usize / prompts.len()) % prompts.len();
        let found = output(&arguments(&model, &prompts[next], Some(&store)), "");
        assert_eq!(found, wanted[next], "after kill {kill}");
        check_files(&store, BUDGET);
    }
    fs::remove_dir_all(store).unwrap();
}

#[test]
fn a_file_that_is_wrong_is_removed_and_the_log_says_so() {
    let store = std::env::temp_dir().join(format!("k2-cli-wrong-file-{}", std::process::id()));
    let model = own("bf16");
    let prompt = prompt(&model, 0);
    let arguments = arguments(&model, &prompt, Some(&store));
    let wanted = output(&arguments, "");
    for file in fs::read_dir(&store).unwrap() {
        fs::write(file.unwrap().path(), "no block").unwrap();
    }
    let ran = k2(&arguments, "");
    assert_eq!((ran.code, ran.stdout), (0, wanted));
    for said in ["WARN a file of the prefix store is removed", "not a file of a prefix store"] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    fs::remove_dir_all(store).unwrap();
}

fn prompt(model: &Path, skipped: usize) -> String {
    let ids = ids(&model.join("expected.safetensors"), "input_ids");
    let ids: Vec<String> = ids.iter().cycle().skip(skipped).take(300).map(u32::to_string).collect();
    ids.join(",")
}

fn arguments<'a>(model: &'a Path, prompt: &'a str, store: Option<&'a Path>) -> Vec<&'a str> {
    let mut arguments =
        vec!["run", model.to_str().unwrap(), "--prompt-ids", prompt, "--greedy", "--max-tokens", "300"];
    if let Some(store) = store {
        arguments.extend(["--prefix-store", store.to_str().unwrap(), "--prefix-store-bytes", "500000"]);
    }
    arguments
}

/// Anywhere in a run, and a little beyond.
fn moment(kill: u64, whole: Duration) -> Duration {
    let random = (kill + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    whole.mul_f64(1.1 * random as f64 / (1u64 << 24) as f64)
}

fn killed(arguments: &[&str], after: Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_k2"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Blocks and nothing else, within the budget.
pub(crate) fn check_files(store: &Path, budget: u64) {
    let files: Vec<_> = fs::read_dir(store).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(!files.is_empty());
    assert!(files.iter().all(|file| file.path().extension().is_some_and(|end| end == "block")), "{files:?}");
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= budget, "{bytes} bytes in {} files", files.len());
}
