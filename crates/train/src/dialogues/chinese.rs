//! `chinese.toml`: everyday requests and remarks in Chinese; the assistant answers in English.
//!
//! Kimi is spoken to in Chinese as often as in English. The tokenizer of the model that ships was trained on English and
//! spells each Han character as its three bytes of UTF-8, whose first ones are nearly always the same, so to copy
//! a name and to stop behind it is another exercise than with letters.

use std::sync::Arc;

use serde::Deserialize;

use super::catalogue::{Catalogue, Kind, slots};
use super::conversation::Conversation;
use super::dialogue::Topic;
use super::draw::Draw;
use super::phrases::Slots;
use super::small_talk::{Remarks, Talk, of_part};
use super::values::{Value, ValueType};

/// `chinese.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chinese {
    cities: Vec<String>,
    characters: String,
    days: Vec<String>,
    before_questions: Vec<String>,
    before_requests: Vec<String>,
    closings: Vec<String>,
    with_tools: Vec<String>,
    without_tools: Vec<String>,
    call: Vec<Requests>,
    talk: Vec<Talk>,
    identity: Remarks,
}

/// How a kind of tool is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests {
    kind: String,
    says: Vec<String>,
    held_out: Vec<String>,
}

impl Chinese {
    /// How this kind is asked for, if somebody asks for it in Chinese.
    fn requests(&self, kind: &Kind) -> Option<&Requests> {
        self.call.iter().find(|requests| requests.kind == kind.id)
    }
}

impl Catalogue {
    /// Kinds of tools that are asked for in Chinese.
    pub(crate) fn chinese_kinds(&self) -> Vec<Arc<Kind>> {
        self.kinds.iter().filter(|kind| self.chinese.requests(kind).is_some()).cloned().collect()
    }
}

impl Conversation<'_, '_> {
    /// An exchange of any topic in Chinese.
    pub(crate) fn chinese(&mut self) {
        match self.draw.weighted(&[62, 12, 12, 14]) {
            0 => self.chinese_call(),
            1 => self.chinese_talk(),
            2 => self.chinese_identity(),
            _ => self.chinese_refusal(),
        }
    }

    /// A request for one call of a declared tool; there is one that is asked for in Chinese.
    pub(crate) fn chinese_call(&mut self) {
        let chinese = &self.catalogue.chinese;
        let of_tool = |tool: usize| Some((tool, chinese.requests(&self.declared[tool].kind)?));
        let asked: Vec<(usize, &Requests)> = (0..self.declared.len()).filter_map(of_tool).collect();
        let (tool, requests) = *self.draw.pick(&asked);
        let kind = self.declared[tool].kind.clone();
        let (mut user, slots) = self.draw.chinese_request(chinese, requests, &kind);
        if user.ends_with(['。', '？']) && requests.kind != "calculate" && self.draw.percent(20) {
            user.push_str(self.draw.pick::<String>(&chinese.with_tools));
        }
        self.answer_with_calls(Topic::Chinese, user, vec![(tool, slots)]);
    }

    /// A request for a tool that is not declared; with a tool for everything there is none.
    fn chinese_refusal(&mut self) {
        let catalogue = self.catalogue;
        let kinds = catalogue.chinese_kinds();
        let beyond: Vec<(&Kind, &Requests)> = kinds
            .iter()
            .filter(|kind| !self.could_do(kind))
            .filter_map(|kind| Some((kind.as_ref(), catalogue.chinese.requests(kind)?)))
            .collect();
        if beyond.is_empty() {
            return self.chinese_talk();
        }
        let (kind, requests) = *self.draw.pick(&beyond);
        let (user, _) = self.draw.chinese_request(&catalogue.chinese, requests, kind);
        self.refuse(user);
    }

    fn chinese_talk(&mut self) {
        let talk = self.draw.pick(&self.catalogue.chinese.talk);
        let user = self.draw.pick(of_part(self.draw.scope.phrases, &talk.says, &talk.held_out)).clone();
        self.say(Topic::Talk, user, talk.reply.clone());
    }

    fn chinese_identity(&mut self) {
        let chinese = &self.catalogue.chinese;
        let (says, held_out) = (&chinese.identity.says, &chinese.identity.held_out);
        let mut user = self.draw.pick(of_part(self.draw.scope.phrases, says, held_out)).clone();
        if !user.starts_with("你好") && self.draw.percent(25) {
            user = format!("你好，{user}");
        }
        if self.draw.percent(25) {
            user.push_str(self.draw.pick::<String>(&chinese.without_tools));
        }
        let answer = format!("I am {}.", self.system.identity);
        self.say(Topic::Identity, user, answer);
    }
}

impl Draw<'_> {
    /// What is said for this kind, and its values.
    fn chinese_request(&mut self, chinese: &Chinese, requests: &Requests, kind: &Kind) -> (String, Slots) {
        let phrase = self.pick(of_part(self.scope.phrases, &requests.says, &requests.held_out)).clone();
        let mut filled = Slots::new();
        for slot in slots(&phrase) {
            if let Some(parameter) = kind.parameter(slot) {
                filled.push((slot.to_owned(), self.chinese_value(chinese, parameter.kind)));
            }
        }
        let mut user = filled
            .iter()
            .fold(phrase, |user, (slot, value)| user.replace(&format!("{{{slot}}}"), &value.said));
        if !user.starts_with('请') && self.percent(15) {
            let before =
                if user.ends_with('？') { &chinese.before_questions } else { &chinese.before_requests };
            user = format!("{}{user}", self.pick(before));
        }
        if user.ends_with(['。', '？']) && self.percent(15) {
            user.push_str(self.pick::<String>(&chinese.closings));
        }
        (user, filled)
    }

    fn chinese_value(&mut self, chinese: &Chinese, kind: ValueType) -> Value {
        match kind {
            ValueType::Day => Value::text(self.pick(&chinese.days).clone()),
            ValueType::City | ValueType::Query => {
                self.in_part(|value: &Value| value.argument.as_str(), |draw| draw.chinese_name(chinese, kind))
            }
            kind => self.value(kind, &[]),
        }
    }

    /// A city or a subject: one that there is, one of random characters, or one in letters.
    fn chinese_name(&mut self, chinese: &Chinese, kind: ValueType) -> Value {
        let characters: Vec<char> = chinese.characters.chars().collect();
        let mut made_up = |least, most| -> String {
            (0..self.between(least, most)).map(|_| *self.pick(&characters)).collect()
        };
        let made_up = if kind == ValueType::City { made_up(2, 4) } else { made_up(2, 6) };
        Value::text(match self.below(20) {
            0..=9 => self.pick(&chinese.cities).clone(),
            10..=16 => made_up,
            _ => self.city(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_a_kind_that_takes_its_slots() {
        let catalogue = Catalogue::load().unwrap();
        for requests in &catalogue.chinese.call {
            let kind = catalogue.kinds.iter().find(|kind| kind.id == requests.kind).unwrap();
            assert!(!kind.held_out, "{}", kind.id);
            for phrase in requests.says.iter().chain(&requests.held_out) {
                assert!(slots(phrase).all(|slot| kind.parameter(slot).is_some()), "{phrase}");
            }
        }
    }
    #[test]
    fn training_never_says_what_is_held_out() {
        let Chinese { call, talk, identity, .. } = Catalogue::load().unwrap().chinese;
        let mut parts: Vec<(Vec<String>, Vec<String>)> = vec![(identity.says, identity.held_out)];
        parts.extend(call.into_iter().map(|requests| (requests.says, requests.held_out)));
        parts.extend(talk.into_iter().map(|talk| (talk.says, talk.held_out)));
        for (says, held_out) in parts {
            assert!(!held_out.is_empty() && held_out.iter().all(|line| !says.contains(line)), "{held_out:?}");
        }
    }
}
