//! From a phrase of the catalogue to what a person types.
//!
//! `(a|b|)` chooses, `{slot}` is filled, and then people happen: lower case, typos, forgotten apostrophes and
//! full stops, a greeting before, thanks behind. Values are never misspelled, because they are what has to be
//! copied; in lower case they are lower in the call too.

use super::catalogue::Kind;
use super::draw::Draw;
use super::values::{Argument, Value};

/// Filled slots by name.
pub(crate) type Slots = Vec<(String, Value)>;

/// How a person types.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habit {
    lower: bool,
    typo: bool,
    no_apostrophes: bool,
    no_stop: bool,
}

impl Draw<'_> {
    /// Somebody's habit.
    pub(crate) fn habit(&mut self) -> Habit {
        let lower = self.percent(10);
        Habit {
            lower,
            typo: self.percent(5),
            no_apostrophes: self.percent(if lower { 50 } else { 2 }),
            no_stop: self.percent(12),
        }
    }

    /// Chooses among alternatives; slots stay.
    pub(crate) fn expand(&mut self, phrase: &str) -> String {
        let mut expanded = String::new();
        let mut rest = phrase;
        while let Some((before, (choices, after))) =
            rest.split_once('(').and_then(|(before, tail)| Some((before, tail.split_once(')')?)))
        {
            expanded.push_str(before);
            match choices.contains('|') {
                true => {
                    let choices: Vec<&str> = choices.split('|').collect();
                    expanded.push_str(self.choose(&choices));
                }
                false => expanded.push_str(&format!("({choices})")),
            }
            rest = after;
        }
        expanded + rest
    }

    /// The sentence of an expanded phrase. `kind` says where values end by themselves.
    pub(crate) fn sentence(
        &mut self,
        phrase: &str,
        slots: &Slots,
        kind: Option<&Kind>,
        habit: Habit,
    ) -> String {
        let mut phrase = phrase.to_owned();
        if habit.no_stop && phrase.ends_with(['.', '?']) {
            phrase.pop();
        }
        let ends_open = ends_in_free_text(&phrase, kind);
        let mut text = self.filled(&phrase, slots, habit);
        if !ends_open && text.ends_with(['.', '?', '!']) && self.percent(14) {
            text.push_str(self.pick::<String>(&self.lists.closings));
        }
        if self.percent(14) {
            text = format!("{}{text}", self.pick(&self.lists.openings));
        }
        if habit.lower { text.to_lowercase() } else { text }
    }

    /// The phrase with its slots filled; typos befall only the phrase itself.
    fn filled(&mut self, phrase: &str, slots: &Slots, habit: Habit) -> String {
        let mut text = String::new();
        let mut rest = phrase;
        while let Some((before, (slot, after))) =
            rest.split_once('{').and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
        {
            text.push_str(&self.typed(before, habit));
            if let Some((_, value)) = slots.iter().find(|(name, _)| name == slot) {
                text.push_str(&value.said);
            }
            rest = after;
        }
        text + &self.typed(rest, habit)
    }

    fn typed(&mut self, literal: &str, habit: Habit) -> String {
        let literal = if habit.no_apostrophes { literal.replace('\'', "") } else { literal.to_owned() };
        if !habit.typo {
            return literal;
        }
        let words: Vec<String> = literal.split(' ').map(|word| self.misspelled(word)).collect();
        words.join(" ")
    }

    /// Two letters swapped, one lost or one doubled, in some of the longer words.
    fn misspelled(&mut self, word: &str) -> String {
        let mut letters: Vec<char> = word.chars().collect();
        if letters.len() < 5 || !word.bytes().all(|byte| byte.is_ascii_alphabetic()) || !self.percent(40) {
            return word.to_owned();
        }
        let at = 1 + self.below(letters.len() - 2);
        match self.below(3) {
            0 => letters.swap(at, at + 1),
            1 => drop(letters.remove(at)),
            _ => letters.insert(at, letters[at]),
        }
        letters.into_iter().collect()
    }
}

/// The value as somebody with this habit says it, and so as it is copied.
pub(crate) fn said_with(value: Value, habit: Habit) -> Value {
    match value.argument {
        Argument::Text(text) if habit.lower => {
            Value { said: value.said.to_lowercase(), argument: Argument::Text(text.to_lowercase()) }
        }
        argument => Value { argument, ..value },
    }
}

/// True if what comes behind the phrase would read as more of its last value.
fn ends_in_free_text(phrase: &str, kind: Option<&Kind>) -> bool {
    let Some((_, slot)) =
        phrase.trim_end_matches(['.', '?', '!']).strip_suffix('}').and_then(|rest| rest.rsplit_once('{'))
    else {
        return false;
    };
    kind.and_then(|kind| kind.parameter(slot)).is_some_and(|parameter| parameter.kind.is_free_text())
}
