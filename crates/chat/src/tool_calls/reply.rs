//! What a parsed answer consists of: deltas while it streams, a reply when it is whole.

use serde::Serialize;

use super::Finished;
use crate::json::Json;
use crate::message::{Content, FunctionCall, Message, Role, ToolCall};

/// A piece of an answer. The pieces in order are the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// More reasoning; the first may be empty and says that there is some.
    Reasoning(String),
    /// More content.
    Content(String),
    /// A tool call begins.
    Call {
        /// Its place among the calls of this answer.
        index: usize,
        /// `functions.{name}:{n}`
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        /// The call.
        index: usize,
        /// The text.
        text: String,
    },
}

/// Why an answer ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn.
    #[default]
    Stop,
    /// It was cut off.
    Length,
    /// It called tools.
    ToolCalls,
}

/// A call of a whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplyCall {
    /// `functions.{name}:{n}`
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as the model wrote them.
    pub arguments: String,
}

/// A whole answer: its deltas put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// The content; none if there are calls and nothing but blanks before them.
    pub content: Option<String>,
    /// The calls.
    pub tool_calls: Vec<ReplyCall>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The reasoning; `Some("")` if it was opened and left empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl Reply {
    /// Adds pieces.
    pub fn extend(&mut self, deltas: impl IntoIterator<Item = Delta>) {
        for delta in deltas {
            match delta {
                Delta::Reasoning(text) => self.reasoning_content.get_or_insert_default().push_str(&text),
                Delta::Content(text) => self.content.get_or_insert_default().push_str(&text),
                Delta::Call { id, name, .. } => {
                    self.tool_calls.push(ReplyCall { id, name, arguments: String::new() });
                }
                Delta::Arguments { index, text } => {
                    if let Some(call) = self.tool_calls.get_mut(index) {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
    }

    /// Adds the last pieces.
    pub fn end(&mut self, finished: Finished) {
        self.extend(finished.deltas);
        self.finish_reason = finished.finish_reason;
        self.leave_out(None);
    }

    /// Leaves out the call that the answer ended in ([`Finished::cut_call`]), for readers who make every call they see.
    pub fn leave_out(&mut self, cut_call: Option<usize>) {
        if let Some(place) = cut_call {
            self.tool_calls.truncate(place); // it is the last
        }
        if self.tool_calls.is_empty() {
            self.content.get_or_insert_default();
        }
    }
}

/// The message that stands for the answer in the next request.
impl From<&Reply> for Message {
    fn from(reply: &Reply) -> Message {
        let call = |call: &ReplyCall| ToolCall {
            id: Some(call.id.clone()),
            kind: Some("function".to_owned()),
            function: FunctionCall {
                name: call.name.clone(),
                arguments: Some(Json::String(call.arguments.clone())),
            },
            extra: serde_json::Map::new(),
        };
        let calls: Vec<ToolCall> = reply.tool_calls.iter().map(call).collect();
        Message {
            role: Role::Assistant,
            content: reply.content.clone().map(Content::Text),
            tool_calls: (!calls.is_empty()).then_some(calls),
            reasoning_content: reply.reasoning_content.clone(),
            ..Message::default()
        }
    }
}

/// Appends a delta, joining it to the last one if that continues the same text.
pub(super) fn emit(deltas: &mut Vec<Delta>, delta: Delta) {
    match (deltas.last_mut(), &delta) {
        (Some(Delta::Reasoning(last)), Delta::Reasoning(text)) => last.push_str(text),
        (Some(Delta::Content(last)), Delta::Content(text)) => last.push_str(text),
        (Some(Delta::Arguments { index: i, text: last }), Delta::Arguments { index: j, text }) if i == j => {
            last.push_str(text);
        }
        _ => deltas.push(delta),
    }
}
