//! Every line of the chat golden files: rendered prompts and normalised histories.

use k2_chat::{Message, RenderOptions, Template, Tokenizer, Tool, normalize, render};
use serde::Deserialize;
use serde_json::Value;

use crate::fixtures;

#[derive(Deserialize)]
struct Render {
    id: String,
    template: String,
    messages: Vec<Message>,
    tools: Option<Vec<Tool>>,
    add_generation_prompt: bool,
    rendered: String,
    ids: Vec<u32>,
    ids_injection_safe: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Normalize {
    id: String,
    messages_in: Vec<Message>,
    messages_out: Value,
}

fn check_render(tokenizer: &Tokenizer, case: Render) {
    let template = Template::from_name(&case.template).unwrap();
    let options =
        RenderOptions { add_generation_prompt: case.add_generation_prompt, ..RenderOptions::default() };
    let rendered = render(template, &case.messages, &case.tools.unwrap_or_default(), options).unwrap();
    assert_eq!(rendered.text, case.rendered, "{}", case.id);
    assert_eq!(rendered.ids(tokenizer), case.ids_injection_safe.unwrap_or(case.ids.clone()), "{}", case.id);
    assert_eq!(tokenizer.encode(&rendered.text, true), case.ids, "{}", case.id);
}

fn check_normalize(case: Normalize) {
    let mut messages = case.messages_in;
    normalize(&mut messages);
    assert_eq!(serde_json::to_value(&messages).unwrap(), case.messages_out, "{}", case.id);
    let once = messages.clone();
    normalize(&mut messages);
    assert_eq!(messages, once, "{}: twice", case.id);
}

#[test]
fn every_line() {
    let lines = fixtures::lines("chat");
    for line in &lines {
        if serde_json::from_str::<Value>(line).unwrap().get("messages_in").is_some() {
            check_normalize(serde_json::from_str(line).unwrap());
        } else if let Some(tokenizer) = fixtures::kimi() {
            check_render(tokenizer, serde_json::from_str(line).unwrap());
        }
    }
    println!("{} lines", lines.len());
}
