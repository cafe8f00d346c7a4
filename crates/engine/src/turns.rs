//! Whose prompt is computed when several wait: the group's that had its turn longest ago, and in it the user's.
//!
//! A name is remembered beyond its requests, so that nobody becomes new by ending; and a new name comes behind
//! those that wait, so that no flow of new names keeps them waiting.

use std::collections::HashMap;

use crate::sequence::Sequence;

/// Groups that are remembered, and users, at most.
const MOST_NAMES: usize = 4096;

/// When groups and users had their last turns, in steps.
#[derive(Default)]
pub(crate) struct Turns {
    groups: LastTurns,
    users: LastTurns,
}

impl Turns {
    /// A sequence begins before this step.
    pub(crate) fn enter(&mut self, sequence: &Sequence, step: u64) {
        self.groups.enter(sequence.group(), step);
        self.users.enter(sequence.user(), step);
    }

    /// A step computes a part of the sequence's prompt.
    pub(crate) fn take(&mut self, sequence: &Sequence, step: u64) {
        self.groups.take(sequence.group(), step);
        self.users.take(sequence.user(), step);
    }

    /// That of its group and that of its user: smaller comes first.
    pub(crate) fn last_of(&self, sequence: &Sequence) -> (u64, u64) {
        (self.groups.last_of(sequence.group()), self.users.last_of(sequence.user()))
    }
}

/// The last turns by name.
#[derive(Default)]
struct LastTurns(HashMap<String, u64>);

impl LastTurns {
    fn enter(&mut self, name: &str, step: u64) {
        if !self.0.contains_key(name) {
            self.take(name, step);
        }
    }

    fn take(&mut self, name: &str, step: u64) {
        if let Some(last) = self.0.get_mut(name) {
            *last = step;
            return;
        }
        if self.0.len() >= MOST_NAMES {
            self.forget();
        }
        self.0.insert(name.to_owned(), step);
    }

    /// Who was forgotten while waiting has waited for long.
    fn last_of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Forgets at least half of the names, those of longest ago.
    fn forget(&mut self) {
        let mut steps: Vec<u64> = self.0.values().copied().collect();
        let (_, middle, _) = steps.select_nth_unstable(MOST_NAMES / 2);
        self.0.retain(|_, step| *step > *middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_longest_ago_are_forgotten() {
        let mut turns = LastTurns::default();
        let last = 10_000;
        for step in 1..=last {
            turns.enter(&step.to_string(), step);
            turns.enter("entered once", step);
            turns.take("takes turns", step);
            assert!(turns.0.len() <= MOST_NAMES);
        }
        assert_eq!(["takes turns", &last.to_string(), "1"].map(|name| turns.last_of(name)), [last, last, 0]);
        assert!(turns.last_of("entered once") < last, "entering is no turn");
        // All in one step: none is older.
        (0..2 * MOST_NAMES).for_each(|name| turns.take(&format!("n{name}"), last + 1));
        assert!(turns.0.len() <= MOST_NAMES);
    }
}
