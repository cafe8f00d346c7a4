//! A JSON schema: judged by Moonshot's rules, and made a grammar whether it is of the subset or not.
#![no_main]

mod compiler;
mod small_tokenizer;

use compiler::COMPILER;
use k2_chat::grammar::{ContentForm, Reasoning, Wanted};
use k2_chat::{Json, mfjs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schema) = Json::parse(text) else { return };
    let judged = mfjs::validate(&schema);
    for strict in [false, true] {
        let content = ContentForm::Json { schema: &schema, strict };
        let compiled = COMPILER.compile(Wanted { calls: None, content, reasoning: Reasoning::Never });
        assert!(judged.is_ok() || !strict || compiled.is_err());
    }
});
