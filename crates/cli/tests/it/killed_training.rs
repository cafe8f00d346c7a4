//! `k2 train`, killed (`kill -9`) in the middle of its steps again and again: resumed, it ends with the bits of a run that was
//! left alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::k2::{folder, output, root};

const STEPS: usize = 24;

#[test]
fn a_killed_training_ends_with_the_same_bits() {
    let (whole, killed) = (folder("training-whole"), folder("training-killed"));
    finish(&train(&whole));
    let mut args = train(&killed);
    for kill_after in [2, 9] {
        kill(&args, &step(&killed, kill_after));
        args = [train(&killed), vec!["--resume".to_owned()]].concat();
    }
    assert!(!step(&killed, STEPS).exists(), "nothing is left to do");
    finish(&args);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| std::fs::read(step(run, STEPS).join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file}");
    }
}

fn finish(args: &[String]) {
    output(&args.iter().map(String::as_str).collect::<Vec<_>>(), "");
}

/// Begins a run and kills it as soon as a checkpoint is there: it is then in the midst of the next steps.
fn kill(args: &[String], checkpoint: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2"));
    command.args(args).current_dir(root()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without {}", checkpoint.display());
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The command line of a run of short steps, each of which is saved.
fn train(run: &Path) -> Vec<String> {
    let mut args = ["train", "--config", "recipes/micro.toml", "--run"].map(String::from).to_vec();
    args.push(run.to_str().unwrap().to_owned());
    for set in [
        "data.sources=[{kind=\"lines\"}]",
        "batch.length=64",
        "model.num_hidden_layers=2",
        "evaluation.every_steps=0",
        "checkpoint.every_steps=1",
        // Until the end: what is waited for stays.
        "checkpoint.keep=1000",
        "quantization.last_steps=8",
        &format!("schedule.steps={STEPS}"),
    ] {
        args.extend(["--set", set].map(String::from));
    }
    args
}

fn step(run: &Path, step: usize) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}
