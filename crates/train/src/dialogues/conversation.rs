//! One conversation, exchange by exchange.
//!
//! The rule for all of it: from what stands in the prompt, the assistant's words follow. The user asks for
//! something one declared tool can do, and there is a call; for something none can do, and that is said; with
//! a value missing, and it is asked for.

use std::sync::Arc;

use super::answers::tell;
use super::catalogue::{Catalogue, Kind, Parameter};
use super::declaration::{Declared, DeclaredParameter};
use super::dialogue::{Call, Dialogue, Exchange, Topic};
use super::draw::{Draw, Part};
use super::phrases::{Habit, Slots, said_with};
use super::results::ToolResult;
use super::small_talk::of_part;
use super::system::System;

/// So many tools out of a hundred are of no kind that could be known.
const MADE_UP: usize = 42;

/// So many of those, out of a hundred, are tools of the catalogue under other nouns.
const RENAMED: usize = 40;

/// A conversation in the making.
pub(crate) struct Conversation<'d, 'c> {
    pub(crate) draw: &'d mut Draw<'c>,
    pub(crate) catalogue: &'c Catalogue,
    pub(crate) declared: Vec<Declared>,
    pub(crate) system: System,
    exchanges: Vec<Exchange>,
    /// The tool that was called last, and with which values.
    last: Option<(usize, Slots)>,
}

impl<'d, 'c> Conversation<'d, 'c> {
    /// Declares so many tools, one of them of the scope's part.
    pub(crate) fn begin(
        draw: &'d mut Draw<'c>,
        catalogue: &'c Catalogue,
        tools: usize,
    ) -> Conversation<'d, 'c> {
        Conversation::begin_with(draw, catalogue, tools, None)
    }

    /// The same; `first` is the kind of one of the tools, if it is not to be drawn.
    pub(crate) fn begin_with(
        draw: &'d mut Draw<'c>,
        catalogue: &'c Catalogue,
        tools: usize,
        first: Option<Arc<Kind>>,
    ) -> Conversation<'d, 'c> {
        let system = draw.system();
        let mut declared: Vec<Declared> = Vec::new();
        while declared.len() < tools {
            let part = if declared.is_empty() { draw.scope.tools } else { Part::Seen };
            let kind = match &first {
                Some(first) if declared.is_empty() => Arc::clone(first),
                _ => draw.kind(catalogue, part),
            };
            if declared.iter().all(|other| !other.kind.clashes(&kind)) {
                let tool = draw.declare(kind);
                if declared.iter().all(|other| other.name != tool.name) {
                    declared.push(tool);
                }
            }
        }
        draw.shuffle(&mut declared);
        Conversation { draw, catalogue, declared, system, exchanges: Vec::new(), last: None }
    }

    /// The conversation so far.
    pub(crate) fn end(self) -> Dialogue {
        let named_results = self.draw.percent(55);
        let tools = self.declared.into_iter().map(|declared| declared.tool).collect();
        Dialogue { system: self.system.text, tools, exchanges: self.exchanges, named_results }
    }

    /// A request for one call.
    pub(crate) fn call(&mut self) {
        let habit = self.draw.habit();
        let tool = self.target();
        let kind = self.declared[tool].kind.clone();
        let phrase = self.phrase(tool, kind.phrases(self.draw.scope.phrases));
        let slots = self.fill(&kind, &phrase, habit, &Vec::new());
        let user = self.draw.sentence(&phrase, &slots, Some(&kind), habit);
        self.answer_with_calls(Topic::Call, user, vec![(tool, slots)]);
    }

    /// "And in Rome?" Says whether the last exchange allows it.
    pub(crate) fn follow_up(&mut self) -> bool {
        let Some((tool, before)) = self.last.clone() else { return false };
        let kind = self.declared[tool].kind.clone();
        let usable = |phrase: &&String| {
            self.declared[tool].takes(phrase)
                && super::catalogue::slots(phrase).all(|slot| before.iter().any(|(name, _)| name == slot))
        };
        let phrases: Vec<String> = kind.follow_ups.iter().filter(usable).cloned().collect();
        if phrases.is_empty() || self.draw.scope.phrases == Part::HeldOut {
            return false;
        }
        let habit = self.draw.habit();
        let phrase = self.phrase(tool, &phrases);
        let slots = self.fill(&kind, &phrase, habit, &before);
        let user = self.draw.sentence(&phrase, &slots, Some(&kind), habit);
        self.answer_with_calls(Topic::Call, user, vec![(tool, slots)]);
        true
    }

    /// Two calls in one turn: one phrase for both, or two requests in a row.
    pub(crate) fn two_calls(&mut self) {
        let tool = self.target();
        let kind = self.declared[tool].kind.clone();
        let habit = self.draw.habit();
        let seen = self.draw.scope.phrases == Part::Seen;
        if seen && !kind.pairs.is_empty() && self.draw.percent(60) {
            let phrase = self.phrase(tool, &kind.pairs);
            let both = self.fill(&kind, &phrase, habit, &Vec::new());
            let user = self.draw.sentence(&phrase, &both, Some(&kind), habit);
            let (first, second) = split_pair(both);
            return self.answer_with_calls(Topic::TwoCalls, user, vec![(tool, first), (tool, second)]);
        }
        let other = self.target();
        let (mut user, mut calls) = (String::new(), Vec::new());
        for tool in [tool, other] {
            let kind = self.declared[tool].kind.clone();
            let phrase = self.closed_phrase(tool);
            let slots = self.fill(&kind, &phrase, habit, &Vec::new());
            let sentence = self.draw.sentence(&phrase, &slots, Some(&kind), Habit::default());
            let between = if user.is_empty() {
                ""
            } else {
                self.draw.pick(&[" ", " Also: ", " And: ", " And then: ", " Also, please: "])
            };
            user.push_str(between);
            user.push_str(&sentence);
            calls.push((tool, slots));
        }
        self.answer_with_calls(Topic::TwoCalls, user, calls);
    }

    /// A request that lacks a value; then the value alone. Says whether a declared tool has such requests.
    pub(crate) fn missing(&mut self) -> bool {
        let tool = self.target();
        let kind = self.declared[tool].kind.clone();
        let lacks_one = |phrase: &&String| {
            let missing = self.declared[tool].missing(phrase);
            self.declared[tool].takes(phrase) && missing.len() == 1 && can_be_asked_for(missing[0])
        };
        let phrases: Vec<String> = kind.incomplete.iter().filter(lacks_one).cloned().collect();
        if phrases.is_empty() {
            return false;
        }
        let habit = self.draw.habit();
        let phrase = self.phrase(tool, &phrases);
        let mut slots = self.fill(&kind, &phrase, habit, &Vec::new());
        let user = self.draw.sentence(&phrase, &slots, Some(&kind), habit);
        let missing = self.declared[tool].missing(&phrase)[0];
        let (slot, words) = (missing.parameter.slot.clone(), missing.name.replace('_', " "));
        self.exchanges.push(Exchange::said(Topic::Missing, user, format!("Please tell me the {words}.")));
        self.last = None;
        let value = self.fill(&kind, &format!("{{{slot}}}"), habit, &slots);
        slots = value;
        let form = self.draw.pick(&["{}", "{}.", "{}", "{}, please."]).replace("{}", &format!("{{{slot}}}"));
        let free = kind.parameter(&slot).is_some_and(|parameter| parameter.kind.is_free_text());
        let form = if free { format!("{{{slot}}}") } else { form };
        let user = self.draw.sentence(&form, &slots, None, Habit::default());
        self.answer_with_calls(Topic::Call, user, vec![(tool, slots)]);
        true
    }

    /// A request for a tool that is not declared. Says whether there could be one.
    pub(crate) fn undeclared(&mut self) -> bool {
        if self.declared.iter().any(|declared| declared.kind.catch_all) {
            return false;
        }
        let kind = self.undeclared_kind();
        let habit = self.draw.habit();
        let phrase = self.draw.pick(kind.phrases(self.draw.scope.phrases)).clone();
        let phrase = self.draw.expand(&phrase);
        let slots = self.fill(&kind, &phrase, habit, &Vec::new());
        let user = self.draw.sentence(&phrase, &slots, Some(&kind), habit);
        self.refuse(user);
        true
    }

    /// A kind that no declared tool could be meant for; at times one whose values a declared tool takes too, as
    /// what gives such a request away is only what is to be done with them.
    fn undeclared_kind(&mut self) -> Arc<Kind> {
        const TRIES: usize = 20;
        let tries = if self.draw.scope.lookalikes && self.draw.percent(60) { TRIES } else { 0 };
        let mut tried = 0;
        loop {
            let kind = self.draw.kind(self.catalogue, Part::Seen);
            if self.could_do(&kind) {
                continue;
            }
            if tried >= tries || self.declared.iter().any(|declared| alike(&declared.kind, &kind)) {
                return kind;
            }
            tried += 1;
        }
    }

    /// A request that no tool of the world could fulfil, or that asks for knowledge.
    pub(crate) fn beyond(&mut self) {
        if self.declared.iter().any(|declared| declared.kind.catch_all) {
            return self.talk();
        }
        let beyond = &self.catalogue.small_talk.beyond;
        let phrase = self.draw.pick(of_part(self.draw.scope.phrases, &beyond.says, &beyond.held_out)).clone();
        let mut user = phrase;
        while user.contains("{noun}") {
            let noun = self.draw.pick(&self.catalogue.lists.nouns).clone();
            user = user.replacen("{noun}", &noun, 1);
        }
        let adjective = self.draw.pick(&self.catalogue.lists.adjectives).clone();
        let (person, city) = (self.draw.person(), self.draw.city());
        let user =
            user.replace("{adjective}", &adjective).replace("{person}", &person).replace("{city}", &city);
        let user = self.remark(&user);
        self.refuse(user);
    }

    /// True if a request for this kind could be meant for a declared tool.
    pub(crate) fn could_do(&self, kind: &Kind) -> bool {
        self.declared.iter().any(|declared| declared.kind.catch_all || close(&declared.kind, kind))
    }

    pub(crate) fn refuse(&mut self, user: String) {
        let beyond = &self.catalogue.small_talk.beyond;
        let reply =
            if self.declared.is_empty() { &beyond.reply_without_tools } else { &beyond.reply_with_tools };
        self.say(Topic::NoTool, user, reply.clone());
    }

    /// Greetings, thanks and the like.
    pub(crate) fn talk(&mut self) {
        let talk = self.draw.pick(&self.catalogue.small_talk.talk);
        let user = self.draw.pick(of_part(self.draw.scope.phrases, &talk.says, &talk.held_out)).clone();
        let user = self.remark(&user);
        self.say(Topic::Talk, user, talk.reply.clone());
    }

    /// Who are you, what is your name, are you somebody else, what are you really.
    pub(crate) fn identity(&mut self) {
        let part = self.draw.scope.phrases;
        let (identity, depth) = (&self.catalogue.small_talk.identity, &self.catalogue.small_talk.depth);
        let i_am = format!("I am {}.", self.system.identity);
        let (says, answer) = match (self.draw.below(10), &self.system.name) {
            (0..=2, Some(name)) => {
                (of_part(part, &identity.name_says, &identity.name_held_out), format!("My name is {name}."))
            }
            (0..=2, None) => (of_part(part, &identity.name_says, &identity.name_held_out), i_am),
            (3..=4, Some(_)) => return self.somebody_else(),
            (5..=7, _) => (of_part(part, &depth.says, &depth.held_out), depth.reply.clone()),
            _ => (of_part(part, &identity.says, &identity.held_out), i_am),
        };
        let user = self.draw.pick(says).clone();
        let user = self.remark(&user);
        self.say(Topic::Identity, user, answer);
    }

    fn somebody_else(&mut self) {
        let identity = &self.catalogue.small_talk.identity;
        let own = self.system.name.clone().unwrap_or_default();
        let other = if self.draw.percent(50) { own.clone() } else { self.draw.person() };
        let same = other == own;
        let says = of_part(self.draw.scope.phrases, &identity.other_says, &identity.other_held_out);
        let user = self.draw.pick(says).replace("{name}", &other);
        let answer = format!("{}, I am {}.", if same { "Yes" } else { "No" }, self.system.identity);
        self.say(Topic::Identity, user, answer);
    }

    /// Which tools do you have?
    pub(crate) fn tools(&mut self) {
        let remarks = &self.catalogue.small_talk.tools;
        let user = self.draw.pick(of_part(self.draw.scope.phrases, &remarks.says, &remarks.held_out)).clone();
        let user = self.remark(&user);
        let names: Vec<&str> = self.declared.iter().map(|declared| declared.name.as_str()).collect();
        let answer = match names.as_slice() {
            [] => "I have no tools here, but we can talk a little.".to_owned(),
            [name] => format!("I can use this tool: {name}."),
            names => format!("I can use these tools: {}.", names.join(", ")),
        };
        self.say(Topic::Tools, user, answer);
    }

    /// An exchange without a call.
    pub(crate) fn say(&mut self, topic: Topic, user: String, answer: String) {
        self.last = None;
        self.exchanges.push(Exchange::said(topic, user, answer));
    }

    fn remark(&mut self, text: &str) -> String {
        let habit = self.draw.habit();
        self.draw.sentence(text, &Vec::new(), None, habit)
    }

    /// The tool that is asked for: of the scope's part.
    fn target(&mut self) -> usize {
        let held_out = self.draw.scope.tools == Part::HeldOut;
        let of_part: Vec<usize> =
            (0..self.declared.len()).filter(|&tool| self.declared[tool].kind.held_out == held_out).collect();
        *self.draw.pick(&of_part)
    }

    /// One of the phrases that the tool has parameters for, its alternatives chosen.
    fn phrase(&mut self, tool: usize, phrases: &[String]) -> String {
        let usable: Vec<&String> =
            phrases.iter().filter(|phrase| self.declared[tool].takes(phrase)).collect();
        let phrase = (*self.draw.pick(&usable)).clone();
        self.draw.expand(&phrase)
    }

    /// A phrase that ends in a mark, behind which another may stand.
    fn closed_phrase(&mut self, tool: usize) -> String {
        let kind = self.declared[tool].kind.clone();
        let mut phrase = self.phrase(tool, kind.phrases(self.draw.scope.phrases));
        for _ in 0..20 {
            if phrase.ends_with(['.', '?']) {
                break;
            }
            phrase = self.phrase(tool, kind.phrases(self.draw.scope.phrases));
        }
        phrase
    }

    /// Values for the slots of a phrase; those of `before` stay where the phrase says nothing.
    fn fill(&mut self, kind: &Kind, phrase: &str, habit: Habit, before: &Slots) -> Slots {
        let mut slots = before.clone();
        let wanted: Vec<&str> = super::catalogue::slots(phrase).collect();
        for suffix in ["", "2"] {
            for parameter in &kind.parameters {
                let slot = format!("{}{suffix}", parameter.slot);
                if !wanted.contains(&slot.as_str()) {
                    continue;
                }
                let type_of = |slot: &str| kind.parameter(slot).map(|parameter| parameter.kind);
                let earlier: Vec<_> =
                    slots.iter().filter_map(|(slot, value)| Some((type_of(slot)?, value.clone()))).collect();
                let value = said_with(self.draw.value(parameter.kind, &earlier), habit);
                slots.retain(|(other, _)| *other != slot);
                slots.push((slot, value));
            }
        }
        slots
    }

    /// The calls, what comes back, and the answer.
    pub(crate) fn answer_with_calls(&mut self, topic: Topic, user: String, requests: Vec<(usize, Slots)>) {
        let (mut calls, mut answers) = (Vec::new(), Vec::new());
        for (tool, slots) in &requests {
            let declared = &self.declared[*tool];
            let arguments = declared.arguments(slots);
            let mut result = self.draw.result(&declared.kind);
            self.echo(*tool, slots, &mut result);
            let declared = &self.declared[*tool];
            answers.push(tell(&declared.kind, slots, &result));
            let (name, values) = (declared.name.clone(), result.values());
            calls.push(Call { name, arguments, result: self.draw.printed(&result), values });
        }
        self.exchanges.push(Exchange { topic, user, calls, answer: answers.join(" ") });
        self.last = if requests.len() == 1 { requests.into_iter().next() } else { None };
    }

    /// Some results repeat an argument.
    fn echo(&mut self, tool: usize, slots: &Slots, result: &mut ToolResult) {
        let ToolResult::Facts(facts) = result else { return };
        let Some(declared) = self.declared[tool].parameters.first() else { return };
        let value = slots.iter().find(|(slot, _)| *slot == declared.parameter.slot);
        if let Some((_, value)) = value
            && facts.iter().all(|(key, _)| *key != declared.name)
            && self.draw.percent(6)
        {
            facts.insert(0, (declared.name.clone(), super::declaration::text(value.argument.as_str())));
        }
    }
}

impl Draw<'_> {
    /// A kind of tool: often one that was never there, else of the catalogue, where the everyday ones come more
    /// often and one in four is a lookup. Held-out phrases there are only for those of the catalogue.
    fn kind(&mut self, catalogue: &Catalogue, part: Part) -> Arc<Kind> {
        const EVERYDAY: [&str; 4] = ["weather", "time", "calculate", "convert_units"];
        let seen = part == Part::Seen && self.scope.phrases == Part::Seen;
        if seen && self.percent(MADE_UP) {
            let renamed = match self.scope.renamed && self.percent(RENAMED) {
                true => self.renamed(catalogue),
                false => None,
            };
            let kind = renamed.unwrap_or_else(|| self.made_up(&catalogue.made_up, &catalogue.related));
            return Arc::new(kind);
        }
        let of_part = |kind: &&Arc<Kind>| kind.held_out == (part == Part::HeldOut);
        let kinds: Vec<&Arc<Kind>> = catalogue.kinds.iter().filter(of_part).collect();
        let weight = |kind: &&Arc<Kind>| match kind.id.as_str() {
            id if EVERYDAY.contains(&id) => 36,
            _ if kind.is_attribute() && part == Part::Seen => 1,
            _ => 12,
        };
        let weights: Vec<usize> = kinds.iter().map(weight).collect();
        Arc::clone(kinds[self.weighted(&weights)])
    }
}

/// True if a request for one could be meant for the other.
fn close(a: &Kind, b: &Kind) -> bool {
    a.clashes(b) || a.related.contains(&b.family) || b.related.contains(&a.family)
}

/// True if a value that one must be given could be given to the other.
fn alike(a: &Kind, b: &Kind) -> bool {
    let required = |parameter: &&Parameter| !parameter.optional;
    let takes = |one: &Parameter| b.parameters.iter().filter(required).any(|other| other.kind == one.kind);
    a.parameters.iter().filter(required).any(takes)
}

/// True if "Please tell me the NAME" can be said.
fn can_be_asked_for(parameter: &DeclaredParameter) -> bool {
    const NO_NOUNS: [&str; 18] = [
        "where", "when", "what", "which", "who", "how", "from", "to", "at", "on", "by", "of", "about", "key",
        "q", "due", "old", "new",
    ];
    let name = parameter.name.as_str();
    name.len() > 2
        && !name.starts_with(['p', 'x'])
        && !name.starts_with("arg")
        && !NO_NOUNS.iter().any(|word| name == *word || name.starts_with(&format!("{word}_")))
        || name.starts_with("pl")
        || name.starts_with("pa")
        || name.starts_with("pe")
}

/// The values of both calls of a pair: what is said once holds for both.
fn split_pair(both: Slots) -> (Slots, Slots) {
    let (second, first): (Slots, Slots) = both.into_iter().partition(|(slot, _)| slot.ends_with('2'));
    let second: Slots = first
        .iter()
        .map(|(slot, value)| {
            let other = second.iter().find(|(name, _)| name.strip_suffix('2') == Some(slot));
            (slot.clone(), other.map_or(value, |(_, value)| value).clone())
        })
        .collect();
    (first, second)
}
