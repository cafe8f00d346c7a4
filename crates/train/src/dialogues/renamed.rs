//! Tools of the catalogue under other nouns.
//!
//! Tools of random words ([`super::made_up`]) are asked for in few ways, those of the catalogue in many, which can be
//! learned by heart together with their tools. Here a noun of a written tool is another one wherever it stands: "set
//! a kettle for five minutes" is for `start_kettle`, and `set_timer` cannot do it. Only requests that name the noun
//! are left.

use std::sync::Arc;

use super::catalogue::{Catalogue, Kind, MADE_UP, Parameter, slots};
use super::draw::Draw;
use super::invented::{capitalize, with_article};

/// So many of the new nouns, out of a hundred, are drawn from groups of related ones, once for the tool and once for
/// its requests.
const RELATED: usize = 40;

/// So many of the other nouns in a tool's names, out of a hundred, become new ones too.
const FURTHER: usize = 40;

/// A tool with fewer requests left is not used.
const FEWEST_PHRASES: usize = 3;

/// A noun and what stands for it.
struct Renaming {
    noun: String,
    /// In the tool.
    own: String,
    /// In requests.
    said: String,
    /// Words that no other tool of the dialogue may have.
    reserved: String,
}

/// Whose words are meant.
#[derive(Clone, Copy)]
enum Side {
    Tool,
    Request,
}

impl Draw<'_> {
    /// A written kind of tool under other nouns; nothing if it has no noun or is hardly asked for by it.
    pub(crate) fn renamed(&mut self, catalogue: &Catalogue) -> Option<Kind> {
        let written = |kind: &&Arc<Kind>| !kind.held_out && !kind.catch_all && !kind.is_attribute();
        let kinds: Vec<&Arc<Kind>> = catalogue.kinds.iter().filter(written).collect();
        let kind = *self.pick(&kinds);
        let nouns = nouns(kind, catalogue);
        if nouns.is_empty() {
            return None;
        }
        let first = self.pick(&nouns).clone();
        let mut renamings = vec![self.renaming(catalogue, &first)];
        for noun in nouns {
            if renamings.iter().all(|renaming| renaming.noun != noun) && self.percent(FURTHER) {
                renamings.push(self.renaming(catalogue, &noun));
            }
        }
        let renamed = rename_kind(kind, &renamings);
        let plain = renamed.phrases.iter().filter(|phrase| always_takes(kind, phrase)).count();
        (!renamed.names.is_empty() && !renamed.descriptions.is_empty() && plain >= FEWEST_PHRASES)
            .then_some(renamed)
    }

    /// Other words for a noun, none of them a word of a tool that is held out.
    fn renaming(&mut self, catalogue: &Catalogue, noun: &str) -> Renaming {
        let held_out: Vec<&Arc<Kind>> = catalogue.kinds.iter().filter(|kind| kind.held_out).collect();
        loop {
            let (own, said, reserved) = if self.percent(RELATED) {
                let group = self.pick(&catalogue.related.nouns);
                let (own, said) = self.two_of(group);
                (own, said, group.clone())
            } else {
                let thing = self.thing(&catalogue.made_up);
                (thing.clone(), thing.clone(), thing)
            };
            if held_out.iter().all(|kind| !kind.speaks_of(&own) && !kind.speaks_of(&said)) {
                return Renaming { noun: noun.to_owned(), own, said, reserved };
            }
        }
    }
}

/// The nouns in a kind's names, each as often as it stands there.
fn nouns(kind: &Kind, catalogue: &Catalogue) -> Vec<String> {
    let words = kind.names.iter().flat_map(|name| name.split('_'));
    words.filter(|word| catalogue.made_up.is_only_noun(word)).map(str::to_owned).collect()
}

/// The kind with its nouns renamed; what does not have the first of them is left out.
fn rename_kind(kind: &Kind, renamings: &[Renaming]) -> Kind {
    let rename = |text: &str, side| renamings.iter().fold(text.to_owned(), |text, r| r.rename(&text, side));
    let first = &renamings[0];
    let naming = |texts: &[String], side| -> Vec<String> {
        texts.iter().filter(|text| first.is_named_in(text)).map(|text| rename(text, side)).collect()
    };
    let mut pairs = naming(&kind.pairs, Side::Request);
    if !pairs.iter().any(|phrase| always_takes(kind, phrase)) {
        pairs.clear();
    }
    let own = |text: &String| rename(text, Side::Tool);
    let snake = |text: &String| own(text).replace([' ', '-'], "_");
    let parameter = |parameter: &Parameter| Parameter {
        names: parameter.names.iter().map(snake).collect(),
        descriptions: parameter.descriptions.iter().map(own).collect(),
        ..parameter.clone()
    };
    let reserved: Vec<&str> = renamings.iter().map(|renaming| renaming.reserved.as_str()).collect();
    Kind {
        id: MADE_UP.to_owned(),
        family: reserved.join(" "),
        related: Vec::new(),
        names: naming(&kind.names, Side::Tool).iter().map(snake).collect(),
        descriptions: naming(&kind.descriptions, Side::Tool),
        topic: own(&kind.topic),
        parameters: kind.parameters.iter().map(parameter).collect(),
        phrases: naming(&kind.phrases, Side::Request),
        held_out_phrases: Vec::new(),
        incomplete: naming(&kind.incomplete, Side::Request),
        pairs,
        noun: own(&kind.noun),
        rest: own(&kind.rest),
        left: own(&kind.left),
        right: own(&kind.right),
        ..kind.clone()
    }
}

/// True if all that a phrase says is required, so that every tool of the kind takes it.
fn always_takes(kind: &Kind, phrase: &str) -> bool {
    slots(phrase).all(|slot| kind.parameter(slot).is_some_and(|parameter| !parameter.optional))
}

impl Renaming {
    /// True if the noun stands there, whichever alternatives are chosen.
    fn is_named_in(&self, text: &str) -> bool {
        let mut depth = 0;
        let certain = text.chars().filter(|letter| {
            depth += usize::from(*letter == '(');
            depth = depth.saturating_sub(usize::from(*letter == ')'));
            depth == 0
        });
        let certain: String = certain.collect();
        pieces(&certain).iter().any(|piece| self.ending(piece).is_some())
    }

    /// The text with the noun replaced, outside of slots.
    fn rename(&self, text: &str, side: Side) -> String {
        let word = match side {
            Side::Tool => &self.own,
            Side::Request => &self.said,
        };
        let mut renamed = String::new();
        for piece in pieces(text) {
            let Some(ending) = self.ending(piece) else {
                renamed.push_str(piece);
                continue;
            };
            let word = if word.ends_with(ending) { word.clone() } else { format!("{word}{ending}") };
            let is_capital = piece.starts_with(|letter: char| letter.is_uppercase());
            push_with_article(&mut renamed, &if is_capital { capitalize(&word) } else { word });
        }
        renamed
    }

    /// Its ending, if this word is the noun.
    fn ending(&self, word: &str) -> Option<&'static str> {
        let word = word.to_lowercase();
        match word.strip_prefix(&self.noun)? {
            "" => Some(""),
            "s" => Some("s"),
            _ => None,
        }
    }
}

/// Appends a word; "a" before it becomes "an" if need be.
fn push_with_article(text: &mut String, word: &str) {
    for article in ["a ", "an ", "A ", "An "] {
        let before = text.strip_suffix(article).map(str::len);
        if let Some(before) = before.filter(|&before| before == 0 || text[..before].ends_with(' ')) {
            text.truncate(before);
            let both = with_article(word);
            return text.push_str(&if article.starts_with('A') { capitalize(&both) } else { both });
        }
    }
    text.push_str(word);
}

/// Runs of letters, slots, and what stands between them.
fn pieces(text: &str) -> Vec<&str> {
    let mut in_slot = false;
    let one = |a: &u8, b: &u8| {
        in_slot = (in_slot || *a == b'{') && *a != b'}';
        in_slot || (a.is_ascii_alphabetic() == b.is_ascii_alphabetic() && *b != b'{')
    };
    let runs = text.as_bytes().chunk_by(one);
    let piece = |at: &mut usize, run: &[u8]| {
        let start = *at;
        *at += run.len();
        Some(&text[start..*at])
    };
    runs.scan(0, piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogues::Scope;

    #[test]
    fn a_noun_is_another_one_wherever_it_stands() {
        let renaming = |noun: &str, own: &str, said: &str| Renaming {
            noun: noun.to_owned(),
            own: own.to_owned(),
            said: said.to_owned(),
            reserved: String::new(),
        };
        let timer = renaming("timer", "oven", "old stove");
        let cases = [
            ("set_timer", Side::Tool, "set_oven"),
            ("Start a timer for {timer}.", Side::Tool, "Start an oven for {timer}."),
            ("A timer, two Timers", Side::Request, "An old stove, two Old stoves"),
            ("Set the Timer (now|soon)", Side::Request, "Set the Old stove (now|soon)"),
            ("the timers' end, timed", Side::Tool, "the ovens' end, timed"),
        ];
        for (text, side, expected) in cases {
            assert_eq!(timer.rename(text, side), expected);
        }
        let named = [
            ("Start the timer", true),
            ("Start {timer}", false),
            ("Start the (timer|clock)", false),
            ("Time's up (now|)", false),
        ];
        for (text, expected) in named {
            assert_eq!(timer.is_named_in(text), expected, "{text}");
        }
    }

    #[test]
    fn every_request_names_the_tool() {
        let catalogue = Catalogue::load().unwrap();
        let mut draw = Draw::new(&catalogue.lists, Scope::TRAINING, 5, 0);
        let mut renamed = 0;
        for kind in (0..300).filter_map(|_| draw.renamed(&catalogue)) {
            let words: Vec<&str> = kind.family.split(' ').collect();
            let says = |text: &String| words.iter().any(|word| text.to_lowercase().contains(word));
            for texts in [&kind.names, &kind.descriptions, &kind.phrases, &kind.incomplete, &kind.pairs] {
                assert!(texts.iter().all(says), "{words:?} {texts:?}");
            }
            renamed += 1;
        }
        assert!(renamed > 150, "{renamed}");
    }

    #[test]
    fn no_noun_becomes_a_word_of_a_tool_that_is_held_out() {
        let catalogue = Catalogue::load().unwrap();
        let names = catalogue.kinds.iter().filter(|kind| kind.held_out).flat_map(|kind| &kind.names);
        let held_out: Vec<&str> =
            names.flat_map(|name| name.split('_')).filter(|word| word.len() > 2).collect();
        let mut draw = Draw::new(&catalogue.lists, Scope::TRAINING, 6, 0);
        for _ in 0..2000 {
            let Renaming { own, said, .. } = draw.renaming(&catalogue, "timer");
            assert!(
                own.split(' ').chain(said.split(' ')).all(|word| !held_out.contains(&word)),
                "{own}, {said}"
            );
        }
    }
}
