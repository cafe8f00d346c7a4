//! What is asked: cells by what of a case is new, and by what should be done.

use crate::dialogues::{Dialogue, Generator, Part, Scope, Topic};

/// Cases of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Its name in reports.
    pub name: &'static str,
    scope: Scope,
    /// What the cases are about; they take turns.
    topics: &'static [Topic],
}

/// Without what training got later: the cases stay the same.
const SEEN: Scope =
    Scope { related: false, renamed: false, lookalikes: false, spliced: false, ..Scope::TRAINING };
const NEW_VALUES: Scope = Scope { values: Part::HeldOut, ..SEEN };
const NEW: Scope = Scope::HELD_OUT;
const NEW_TOOL: Scope = Scope { tools: Part::HeldOut, ..Scope::HELD_OUT };

/// All cells. The headline is the third.
pub const CELLS: [Cell; 9] = [
    Cell { name: "seen phrase, seen value", scope: SEEN, topics: &[Topic::Call] },
    Cell { name: "seen phrase, held-out value", scope: NEW_VALUES, topics: &[Topic::Call] },
    Cell { name: "held-out phrase and value", scope: NEW, topics: &[Topic::Call] },
    Cell { name: "held-out tool", scope: NEW_TOOL, topics: &[Topic::Call] },
    Cell { name: "two calls", scope: NEW, topics: &[Topic::TwoCalls] },
    Cell { name: "no call: no tool fits", scope: NEW, topics: &[Topic::NoTool] },
    Cell { name: "no call: talk", scope: NEW, topics: &[Topic::Talk, Topic::Identity, Topic::Tools] },
    Cell { name: "no call: value missing", scope: NEW_VALUES, topics: &[Topic::Missing] },
    Cell { name: "in Chinese", scope: NEW, topics: &[Topic::Chinese] },
];

impl Cell {
    /// The first `count` cases of this cell. The generator's seed should not be that of training.
    pub fn cases(&self, generator: &Generator, count: usize) -> Vec<Dialogue> {
        let mut cases = Vec::with_capacity(count);
        // Not every draw of tools allows every topic, so some numbers are passed over.
        for index in 0..20 * count as u64 {
            let topic = self.topics[index as usize % self.topics.len()];
            let case = generator.case(self.scope, topic, index);
            if case.exchanges.first().is_some_and(|exchange| exchange.topic == topic) {
                cases.push(case);
            }
            if cases.len() == count {
                break;
            }
        }
        cases
    }
}
