//! What tools send back: random facts, in the shapes that clients print them in.
//!
//! Facts are drawn without regard for the world (71 degrees in Oslo), so an answer that was not read from the
//! result is wrong.

use k2_chat::Json;
use k2_chat::python_json::{Style, dumps};

use super::catalogue::Kind;
use super::declaration::text;
use super::draw::Draw;

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ToolResult {
    /// Keys and values.
    Facts(Vec<(String, Json)>),
    /// A value alone.
    Plain(Json),
    /// What went wrong.
    Error(String),
}

const ERRORS: [&str; 12] = [
    "not found",
    "timeout",
    "service unavailable",
    "invalid argument",
    "no permission",
    "unknown name",
    "too many requests",
    "no connection",
    "internal error",
    "out of range",
    "no result",
    "access denied",
];

impl ToolResult {
    /// What an answer has to say: every value, arrays item by item.
    pub(crate) fn values(&self) -> Vec<String> {
        match self {
            Self::Facts(facts) => facts.iter().flat_map(|(_, value)| items(value)).collect(),
            Self::Plain(value) => items(value),
            Self::Error(error) => vec![error.clone()],
        }
    }
}

fn items(value: &Json) -> Vec<String> {
    match value {
        Json::Array(values) => values.iter().flat_map(items).collect(),
        value => vec![plain(value)],
    }
}

/// A value as it is said.
pub(crate) fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        value => dumps(value, Style::Default),
    }
}

impl Draw<'_> {
    /// A result of a kind of tool.
    pub(crate) fn result(&mut self, kind: &Kind) -> ToolResult {
        if self.percent(3) {
            return ToolResult::Error((*self.pick(&ERRORS)).to_owned());
        }
        let shape = self.pick(&kind.results).clone();
        let mut facts: Vec<(String, Json)> = Vec::new();
        for entry in shape.split(", ") {
            let (key, fact) = entry.split_once(": ").unwrap_or((entry, "phrase"));
            facts.push((key.to_owned(), self.fact(fact)));
        }
        match facts.len() {
            1 if self.percent(14) => ToolResult::Plain(facts.remove(0).1),
            _ => ToolResult::Facts(facts),
        }
    }

    /// The message of a result: `json.dumps` as Python prints it, sometimes compact or indented, or plain text.
    pub(crate) fn printed(&mut self, result: &ToolResult) -> String {
        let json = match result {
            ToolResult::Plain(value) => return plain(value),
            ToolResult::Error(error) => {
                Json::Object([("error".to_owned(), text(error))].into_iter().collect())
            }
            ToolResult::Facts(facts) => Json::Object(facts.iter().cloned().collect()),
        };
        match self.below(20) {
            0..=3 => serde_json::to_string(&json).unwrap_or_default(),
            4 => serde_json::to_string_pretty(&json).unwrap_or_default(),
            _ => dumps(&json, Style::Default),
        }
    }

    fn fact(&mut self, fact: &str) -> Json {
        let lists = self.lists;
        match fact {
            "count" => number(&self.count()),
            "number" => number(&self.decimal()),
            "degrees" => number(&self.between(-40, 99).to_string()),
            "percent" => number(&self.between(1, 100).to_string()),
            "fraction" => number(&format!("0.{}", self.between(1, 9) * 11)),
            "bool" => Json::Bool(self.percent(85)),
            "counts" => Json::Array(
                (0..self.between(2, 4)).map(|_| number(&self.between(1, 20).to_string())).collect(),
            ),
            "sentences" => self.list(2, 3, |draw| draw.made_of(&lists.sentences)),
            "phrases" => self.list(2, 4, |draw| draw.phrase()),
            "names" => self.list(2, 3, |draw| draw.name()),
            "words" => self.list(2, 5, |draw| draw.plain_word()),
            "tasks" => self.list(2, 3, |draw| draw.phrase()),
            fact => Json::String(self.text_fact(fact)),
        }
    }

    fn text_fact(&mut self, fact: &str) -> String {
        let lists = self.lists;
        match fact {
            "sky" => self.made_of(&lists.skies),
            "clock" => self.clock_time(),
            "date" => self.date(),
            "zone" => self.pick(&lists.zones).clone(),
            "status" => self.pick(&lists.statuses).clone(),
            "flight_status" => self.pick(&lists.flight_statuses).clone(),
            "call_status" => self.pick(&lists.call_statuses).clone(),
            "rating" => self.pick(&lists.ratings).clone(),
            "speech" => self.pick(&lists.speech).clone(),
            "color" => self.pick(&lists.colors).clone(),
            "weekday" => self.pick(&lists.weekdays).clone(),
            "coin" => self.choose(&["heads", "tails"]).to_owned(),
            "foreign" if self.percent(50) => self.pick(&lists.foreign).clone(),
            "foreign" => format!("{} {}", self.word(), self.word()),
            "sentence" => self.made_of(&lists.sentences),
            "city" => self.city(),
            "person" => self.person(),
            "name" => self.name(),
            "word" => self.word(),
            "code" => self.code(),
            "url" => self.url(),
            "path" => self.path(),
            "secret" => self.scramble(6, 12),
            "street" => format!(
                "{} {} {}",
                self.between(1, 300),
                self.capitalized(),
                self.choose(&["Street", "Road", "Lane"])
            ),
            "phone" => format!("+{} {} {}", self.between(1, 99), self.digits(3, 3), self.digits(4, 6)),
            "hours" => format!("{} to {}", self.clock_time(), self.clock_time()),
            "version" => format!("{}.{}.{}", self.between(0, 20), self.between(0, 30), self.between(0, 99)),
            "ip" => (0..4).map(|_| self.between(1, 254).to_string()).collect::<Vec<_>>().join("."),
            _ => self.phrase(),
        }
    }

    fn phrase(&mut self) -> String {
        let lists = self.lists;
        match self.below(4) {
            0 => self.word(),
            1 => format!("{} {}", self.word(), self.pick(&lists.nouns)),
            2 => format!("{} {} {}", self.pick(&lists.adjectives), self.pick(&lists.nouns), self.word()),
            _ => format!("{} {}", self.pick(&lists.adjectives), self.pick(&lists.nouns)),
        }
    }

    fn list(&mut self, least: i64, most: i64, mut item: impl FnMut(&mut Self) -> String) -> Json {
        Json::Array((0..self.between(least, most)).map(|_| Json::String(item(self))).collect())
    }

    fn count(&mut self) -> String {
        match self.below(10) {
            0 => self.digits(5, 9),
            1..=3 => self.digits(3, 4),
            _ => self.digits(1, 2),
        }
    }

    /// A number of an odd length, with or without a fraction.
    pub(crate) fn decimal(&mut self) -> String {
        let whole = match self.below(8) {
            0 => "0".to_owned(),
            1 => self.digits(5, 8),
            _ => self.digits(1, 4),
        };
        let sign = if self.percent(6) && whole != "0" { "-" } else { "" };
        match self.percent(55) {
            // The last digit is not 0, or Python would not print it.
            true => format!(
                "{sign}{whole}.{}{}",
                if self.percent(60) { self.digits(1, 3) } else { String::new() },
                self.between(1, 9)
            ),
            false => format!("{sign}{whole}"),
        }
    }
}

fn number(literal: &str) -> Json {
    Json::Number(literal.to_owned())
}
