//! Every way of asking for something that cannot be done.

use k2_engine::{Engine, EngineOptions, Request, Sampling};

use crate::fixtures::{bf16, greedy, load, start};

fn options() -> EngineOptions {
    EngineOptions {
        context_tokens: 64,
        prefill_chunk: 16,
        max_sequences: 1,
        max_waiting: 1,
        ..EngineOptions::default()
    }
}

#[test]
fn requests() {
    let engine = start(&bf16(), options());
    let vocab_size = engine.vocab_size();
    let check = |request: Request, expected: &str| {
        assert_eq!(engine.submit(request).unwrap_err().to_string(), expected);
    };
    let sampled = |temperature, top_p| {
        let sampling = Sampling { temperature, top_p, ..Sampling::default() };
        Request { sampling, ..greedy(&[1], 1) }
    };
    check(greedy(&[], 1), "the prompt has no tokens; it needs at least one");
    check(
        greedy(&[0, vocab_size as u32], 1),
        &format!("prompt token 1 is {vocab_size}; the vocabulary has ids 0 to {}", vocab_size - 1),
    );
    check(greedy(&[1; 64], 1), "the prompt has 64 tokens; a context of 64 has room for 63");
    check(greedy(&[1; 65], 0), "the prompt has 65 tokens; a context of 64 has room for 64");
    for temperature in [-0.1, 2.1, f32::NAN, f32::INFINITY] {
        check(sampled(temperature, 1.0), &format!("temperature is {temperature}; it must be from 0 to 2"));
    }
    for top_p in [0.0, -1.0, 1.01, f32::NAN] {
        check(sampled(1.0, top_p), &format!("top_p is {top_p}; it must be above 0 and at most 1"));
    }
    let with = |sampling| Request { sampling, ..greedy(&[1], 1) };
    for min_p in [-0.1, 1.1, f32::NAN] {
        let expected = format!("min_p is {min_p}; it must be from 0 to 1");
        check(with(Sampling { min_p, ..Sampling::default() }), &expected);
    }
    for repetition_penalty in [0.0, -1.0, 2.1, f32::NAN] {
        let expected =
            format!("repetition_penalty is {repetition_penalty}; it must be above 0 and at most 2");
        check(with(Sampling { repetition_penalty, ..Sampling::default() }), &expected);
    }
    for penalty in [-2.1, 2.1, f32::NAN] {
        let expected = |name| format!("{name} is {penalty}; it must be from -2 to 2");
        let presence = Sampling { presence_penalty: penalty, ..Sampling::default() };
        check(with(presence), &expected("presence_penalty"));
        let frequency = Sampling { frequency_penalty: penalty, ..Sampling::default() };
        check(with(frequency), &expected("frequency_penalty"));
    }
    for (id, bias) in [(0, 100.1), (0, f32::NAN), (vocab_size as u32, 1.0)] {
        let expected =
            format!("the bias of token {id} is {bias}; ids are 0 to {}, biases -100 to 100", vocab_size - 1);
        check(Request { logit_bias: [(id, bias)].into(), ..greedy(&[1], 1) }, &expected);
    }
    check(
        Request { logprobs: Some(21), ..greedy(&[1], 1) },
        "logprobs of 21 tokens at each place are wanted; at most 20 are given",
    );
    for priority in [-101, 101, i32::MIN] {
        let request = Request { priority, ..greedy(&[1], 1) };
        check(request, &format!("priority is {priority}; it must be from -100 to 100"));
    }
    let masked_ids = (0..vocab_size as u32).collect();
    check(
        Request { masked_ids, ..greedy(&[1], 1) },
        &format!("all {vocab_size} ids are masked; at least one must be allowed"),
    );
}

#[test]
fn a_full_queue() {
    let engine = start(&bf16(), EngineOptions { context_tokens: 1 << 20, ..options() });
    let mut accepted = Vec::new();
    // One runs, one waits, and sooner or later the next is one too many.
    let error = loop {
        match engine.submit(greedy(&[1], usize::MAX)) {
            Ok(events) => accepted.push(events),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "1 requests are waiting already; try again later");
    assert!(accepted.len() <= 2, "{}", accepted.len());
}

#[test]
fn sizes() {
    let check = |options: EngineOptions, expected: &str| {
        assert_eq!(Engine::start(load(&bf16()), options).unwrap_err().to_string(), expected);
    };
    check(
        EngineOptions { context_tokens: 1, ..options() },
        "a context of 1 tokens is too small; at least 2 are needed",
    );
    check(
        EngineOptions { prefill_chunk: 0, ..options() },
        "prefill_chunk is 0; at least 1 token must be computed in a step",
    );
    check(
        EngineOptions { max_sequences: 0, ..options() },
        "max_sequences is 0; at least 1 sequence must be computed at a time",
    );
    check(
        EngineOptions { max_waiting: 0, ..options() },
        &format!("max_waiting is 0; from 1 to {} requests may wait", usize::MAX >> 3),
    );
    check(EngineOptions { speculate: 65, ..options() }, "speculate is 65; at most 64 tokens can be drafted");
    let engine = start(&bf16(), EngineOptions { context_tokens: usize::MAX, ..options() });
    assert_eq!(engine.context_tokens(), load(&bf16()).config.max_position_embeddings);
}
