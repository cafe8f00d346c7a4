//! Answers under a grammar: the engine asks before each token, tells of each, and lets nothing else come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k2_engine::{Constraint, EngineOptions, FinishReason, Grammar, Request, Sampling};

use crate::fixtures::{answer, bf16, greedy, ids, start};

/// Each token is twice the last or one more, modulo 64, the first one of two; the id [`END`] after 6 tokens.
#[derive(Debug)]
struct Doubling {
    refused: u32,
}

const END: u32 = 70;

#[derive(Debug)]
struct Progress {
    refused: u32,
    tokens: Vec<u32>,
    words: Vec<u32>,
}

impl Grammar for Doubling {
    fn start(&self) -> Box<dyn Constraint> {
        Box::new(Progress { refused: self.refused, tokens: Vec::new(), words: Vec::new() })
    }
}

impl Constraint for Progress {
    fn allowed(&mut self) -> Result<Option<&[u32]>, String> {
        self.words = vec![0; 8];
        let ids = match self.tokens[..] {
            [] => vec![3, 5],
            [.., last] if self.tokens.len() < 6 => vec![last * 2 % 64, (last * 2 + 1) % 64],
            _ => vec![END],
        };
        for id in ids {
            self.words[id as usize / 32] |= 1 << (id % 32);
        }
        Ok(Some(&self.words))
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        self.tokens.push(id);
        if id == self.refused { Err(format!("{id} is too much")) } else { Ok(()) }
    }
}

fn request(prompt: &[u32], seed: u64, refused: u32) -> Request {
    let sampling = Sampling { temperature: 2.0, seed, ..Sampling::default() };
    let grammar = Some(Arc::new(Doubling { refused }) as Arc<dyn Grammar>);
    Request { sampling, grammar, stop_ids: [END].into(), ..greedy(prompt, 20) }
}

fn options(max_sequences: usize, cache_tokens: usize) -> EngineOptions {
    EngineOptions {
        context_tokens: 96,
        max_sequences,
        cache_tokens,
        prefill_chunk: 5,
        ..EngineOptions::default()
    }
}

#[test]
fn only_what_is_allowed_comes() {
    let prompt = ids(&bf16(), "input_ids");
    let engine = start(&bf16(), options(1, 0));
    let mut different = std::collections::HashSet::new();
    for seed in 0..8 {
        let (run, _) = answer(engine.submit(request(&prompt[..20], seed, END)).unwrap());
        assert_eq!((run.ids.len(), run.reason), (6, Some(FinishReason::Stop(END))));
        assert!([3, 5].contains(&run.ids[0]));
        assert!(run.ids.windows(2).all(|pair| pair[1] / 2 == pair[0] % 32), "{:?}", run.ids);
        different.insert(run.ids);
    }
    assert!(different.len() > 2, "{different:?}");
}

#[test]
fn the_time_of_masks_is_counted() {
    let prompt = ids(&bf16(), "input_ids");
    let engine = start(&bf16(), options(1, 0));
    answer(engine.submit(greedy(&prompt[..20], 7)).unwrap());
    assert_eq!(engine.stats().mask_nanos, 0, "nothing to ask");
    let began = Instant::now();
    answer(engine.submit(request(&prompt[..20], 1, END)).unwrap());
    let counted = engine.stats().mask_nanos;
    assert!((1..began.elapsed().as_nanos()).contains(&counted.into()), "{counted}");
}

/// A grammar that panics, which is outside of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    /// When it is asked for the ids after so many tokens.
    Asked(usize),
    /// When it hears of a token.
    Told,
    /// When it goes, of which nobody takes care.
    Dropped,
}

#[derive(Debug)]
struct BrokenProgress(Broken, usize);

impl Grammar for Broken {
    fn start(&self) -> Box<dyn Constraint> {
        Box::new(BrokenProgress(*self, 0))
    }
}

impl Constraint for BrokenProgress {
    fn allowed(&mut self) -> Result<Option<&[u32]>, String> {
        assert_ne!(self.0, Broken::Asked(self.1), "as a bug would");
        Ok(None)
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.1 += 1;
        assert_ne!(self.0, Broken::Told, "as a bug would");
        Ok(())
    }
}

impl Drop for BrokenProgress {
    fn drop(&mut self) {
        assert_ne!(self.0, Broken::Dropped, "as a bug would");
    }
}

#[test]
fn an_engine_that_panicked_says_that_it_has_stopped() {
    let engine = start(&bf16(), options(1, 0));
    let broken = Request { grammar: Some(Arc::new(Broken::Dropped)), ..greedy(&[1], 1) };
    let mut events = engine.submit(broken).unwrap();
    while events.blocking_recv().is_some() {}
    let waited = || {
        std::thread::sleep(Duration::from_millis(1));
        engine.stats().stopped
    };
    assert!((0..10_000).any(|_| waited()));
}

/// Those beside it in the same steps get what they would have got.
#[test]
fn a_panic_in_a_grammar_fails_its_request_alone() {
    let prompt = ids(&bf16(), "input_ids");
    let engine = start(&bf16(), options(4, 1000));
    let alone = answer(engine.submit(greedy(&prompt[..20], 12)).unwrap()).0.ids;
    for (broken, tokens) in [(Broken::Asked(0), 0), (Broken::Asked(5), 5), (Broken::Told, 0)] {
        let beside = [(); 2].map(|()| engine.submit(greedy(&prompt[..20], 12)).unwrap());
        let request = Request { grammar: Some(Arc::new(broken)), ..greedy(&prompt[..20], 12) };
        let (failed, _) = answer(engine.submit(request).unwrap());
        assert_eq!(failed.ids.len(), tokens);
        let said = "internal error in the choice of a token: ";
        assert!(
            matches!(&failed.reason, Some(FinishReason::Failed(why)) if why.starts_with(said)),
            "{failed:?}"
        );
        for events in beside {
            assert_eq!(answer(events).0.ids, alone);
        }
    }
    assert!(!engine.stats().stopped);
}

#[test]
fn company_and_pauses_do_not_matter() {
    let prompt = ids(&bf16(), "input_ids");
    let run = |max_sequences, cache_tokens| {
        let engine = start(&bf16(), options(max_sequences, cache_tokens));
        let requests =
            (0..6).map(|seed| engine.submit(request(&prompt[..18 + seed as usize], seed, END)).unwrap());
        let events: Vec<_> = requests.collect();
        events.into_iter().map(|events| answer(events).0).map(|run| (run.ids, run.reason)).collect::<Vec<_>>()
    };
    assert_eq!(run(1, 0), run(6, 1000));
    assert_eq!(run(1, 0), run(6, 96));
}

#[test]
fn what_the_grammar_refuses_fails_the_request() {
    let prompt = ids(&bf16(), "input_ids");
    let engine = start(&bf16(), options(1, 0));
    let masked = Request { masked_ids: [3, 5].into(), ..request(&prompt[..20], 1, END) };
    let (run, _) = answer(engine.submit(masked).unwrap());
    let expected = "no id may come after the 0 tokens of the answer";
    assert_eq!(run.reason, Some(FinishReason::Failed(expected.to_owned())));
    let (run, _) = answer(engine.submit(request(&prompt[..20], 1, run_first(&engine, &prompt))).unwrap());
    assert!(matches!(run.reason, Some(FinishReason::Failed(why)) if why.ends_with("is too much")));
}

/// The first token of the request whose grammar refuses nothing.
fn run_first(engine: &k2_engine::Engine, prompt: &[u32]) -> u32 {
    answer(engine.submit(request(&prompt[..20], 1, END)).unwrap()).0.ids[0]
}
