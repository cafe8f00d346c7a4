//! `small_talk.toml`: what is said without a tool, and what the assistant says of itself.
//!
//! Every remark has one answer. Where an answer depends on something, it is on what the model can read: the
//! system prompt, the declared tools.

use serde::Deserialize;

use super::draw::Part;

/// Remarks and their answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallTalk {
    /// Greetings, thanks and the like.
    pub talk: Vec<Talk>,
    /// Asked in depth what it is.
    pub depth: Talk,
    /// Asked for its name.
    pub identity: Identity,
    /// Asked for its tools.
    pub tools: Remarks,
    /// Asked for what no tool can do.
    pub beyond: Beyond,
}

/// Remarks with one answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // says, held_out: by the part of the data they belong to
pub struct Talk {
    pub says: Vec<String>,
    pub held_out: Vec<String>,
    /// The answer.
    pub reply: String,
}

/// Remarks whose answer depends on the conversation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // as above
pub struct Remarks {
    pub says: Vec<String>,
    pub held_out: Vec<String>,
}

/// Questions for who it is, for its name, and whether it is somebody else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // as above
pub struct Identity {
    pub says: Vec<String>,
    pub held_out: Vec<String>,
    pub name_says: Vec<String>,
    pub name_held_out: Vec<String>,
    pub other_says: Vec<String>,
    pub other_held_out: Vec<String>,
}

/// Requests beyond all tools.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // as above
pub struct Beyond {
    pub says: Vec<String>,
    pub held_out: Vec<String>,
    /// The answer if tools are declared.
    pub reply_with_tools: String,
    /// The answer if none are.
    pub reply_without_tools: String,
}

/// The remarks of a part.
pub(crate) fn of_part<'a>(part: Part, seen: &'a [String], held_out: &'a [String]) -> &'a [String] {
    if part == Part::HeldOut { held_out } else { seen }
}
