//! System prompts, and who the assistant is under each.

use super::draw::Draw;
use super::invented::with_article;

/// A system prompt.
pub(crate) struct System {
    /// The message; none leaves it to the turn format, which then writes Kimi's.
    pub(crate) text: Option<String>,
    /// What follows "I am".
    pub(crate) identity: String,
    /// The assistant's name, if it has one.
    pub(crate) name: Option<String>,
}

const KIMI: &str = "Kimi, an AI assistant created by Moonshot AI";

const MORE: [&str; 12] = [
    " Answer briefly.",
    " Use the tools when they help.",
    " Be polite.",
    " Call a tool when you need one.",
    " Never guess.",
    " You have access to tools.",
    " Keep answers short.",
    " Help the user.",
    " Today is a good day.",
    " Do not make things up.",
    "\nFollow the user's instructions.",
    " If no tool fits, say so.",
];

const NAMELESS: [&str; 10] = [
    "a helpful assistant",
    "a helpful AI assistant",
    "an AI assistant",
    "a friendly assistant",
    "an assistant with tools",
    "a polite assistant that answers briefly",
    "an agent that uses tools",
    "the assistant of this app",
    "a smart home assistant",
    "a travel assistant",
];

const WITHOUT_IDENTITY: [&str; 6] = [
    "Answer briefly.",
    "Use the tools when they help.",
    "Be concise and friendly.",
    "Help the user with the tools you have.",
    "Answer in one sentence.",
    "Call tools when needed.",
];

impl Draw<'_> {
    /// A system prompt: Kimi's own, somebody else's, or none.
    pub(crate) fn system(&mut self) -> System {
        let (identity, name) = match self.weighted(&[30, 20, 24, 18, 8]) {
            0 => (KIMI.to_owned(), Some("Kimi".to_owned())),
            1 => return System { text: None, identity: KIMI.to_owned(), name: Some("Kimi".to_owned()) },
            2 => self.somebody(),
            3 => ((*self.pick(&NAMELESS)).to_owned(), None),
            _ => {
                let text = (*self.pick(&WITHOUT_IDENTITY)).to_owned();
                return System { text: Some(text), identity: "an AI assistant".to_owned(), name: None };
            }
        };
        let mut text = format!("You are {identity}.");
        for _ in 0..[0, 0, 0, 1, 1, 2][self.below(6)] {
            text.push_str(self.choose(&MORE));
        }
        System { text: Some(text), identity, name }
    }

    fn somebody(&mut self) -> (String, Option<String>) {
        let lists = self.lists;
        let name = match self.below(3) {
            0 => self.pick(&lists.first_names).clone(),
            1 => self.capitalized(),
            _ => self.name(),
        };
        let maker = if self.percent(60) { self.pick(&lists.makers).clone() } else { self.name() };
        let identity = match self.below(6) {
            0 => format!("{name}, an AI assistant created by {maker}"),
            1 => format!("{name}, the assistant of {maker}"),
            2 => format!("{name}, a helpful assistant"),
            3 => {
                let whom = self.choose(&["robot", "helper", "butler", "guide", "agent"]);
                let adjective = self.pick(&lists.adjectives).clone();
                format!("{name}, {} {whom}", with_article(&adjective))
            }
            4 => format!("{name}, an assistant made by {maker}"),
            _ => name.clone(),
        };
        (identity, Some(name))
    }
}
