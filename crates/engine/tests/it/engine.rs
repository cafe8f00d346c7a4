//! Whole requests: the right tokens, endings, cancelling, and a panic that stays where it is.

use k2_engine::{Engine, EngineOptions, Event, FinishReason, Request, Sampling, Usage};
use k2_weights::Checkpoint;

use crate::fixtures::{answer, bf16, folders, greedy, ids, load, numbers, start};

fn options(prefill_chunk: usize) -> EngineOptions {
    EngineOptions {
        context_tokens: 2048,
        prefill_chunk,
        max_sequences: 1,
        max_waiting: 8,
        ..EngineOptions::default()
    }
}

#[test]
fn greedy_tokens_and_prompt_logits_are_the_expected_ones() {
    for folder in folders() {
        let (prompt, tokens) = (ids(&folder, "input_ids"), ids(&folder, "greedy_tokens"));
        let mut runs = Vec::new();
        for prefill_chunk in [7, 4096] {
            let engine = start(&folder, options(prefill_chunk));
            let request = Request { prompt_logits: true, ..greedy(&prompt, tokens.len()) };
            let (run, timings) = answer(engine.submit(request).unwrap());
            assert!(timings.time_to_first_token.unwrap() >= timings.queued, "{timings:?}");
            runs.push(run);
        }
        assert_eq!(runs[0], runs[1], "{}: chunks do not matter", folder.display());
        let run = &runs[0];
        assert_eq!(run.ids, tokens, "{}", folder.display());
        assert_eq!(run.reason, Some(FinishReason::Length));
        let usage =
            Usage { prompt_tokens: prompt.len(), completion_tokens: tokens.len(), ..Usage::default() };
        assert_eq!(run.usage, usage);
        let expected = numbers(&folder, "logits");
        assert_eq!(run.prompt_logits.len(), expected.len());
        let error = run.prompt_logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-3, "{}: {error}", folder.display());
    }
}

#[test]
fn endings() {
    let folder = bf16();
    let engine = start(&folder, options(16));
    let (prompt, tokens) = (ids(&folder, "input_ids"), ids(&folder, "greedy_tokens"));
    let check = |request: Request, expected: &[u32], reason: FinishReason, completion_tokens: usize| {
        let (run, timings) = answer(engine.submit(request).unwrap());
        assert_eq!((run.ids.as_slice(), run.reason), (expected, Some(reason)));
        assert_eq!(run.usage.completion_tokens, completion_tokens);
        assert_eq!(timings.time_to_first_token.is_some(), completion_tokens > 0);
    };
    // A stop id ends the answer at its first place; it is counted and not given out.
    let stop = tokens[5];
    let at = tokens.iter().position(|id| *id == stop).unwrap();
    let stopping = Request { stop_ids: [stop].into(), ..greedy(&prompt, 32) };
    check(stopping, &tokens[..at], FinishReason::Stop(stop), at + 1);
    check(greedy(&prompt, 3), &tokens[..3], FinishReason::Length, 3);
    check(greedy(&prompt, 0), &[], FinishReason::Length, 0);
    // An id that is masked is never chosen.
    let masked = Request { masked_ids: [tokens[0]].into(), ..greedy(&prompt, 1) };
    let (run, _) = answer(engine.submit(masked).unwrap());
    assert_ne!(run.ids, tokens[..1]);
}

#[test]
fn prompt_tokens_have_the_probabilities_that_they_would_have_as_answers() {
    let folder = bf16();
    let (prompt, tokens) = (ids(&folder, "input_ids"), ids(&folder, "greedy_tokens"));
    let whole: Vec<u32> = prompt.iter().chain(&tokens).copied().collect();
    let ask = |request: Request, prefill_chunk| {
        let engine = start(&folder, options(prefill_chunk));
        let warm = answer(engine.submit(greedy(&request.prompt, 1)).unwrap()).0;
        assert_eq!(warm.prompt_logprobs, []);
        answer(engine.submit(request).unwrap()).0
    };
    let answered = ask(Request { logprobs: Some(3), ..greedy(&prompt, tokens.len()) }, 16);
    let expected: Vec<_> = tokens.iter().copied().zip(answered.logprobs).collect();
    for prefill_chunk in [7, 4096] {
        let request = Request { prompt_logprobs: Some(3), ..greedy(&whole, 0) };
        let read = ask(request, prefill_chunk).prompt_logprobs;
        assert_eq!(read.len(), whole.len() - 1, "all but the first");
        assert_eq!(read[prompt.len() - 1..], expected, "to the bit, in chunks of {prefill_chunk}");
    }
}

#[test]
fn the_end_of_the_context_ends_the_answer() {
    let folder = bf16();
    let prompt = ids(&folder, "input_ids");
    let options = EngineOptions { context_tokens: prompt.len() + 4, ..options(16) };
    let engine = start(&folder, options);
    let (run, _) = answer(engine.submit(greedy(&prompt, usize::MAX)).unwrap());
    assert_eq!((run.ids.len(), run.reason), (4, Some(FinishReason::Length)));
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let folder = bf16();
    let prompt = ids(&folder, "input_ids");
    let run = |seed, prefill_chunk| {
        let engine = start(&folder, options(prefill_chunk));
        let sampling = Sampling { temperature: 0.9, top_p: 0.95, seed, ..Sampling::default() };
        let request = || Request { sampling, ..greedy(&prompt, 24) };
        let (first, second) = (engine.submit(request()).unwrap(), engine.submit(request()).unwrap());
        let (first, second) = (answer(first).0.ids, answer(second).0.ids);
        assert_eq!(first, second, "one after the other");
        first
    };
    assert_eq!(run(1, 3), run(1, 512));
    assert_ne!(run(1, 16), run(2, 16));
}

#[test]
fn cancelled_requests_end_and_the_next_begin() {
    let folder = bf16();
    let engine = start(&folder, options(16));
    let (prompt, tokens) = (ids(&folder, "input_ids"), ids(&folder, "greedy_tokens"));
    let mut running = engine.submit(greedy(&prompt, 100_000)).unwrap();
    let waiting = engine.submit(greedy(&prompt, 100_000)).unwrap();
    let dropped = engine.submit(greedy(&prompt, 100_000)).unwrap();
    let last = engine.submit(greedy(&prompt, 8)).unwrap();
    drop(dropped);
    waiting.canceller().cancel();
    let first =
        std::iter::from_fn(|| running.blocking_recv()).find(|event| !matches!(event, Event::Prefill { .. }));
    assert_eq!(first, Some(Event::Token { id: tokens[0], logprobs: None }));
    running.canceller().cancel();
    assert_eq!(answer(running).0.reason, Some(FinishReason::Cancelled));
    let (waiting, timings) = answer(waiting);
    assert_eq!((waiting.ids.len(), waiting.reason), (0, Some(FinishReason::Cancelled)));
    assert_eq!(timings.prefill, std::time::Duration::ZERO);
    assert_eq!(answer(last).0.ids, tokens[..8]);
}

#[test]
fn a_panic_fails_its_request_and_not_the_engine() {
    let folder = bf16();
    let mut model = load(&folder);
    // Fewer embedding rows than the vocabulary: some tokens are beyond them.
    let checkpoint = Checkpoint::open(&folder, &mut |_| ()).unwrap();
    let (rows, hidden) = (model.config.intermediate_size, model.config.hidden_size);
    assert!(rows < model.config.vocab_size);
    let beyond = model.config.vocab_size as u32 - 1;
    model.embed_tokens = checkpoint.matrix("model.layers.0.mlp.gate_proj.weight", rows, hidden).unwrap();
    let engine = Engine::start(model, options(16)).unwrap();
    let before = answer(engine.submit(greedy(&[1, 2, 3], 1)).unwrap()).0;
    let (failed, _) = answer(engine.submit(greedy(&[1, 2, beyond], 1)).unwrap());
    match failed.reason {
        Some(FinishReason::Failed(why)) => {
            assert!(why.starts_with("internal error in the forward pass: "), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(answer(engine.submit(greedy(&[1, 2, 3], 1)).unwrap()).0, before);
}

#[test]
fn dropped_handles_let_the_last_request_finish() {
    let folder = bf16();
    let (prompt, tokens) = (ids(&folder, "input_ids"), ids(&folder, "greedy_tokens"));
    let events = start(&folder, options(16)).submit(greedy(&prompt, 16)).unwrap();
    assert_eq!(answer(events).0.ids, tokens[..16]);
}

#[test]
fn the_prompt_is_reported_as_it_is_computed() {
    let folder = bf16();
    // A prompt alone takes four times as many at a time.
    let engine = start(&folder, options(4));
    let prompt: Vec<u32> = ids(&folder, "input_ids").into_iter().cycle().take(70).collect();
    let progress = || {
        let mut events = engine.submit(greedy(&prompt, 2)).unwrap();
        let mut progress = Vec::new();
        while let Some(event) = events.blocking_recv() {
            if let Event::Prefill { num_computed_tokens, usage } = event {
                assert_eq!((usage.prompt_tokens, usage.completion_tokens), (70, 0));
                progress.push((num_computed_tokens, usage.num_cached_tokens));
            }
        }
        progress
    };
    assert_eq!(progress(), [(0, 0), (16, 0), (32, 0), (48, 0), (64, 0)]);
    assert_eq!(progress(), [(64, 64)], "whole blocks of the prompt are in the cache now");
}
