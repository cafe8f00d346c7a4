//! Whole runs: they learn, they resume to the same bits, and they stop with a reason.

use k2_train::batch::BatchError;
use k2_train::checkpoint::{latest, save};
use k2_train::export::{ExportFormat, export};
use k2_train::step::Workers;
use k2_train::{Batch, Event, Params, Source, TrainError, Trainer, run, run_on};
use k2_weights::Checkpoint;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::copy_task::{CopyTask, copy_task, recipe};
use crate::models::{batch, config, params};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Weights of a checkpoint, bit by bit.
pub(crate) fn bits(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let read = |name| std::fs::read(path.join(name)).unwrap();
    (read("model.safetensors"), read("optimizer.safetensors"))
}

#[test]
fn a_run_learns_to_copy_with_either_optimizer_and_with_rounding() {
    for (name, steps, changes) in [("muon", 150, ""), ("int4", 150, "[quantization]\nlast_steps = 30")] {
        let recipe = recipe(&folder(&format!("learns-{name}")), steps, changes);
        let mut losses = Vec::new();
        let mut watcher = |event: &Event<'_>| {
            if let Event::Step { report, .. } = event {
                losses.push(report.loss);
            }
            ControlFlow::Continue(())
        };
        run_on(&recipe, &mut copy_task(), &[], false, &mut watcher).unwrap();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        println!("{name}: {first:.3} to {last:.3}");
        assert!(first > 2.9 && last < 1.0, "{name}: {first} to {last}");
    }
}

/// At a rate of 0 a run ends with what it began with: here the mean of two others.
#[test]
fn a_run_can_begin_with_the_mean_of_others() {
    let mut ends = Vec::new();
    for (name, steps) in [("mean-one", 15), ("mean-two", 20)] {
        let recipe = recipe(&folder(name), steps, "");
        ends.push(run_on(&recipe, &mut copy_task(), &[], false, &mut |_| ControlFlow::Continue(())).unwrap());
    }
    let mut mean = recipe(&folder("mean"), 15, "");
    mean.init = Some(ends[0].clone());
    mean.init_mean_with = vec![ends[1].clone()];
    (mean.schedule.peak_lr, mean.schedule.final_lr) = (0.0, 0.0);
    ends.push(run_on(&mean, &mut copy_task(), &[], false, &mut |_| ControlFlow::Continue(())).unwrap());
    let embeddings: Vec<Vec<f32>> = ends
        .iter()
        .map(|path| {
            let params = Params::load(&Checkpoint::open(path, &mut |_| ()).unwrap()).unwrap();
            params.get("model.embed_tokens.weight").unwrap().to_vec()
        })
        .collect();
    assert_ne!(embeddings[0], embeddings[1]);
    for ((one, two), mean) in embeddings[0].iter().zip(&embeddings[1]).zip(&embeddings[2]) {
        assert_eq!(*mean, (one + two) / 2.0);
    }
}

/// Stopping after any step and going on gives what an uninterrupted run gives.
#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let changes = "[checkpoint]\nevery_steps = 4\nevery_minutes = 0.0\n[quantization]\nlast_steps = 5";
    for accumulation in [1, 3] {
        let begin = |name: &str| {
            let mut recipe = recipe(&folder(&format!("{name}-{accumulation}")), 15, changes);
            recipe.batch.accumulation = accumulation;
            recipe
        };
        let whole = begin("whole");
        let want =
            bits(&run_on(&whole, &mut copy_task(), &[], false, &mut |_| ControlFlow::Continue(())).unwrap());
        let cut = begin("cut");
        for (resume, stop) in [(false, 3), (true, 9), (true, 10), (true, 99)] {
            let mut watcher = |event: &Event<'_>| match event {
                Event::Step { report, .. } if report.step == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            };
            run_on(&cut, &mut copy_task(), &[], resume, &mut watcher).unwrap();
        }
        let checkpoints = cut.run.join("checkpoints");
        assert!(bits(&latest(&checkpoints).unwrap().unwrap()) == want, "{accumulation}: other bits");
        assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 2, "the last two are kept");
        let metrics = std::fs::read_to_string(cut.run.join("metrics.jsonl")).unwrap();
        assert_eq!(metrics.lines().count(), 15, "one line per step, none twice");
    }
}

/// Another machine may have other processors; a run that was begun with so many threads goes on with them.
#[test]
fn a_number_of_threads_that_is_left_open_stays_what_it_was() {
    let mut recipe = recipe(&folder("open-threads"), 10, "");
    let mut threads = Vec::new();
    // What 0 stands for, on a machine with three processors.
    for (resume, given) in [(false, 3), (true, 0), (true, 1)] {
        recipe.threads = given;
        let mut watcher = |event: &Event<'_>| match event {
            Event::Started { threads: found, .. } => {
                threads.push(*found);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        };
        run_on(&recipe, &mut copy_task(), &[], resume, &mut watcher).unwrap();
    }
    assert_eq!(threads, [3, 3, 1], "one that is given counts");
}

/// What only fills up is not observed: neither in the experts' loads nor in the largest logits, nor in their balance.
#[test]
fn padding_is_not_observed() {
    let config = config(json!({}));
    let params = params(&config, 3);
    let mut workers = Workers::new(params.layout(), 1);
    let batch = batch(&config, 1, 40, 5);
    let short = workers.gradients(params.values(), std::slice::from_ref(&batch), 0.5);
    let gradient = workers.gradient_mut().to_vec();
    let padded = Batch {
        tokens: [batch.tokens, vec![1; 9]].concat(),
        targets: [batch.targets, vec![1; 9]].concat(),
        loss_mask: [batch.loss_mask, vec![0.0; 9]].concat(),
        document_ids: [batch.document_ids, vec![99; 9]].concat(),
        length: 49,
        ..batch
    };
    let padded = workers.gradients(params.values(), &[padded], 0.5);
    assert_eq!(short.observed.expert_loads, padded.observed.expert_loads);
    // A product may round otherwise where it has other rows.
    for (short, padded) in short.observed.max_logits.iter().zip(&padded.observed.max_logits) {
        assert!((short - padded).abs() < 1e-5, "{short} {padded}");
    }
    assert!(short.balance > 0.1 && (short.balance - padded.balance).abs() < 1e-6, "{}", padded.balance);
    let largest = gradient.iter().fold(0f32, |most, g| most.max(g.abs()));
    for (short, padded) in gradient.iter().zip(workers.gradient_mut()) {
        assert!((short - *padded).abs() < 1e-5 * largest, "{short} {padded}");
    }
    let moe_layers = (config.num_hidden_layers - config.first_k_dense_replace) as u64;
    let choices = 40 * config.num_experts_per_tok as u64 * moe_layers;
    assert!((choices / 2..=choices).contains(&padded.observed.expert_loads.iter().sum()));
}

/// A task with batches that teach nothing.
struct Gaps {
    task: CopyTask,
    teaches: fn(u64) -> bool,
}

impl Source for Gaps {
    fn next_batch(&mut self) -> Result<Batch, TrainError> {
        let teaches = (self.teaches)(self.task.next);
        let mut batch = self.task.next_batch()?;
        if !teaches {
            batch.loss_mask.fill(0.0);
        }
        Ok(batch)
    }

    fn cursor(&self) -> Value {
        self.task.cursor()
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), TrainError> {
        self.task.seek(cursor)
    }
}

#[test]
fn a_step_with_nothing_to_learn_is_drawn_again() {
    let gaps = |teaches: fn(u64) -> bool| Gaps { task: copy_task(), teaches };
    let thirds = |number: u64| number % 3 == 2;
    let whole = recipe(&folder("gaps-whole"), 10, "");
    let mut source = gaps(thirds);
    let want = bits(&run_on(&whole, &mut source, &[], false, &mut |_| ControlFlow::Continue(())).unwrap());
    assert_eq!(source.task.next, 30, "three batches for each step");
    let cut = recipe(&folder("gaps-cut"), 10, "");
    let mut last = PathBuf::new();
    for (resume, stop) in [(false, 4), (true, 99)] {
        let mut watcher = |event: &Event<'_>| match event {
            Event::Step { report, .. } if report.step == stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        last = run_on(&cut, &mut gaps(thirds), &[], resume, &mut watcher).unwrap();
    }
    assert!(bits(&last) == want, "resumed runs give other bits");
    let never = recipe(&folder("gaps-never"), 10, "");
    let error = run_on(&never, &mut gaps(|_| false), &[], false, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(TrainError::Batch(BatchError::Nothing))), "{error:?}");
}

/// As after `kill -9`: steps since the last checkpoint are lost, an unfinished checkpoint is in the way, and
/// the metrics end in half a line.
#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let changes = "[checkpoint]\nevery_steps = 4\nevery_minutes = 0.0";
    let whole = recipe(&folder("kill-whole"), 11, changes);
    let want =
        bits(&run_on(&whole, &mut copy_task(), &[], false, &mut |_| ControlFlow::Continue(())).unwrap());
    let killed = recipe(&folder("kill-cut"), 11, changes);
    let run_and_die = std::panic::catch_unwind(|| {
        run_on(&killed, &mut copy_task(), &[], false, &mut |event| match event {
            Event::Step { report, .. } if report.step == 7 => panic!("killed"),
            _ => ControlFlow::Continue(()),
        })
    });
    assert!(run_and_die.is_err());
    // One of a step that is saved again, one that is not.
    for step in [".step-00000008.tmp", ".step-00000007.tmp"] {
        let unfinished = killed.run.join("checkpoints").join(step);
        std::fs::create_dir_all(&unfinished).unwrap();
        std::fs::write(unfinished.join("model.safetensors"), b"half").unwrap();
    }
    let metrics = killed.run.join("metrics.jsonl");
    let half = std::fs::read_to_string(&metrics).unwrap() + "{\"step\": 8, \"lo";
    std::fs::write(&metrics, half).unwrap();
    let last = run_on(&killed, &mut copy_task(), &[], true, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(bits(&last) == want);
    let left = std::fs::read_dir(killed.run.join("checkpoints")).unwrap();
    assert_eq!(left.count(), 2, "the last two checkpoints, and nothing unfinished");
    assert_eq!(std::fs::read_to_string(metrics).unwrap().lines().count(), 11);
}

#[test]
fn same_seed_and_threads_same_bits_other_threads_same_loss() {
    let losses = |threads: usize| {
        let mut recipe = recipe(&folder(&format!("threads-{threads}")), 10, "");
        recipe.threads = threads;
        let params = Params::random(&recipe.config().unwrap(), recipe.seed, None);
        let mut trainer = Trainer::new(&recipe, params);
        let mut source = copy_task();
        let mut step =
            || trainer.step(&[source.next_batch().unwrap(), source.next_batch().unwrap()]).unwrap();
        let losses: Vec<f64> = (0..10).map(|_| step().loss).collect();
        (losses, trainer.params().values().to_vec())
    };
    let one = losses(1);
    for threads in [1, 2, 3] {
        let (again, other) = (losses(threads), losses(threads));
        assert!(again == other, "{threads} threads: two runs differ");
        // The first step has the same weights whatever the threads; then rounding grows with the steps.
        let difference = (again.0[0] - one.0[0]).abs() / one.0[0];
        assert!(difference < 1e-5, "{threads} threads: {difference:e}");
        let last = (again.0[9] - one.0[9]).abs() / one.0[9];
        assert!(last < 1e-3, "{threads} threads after ten steps: {last:e}");
    }
}

/// The first thing that is not finite, not the first tensor of the file.
#[test]
fn a_number_that_is_not_finite_is_named() {
    let recipe = recipe(&folder("nan"), 10, "");
    let random = Params::random(&recipe.config().unwrap(), 1, None);
    let check = |name: &str, value: f32, what: &str| {
        let mut params = random.clone();
        params.get_mut(name).unwrap().fill(value);
        let error = Trainer::new(&recipe, params).step(&[copy_task().next_batch().unwrap()]).unwrap_err();
        let rest =
            "nothing of this step is saved; --resume goes on from the last checkpoint, if there is one";
        assert_eq!(error.to_string(), format!("step 1: {what} is not finite; {rest}"));
    };
    let up = "model.layers.1.mlp.experts.3.up_proj.weight";
    check(up, f32::NAN, up);
    // Finite themselves, but not what they make.
    check("model.layers.1.mlp.shared_experts.up_proj.weight", 3e38, "what model.layers.1.mlp adds");
    check("model.layers.0.self_attn.o_proj.weight", 3e38, "what model.layers.0.self_attn adds");
    check("lm_head.weight", 3e38, "the gradient of lm_head.weight");
}

/// One step can be enough: what it leaves is looked at before it is a checkpoint or a model.
#[test]
fn weights_that_are_not_finite_are_neither_saved_nor_published() {
    let mut recipe = recipe(&folder("nan-update"), 10, "");
    // As a recipe cannot say it: for a token that never comes, a moment of zero over zero.
    recipe.optimizer.adamw.eps = 0.0;
    recipe.model.insert("vocab_size".into(), json!(25));
    let error = run_on(&recipe, &mut copy_task(), &[], false, &mut |_| ControlFlow::Continue(()));
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("step 1: model.embed_tokens.weight after the update is not finite"), "{error}");
    assert_eq!(latest(&recipe.run.join("checkpoints")).unwrap(), None);

    let mut params = Params::random(&recipe.config().unwrap(), 1, None);
    params.get_mut("model.norm.weight").unwrap()[3] = f32::INFINITY;
    let model = recipe.run.join("model");
    let published = export(&params, &recipe.config_json(), ExportFormat::Bf16, &model).unwrap_err();
    let saved = save(&Trainer::new(&recipe, params), &recipe, json!(0), &model).unwrap_err();
    for error in [published, saved] {
        assert!(
            error.to_string().starts_with("model.norm.weight has numbers that are not finite"),
            "{error}"
        );
    }
    assert!(!model.exists());
}

#[test]
fn runs_do_not_overwrite_each_other_and_do_not_change_their_recipe() {
    let run_quietly = |recipe: &k2_train::Recipe, resume| {
        run_on(recipe, &mut copy_task(), &[], resume, &mut |_| ControlFlow::Continue(()))
    };
    let mut recipe = recipe(&folder("twice"), 10, "");
    assert!(matches!(run_quietly(&recipe, true), Err(TrainError::NoCheckpoint { .. })));
    run_quietly(&recipe, false).unwrap();
    assert!(matches!(run_quietly(&recipe, false), Err(TrainError::Occupied { .. })));
    // A number that a parser in a hurry reads as its neighbour.
    recipe.run = folder("twice-digits");
    let _ = std::fs::remove_dir_all(&recipe.run);
    recipe.model.insert("routed_scaling_factor".into(), json!(1.6242374183804897));
    run_quietly(&recipe, false).unwrap();
    run_quietly(&recipe, true).unwrap();
    recipe.seed += 1;
    assert!(matches!(run_quietly(&recipe, true), Err(TrainError::OtherRecipe { section: "seed", .. })));
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_anything_is_allocated() {
    let mut recipe = recipe(&folder("memory"), 10, "");
    for field in ["n_routed_experts", "moe_intermediate_size", "vocab_size"] {
        recipe.model.insert(field.into(), (1 << 24).into());
    }
    let error =
        run_on(&recipe, &mut copy_task(), &[], false, &mut |_| ControlFlow::Continue(())).unwrap_err();
    let TrainError::Memory { needed, .. } = error else { panic!("{error}") };
    // Weights, moments and the gradients of two threads, and the moments' bytes when they are saved.
    let experts = 3 * 64 * (1u128 << 48);
    assert!(u128::from(needed) << 20 >= 5 * 4 * experts, "{needed} MB");
}

/// What is read and packed is counted too.
#[test]
fn data_that_does_not_fit_is_refused_before_it_is_read() {
    let base = recipe(&folder("memory-data"), 10, "");
    let needed = |recipe: &k2_train::Recipe| match run(recipe, false, &mut |_| ControlFlow::Continue(())) {
        Err(TrainError::Memory { needed, .. }) => needed,
        other => panic!("{other:?}"),
    };
    let mut batches = base.clone();
    (batches.batch.sequences, batches.batch.accumulation) = (1 << 16, 1 << 24);
    // Four numbers for each of 64 positions.
    let least = 16u64 << (16 + 24 + 6 - 20);
    assert!(needed(&batches) >= least);

    let mut records = base;
    let path = folder("sparse.jsonl");
    std::fs::File::create(&path).unwrap().set_len(1 << 42).unwrap();
    records.data.insert("sources".into(), json!([{ "kind": "jsonl", "path": path }]));
    assert!(needed(&records) >= 1 << 23);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_held_out_loss_of_nothing_is_refused() {
    for (batches, reason) in [(0, "`evaluation.batches` is 0"), (2, "no source holds anything out")] {
        let changes = format!("[evaluation]\nevery_steps = 5\nbatches = {batches}");
        let mut recipe = recipe(&folder("held-out"), 10, &changes);
        recipe.data.insert("tokenizer".into(), json!(crate::bpe::folder()));
        let error = run(&recipe, false, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        let expected = format!("recipe: `evaluation.every_steps` is 5, expected 0, because {reason}");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let recipe = recipe(&folder("batches"), 10, "");
    let mut trainer = Trainer::new(&recipe, Params::random(&recipe.config().unwrap(), 1, None));
    let good = copy_task().next_batch().unwrap();
    let mut check = |change: fn(&mut k2_train::Batch), message: &str| {
        let mut batch = good.clone();
        change(&mut batch);
        let error = trainer.step(&[batch]).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    };
    check(|b| b.tokens[7] = 24, "batch: tokens[7] is 24, the vocabulary has 24 tokens");
    check(|b| b.targets.truncate(5), "batch: targets has 5 entries, 6 sequences of 64 need 384");
    check(|b| b.loss_mask[0] = f32::NAN, "batch: loss_mask[0] is NaN");
    check(|b| b.loss_mask.fill(0.0), "batch: all of loss_mask is 0");
}
