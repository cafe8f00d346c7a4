//! Choosing the turn format.

use std::fs;

use k2_chat::Template;
use serde_json::json;

fn check(text: Option<&str>, model_type: Option<&str>, thinks: bool, expected: &str) {
    let found =
        Template::detect(text, model_type, thinks).map(Template::name).map_err(|error| error.to_string());
    assert_eq!(found.as_deref(), Ok(expected), "{text:?}");
}

#[test]
fn from_the_template_text() {
    // Lines that only the respective generation has.
    let turn = "<|im_user|>{{role_name}}<|im_middle|>";
    check(Some(turn), None, false, "k2-instruct");
    check(Some(turn), None, true, "k2-instruct");
    check(Some(&format!("{turn}<think>{{{{rc}}}}</think>")), Some("kimi_k2"), true, "k2-thinking");
    check(Some(&format!("{turn}<think>{{{{rc}}}}</think>")), Some("kimi_k25"), true, "k2.5");
    check(Some(&format!("{turn}<think>{{{{ tools_ts_str }}}}")), None, true, "k2.5");
    check(
        Some(&format!("{turn}You are a helpful assistant")),
        Some("deepseek_v3"),
        false,
        "k2-instruct-0711",
    );
    check(Some(&format!("{turn}\n  # Tools\n")), None, false, "k2-instruct-0905-initial");
    let error = Template::detect(Some("<|im_start|>user"), None, false).unwrap_err().to_string();
    assert!(error.starts_with("the checkpoint's chat template is none of Kimi K2's (it begins \"<|im_start|>user\"); choose one by name: k2-instruct, k2-thinking,"), "{error}");
}

#[test]
fn without_a_template_text() {
    check(None, Some("kimi_k2"), false, "k2-instruct");
    check(None, Some("kimi_k2"), true, "k2-thinking");
    check(None, Some("kimi_k25"), true, "k2.5");
    check(None, None, false, "k2-instruct");
}

#[test]
fn by_name() {
    for template in Template::ALL {
        assert_eq!(Template::from_name(template.name()).unwrap(), template);
    }
    let error = Template::from_name("chatml").unwrap_err().to_string();
    assert_eq!(
        error,
        "no template is called \"chatml\"; there are k2-instruct, k2-thinking, k2-instruct-0711, k2-instruct-0905-initial, k2.5"
    );
}

#[test]
fn from_a_folder() {
    let dir = std::env::temp_dir().join(format!("k2-chat-templates-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let write = |file: &str, json: serde_json::Value| fs::write(dir.join(file), json.to_string()).unwrap();
    let found = || Template::from_dir(&dir).unwrap();
    assert_eq!(found(), Template::K2Instruct);
    write("tokenizer_config.json", json!({"added_tokens_decoder": {"7": {"content": "<think>"}}}));
    assert_eq!(found(), Template::K2Thinking);
    write("config.json", json!({"model_type": "kimi_k25"}));
    assert_eq!(found(), Template::K25);
    write("tokenizer_config.json", json!({"chat_template": "<|im_middle|> # Tools"}));
    assert_eq!(found(), Template::K2Instruct0905Initial);
    fs::write(dir.join("chat_template.jinja"), "<|im_middle|>You are a helpful assistant").unwrap();
    assert_eq!(found(), Template::K2Instruct0711);
    fs::remove_file(dir.join("chat_template.jinja")).unwrap();
    fs::create_dir(dir.join("chat_template.jinja")).unwrap();
    let error = Template::from_dir(&dir).unwrap_err().to_string();
    assert!(error.ends_with("chat_template.jinja: not a regular file"), "{error}");
    fs::remove_dir_all(&dir).unwrap();
}
