//! Chance, with the rule of what is held out.
//!
//! Every choice of a dialogue comes from one [`Rng`], so a seed and a number are the dialogue. A value (a name,
//! a text, a number) belongs to the held-out part if a hash of it says so: training never sees it, whatever
//! the seed.

use super::lists::Lists;
use crate::rng::Rng;

/// Which half of phrases, values or tools is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What training sees.
    Seen,
    /// What it never sees.
    HeldOut,
}

/// The parts that a dialogue is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Of the phrases.
    pub phrases: Part,
    /// Of names, texts and numbers that the user says.
    pub values: Part,
    /// Of the tools.
    pub tools: Part,
    /// Whether tools that nobody has are also asked for in words related to their own.
    pub related: bool,
    /// Whether tools that nobody has are also those of the catalogue under other nouns.
    pub renamed: bool,
    /// Whether most of the requests that no tool fits are for values that a declared tool takes too.
    pub lookalikes: bool,
    /// Whether values that are words are also put together from halves of the lists' words.
    pub spliced: bool,
}

impl Scope {
    /// What training draws from.
    pub const TRAINING: Scope = Scope {
        phrases: Part::Seen,
        values: Part::Seen,
        tools: Part::Seen,
        related: true,
        renamed: true,
        lookalikes: true,
        spliced: true,
    };
    /// New phrases with new values, for tools of training.
    pub const HELD_OUT: Scope = Scope {
        phrases: Part::HeldOut,
        values: Part::HeldOut,
        tools: Part::Seen,
        related: false,
        renamed: false,
        lookalikes: false,
        spliced: false,
    };
}

/// One value in this many is held out.
const HELD_OUT_SHARE: u64 = 5;

/// True if training never sees this value.
pub fn is_held_out(value: &str) -> bool {
    hash(value.to_lowercase().as_bytes()).is_multiple_of(HELD_OUT_SHARE)
}

/// FNV-1a (Fowler, Noll, Vo), finished by a mix of the high bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash ^ (hash >> 32)
}

/// Draws the parts of one dialogue.
pub(crate) struct Draw<'l> {
    rng: Rng,
    pub(crate) lists: &'l Lists,
    pub(crate) scope: Scope,
}

impl<'l> Draw<'l> {
    /// The choices of dialogue `index`.
    pub(crate) fn new(lists: &'l Lists, scope: Scope, seed: u64, index: u64) -> Draw<'l> {
        Draw { rng: Rng::numbered(seed, index), lists, scope }
    }

    /// A whole number below `end`; 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.rng.below(end)
    }

    /// A whole number, both ends included.
    pub(crate) fn between(&mut self, least: i64, most: i64) -> i64 {
        least + self.below((most - least + 1).max(1) as usize) as i64
    }

    /// True so many times out of a hundred.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these; they are not empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// One of these words.
    pub(crate) fn choose<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// An index, in proportion to the weights.
    pub(crate) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        let found = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.wrapping_sub(*weight);
            here
        });
        found.unwrap_or_default()
    }

    /// Brings the items into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Draws until the value lies in the wanted part.
    pub(crate) fn in_part<T>(
        &mut self,
        text: impl Fn(&T) -> &str,
        mut draw: impl FnMut(&mut Self) -> T,
    ) -> T {
        let wanted = self.scope.values == Part::HeldOut;
        let mut value = draw(self);
        // One in five is held out: two hundred tries fail once in 10^19 times.
        for _ in 0..200 {
            if is_held_out(text(&value)) == wanted {
                break;
            }
            value = draw(self);
        }
        value
    }
}
