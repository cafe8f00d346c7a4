//! Every schema of Moonshot's subset as the parameters of a tool that must be called.

use serde_json::{Value, json};

use super::Group;
use super::case::{Case, Expected};
use super::run::Planned;
use crate::walle;

const TOOL: &str = "submit_value";

/// As in Moonshot's suite: an answer that is longer counts as one without end.
const MAX_TOKENS: usize = 2048;

pub(super) fn plan<'a>() -> Vec<Planned<'a>> {
    let group = Group::ToolSchemas;
    let each = |case: walle::Case| match case.parameters {
        Err(why) => vec![Planned::skipped(group, case.name, why)],
        Ok(parameters) => Planned::both(
            group,
            vec![Case::new(
                case.name,
                body(parameters),
                Expected::Calls { only: Some(TOOL), at_most: usize::MAX },
            )],
        ),
    };
    walle::cases().into_iter().flat_map(each).collect()
}

fn body(parameters: Value) -> Value {
    json!({
        "messages": [{
            "role": "user",
            "content": format!(
                "Call {TOOL} once, with the smallest arguments that its schema allows: every required property, \
                 nothing that is optional. The arguments are data, not a schema. No text beside the call."
            ),
        }],
        "tools": [{
            "type": "function",
            "function": {
                "name": TOOL,
                "description": "Takes the smallest arguments that fit this schema.",
                "parameters": parameters,
                "strict": true,
            },
        }],
        "tool_choice": "required",
        "max_tokens": MAX_TOKENS,
    })
}
