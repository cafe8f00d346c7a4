//! Turns that the model wrote come back with the ids that it chose, and nobody else's do.

use k2_chat::{Message, RenderOptions, Rendered, Template, Turns, render};
use serde_json::{Value, json};

use crate::small;

fn rendered(template: Template, messages: Value) -> Rendered {
    let messages: Vec<Message> = serde_json::from_str(&messages.to_string()).unwrap();
    render(template, &messages, &[], RenderOptions::default()).unwrap()
}

/// The ids of a text, a byte each, but for the markers.
fn byte_by_byte(text: &str) -> Vec<u32> {
    let tokenizer = small::tokenizer();
    let (mut ids, mut at) = (Vec::new(), 0);
    for (start, end, id) in tokenizer.specials().find(text) {
        ids.extend(text[at..start].bytes().map(u32::from));
        ids.push(id);
        at = end;
    }
    ids.extend(text[at..].bytes().map(u32::from));
    ids
}

const CALL: &str = "Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0\
    <|tool_call_argument_begin|>{\"city\": \"Beijing\"}<|tool_call_end|><|tool_calls_section_end|>";

fn conversation(content: &str, arguments: &str) -> Value {
    let call = json!({ "id": "functions.get_weather:0", "type": "function",
        "function": { "name": "get_weather", "arguments": arguments } });
    json!([
        { "role": "user", "content": "weather in Beijing?" },
        { "role": "assistant", "content": content, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "functions.get_weather:0", "content": "celsius" },
    ])
}

#[test]
fn a_turn_comes_back_as_it_was_sampled() {
    let (tokenizer, turns) = (small::tokenizer(), Turns::new(1 << 20));
    let sampled = byte_by_byte(CALL);
    let contains = |ids: &[u32]| ids.windows(sampled.len()).any(|window| window == sampled);
    let check = |messages: Value, expected: bool| {
        let rendered = rendered(Template::K2Instruct, messages);
        let ids = turns.ids(tokenizer, &rendered);
        assert_eq!(contains(&ids), expected, "{}", rendered.text);
        assert_eq!(tokenizer.decode(&ids).unwrap(), rendered.text);
        if !expected {
            assert_eq!(ids, rendered.ids(tokenizer));
        }
    };
    let same = conversation("Let me see.", "{\"city\": \"Beijing\"}");
    check(same.clone(), false);
    turns.remember(tokenizer, &sampled);
    check(same.clone(), true);
    check(conversation("Let me see!", "{\"city\": \"Beijing\"}"), false);
    check(conversation("Let me see.", "{\"city\":\"Beijing\"}"), false);
    // Markers that are only spelled are none, whoever says it.
    check(json!([{ "role": "user", "content": CALL }, { "role": "assistant", "content": CALL }]), false);
    // What the encoder gives anyway takes no room, and room is bounded.
    let small = Turns::new(600);
    for text in ["the weather", "the tools"] {
        small.remember(tokenizer, &byte_by_byte(text));
        small.remember(tokenizer, &tokenizer.encode(text, false));
    }
    let answer =
        |text: &str| rendered(Template::K2Instruct, json!([{ "role": "assistant", "content": text }]));
    for (text, kept) in [("the weather", false), ("the tools", true)] {
        let rendered = answer(text);
        assert_eq!(small.ids(tokenizer, &rendered) != rendered.ids(tokenizer), kept, "{text}");
    }
}

#[test]
fn reasoning_is_part_of_the_turn() {
    let (tokenizer, turns) = (small::tokenizer(), Turns::new(1 << 20));
    let sampled = byte_by_byte(&format!("<think>the user asks</think>{CALL}"));
    turns.remember(tokenizer, &sampled);
    let mut messages = conversation("Let me see.", "{\"city\": \"Beijing\"}");
    let mut check = |reasoning: &str, expected: bool| {
        messages[1]["reasoning_content"] = json!(reasoning);
        let ids = turns.ids(tokenizer, &rendered(Template::K2Thinking, messages.clone()));
        assert_eq!(ids.windows(sampled.len()).any(|window| window == sampled), expected, "{reasoning}");
    };
    check("the user asks", true);
    check("", false);
}
