//! Fine-tuning as a user does it: records of their own, a model to begin with, a run that is stopped and goes on.

use k2_train::export::{ExportFormat, export};
use k2_train::recipe::Overrides;
use k2_train::{Event, Params, Recipe, run};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::bpe::tokenizer;
use crate::copy_task;
use crate::trainer::bits;

const STEPS: u64 = 60;

#[test]
fn a_model_learns_its_records_and_resumes_to_the_same_bits() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fine-tuning");
    let _ = std::fs::remove_dir_all(&folder);
    let init = model(&folder);
    let (mut losses, mut skipped) = (Vec::new(), 0);
    let whole = recipe(&folder, "whole", &init);
    let end = run(&whole, false, &mut |event| {
        match event {
            Event::Step { report, .. } => losses.push(report.loss),
            Event::Skipped { skipped: found } => skipped = found.records,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(first > 6.0 && last < 1.0 && losses.len() == STEPS as usize, "{first} to {last}");
    assert_eq!(skipped, 1);

    let cut = recipe(&folder, "cut", &init);
    let mut last = PathBuf::new();
    for (resume, stop) in [(false, 7), (true, STEPS)] {
        let mut watcher = |event: &Event<'_>| match event {
            Event::Step { report, .. } if report.step == stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        last = run(&cut, resume, &mut watcher).unwrap();
    }
    assert!(bits(&last) == bits(&end.unwrap()), "resumed runs give other bits");
}

/// New weights with the vocabulary of the tests' tokenizer.
fn model(folder: &Path) -> PathBuf {
    let mut recipe = copy_task::recipe(&folder.join("init-run"), 10, "");
    recipe.model.insert("vocab_size".into(), json!(tokenizer().n_vocab()));
    let params = Params::random(&recipe.config().unwrap(), 1, None);
    let model = folder.join("init");
    export(&params, &recipe.config_json(), ExportFormat::Bf16, &model).unwrap();
    model
}

/// A recipe without a model, of three records; one of them is not one.
fn recipe(folder: &Path, run: &str, init: &Path) -> Recipe {
    let say = |role: &str, content: &str| json!({ "role": role, "content": content });
    let record = |question: &str, answer: &str| {
        json!({ "messages": [say("user", question), say("assistant", answer)] }).to_string()
    };
    let records = [record("where?", "here"), record("when?", "now"), "{}".to_owned()];
    let path = folder.join("records.jsonl");
    std::fs::write(&path, records.join("\n")).unwrap();
    let text = format!(
        r#"
run = {:?}
threads = 2
[data]
tokenizer = {:?}
held_out = 0.0
skip_bad_records = true
sources = [{{ kind = "jsonl", path = {path:?} }}]
[batch]
length = 128
sequences = 2
accumulation = 2
[schedule]
shape = "cosine"
steps = {STEPS}
peak_lr = 5e-3
final_lr = 5e-4
warmup_steps = 5
[optimizer]
matrices = "muon"
"#,
        folder.join(run),
        crate::bpe::folder(),
    );
    let overrides = Overrides { init: Some(init.to_owned()), ..Overrides::default() };
    Recipe::parse(&text, Path::new("fine.toml"), overrides).unwrap()
}
