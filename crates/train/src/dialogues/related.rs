//! Words that can stand for each other, so that a request is not found by comparing letters.
//!
//! A tool that is made up of random words repeats them in its requests; real ones do not: one "reserves" with a tool
//! that "books". Here a made-up tool gets words of groups, and is asked for by others of the same groups.

use serde::Deserialize;

use super::draw::Draw;
use super::made_up::Words;

/// `related.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Related {
    /// How a tool with a noun for its verb is named.
    pub(crate) names: Vec<String>,
    /// How it is described.
    pub(crate) descriptions: Vec<String>,
    /// Groups, their words apart by spaces.
    pub(crate) nouns: Vec<String>,
    verbs: Vec<VerbGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerbGroup {
    words: String,
    nouns: String,
}

/// So many of a tool's nouns, out of a hundred, come from groups.
const OF_GROUPS: usize = 70;

/// So many of the words of groups, out of a hundred, are drawn again for the request; some are then the same.
const DRAWN_AGAIN: usize = 65;

impl Draw<'_> {
    /// Puts words of groups in the place of a tool's words; gives those that it is asked by.
    pub(crate) fn relate(&mut self, related: &Related, words: &mut Words) -> Words {
        let group = self.pick(&related.verbs);
        let (verb, asked_verb) = self.two_of(&group.words);
        words.verb = verb;
        words.doing = self.one_of(&group.nouns);
        words.related = format!("{} {}", group.words, group.nouns);
        let mut asked = words.clone();
        asked.verb = asked_verb;
        for (own, said) in words.nouns.iter_mut().zip(&mut asked.nouns) {
            let group = self.pick(&related.nouns);
            let is_new = || group.split(' ').all(|word| !words.related.split(' ').any(|used| used == word));
            if self.percent(OF_GROUPS) && is_new() {
                words.related = format!("{} {group}", words.related);
                (*own, *said) = self.two_of(group);
            }
        }
        asked
    }

    /// A word of the group, and what is said for it.
    pub(crate) fn two_of(&mut self, group: &str) -> (String, String) {
        let own = self.one_of(group);
        let said = if self.percent(DRAWN_AGAIN) { self.one_of(group) } else { own.clone() };
        (own, said)
    }

    fn one_of(&mut self, group: &str) -> String {
        let words: Vec<&str> = group.split(' ').collect();
        self.choose(&words).to_owned()
    }
}
