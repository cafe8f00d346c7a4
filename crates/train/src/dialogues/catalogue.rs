//! `catalogue.toml`: the kinds of tools, read and completed.
//!
//! A kind is what a tool is for, under all its names. Most are written out; lookups of one attribute of one
//! thing ("the population of a country") are made from a table and a few patterns, so that the model meets
//! many tools that only their descriptions tell apart.

use serde::Deserialize;
use serde::de::Error;
use std::sync::Arc;

use super::chinese::Chinese;
use super::draw::Part;
use super::invented::{capitalize, with_article};
use super::lists::Lists;
use super::made_up::MadeUp;
use super::related::Related;
use super::small_talk::SmallTalk;
use super::values::ValueType;

/// The `id` of a kind that is in no table.
pub const MADE_UP: &str = "made up";

/// Everything the dialogues are made from.
pub struct Catalogue {
    /// All kinds of tools that are written out.
    pub kinds: Vec<Arc<Kind>>,
    /// What the others are made from.
    pub made_up: MadeUp,
    /// Words that can stand for each other.
    pub related: Related,
    /// Words of values.
    pub lists: Lists,
    /// What is said without tools.
    pub small_talk: SmallTalk,
    /// What is said in Chinese.
    pub chinese: Chinese,
}

/// What a tool is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name in reports.
    pub id: String,
    /// Kinds of one family are never declared together.
    pub family: String,
    /// Families close enough that a request for this kind could be meant for them: with one of those declared
    /// nobody says that no tool fits.
    #[serde(default)]
    pub related: Vec<String>,
    /// True if it could be asked for anything (a web search).
    #[serde(default)]
    pub catch_all: bool,
    /// True if training never sees it.
    #[serde(default)]
    pub held_out: bool,
    /// Names in snake case.
    pub names: Vec<String>,
    /// Descriptions.
    pub descriptions: Vec<String>,
    /// "Call this when the user asks about TOPIC."
    pub topic: String,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// How people ask for it.
    pub phrases: Vec<String>,
    /// How they ask in evaluation only.
    pub held_out_phrases: Vec<String>,
    /// Requests that lack a required value.
    pub incomplete: Vec<String>,
    /// Requests that only make sense after another.
    pub follow_ups: Vec<String>,
    /// Requests for two calls.
    pub pairs: Vec<String>,
    /// The form of the answer.
    pub answer: AnswerForm,
    /// What the answer is about, in a lookup.
    #[serde(default)]
    pub noun: String,
    /// What follows the noun; `{slot}` is an argument.
    #[serde(default)]
    pub rest: String,
    /// What stands before the equals sign.
    #[serde(default)]
    pub left: String,
    /// What stands after the number.
    #[serde(default)]
    pub right: String,
    /// Keys and facts that can come back.
    pub results: Vec<String>,
}

/// One parameter of a kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its place in phrases.
    pub slot: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// Names it can have.
    pub names: Vec<String>,
    /// Descriptions it can have.
    pub descriptions: Vec<String>,
    /// True if a tool may do without it.
    #[serde(default)]
    pub optional: bool,
}

/// How results are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// "The NOUN REST is VALUE."
    Lookup,
    /// "LEFT = VALUE RIGHT."
    Equation,
    /// "Done: VALUE."
    Done,
    /// "I found: VALUE."
    Found,
}

/// Why the embedded tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Not TOML of the expected shape.
    #[error("{file}: {error}")]
    Toml {
        /// Which table.
        file: &'static str,
        /// What the parser said.
        error: Box<toml::de::Error>,
    },
    /// An attribute without its four parts.
    #[error("catalogue.toml: attribute {line:?} is not \"ATTRIBUTE | THING | VALUE TYPE | FACT\"")]
    Attribute {
        /// The line.
        line: String,
    },
    /// A phrase with a slot that is no parameter.
    #[error("catalogue.toml: {kind}: {phrase:?} has the slot {slot:?}, which is no parameter")]
    Slot {
        /// The kind.
        kind: String,
        /// The phrase.
        phrase: String,
        /// The slot.
        slot: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    kind: Vec<Kind>,
    attributes: Attributes,
}

/// Patterns with `{attribute}`, `{thing}` and `{x}`, its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    train: Vec<String>,
    held_out: Vec<String>,
    names: Vec<String>,
    descriptions: Vec<String>,
    parameter_names: Vec<String>,
    parameter_descriptions: Vec<String>,
    phrases: Vec<String>,
    held_out_phrases: Vec<String>,
    incomplete: Vec<String>,
    follow_ups: Vec<String>,
    pairs: Vec<String>,
}

impl Catalogue {
    /// Reads the embedded tables.
    pub fn load() -> Result<Catalogue, CatalogueError> {
        let tables: Tables = read("catalogue.toml", include_str!("catalogue.toml"))?;
        let lists = read("lists.toml", include_str!("lists.toml"))?;
        let small_talk = read("small_talk.toml", include_str!("small_talk.toml"))?;
        let made_up = read("made_up.toml", include_str!("made_up.toml"))?;
        let related = read("related.toml", include_str!("related.toml"))?;
        let chinese = read("chinese.toml", include_str!("chinese.toml"))?;
        let mut kinds = tables.kind;
        for (lines, held_out) in [(&tables.attributes.train, false), (&tables.attributes.held_out, true)] {
            for line in lines {
                kinds.push(tables.attributes.kind(line, held_out)?);
            }
        }
        kinds.iter().try_for_each(Kind::check)?;
        let kinds = kinds.into_iter().map(Arc::new).collect();
        Ok(Catalogue { kinds, made_up, related, lists, small_talk, chinese })
    }
}

/// By way of a JSON value: TOML's own deserializer is compiled three times for each type.
fn read<T: serde::de::DeserializeOwned>(file: &'static str, text: &str) -> Result<T, CatalogueError> {
    let value = toml::from_str(text).and_then(|value| serde_json::from_value(value).map_err(Error::custom));
    value.map_err(|error| CatalogueError::Toml { file, error: Box::new(error) })
}

impl Attributes {
    /// The kind of a line `ATTRIBUTE | THING | VALUE TYPE | FACT`.
    fn kind(&self, line: &str, held_out: bool) -> Result<Kind, CatalogueError> {
        let wrong = || CatalogueError::Attribute { line: line.to_owned() };
        let parts: Vec<&str> = line.split(" | ").collect();
        let &[attribute, thing, value, fact] = parts.as_slice() else { return Err(wrong()) };
        let value = serde_json::from_value(value.into()).map_err(|_| wrong())?;
        let all = |patterns: &[String], form: &dyn Fn(&str) -> String| {
            let filled = |pattern: &String| {
                let pattern = pattern.replace("a {thing}", &with_article(thing));
                form(&pattern.replace("{attribute}", attribute).replace("{thing}", thing))
            };
            patterns.iter().map(filled).collect::<Vec<String>>()
        };
        let snake = |text: &str| text.replace([' ', '-'], "_");
        let sentence = |text: &str| if text.starts_with('{') { text.to_owned() } else { capitalize(text) };
        let parameter = Parameter {
            slot: "x".to_owned(),
            kind: value,
            names: all(&self.parameter_names, &snake),
            descriptions: all(&self.parameter_descriptions, &capitalize),
            optional: false,
        };
        let keys =
            [format!("{}: {fact}", snake(attribute)), format!("value: {fact}"), format!("result: {fact}")];
        Ok(Kind {
            id: format!("{attribute} of {thing}"),
            family: attribute.to_owned(),
            related: Vec::new(),
            catch_all: false,
            held_out,
            names: all(&self.names, &snake),
            descriptions: all(&self.descriptions, &capitalize),
            topic: format!("the {attribute} of {}", with_article(thing)),
            parameters: vec![parameter],
            phrases: all(&self.phrases, &sentence),
            held_out_phrases: all(&self.held_out_phrases, &sentence),
            incomplete: all(&self.incomplete, &sentence),
            follow_ups: self.follow_ups.clone(),
            pairs: all(&self.pairs, &sentence),
            answer: AnswerForm::Lookup,
            noun: attribute.to_owned(),
            rest: "of {x}".to_owned(),
            left: String::new(),
            right: String::new(),
            results: keys.to_vec(),
        })
    }
}

impl Kind {
    /// The phrases of a part. A held-out tool has but one kind of phrases.
    pub fn phrases(&self, part: Part) -> &[String] {
        match part {
            Part::HeldOut if !self.held_out_phrases.is_empty() => &self.held_out_phrases,
            _ => &self.phrases,
        }
    }

    /// True if the two are never declared together: of one family, or one is made up of the other's words.
    pub fn clashes(&self, other: &Kind) -> bool {
        let same = self.family == other.family;
        let shares = |a: &Kind, b: &Kind| a.is_made_up() && b.speaks_of(&a.family);
        same || shares(self, other) || shares(other, self)
    }

    /// True if it looks up one attribute of one thing, like so many others.
    pub(crate) fn is_attribute(&self) -> bool {
        self.id.contains(" of ")
    }

    fn is_made_up(&self) -> bool {
        self.id == MADE_UP
    }

    /// True if one of these words is in its names, its topic or its family.
    pub(crate) fn speaks_of(&self, words: &str) -> bool {
        let own = self.names.iter().flat_map(|name| name.split('_'));
        let own = own.chain(self.topic.split(' ')).chain(self.family.split([' ', '_']));
        own.into_iter().any(|own| words.split(' ').any(|word| word.len() > 2 && word == own))
    }

    /// The parameter of a slot; `{city2}` is the second value of `city`.
    pub fn parameter(&self, slot: &str) -> Option<&Parameter> {
        let slot = slot.strip_suffix('2').unwrap_or(slot);
        self.parameters.iter().find(|parameter| parameter.slot == slot)
    }

    fn check(&self) -> Result<(), CatalogueError> {
        let lists = [&self.phrases, &self.held_out_phrases, &self.incomplete, &self.follow_ups, &self.pairs];
        let answers = [&self.rest, &self.left, &self.right];
        for phrase in lists.into_iter().flatten().chain(answers) {
            for slot in slots(phrase) {
                if self.parameter(slot).is_none() {
                    let (kind, slot) = (self.id.clone(), slot.to_owned());
                    return Err(CatalogueError::Slot { kind, phrase: phrase.clone(), slot });
                }
            }
        }
        Ok(())
    }
}

/// The slots of a phrase.
pub fn slots(phrase: &str) -> impl Iterator<Item = &str> {
    phrase.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(slot, _)| slot))
}
