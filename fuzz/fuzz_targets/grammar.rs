//! A line of tools to a grammar, and an answer that chooses among what it allows: whatever is allowed is taken, nothing
//! else is ever needed, and a finished answer is parsed as calls.
#![no_main]

mod compiler;
mod small_tokenizer;

use compiler::COMPILER;
use k2_chat::grammar::{Calls, ContentForm, Reasoning, Wanted};
use k2_chat::tool_calls::parse_tokens;
use k2_chat::{EndReason, FinishReason, ParserOptions, Tool};
use libfuzzer_sys::fuzz_target;
use small_tokenizer::TOKENIZER;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (tools, choices) = data.split_at(end);
    let Ok(tools) = serde_json::from_slice::<Vec<Tool>>(tools) else { return };
    let named = |tool: &Tool| {
        tool.name()
            .is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    if tools.is_empty() || !tools.iter().all(named) {
        return; // the server refuses these
    }
    let calls = Some(Calls { tools: &tools, only: None, parallel: choices.len() % 2 == 0, sorted: true });
    let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
    let Ok(Some(grammar)) = COMPILER.compile(wanted) else { return };
    let (mut progress, mut ids) = (grammar.start(), Vec::new());
    let stops = TOKENIZER.stop_ids(&[]);
    for choice in choices {
        let Ok(words) = progress.allowed() else { return }; // a limit of the library
        let allowed: Vec<u32> =
            (0..TOKENIZER.n_vocab()).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        if stops.iter().any(|id| allowed.contains(id)) {
            let reply =
                parse_tokens(ParserOptions::with_tools(&tools), &TOKENIZER, &ids, EndReason::EndOfTurn);
            assert_eq!(reply.expect("known ids").finish_reason, FinishReason::ToolCalls);
            return;
        }
        let id = allowed[usize::from(*choice) % allowed.len()];
        ids.push(id);
        progress.accept(id).expect("what is allowed is taken");
    }
});
