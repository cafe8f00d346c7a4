//! `prompt` in its four forms.

use serde::Deserialize;

use crate::body::Body;
use crate::error::ApiError;
use crate::served::Served;

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

/// The ids of each prompt.
pub(super) fn take(body: &mut Body, served: &Served) -> Result<Vec<Vec<u32>>, ApiError> {
    let encode = |text: String| served.tokenizer.encode(&text, true);
    let prompts = match body.required("prompt")? {
        Prompt::Text(text) => vec![encode(text)],
        Prompt::Ids(ids) => vec![ids],
        Prompt::Texts(texts) => texts.into_iter().map(encode).collect(),
        Prompt::IdLists(lists) => lists,
    };
    // Ids are looked up before the engine sees them.
    let unknown = |id: &&u32| served.tokenizer.token_bytes(**id).is_err();
    match prompts.iter().flatten().find(unknown) {
        Some(id) => Err(ApiError::field("prompt", format!("`prompt` has the id {id}, which is no token"))),
        None if prompts.is_empty() => Err(ApiError::field("prompt", "`prompt` is an empty list")),
        None => Ok(prompts),
    }
}
