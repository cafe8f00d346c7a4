//! The model's answer: the first two bytes choose options and chunks, the rest is what the model wrote.
//! However it is cut, the same reply comes out.
#![no_main]

mod small_tokenizer;

use k2_chat::tool_calls::{DeclaredTool, Markers, parse_text, parse_tokens};
use k2_chat::{EndReason, ParserOptions, Reply, StopMatcher, Tool, ToolCallParser};
use libfuzzer_sys::fuzz_target;
use small_tokenizer::TOKENIZER;
use std::sync::LazyLock;

static TOOLS: LazyLock<Vec<DeclaredTool>> = LazyLock::new(|| {
    let json = r#"[{"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}}}},
        {"type": "function", "function": {"name": "a.b-c", "parameters": {}}}]"#;
    let tools: Vec<Tool> = serde_json::from_str(json).expect("tools");
    tools.iter().map(DeclaredTool::from).collect()
});

fn options(bits: u8) -> ParserOptions {
    let stop = if bits & 16 == 0 { vec![] } else { vec!["STOP".to_owned(), "\n\n".to_owned()] };
    ParserOptions {
        calls: bits & 1 == 0,
        tools: if bits & 2 == 0 { TOOLS.clone() } else { Vec::new() },
        history_calls: u64::from(bits >> 5),
        thinking: bits & 4 != 0,
        think_prefilled: bits & 12 == 12,
        stop: StopMatcher::new(stop).expect("stop strings"),
    }
}

fuzz_target!(|data: &[u8]| {
    let [bits, chunk, rest @ ..] = data else { return };
    let text = String::from_utf8_lossy(rest);
    for reason in [EndReason::EndOfTurn, EndReason::Length] {
        let whole = parse_text(options(*bits), &text, reason);
        let mut parser = ToolCallParser::new(options(*bits), Markers::Text);
        let (mut reply, chars) = (Reply::default(), text.chars().collect::<Vec<_>>());
        for piece in chars.chunks(usize::from(chunk % 7) + 1) {
            reply.extend(parser.push_text(&piece.iter().collect::<String>()));
        }
        reply.end(parser.finish(reason));
        assert_eq!(reply, whole);
        let ids = TOKENIZER.encode(&text, true);
        parse_tokens(options(*bits), &TOKENIZER, &ids, reason).expect("known ids");
    }
});
