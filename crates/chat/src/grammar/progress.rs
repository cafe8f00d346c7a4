//! Where an answer stands: before its grammar, in its reasoning, or in the grammar.
//!
//! Free text is not the grammar's business, so it costs nothing: with tools at choice everything may come until
//! the model opens a section or a call, and from there the grammar decides to the end of the turn. Where
//! something is required the grammar begins at once, or after the reasoning.

use std::sync::Arc;

use llguidance::Matcher;

use super::lark::MarkerIds;
use super::{ContentForm, Reasoning, Wanted};

/// What all answers of a grammar share.
#[derive(Debug)]
pub struct Rules {
    opening: Phase,
    /// The tokens that open and close reasoning.
    think: Option<(u32, u32)>,
    /// Tokens that begin the grammar from free text or reasoning.
    openers: Vec<u32>,
    stop_ids: Arc<[u32]>,
    /// What may come in free text.
    free: Vec<u32>,
    /// What may come in reasoning that must go on to something.
    reasoning: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Any text; the model may open calls.
    Free,
    /// The first token: reasoning may open, or the grammar begins.
    Start,
    /// Reasoning, and after it the grammar.
    Reasoning,
    /// Inside the grammar.
    Grammar,
}

impl Rules {
    pub(super) fn new(
        wanted: Wanted<'_>,
        markers: Option<&MarkerIds>,
        think: Option<(u32, u32)>,
        stop_ids: &Arc<[u32]>,
        n_vocab: usize,
    ) -> Rules {
        let opening = match (wanted.content, wanted.reasoning) {
            (ContentForm::Free, _) => Phase::Free,
            (_, Reasoning::MayOpen) if think.is_some() => Phase::Start,
            (_, Reasoning::Opened) if think.is_some() => Phase::Reasoning,
            _ => Phase::Grammar,
        };
        let openers = match (wanted.calls, markers) {
            (Some(_), Some(markers)) if opening == Phase::Free => {
                vec![markers.section_begin, markers.call_begin]
            }
            (Some(_), Some(markers)) => vec![markers.section_begin],
            _ => Vec::new(),
        };
        let all = markers.map(MarkerIds::all).unwrap_or_default();
        let inner: Vec<u32> = all.into_iter().filter(|id| !openers.contains(id)).collect();
        let free = everything_but(n_vocab, &inner);
        let reasoning = everything_but(n_vocab, &[&inner, &stop_ids[..]].concat());
        Rules { opening, think, openers, stop_ids: Arc::clone(stop_ids), free, reasoning }
    }
}

/// One answer on its way.
pub struct Progress {
    rules: Arc<Rules>,
    phase: Phase,
    matcher: Matcher,
    words: Vec<u32>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Progress {
    pub(super) fn new(rules: Arc<Rules>, matcher: Matcher) -> Progress {
        Progress { phase: rules.opening, rules, matcher, words: Vec::new() }
    }

    /// The ids that may come next, a bit each: id `i` is bit `i % 32` of word `i / 32`; ids beyond the last word
    /// may not come.
    pub fn allowed(&mut self) -> Result<&[u32], String> {
        match self.phase {
            Phase::Free => Ok(&self.rules.free),
            Phase::Reasoning => Ok(&self.rules.reasoning),
            Phase::Grammar => self.mask(),
            Phase::Start => {
                self.mask()?;
                if let Some((open, _)) = self.rules.think {
                    set(&mut self.words, open);
                }
                Ok(&self.words)
            }
        }
    }

    /// Takes note of the next token.
    pub fn accept(&mut self, id: u32) -> Result<(), String> {
        let think = self.rules.think;
        match self.phase {
            Phase::Free | Phase::Reasoning if self.rules.openers.contains(&id) => self.consume(id),
            Phase::Free => Ok(()),
            Phase::Reasoning => {
                if think.is_some_and(|(_, close)| close == id) {
                    self.phase = Phase::Grammar;
                }
                Ok(())
            }
            Phase::Start if think.is_some_and(|(open, _)| open == id) => {
                self.phase = Phase::Reasoning;
                Ok(())
            }
            // A stop id that did not end the answer changes nothing.
            Phase::Grammar | Phase::Start if self.rules.stop_ids.contains(&id) => Ok(()),
            Phase::Grammar | Phase::Start => self.consume(id),
        }
    }

    fn consume(&mut self, id: u32) -> Result<(), String> {
        self.phase = Phase::Grammar;
        self.matcher.consume_token(id).map_err(|error| format!("the grammar refuses token {id}: {error}"))
    }

    /// The grammar's own mask. Where the turn may end, it may with any stop id.
    fn mask(&mut self) -> Result<&[u32], String> {
        let failed = |error| format!("the grammar cannot say what may come next: {error}");
        let mask = self.matcher.compute_mask_or_eos().map_err(failed)?;
        let ends = self.rules.stop_ids.iter().any(|id| mask.get(*id as usize));
        self.words.clear();
        self.words.extend_from_slice(mask.as_slice());
        if ends {
            self.rules.stop_ids.iter().for_each(|id| set(&mut self.words, *id));
        }
        Ok(&self.words)
    }
}

/// Whether an id may come, by the words of [`Progress::allowed`].
pub fn may_come(words: &[u32], id: u32) -> bool {
    words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}

/// Bits for all ids but some.
fn everything_but(n_vocab: usize, not: &[u32]) -> Vec<u32> {
    let mut words = vec![u32::MAX; n_vocab.div_ceil(32)];
    for id in not {
        if let Some(word) = words.get_mut(*id as usize / 32) {
            *word &= !(1 << (id % 32));
        }
    }
    words
}

fn set(words: &mut [u32], id: u32) {
    if let Some(word) = words.get_mut(id as usize / 32) {
        *word |= 1 << (id % 32);
    }
}
