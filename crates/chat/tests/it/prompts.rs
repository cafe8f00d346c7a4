//! Prompts that are in no public golden file: prefill, K2.5, odd roles, missing fields.

use k2_chat::{Message, RenderOptions, Template, Tool, render};
use serde_json::{Value, json};

fn prompt(template: &str, messages: Value, tools: Value, options: RenderOptions) -> Result<String, String> {
    let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
    let tools: Vec<Tool> = serde_json::from_value(tools).unwrap();
    let rendered = render(Template::from_name(template).unwrap(), &messages, &tools, options);
    rendered.map(|rendered| rendered.text).map_err(|error| error.to_string())
}

fn check(template: &str, messages: Value, expected: &str) {
    assert_eq!(prompt(template, messages, json!([]), RenderOptions::default()).as_deref(), Ok(expected));
}

const SYSTEM: &str = "<|im_system|>system<|im_middle|>s<|im_end|>";

#[test]
fn prefill_leaves_the_last_message_open() {
    let system = json!({"role": "system", "content": "s"});
    let messages = json!([system, {"role": "assistant", "content": "{\"a\":", "partial": true}]);
    let open = |think: &str| format!("{SYSTEM}<|im_assistant|>assistant<|im_middle|>{think}{{\"a\":");
    for template in ["k2-instruct", "k2-instruct-0711", "k2-instruct-0905-initial"] {
        check(template, messages.clone(), &open(""));
    }
    check("k2-thinking", messages, &open("<think></think>"));
    let refused =
        "messages[0] has `partial: true`; only a last message with role \"assistant\" can be continued";
    for messages in [
        json!([{"role": "user", "content": "", "partial": true}]),
        json!([{"role": "assistant", "content": "", "partial": true}, {"role": "user", "content": ""}]),
    ] {
        assert_eq!(
            prompt("k2-instruct", messages, json!([]), RenderOptions::default()).unwrap_err(),
            refused
        );
    }
}

#[test]
fn k25_prompts_for_thinking() {
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "a", "reasoning_content": "old"},
        {"role": "assistant", "content": "", "reasoning_content": "why", "tool_calls": [{"id": "functions.f:0", "function": {"name": "f", "arguments": "{}"}}]}
    ]);
    let expected = |why: &str, open: &str| {
        format!(
            "{SYSTEM}<|im_assistant|>assistant<|im_middle|><think></think>a<|im_end|><|im_assistant|>assistant<|im_middle|><think>{why}</think><|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{{}}<|tool_call_end|><|tool_calls_section_end|><|im_end|><|im_assistant|>assistant<|im_middle|>{open}"
        )
    };
    for (template, thinking, why, open) in [
        ("k2.5", true, "why", "<think>"),
        ("k2.5", false, "", "<think></think>"),
        ("k2-thinking", true, "why", ""),
        ("k2-thinking", false, "why", ""),
    ] {
        let options = RenderOptions { thinking, ..RenderOptions::default() };
        assert_eq!(prompt(template, messages.clone(), json!([]), options).unwrap(), expected(why, open));
    }
}

#[test]
fn roles() {
    let messages = json!([{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, {"role": "_input", "name": "", "content": "i"}]);
    let tail = "<|im_assistant|>assistant<|im_middle|>";
    check(
        "k2-instruct",
        messages.clone(),
        &format!(
            "{SYSTEM}<|im_system|>developer<|im_middle|>d<|im_end|><|im_system|>_input<|im_middle|>i<|im_end|>{tail}"
        ),
    );
    // The first template prints no head for roles it does not know, and no names.
    check("k2-instruct-0711", messages, &format!("{SYSTEM}d<|im_end|>i<|im_end|>{tail}"));
    let named = json!([{"role": "system", "content": "s", "name": "n"}, {"role": "tool", "content": "r", "tool_call_id": "x"}]);
    check("k2-instruct-0711", named, &format!("{SYSTEM}<|im_system|>tool<|im_middle|>r<|im_end|>{tail}"));
}

#[test]
fn conversations_without_messages() {
    let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
    for template in ["k2-instruct", "k2-instruct-0711", "k2-instruct-0905-initial"] {
        assert_eq!(prompt(template, json!([]), json!([]), options).unwrap(), "");
    }
    let system =
        "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>";
    assert_eq!(prompt("k2-thinking", json!([]), json!([]), options).unwrap(), system);
}

#[test]
fn images_and_parts_without_text() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "input", "image": "x"}, {"type": "text"}, {"type": "image_url", "image_url": {"url": "u"}}, {"text": "b"}]);
    let messages = json!([{"role": "system", "content": parts}]);
    let image = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>";
    let expected = |newline: &str| {
        format!(
            "<|im_system|>system<|im_middle|>a{image}{newline}{image}{newline}b<|im_end|><|im_assistant|>assistant<|im_middle|>"
        )
    };
    check("k2-thinking", messages.clone(), &expected("\n"));
    check("k2-instruct-0711", messages, &expected(""));
}

#[test]
fn tools_and_arguments_are_printed_as_python_would() {
    let tools = r#"[{"type":"function","strict":null,"function":{"parameters":{"maximum":123456789012345678901234567890,"default":1e5},"name":"f"}}]"#;
    let messages = r#"[{"role":"system","content":"s"},{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":{"b":1E2,"a":36893488147419103232}}}]}]"#;
    let messages: Vec<Message> = serde_json::from_str(messages).unwrap();
    let tools: Vec<Tool> = serde_json::from_str(tools).unwrap();
    let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
    let text = render(Template::K2Instruct, &messages, &tools, options).unwrap().text;
    assert!(text.contains(r#"[{"function":{"name":"f","parameters":{"default":100000.0,"maximum":123456789012345678901234567890}},"strict":null,"type":"function"}]"#), "{text}");
    assert!(
        text.contains(
            r#"c<|tool_call_argument_begin|>{"b": 100.0, "a": 36893488147419103232}<|tool_call_end|>"#
        ),
        "{text}"
    );
    let text = render(Template::K2Instruct0711, &messages, &tools, options).unwrap().text;
    assert!(
        text.contains(r#"[{"type": "function", "strict": null, "function": {"parameters": {"maximum""#),
        "{text}"
    );
    assert!(!text.contains("tool_call_begin"));
}

#[test]
fn messages_of_a_wrong_shape_say_what_is_right() {
    let error = |message: Value| serde_json::from_value::<Message>(message).unwrap_err().to_string();
    assert!(
        error(json!({"role": "user", "content": 5}))
            .starts_with("content must be a string, null or a list of parts")
    );
    assert_eq!(error(json!({"content": "x"})), "missing field `role`");
    assert_eq!(error(json!({"role": "assistant", "tool_calls": [{"id": "x"}]})), "missing field `function`");
    let deep = format!(
        "{{\"role\":\"assistant\",\"tool_calls\":[{{\"function\":{{\"name\":\"f\",\"arguments\":{}1{}}}}}]}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    assert!(
        serde_json::from_str::<Message>(&deep).unwrap_err().to_string().contains("nested deeper than 128")
    );
}
