//! A finished dialogue: what is declared, what is said, what the assistant should do.

use k2_chat::message::FunctionCall;
use k2_chat::python_json::{Style, dumps};
use k2_chat::{Content, Json, Message, Role, Tool, ToolCall};
use serde::Serialize;

/// What an exchange tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// One call.
    Call,
    /// One call that is asked for in Chinese.
    Chinese,
    /// Two calls in one turn.
    TwoCalls,
    /// A value is missing.
    Missing,
    /// No tool fits.
    NoTool,
    /// Greetings, thanks and the like.
    Talk,
    /// Who the assistant is.
    Identity,
    /// Which tools there are.
    Tools,
    /// Something is to be repeated.
    Copy,
}

/// A call and what comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// The arguments, an object.
    pub arguments: Json,
    /// The content of the tool's message.
    pub result: String,
    /// What the answer has to say.
    pub values: Vec<String>,
}

/// A turn of the user and all that the assistant does until the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// What it tests.
    pub topic: Topic,
    /// What the user says.
    pub user: String,
    /// The calls, all in one turn.
    pub calls: Vec<Call>,
    /// What the assistant says in the end.
    pub answer: String,
}

impl Exchange {
    pub(crate) fn said(topic: Topic, user: String, answer: String) -> Exchange {
        Exchange { topic, user, calls: Vec::new(), answer }
    }
}

/// A dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialogue {
    /// The system message.
    pub system: Option<String>,
    /// The declared tools.
    pub tools: Vec<Tool>,
    /// The turns.
    pub exchanges: Vec<Exchange>,
    /// True if the messages of tools carry their names.
    pub named_results: bool,
}

impl Dialogue {
    /// The messages of all exchanges, as a client would send them.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages = self.opening();
        let mut made = 0;
        for exchange in &self.exchanges {
            messages.push(Message::text(Role::User, &exchange.user));
            if !exchange.calls.is_empty() {
                messages.extend(self.call_messages(exchange, made));
                made += exchange.calls.len();
            }
            messages.push(Message::text(Role::Assistant, &exchange.answer));
        }
        messages
    }

    /// The messages up to the user's in an exchange: what the assistant is asked with.
    pub fn asked(&self, exchange: usize) -> Vec<Message> {
        let before = Dialogue { exchanges: self.exchanges[..exchange].to_vec(), ..self.clone() };
        let mut messages = before.messages();
        messages.push(Message::text(Role::User, &self.exchanges[exchange].user));
        messages
    }

    fn opening(&self) -> Vec<Message> {
        self.system.iter().map(|text| Message::text(Role::System, text)).collect()
    }

    /// The assistant's calls and the messages that answer them. `made` calls came before.
    fn call_messages(&self, exchange: &Exchange, made: usize) -> Vec<Message> {
        let ids: Vec<String> = exchange
            .calls
            .iter()
            .enumerate()
            .map(|(i, call)| format!("functions.{}:{}", call.name, made + i))
            .collect();
        let calls = exchange.calls.iter().zip(&ids).map(|(call, id)| ToolCall {
            id: Some(id.clone()),
            kind: Some("function".to_owned()),
            function: FunctionCall {
                name: call.name.clone(),
                arguments: Some(Json::String(dumps(&call.arguments, Style::Default))),
            },
            extra: serde_json::Map::new(),
        });
        let assistant = Message {
            role: Role::Assistant,
            content: Some(Content::Text(String::new())),
            tool_calls: Some(calls.collect()),
            ..Message::default()
        };
        let results = exchange.calls.iter().zip(&ids).map(|(call, id)| self.result(call, id));
        std::iter::once(assistant).chain(results).collect()
    }

    /// The message that answers a call.
    pub fn result(&self, call: &Call, id: &str) -> Message {
        Message {
            name: self.named_results.then(|| call.name.clone()),
            tool_call_id: Some(id.to_owned()),
            ..Message::text(Role::Tool, &call.result)
        }
    }
}
