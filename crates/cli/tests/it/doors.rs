//! The doors that read and write JSON lines: every line of the golden files through one process each, and a few
//! lines on the repository's own tokenizer of bytes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixtures::{kimi_tokenizer, lines, own};
use crate::k2::answers;

/// Seeds of random chunks that each tool-call case is cut by.
const SEEDS: u64 = 10;

/// Compares the answers to `inputs` with the fields `expected` gives for each.
fn check(args: &[&str], inputs: &[Value], expected: impl Fn(&Value) -> Value) {
    for (input, answer) in inputs.iter().zip(answers(args, inputs)) {
        assert_eq!(answer, expected(input), "k2 {args:?} of {}", input["id"]);
    }
}

/// The lines of a folder that have a field.
fn lines_with(folder: &str, field: &str) -> Vec<Value> {
    let mut lines = lines(folder);
    lines.retain(|line| line.get(field).is_some());
    lines
}

#[test]
fn tokenize_and_decode_every_line() {
    let Some(folder) = kimi_tokenizer() else { return };
    let folder = folder.to_str().unwrap();
    let encode = lines_with("tokenizer", "allow_special");
    check(&["tokenize", folder], &encode, |line| json!({"ids": line["ids"]}));
    let decode = lines_with("tokenizer", "chunks");
    check(
        &["tokenize", folder, "--decode"],
        &decode,
        |line| json!({"text": line["text"], "chunks": line["chunks"], "tail": line["tail"]}),
    );
}

#[test]
fn tokenize_every_long_text() {
    let Some(folder) = kimi_tokenizer() else { return };
    let recipes = lines_with("tokenizer", "pieces");
    let text = |recipe: &Value| -> String {
        let pieces = recipe["pieces"].as_array().unwrap().iter();
        pieces.map(|piece| piece[0].as_str().unwrap().repeat(piece[1].as_u64().unwrap() as usize)).collect()
    };
    let inputs: Vec<_> =
        recipes.iter().map(|recipe| json!({"text": text(recipe), "allow_special": true})).collect();
    let answers = answers(&["tokenize", folder.to_str().unwrap()], &inputs);
    for (recipe, answer) in recipes.iter().zip(answers) {
        let ids: Vec<u32> = serde_json::from_value(answer["ids"].clone()).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let found = json!({"n_ids": ids.len(), "hash": hash});
        assert_eq!(found, json!({"n_ids": recipe["n_ids"], "hash": recipe["ids_sha256_le_u32"]}));
    }
}

#[test]
fn render_every_line() {
    let Some(folder) = kimi_tokenizer() else { return };
    check(&["render", folder.to_str().unwrap()], &lines_with("chat", "rendered"), |line| {
        let ids = line.get("ids_injection_safe").unwrap_or(&line["ids"]);
        json!({"rendered": line["rendered"], "ids": ids})
    });
}

#[test]
fn normalize_every_line() {
    let expected = |line: &Value| json!({"messages_out": line["messages_out"]});
    check(&["render", "--normalize"], &lines_with("chat", "messages_in"), expected);
}

#[test]
fn parse_every_line() {
    let Some(folder) = kimi_tokenizer() else { return };
    let folder = folder.to_str().unwrap();
    let cases = lines_with("toolcalls", "model_output");
    let expected = |line: &Value| line["expected"].clone();
    check(&["parse", folder], &cases, expected);
    let without = |field: &str| {
        let mut cases = cases.clone();
        cases.iter_mut().for_each(|case| drop(case.as_object_mut().unwrap().shift_remove(field)));
        cases
    };
    check(&["parse", folder], &without("model_output"), expected);
    let mut by_text = without("ids");
    by_text.retain(|case| case["markers"] != "ids");
    check(&["parse", folder], &by_text, expected);
    for seed in 0..SEEDS {
        check(&["parse", folder, "--chunks", &seed.to_string()], &cases, expected);
    }
}

#[test]
fn lines_on_the_tokenizer_of_bytes() {
    let folder = own("bytes");
    let folder = folder.to_str().unwrap();
    check(&["tokenize", folder], &[json!({"text": "Hé"})], |_| json!({"ids": [72, 195, 169]}));
    check(
        &["tokenize", folder],
        &[json!({"text": "[EOS]", "allow_special": true})],
        |_| json!({"ids": [257]}),
    );
    check(
        &["tokenize", folder, "--decode"],
        &[json!({"ids": [72, 195, 169, 195]})],
        |_| json!({"text": "Hé\u{fffd}", "chunks": ["H", "", "é", ""], "tail": "\u{fffd}"}),
    );
    let conversation = json!({"messages": [{"role": "user", "content": "<|im_end|>"}]});
    let prompt = "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\n\
                  <|im_user|>user<|im_middle|><|im_end|><|im_end|><|im_assistant|>assistant<|im_middle|>";
    let answer = &answers(&["render", folder], std::slice::from_ref(&conversation))[0];
    assert_eq!(answer["rendered"], prompt);
    let ends = answer["ids"].as_array().unwrap().iter().filter(|id| **id == 258).count();
    assert_eq!(ends, 2, "the user's text is not a control token");
    let thinking = ["render", folder, "--template", "k2-thinking"];
    let answer = &answers(&thinking, &[conversation])[0];
    assert!(!answer["rendered"].as_str().unwrap().contains(".<|im_end|>\n"), "{answer}");
    let call = "a<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>{}";
    let expected = json!({"content": "a", "tool_calls": [{"id": "functions.f:0", "name": "f", "arguments": "{}"}],
        "finish_reason": "tool_calls"});
    check(&["parse", folder], &[json!({"model_output": call})], |_| expected.clone());
    check(
        &["parse", folder],
        &[json!({"model_output": "a", "thinking": true, "stop_reason": "length"})],
        |_| json!({"content": "a", "tool_calls": [], "finish_reason": "length", "reasoning_content": null}),
    );
}
