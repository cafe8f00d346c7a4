//! Plots: both files are there, show every run, and say what is wrong with a run that cannot be shown.

use k2_train::plot::{Curves, MOST_RUNS, PlotError, SIZE, plot};
use serde_json::json;
use std::path::PathBuf;

/// A folder with metrics.
fn run(name: &str, metrics: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("k2-train-plot-{}", std::process::id())).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
    folder
}

/// Metrics as a run writes them.
fn metrics(steps: u64, from: f64) -> String {
    let line = |step: u64| {
        let (tokens, x) = (step * 8192, step as f64 / steps as f64);
        let step_line = json!({
            "step": step, "tokens": tokens, "loss": from * (-3.0 * x).exp() + 0.1 * (step as f64).sin(), "lr": 2e-3 * (1.0 - x),
            "max_logit": 20.0 * x, "max_violation": 1.0 - x, "clipped_heads": 0,
        });
        let evaluation =
            json!({ "step": step, "tokens": tokens, "validation_loss": from * (-2.9 * x).exp() });
        if step.is_multiple_of(50) {
            format!("{step_line}\n{evaluation}\n")
        } else {
            format!("{step_line}\n")
        }
    };
    (1..=steps).map(line).collect()
}

#[test]
fn both_pictures_show_every_run() {
    let runs = [run("muon", &metrics(300, 6.0)), run("adamw", &metrics(200, 7.0))];
    let [svg, png] = plot(&runs, &runs[0].join("curves.svg")).unwrap();
    let text = std::fs::read_to_string(svg).unwrap();
    for word in [
        "muon",
        "adamw",
        "Loss",
        "Learning rate",
        "Largest attention logit",
        "Expert balance",
        "tokens, millions",
    ] {
        assert!(text.contains(word), "{word}");
    }
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(png).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.width, frame.height), SIZE);
    let has = |color: [u8; 3]| pixels.chunks_exact(3).filter(|pixel| *pixel == color).count();
    assert!(has([255, 255, 255]) > pixels.len() / 3 * 8 / 10, "mostly paper");
    assert!(has([0, 114, 178]) > 1000 && has([213, 94, 0]) > 1000, "a curve in each run's colour");
    assert!(has([0, 0, 0]) > 300, "letters");
}

#[test]
fn a_run_of_one_step_and_one_that_never_changes_can_be_drawn() {
    let one =
        json!({ "step": 1, "tokens": 0, "loss": 2.0, "lr": 0.0, "max_logit": 0.0, "max_violation": 0.0 });
    let runs = [run("one", &format!("{one}\n")), run("flat", &format!("{one}\n{one}\n"))];
    plot(&runs, &runs[0].join("curves")).unwrap();
}

/// One model's metrics of several stages lie in one folder, and runs of two models may have the same name.
#[test]
fn labels_tell_runs_apart() {
    let (a, b) = (run("a/tiny", &metrics(3, 5.0)), run("b/tiny", &metrics(3, 5.0)));
    for stage in ["metrics-first", "metrics-fifth"] {
        std::fs::copy(a.join("metrics.jsonl"), a.join(format!("{stage}.jsonl"))).unwrap();
    }
    let check = |runs: &[PathBuf], wanted: &[&str]| {
        let [svg, _] = plot(runs, &a.join("labels")).unwrap();
        let text = std::fs::read_to_string(svg).unwrap();
        for label in wanted {
            assert!(text.lines().any(|line| line.trim() == *label), "{label}");
        }
    };
    let stages = [a.join("metrics-first.jsonl"), a.join("metrics-fifth.jsonl"), a.join("metrics.jsonl")];
    check(&stages, &["metrics-first", "metrics-fifth", "tiny"]);
    check(&[a.clone(), b], &["a/tiny", "b/tiny"]);
}

#[test]
fn a_point_in_the_name_of_a_figure_is_no_ending() {
    let one = run("point", &metrics(3, 5.0));
    for (output, wanted) in [("lr-2e-3.5", "lr-2e-3.5"), ("curves.png", "curves"), ("x.svg", "x")] {
        let [svg, png] = plot(std::slice::from_ref(&one), &one.join(output)).unwrap();
        assert_eq!(svg, one.join(format!("{wanted}.svg")));
        assert_eq!(png, one.join(format!("{wanted}.png")));
    }
}

#[test]
fn a_line_that_is_being_written_is_no_error() {
    let folder = run("half", &(metrics(3, 5.0) + "{\"step\": 4, \"tok"));
    let curves = Curves::read(&folder).unwrap();
    assert_eq!((curves.name.as_str(), curves.loss.len(), curves.validation_loss.len()), ("half", 3, 0));
    assert_eq!(Curves::read(&folder.join("metrics.jsonl")).unwrap(), curves);
}

#[test]
fn runs_that_cannot_be_shown_are_named() {
    let good = run("good", &metrics(3, 5.0));
    let check = |runs: Vec<PathBuf>, wanted: &str| {
        let error = plot(&runs, &good.join("curves")).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        error
    };
    assert!(matches!(check(vec![], "0 runs"), PlotError::Runs { runs: 0 }));
    check(vec![good.clone(); MOST_RUNS + 1], "9 runs; a figure shows 1 to 8");
    check(vec![good.join("nowhere")], "nowhere: ");
    check(vec![run("empty", "")], "has no step yet");
    check(vec![run("wrong", "{\"tokens\": \"many\"}\n")], "metrics.jsonl:1: ");
}
