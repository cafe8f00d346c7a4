//! `/completions`: a text goes on. Whoever parses calls by hand, as MoonshotAI/K2-Vendor-Verifier can, renders the
//! turn format into the prompt, so control tokens in it must be read as such.

use serde_json::{Value, json};

use super::Group;
use super::prompt_tokens::Renderer;
use super::run::Planned;
use super::target::{Target, quoted};
use crate::answer::{Finding, chunks, expect};
use crate::endpoint::{Body, excerpt};

pub(super) fn plan<'a>(renderer: Option<&'a Renderer<'_>>) -> Vec<Planned<'a>> {
    let group = Group::RawCompletions;
    let markers = "control tokens in the prompt are read as such";
    vec![
        Planned::new(group, "a text goes on", |target| whole(target, &asked("The tide")).map(drop)),
        Planned::new(group, "the stream joins to the whole", streams_the_same),
        match renderer {
            None => Planned::skipped(group, markers, "no tokenizer was given"),
            Some(renderer) => Planned::new(group, markers, |target| reads_markers(target, renderer)),
        },
    ]
}

fn asked(prompt: &str) -> Value {
    json!({ "prompt": prompt, "max_tokens": 32, "temperature": 0, "seed": 7 })
}

/// The whole completion.
fn whole(target: &Target<'_>, body: &Value) -> Result<Value, Finding> {
    let response = target.post("completions", body)?;
    let (200, Body::Whole(text)) = (response.status, &response.body) else {
        return Err(Finding(format!("status {}: {}", response.status, quoted(&response.body))));
    };
    let completion: Value = serde_json::from_str(text)
        .map_err(|error| Finding(format!("the body is no JSON: {error}: {:?}", excerpt(text))))?;
    expect(&completion, "/object", "\"text_completion\"", |object| object == "text_completion")?;
    expect(&completion, "/choices/0/text", "a string", Value::is_string)?;
    expect(&completion, "/choices/0/finish_reason", "\"stop\" or \"length\"", |reason| {
        reason == "stop" || reason == "length"
    })?;
    expect(&completion, "/usage/prompt_tokens", "a whole number", Value::is_u64)?;
    Ok(completion)
}

fn streams_the_same(target: &Target<'_>) -> Result<(), Finding> {
    let mut body = asked("The tide");
    let expected = whole(target, &body)?;
    body["stream"] = json!(true);
    let response = target.post("completions", &body)?;
    let (200, Body::Events(events)) = (response.status, &response.body) else {
        return Err(Finding(format!("status {}: {}", response.status, quoted(&response.body))));
    };
    let chunks = chunks(events)?;
    let joined: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    match expected["choices"][0]["text"] == joined {
        true => Ok(()),
        false => Err(Finding(format!(
            "the stream says {:?}, the whole {}",
            excerpt(&joined),
            excerpt(&expected["choices"][0]["text"].to_string())
        ))),
    }
}

fn reads_markers(target: &Target<'_>, renderer: &Renderer<'_>) -> Result<(), Finding> {
    let prompt = "<|im_user|>user<|im_middle|>hello<|im_end|><|im_assistant|>assistant<|im_middle|>";
    let expected = renderer.tokenizer.encode(prompt, true).len();
    let counted = whole(target, &asked(prompt))?["usage"]["prompt_tokens"].clone();
    match counted == expected {
        true => Ok(()),
        false => Err(Finding(format!("the prompt has {counted} tokens; expected {expected}"))),
    }
}
