//! Many sequences at once: whoever else runs, whatever the cache knows, however often a sequence has to leave
//! and come back, its tokens and logits are those that it gets alone.

use std::path::Path;
use std::time::Duration;

use k2_engine::{AnswerMarkers, Engine, EngineOptions, FinishReason, Request, Sampling, Stats, Usage};
use k2_kernels::Pool;
use k2_model::synthetic::{Shape, SyntheticFormat};
use k2_model::{KimiK2, Synthetic};

use crate::fixtures::{Answer, answer, bf16, folders, ids, start, tiny};

/// Of `models/tiny`.
const MARKERS: AnswerMarkers = AnswerMarkers { assistant: 3844, begin: 3857, end: 3842 };

/// Prompts that share beginnings of many lengths, each sampled with a seed of its own.
fn requests(folder: &Path) -> Vec<Request> {
    let prompt: Vec<u32> = ids(folder, "input_ids").into_iter().cycle().take(150).collect();
    requests_of(&prompt, &ids(folder, "input_ids_2"))
}

fn requests_of(prompt: &[u32], other: &[u32]) -> Vec<Request> {
    let request = |number: usize| {
        let mut prompt = prompt[..1 + number * 37 % prompt.len()].to_vec();
        if number.is_multiple_of(3) {
            prompt.extend(other);
        }
        let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed: number as u64, ..Sampling::default() };
        Request {
            prompt,
            max_tokens: 5 + number * 13 % 60,
            sampling,
            prompt_logits: number % 5 == 4,
            priority: [0, 0, -3, 7][number % 4],
            user: [None, Some("a".into()), Some("b".into())][number % 3].clone(),
            ..Request::default()
        }
    };
    (0..16).map(request).collect()
}

fn alone(folder: &Path, answers: Option<AnswerMarkers>, request: &Request) -> Answer {
    let options =
        EngineOptions { context_tokens: 320, max_sequences: 1, answers, ..EngineOptions::default() };
    answer(start(folder, options).submit(request.clone()).unwrap()).0
}

/// All requests at once, twice over, so that each has 31 others beside it; each answer must be the one that it
/// gets alone.
fn check(folder: &Path, options: EngineOptions) -> Stats {
    check_requests(folder, options, &requests(folder))
}

fn check_requests(folder: &Path, options: EngineOptions, requests: &[Request]) -> Stats {
    let engine = start(folder, options);
    let submit = |request: &Request| engine.submit(request.clone()).unwrap();
    let running: Vec<[_; 2]> = requests.iter().map(|request| [submit(request), submit(request)]).collect();
    for (request, events) in requests.iter().zip(running) {
        let wanted = alone(folder, options.answers, request);
        assert!(!matches!(wanted.reason, Some(FinishReason::Failed(_))), "{wanted:?}");
        for found in events.map(|events| answer(events).0) {
            same(&found, &wanted, &format!("{}: {options:?}: {request:?}", folder.display()));
        }
    }
    engine.stats()
}

/// What the cache knew is the one thing that may differ.
fn same(found: &Answer, wanted: &Answer, what: &str) {
    let bits = |answer: &Answer| answer.prompt_logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    assert_eq!((&found.ids, &found.reason), (&wanted.ids, &wanted.reason), "{what}");
    assert_eq!(bits(found), bits(wanted), "logits of {what}");
    assert_eq!(found.usage.completion_tokens, wanted.usage.completion_tokens, "{what}");
}

#[test]
fn company_changes_nothing() {
    let roomy = EngineOptions { context_tokens: 320, cache_tokens: 20_000, ..EngineOptions::default() };
    for folder in folders() {
        check(&folder, roomy);
    }
}

/// Drafts of every length, right and wrong, in a cache with room and in one without.
#[test]
fn speculation_changes_nothing() {
    for (speculate, cache_tokens, prefill_chunk) in [(1, 20_000, 256), (8, 20_000, 20), (32, 320, 64)] {
        let options = EngineOptions {
            context_tokens: 320,
            cache_tokens,
            prefill_chunk,
            speculate,
            ..EngineOptions::default()
        };
        check(&bf16(), options);
    }
}

/// An answer that can only repeat itself: copies are drafted, and found to be right.
#[test]
fn right_drafts_save_steps() {
    let folder = bf16();
    let run = |speculate| {
        let options = EngineOptions { context_tokens: 2048, speculate, ..EngineOptions::default() };
        let masked_ids = (0..128).filter(|id| *id != 7).collect();
        let request = Request { masked_ids, ..crate::fixtures::greedy(&ids(&folder, "input_ids"), 600) };
        answer(start(&folder, options).submit(request).unwrap()).0
    };
    let (without, with) = (run(0), run(8));
    assert_eq!(without.ids, with.ids);
    assert_eq!(without.usage.num_accepted_tokens, 0);
    let accepted = with.usage.num_accepted_tokens;
    assert!(accepted > 500, "{accepted} of 600 tokens were drafted and right");
}

/// Room for the longest sequence and little more: the younger ones leave and come back again and again.
#[test]
fn leaving_and_coming_back_changes_nothing() {
    for (prefill_chunk, max_sequences) in [(5, 32), (64, 32), (33, 3)] {
        let tight = EngineOptions {
            context_tokens: 320,
            cache_tokens: 320,
            prefill_chunk,
            max_sequences,
            ..EngineOptions::default()
        };
        check(&bf16(), tight);
    }
}

/// With room and without, drafts and all: answers have steps after every layer of somebody else's prompt.
#[test]
fn steps_between_the_layers_of_a_prompt_change_nothing() {
    for (prefill_chunk, cache_tokens, speculate) in [(64, 20_000, 0), (17, 320, 4)] {
        let options = EngineOptions {
            context_tokens: 320,
            cache_tokens,
            prefill_chunk,
            speculate,
            patience: Duration::ZERO,
            ..EngineOptions::default()
        };
        let stats = check(&bf16(), options);
        assert!(stats.steps_between_layers > 0, "{stats:?}");
        let patient = EngineOptions { patience: Duration::from_secs(1000), ..options };
        // Before anything is known of a prompt's pace its layers are done one by one.
        assert_eq!(check(&bf16(), patient).steps_between_layers, 0);
    }
}

/// Between the steps of an answer, and before the next.
#[test]
fn weights_rearranged_meanwhile_change_nothing() {
    let synthetic =
        Synthetic { shape: Shape::Small, format: SyntheticFormat::Q4K, n_routed_experts: Some(8) };
    let request =
        Request { prompt_logits: true, ..requests_of(&[3, 1415, 9265, 3589], &[7932, 3846])[3].clone() };
    let answers = |repack| {
        let model = KimiK2::synthetic(&synthetic, Pool::new(2), &mut |_, _| ()).unwrap();
        let options = EngineOptions { context_tokens: 320, repack, ..EngineOptions::default() };
        let engine = Engine::start(model, options).unwrap();
        [0, 1].map(|_| {
            let answer = answer(engine.submit(request.clone()).unwrap()).0;
            assert_eq!(engine.stats().repacked_bytes > 0, repack, "rearranged by the end of an answer");
            answer
        })
    };
    let (found, wanted) = (answers(true), answers(false));
    assert!(wanted[0].ids.len() > 1, "steps after the first weights have been rearranged");
    found.iter().zip(&wanted).for_each(|(found, wanted)| same(found, wanted, "rearranged"));
}

/// Turns that are decompressed and answers that are absorbed, in one sequence and in one step, with room and without.
#[test]
fn both_forms_of_attention_in_company_change_nothing() {
    let (folder, answers) = (tiny(), Some(MARKERS));
    let answer = [&[MARKERS.assistant, 70, MARKERS.begin][..], &[80; 21], &[MARKERS.end]].concat();
    let turn: Vec<u32> = (0..90).map(|place| 100 + place * 37 % 3000).collect();
    let prompt = [&turn[..80], &answer, &turn[80..], &turn[..40]].concat();
    let requests = requests_of(&prompt, &[&answer[..], &turn].concat());
    for (prefill_chunk, cache_tokens) in [(256, 20_000), (17, 320)] {
        let options = EngineOptions {
            context_tokens: 320,
            cache_tokens,
            prefill_chunk,
            speculate: 4,
            answers,
            ..EngineOptions::default()
        };
        check_requests(&folder, options, &requests);
    }
}

/// The next turn finds prompt and answer, if it is told where the answer is; else the prompt alone.
#[test]
fn an_answer_is_known_again_in_the_next_turn() {
    let open = [MARKERS.assistant, 70, MARKERS.begin];
    let prompt: Vec<u32> = (0..200).map(|place| 100 + place * 37 % 3000).chain(open).collect();
    for (answers, cached) in [(Some(MARKERS), 224), (None, 192)] {
        let options = EngineOptions { context_tokens: 640, answers, ..EngineOptions::default() };
        let engine = start(&tiny(), options);
        let ask = |prompt: &[u32]| answer(engine.submit(crate::fixtures::greedy(prompt, 40)).unwrap()).0;
        let first = ask(&prompt);
        let next = [&prompt[..], &first.ids, &[MARKERS.end, 90, 91, 92]].concat();
        let found = ask(&next);
        assert_eq!(found.usage.num_cached_tokens, cached, "{answers:?}");
        let cold = answer(start(&tiny(), options).submit(crate::fixtures::greedy(&next, 40)).unwrap()).0;
        assert_eq!((cold.usage.num_cached_tokens, cold.ids), (0, found.ids), "{answers:?}");
    }
}

/// What a sequence left in the cache is found again, whole blocks of it, and only what is really the same.
#[test]
fn a_known_beginning_is_not_computed_again() {
    let folder = bf16();
    let options = EngineOptions { context_tokens: 640, ..EngineOptions::default() };
    let engine = start(&folder, options);
    let prompt: Vec<u32> = ids(&folder, "input_ids").into_iter().cycle().take(200).collect();
    let mut changed = prompt.clone();
    changed[70] = (changed[70] + 1) % 100;
    let ask = |prompt: &[u32], prompt_logits| {
        let request = Request { prompt_logits, ..crate::fixtures::greedy(prompt, 40) };
        answer(engine.submit(request).unwrap()).0
    };
    let first = ask(&prompt, false);
    assert_eq!(first.usage.num_cached_tokens, 0);
    for (prompt, cached) in [
        (&prompt[..], 192),
        (&prompt[..193], 192),
        (&prompt[..192], 160),
        (&prompt[..32], 0),
        (&changed, 64),
        (&[&prompt[..], &first.ids].concat(), 224),
    ] {
        assert_eq!(ask(prompt, false).usage.num_cached_tokens, cached, "{} tokens", prompt.len());
    }
    assert_eq!(ask(&prompt, false).ids, first.ids);
    // Logits of the prompt need the prompt computed.
    let with_logits = ask(&prompt, true);
    assert_eq!((with_logits.usage.num_cached_tokens, &with_logits.ids), (0, &first.ids));
}

/// However they come, a beginning is computed by one of them.
#[test]
fn the_same_prompt_eight_times_is_computed_once() {
    let folder = bf16();
    let options = EngineOptions { context_tokens: 640, ..EngineOptions::default() };
    let prompt: Vec<u32> = ids(&folder, "input_ids").into_iter().cycle().take(200).collect();
    let request = crate::fixtures::greedy(&prompt, 4);
    let wanted = answer(start(&folder, options).submit(request.clone()).unwrap()).0;
    let engine = start(&folder, options);
    let running: Vec<_> = (0..8).map(|_| engine.submit(request.clone()).unwrap()).collect();
    let answers: Vec<Answer> = running.into_iter().map(|events| answer(events).0).collect();
    answers.iter().for_each(|found| same(found, &wanted, "one of eight"));
    let computed = |answer: &Answer| answer.usage.prompt_tokens - answer.usage.num_cached_tokens;
    assert_eq!(answers.iter().map(computed).sum::<usize>(), 200 + 7 * 8);
}

#[test]
fn the_numbers_add_up() {
    let folder = bf16();
    let options = EngineOptions { context_tokens: 320, max_sequences: 8, ..EngineOptions::default() };
    let engine = start(&folder, options);
    let requests = requests(&folder);
    let fresh = engine.stats();
    let running: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    let answers: Vec<_> = running.into_iter().map(|events| answer(events).0.usage).collect();
    let sum = |of: fn(&Usage) -> usize| answers.iter().map(of).sum::<usize>() as u64;
    // The last event comes before the numbers of its step.
    let settled = || {
        (0..500).map(|_| engine.stats()).find(|stats| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            stats.running + stats.waiting + stats.paused == 0
        })
    };
    let stats = settled().unwrap();
    assert_eq!(stats.prompt_tokens, sum(|usage| usage.prompt_tokens));
    assert_eq!(stats.num_cached_tokens, sum(|usage| usage.num_cached_tokens));
    assert_eq!(stats.completion_tokens, sum(|usage| usage.completion_tokens));
    assert_eq!(stats.max_waiting, options.max_waiting as u64);
    assert!(stats.preemptions > 0, "the cache is as small as one context: {stats:?}");
    assert_eq!(stats.blocks_used, 0, "all blocks come back");
    assert_eq!(
        stats.blocks_idle + stats.blocks_free,
        fresh.blocks_free + fresh.blocks_used + fresh.blocks_idle
    );
    assert!(!stats.stopped);
}
