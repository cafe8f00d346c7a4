//! Tools that nobody has, each made for one dialogue out of random words.
//!
//! A hundred kinds of tools can be learned by heart, and then a tool of another kind is not understood: its name
//! comes out as that of a known one. Of these there is no end. That a request belongs to a tool shows only in
//! a word that both have, or in related ones ([`super::related`]), and the tool's name and parameters can only be
//! copied.

use serde::Deserialize;

use super::catalogue::{AnswerForm, Kind, MADE_UP, Parameter};
use super::draw::Draw;
use super::invented::{capitalize, with_article};
use super::related::Related;
use super::values::ValueType;

/// `made_up.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeUp {
    nouns: Vec<String>,
    verbs: Vec<String>,
    value_types: Vec<ValueType>,
    facts: Vec<String>,
    lookup: Pattern,
    state: Pattern,
    action: Pattern,
    action_with: Pattern,
    set: Pattern,
    order: Pattern,
}

/// What is alike in all tools of a form, with holes for their words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    topic: String,
    names: Vec<String>,
    descriptions: Vec<String>,
    parameters: Vec<ParameterPattern>,
    phrases: Vec<String>,
    incomplete: Vec<String>,
    follow_ups: Vec<String>,
    pairs: Vec<String>,
    results: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterPattern {
    slot: String,
    names: Vec<String>,
    descriptions: Vec<String>,
}

/// What a tool of a form does, and how it is answered.
struct Form<'t> {
    pattern: &'t Pattern,
    answer: AnswerForm,
    noun: &'static str,
    rest: &'static str,
}

/// The words of one tool.
#[derive(Clone)]
pub(crate) struct Words {
    pub(crate) verb: String,
    /// {thing}, {attribute}, {second} and {also}.
    pub(crate) nouns: [String; 4],
    /// The verb as a noun, if it is one of a group.
    pub(crate) doing: String,
    /// All words of the groups that they come from.
    pub(crate) related: String,
    preposition: &'static str,
    fact: String,
}

/// So many of the tools out of a hundred are asked for in words that are related to their own.
const RELATED: usize = 45;

/// How often each form comes: lookup, state, action, action with a second value, setting, order.
const FORMS: [usize; 6] = [32, 7, 15, 21, 12, 13];

impl MadeUp {
    /// True if this is one of the nouns and none of the verbs.
    pub(crate) fn is_only_noun(&self, word: &str) -> bool {
        self.nouns.iter().any(|noun| noun == word) && self.verbs.iter().all(|verb| verb != word)
    }
}

impl Draw<'_> {
    /// A kind of tool that there was not before.
    pub(crate) fn made_up(&mut self, tables: &MadeUp, related: &Related) -> Kind {
        let mut words = self.words(tables);
        let asked = match self.scope.related && self.percent(RELATED) {
            true => self.relate(related, &mut words),
            false => words.clone(),
        };
        let Form { pattern, answer, noun, rest } = self.tool_form(tables);
        let parameter = |parameter: &ParameterPattern| Parameter {
            slot: parameter.slot.clone(),
            kind: self.value_type(tables, &parameter.slot),
            names: words.names(&parameter.names),
            descriptions: words.sentences(&parameter.descriptions),
            optional: false,
        };
        let parameters = pattern.parameters.iter().map(parameter).collect();
        let (mut names, mut descriptions) =
            (words.names(&pattern.names), words.sentences(&pattern.descriptions));
        if !words.doing.is_empty() && pattern.names.iter().any(|name| name.contains("{verb}")) {
            names.extend(words.names(&related.names));
            descriptions.extend(words.sentences(&related.descriptions));
        }
        Kind {
            id: MADE_UP.to_owned(),
            family: words.family(),
            related: Vec::new(),
            catch_all: false,
            held_out: false,
            names,
            descriptions,
            topic: words.fill(&pattern.topic),
            parameters,
            phrases: asked.sentences(&pattern.phrases),
            held_out_phrases: Vec::new(),
            incomplete: asked.sentences(&pattern.incomplete),
            follow_ups: asked.sentences(&pattern.follow_ups),
            pairs: asked.sentences(&pattern.pairs),
            answer,
            noun: words.fill(noun),
            rest: rest.to_owned(),
            left: String::new(),
            right: String::new(),
            results: pattern.results.iter().map(|result| words.result(result)).collect(),
        }
    }

    fn tool_form<'t>(&mut self, tables: &'t MadeUp) -> Form<'t> {
        let lookup = |pattern, rest| Form { pattern, answer: AnswerForm::Lookup, noun: "{attribute}", rest };
        let done = |pattern| Form { pattern, answer: AnswerForm::Done, noun: "", rest: "" };
        match self.weighted(&FORMS) {
            0 => lookup(&tables.lookup, "of {x}"),
            1 => lookup(&tables.state, ""),
            2 => done(&tables.action),
            3 => done(&tables.action_with),
            4 => done(&tables.set),
            _ => done(&tables.order),
        }
    }

    fn value_type(&mut self, tables: &MadeUp, slot: &str) -> ValueType {
        match slot {
            "n" => *self.pick(&[ValueType::SmallNumber, ValueType::TinyNumber, ValueType::LowNumber]),
            _ => *self.pick(&tables.value_types),
        }
    }

    fn words(&mut self, tables: &MadeUp) -> Words {
        let (verb, fact) = (self.pick(&tables.verbs).clone(), self.pick(&tables.facts).clone());
        let preposition = self.choose_static(&["to", "for", "in", "at", "with", "on", "from", "by", "near"]);
        let mut used: Vec<String> = Vec::new();
        let mut new = |draw: &mut Self| loop {
            let thing = draw.thing(tables);
            if !used.contains(&thing) {
                used.push(thing.clone());
                return thing;
            }
        };
        let nouns = std::array::from_fn(|_| new(self));
        Words { verb, nouns, doing: String::new(), related: String::new(), preposition, fact }
    }

    /// One word or two, now and then one that there is not.
    pub(crate) fn thing(&mut self, tables: &MadeUp) -> String {
        let noun = |draw: &mut Self| match draw.percent(75) {
            true => draw.pick(&tables.nouns).clone(),
            false => draw.pick(&draw.lists.nouns).clone(),
        };
        match self.below(20) {
            0..=11 => noun(self),
            12..=14 => format!("{} {}", noun(self), noun(self)),
            15 | 16 => format!("{} {}", self.pick(&self.lists.adjectives), noun(self)),
            17 => format!("{} {}", self.word(), noun(self)),
            _ => self.word(),
        }
    }

    fn choose_static(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }
}

impl Words {
    /// Two tools that share one of these words are not declared together.
    fn family(&self) -> String {
        format!("{} {} {}", self.verb, self.nouns.join(" "), self.related)
    }

    fn fill(&self, pattern: &str) -> String {
        let [thing, attribute, second, also] = &self.nouns;
        pattern
            .replace("{a_thing}", &with_article(thing))
            .replace("{a_second}", &with_article(second))
            .replace("{an_attribute}", &with_article(attribute))
            .replace("{an_also}", &with_article(also))
            .replace("{verb}", &self.verb)
            .replace("{doing}", &self.doing)
            .replace("{thing}", thing)
            .replace("{attribute}", attribute)
            .replace("{second}", second)
            .replace("{also}", also)
            .replace("{preposition}", self.preposition)
    }

    fn sentences(&self, patterns: &[String]) -> Vec<String> {
        let sentence = |pattern: &String| match pattern.starts_with(['(', '{']) {
            // A value's first letter is its own.
            true if ["{x}", "{y}", "{n}"].iter().any(|slot| pattern.starts_with(slot)) => self.fill(pattern),
            _ => capitalize(&self.fill(pattern)),
        };
        patterns.iter().map(sentence).collect()
    }

    fn names(&self, patterns: &[String]) -> Vec<String> {
        patterns.iter().map(|pattern| self.fill(pattern).replace([' ', '-'], "_")).collect()
    }

    /// `key: fact`; the keys are names, and FACT is this tool's own.
    fn result(&self, pattern: &str) -> String {
        let entry = |entry: &str| match entry.split_once(": ") {
            Some((key, fact)) => {
                format!("{}: {}", self.fill(key).replace(' ', "_"), fact.replace("FACT", &self.fact))
            }
            None => entry.to_owned(),
        };
        pattern.split(", ").map(entry).collect::<Vec<_>>().join(", ")
    }
}
