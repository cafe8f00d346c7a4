//! Damaged tokenizer files: every error once, and what it says.

use k2_chat::{
    GgufTokens, StopMatcher,
    gguf_vocabulary::{self, GgufVocabularyError},
    special::SpecialTokens,
    tiktoken,
};

use crate::{gguf::Owned, small};

fn check_rank_file(file: &[u8], expected: &str) {
    let error = tiktoken::parse(file).err().expect(expected).to_string();
    assert!(error.starts_with(expected), "{error}\nexpected {expected}");
}

#[test]
fn rank_files() {
    let good = "IQ== 0\nIg== 1\n\nIw== 2\n";
    let with = |line: &str| format!("{good}{line}\n").into_bytes();
    check_rank_file(b"", "0 tokens and none is the single byte 0x00");
    check_rank_file(
        good.as_bytes(),
        "3 tokens and none is the single byte 0x00; all 256 bytes must be tokens",
    );
    check_rank_file(
        &with("JA==3"),
        "line 5 is \"JA==3\"; expected the base64 of a token's bytes, one blank and its rank, like \"IQ== 0\"",
    );
    check_rank_file(&with(&"x".repeat(1000)), &format!("line 5 is \"{}…\"; expected", "x".repeat(40)));
    check_rank_file(&with("J! 3"), "line 5: \"J!\" is not base64");
    check_rank_file(&with(" 3"), "line 5: the token has no bytes");
    check_rank_file(
        &with(&format!("{} 3", "AAAA".repeat(1400))),
        "line 5: the token has 4200 bytes; at most 4096",
    );
    check_rank_file(&with("JA== 4"), "line 5: rank \"4\" where 3 is due; ranks count up from 0 without gaps");
    check_rank_file(&with("JA== x"), "line 5: rank \"x\" where 3 is due");
    check_rank_file(
        &with("JA== 99999999999999999999"),
        "line 5: rank \"99999999999999999999\" where 3 is due",
    );
    check_rank_file(&with("Ig== 3"), "line 5: the token of rank 1 again");
    check_rank_file(b"\xff\xfe\x00", "line 1 is \"\u{fffd}\u{fffd}\\0\"; expected");
    let many: String =
        (0..=1 << 20).map(|rank: u32| format!("{} {rank}\n", base64(&rank.to_be_bytes()))).collect();
    check_rank_file(many.as_bytes(), "line 1048577: more than 1048576 tokens");
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

fn check_specials(decoder: &str, expected: &str) {
    let json = format!("{{\"added_tokens_decoder\": {decoder}}}");
    let error =
        SpecialTokens::from_config(json.as_bytes(), 300, Some(20_000)).err().expect(expected).to_string();
    assert!(error.starts_with(expected), "{error}\nexpected {expected}");
}

#[test]
fn special_tables() {
    check_specials("[]", "not a tokenizer_config.json: invalid type: sequence, expected a map");
    check_specials("{\"300\": {\"special\": true}}", "not a tokenizer_config.json: missing field `content`");
    check_specials(
        "{\"-1\": {\"content\": \"a\"}}",
        "`added_tokens_decoder` has the key \"-1\"; keys are token ids",
    );
    check_specials(
        "{\"299\": {\"content\": \"a\"}}",
        "special token \"a\" has id 299, but ids below 300 are ordinary",
    );
    check_specials(
        "{\"20000\": {\"content\": \"a\"}}",
        "special token \"a\" has id 20000, 19700 ids after the 300 ordinary tokens; at most 8192",
    );
    check_specials(
        "{\"300\": {\"content\": \"\"}}",
        "special token 300 is spelled with 0 bytes; expected 1 to 512",
    );
    check_specials(
        "{\"300\": {\"content\": \"a\"}, \"302\": {\"content\": \"a\"}}",
        "special tokens 300 and 302 are both spelled \"a\"",
    );
    let beyond = SpecialTokens::from_config(
        b"{\"added_tokens_decoder\": {\"301\": {\"content\": \"a\"}}}",
        300,
        Some(301),
    );
    assert_eq!(
        beyond.err().unwrap().to_string(),
        "special token \"a\" has id 301, but the model has only 301 rows (`vocab_size`), ids below that"
    );
    let many = SpecialTokens::from_control_tokens((0..9000).map(|id| (id, format!("<{id}>"))));
    assert_eq!(many.err().unwrap().to_string(), "9000 special tokens; at most 8192 are accepted");
    let missing = SpecialTokens::from_config(b"{}", 300, None).err().unwrap().to_string();
    assert!(
        missing.contains("missing field `added_tokens_decoder`") && missing.contains("expected an object")
    );
}

/// The small tokenizer's GGUF metadata, damaged.
fn check_gguf(damage: impl FnOnce(&mut Owned), expected: &str) {
    let mut owned = Owned::new(small::tokenizer(), true);
    damage(&mut owned);
    let error: GgufVocabularyError = gguf_vocabulary::read(owned.borrow()).err().expect(expected);
    assert!(error.to_string().starts_with(expected), "{error}\nexpected {expected}");
}

#[test]
fn gguf_vocabularies() {
    check_gguf(|gguf| gguf.model = "llama".to_owned(), "tokenizer.ggml.model is \"llama\"; only \"gpt2\"");
    check_gguf(
        |gguf| gguf.pre = "glm4".to_owned(),
        "tokenizer.ggml.pre is \"glm4\"; supported are kimi-k2, gpt-2",
    );
    check_gguf(
        |gguf| gguf.types.truncate(10),
        "tokenizer.ggml.tokens has 475 entries and tokenizer.ggml.token_type 10; they must be equally many",
    );
    check_gguf(|gguf| gguf.types[3] = 9, "token 3 has type 9; the types are 1 normal,");
    check_gguf(
        |gguf| gguf.tokens[3] = "a b".to_owned(),
        "token 3 is \"a b\"; ' ' is not in GPT-2's byte alphabet (a blank is 'Ġ', a line break 'Ċ')",
    );
    check_gguf(|gguf| gguf.tokens[3] = String::new(), "token 3 has 0 bytes; an ordinary token has 1 to 4096");
    check_gguf(|gguf| gguf.tokens[3] = "a".to_owned(), "tokens 3 and 97 are both \"a\"");
    check_gguf(|gguf| gguf.tokens[3] = "zqzq".to_owned(), "no ordinary token is the single byte 0x03");
    check_gguf(|gguf| gguf.merges[5] = "zq zq".to_owned(), "merge 5 is \"zq zq\"; expected two tokens");
    check_gguf(|gguf| gguf.merges[5] = "ab".to_owned(), "merge 5 is \"ab\"; expected two tokens");
    check_gguf(|gguf| gguf.merges.swap(4, 5), "merge 5 makes token 260 after a merge that made token 261;");
    check_gguf(
        |gguf| gguf.tokens[460] = "[BOS]".to_owned(),
        "special tokens 456 and 460 are both spelled \"[BOS]\"",
    );
    let tokens = vec![String::new(); (1 << 20) + 1];
    let types = vec![1; tokens.len()];
    let gguf =
        GgufTokens { model: "gpt2", pre: "kimi-k2", tokens: &tokens, token_types: &types, merges: &[] };
    let error = gguf_vocabulary::read(gguf).err().unwrap().to_string();
    assert_eq!(error, "tokenizer.ggml.tokens has 1048577 entries; at most 1048576 are accepted");
}

#[test]
fn stop_lists() {
    let error = |stops: Vec<String>| StopMatcher::new(stops).unwrap_err().to_string();
    assert_eq!(
        error(vec!["a".to_owned(), String::new()]),
        "stop[1] is empty; a stop string has at least one character"
    );
    assert_eq!(error(vec!["a".to_owned(); 65]), "65 stop strings; at most 64 are accepted");
}
