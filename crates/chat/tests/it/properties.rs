//! What holds for any input.

use k2_chat::{
    Content, Delta, Detokenizer, EndReason, Message, ParserOptions, RenderOptions, Reply, Role, StopMatcher,
    Template, Tool, ToolCallParser, normalize, render,
    tool_calls::{Markers, parse_text},
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

use crate::small;

/// Texts in which the tokenizer's rules meet: letters of all cases and scripts, marks, digits,
/// white space of all kinds, apostrophes, punctuation, special tokens.
pub(crate) fn text(length: usize) -> impl Strategy<Value = String> {
    let awkward = select(
        " \t\n\r\u{a0}\u{2003}\u{85}\u{1c}'’!?.,<|>/\u{301}\u{20dd}ʰǅßſΣσЖж東京々〇〡⺀あカ한กا१²Ⅻ👩🏽\u{200d}💻\u{0}\u{feff}"
            .chars()
            .collect::<Vec<_>>(),
    );
    let word = select(vec![
        "'s",
        "'LL",
        "don't",
        "HTTP",
        "camelCase",
        "1234",
        "  ",
        "\r\n",
        " \n ",
        "<|im_end|>",
        "<think>",
        "[EOS]",
        "<|reserved_token_461|>",
        "functions.x:0",
    ]);
    let piece = prop_oneof![
        awkward.prop_map(String::from),
        word.prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        "[a-zA-Z ]{1,4}",
    ];
    vec(piece, 0..length).prop_map(|pieces| pieces.concat())
}

/// Text in which markers, whole and broken, meet everything else.
fn model_output() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_section_begin|>",
        "<|tool_call_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<think>",
        "</think>",
        "<|tool_c",
        "<",
        "|>",
        " ",
        "\n",
        "text",
        "北京",
        "functions.get:0",
        "functions.get",
        "get:7",
        "0",
        "call_1",
        "{}",
        "{\"q\": 1}",
        "\"{\\\"q\\\": 1}\"",
        "{\"q\": \"<",
        "STOP",
        "ST",
    ]);
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Cuts a text into chunks at the given fractions.
fn cut<'t>(text: &'t str, places: &[f64]) -> Vec<&'t str> {
    let mut at: Vec<usize> = places.iter().map(|place| (place * text.len() as f64) as usize).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    let boundary = |at: usize| (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let at: Vec<usize> = at.into_iter().map(boundary).collect();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str, key: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {key: {}}}}});
    vec![Tool(tool("get", "q").into()), Tool(tool("put", "r").into())]
}

fn options(thinking: bool, think_prefilled: bool) -> ParserOptions {
    let stop = StopMatcher::new(vec!["STOP".to_owned()]).unwrap();
    ParserOptions { thinking, think_prefilled, stop, ..ParserOptions::with_tools(&tools()) }
}

/// Deltas keep their promises: calls are announced in order before their arguments, content comes
/// before all of them, and no marker is in the content.
fn check_deltas(deltas: &[Delta]) {
    let mut calls = 0;
    for delta in deltas {
        match delta {
            Delta::Call { index, .. } => {
                assert_eq!(*index, calls, "{deltas:?}");
                calls += 1;
            }
            Delta::Arguments { index, .. } => assert_eq!(index + 1, calls, "{deltas:?}"),
            Delta::Content(text) => assert!(!text.contains("<|tool_call_begin|>"), "{deltas:?}"),
            Delta::Reasoning(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in text(40), allow_special: bool) {
        for tokenizer in small::tokenizers() {
            let ids = tokenizer.encode(&text, allow_special);
            prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), &text);
            prop_assert!(ids.iter().all(|&id| id < tokenizer.n_vocab()));
            if !allow_special {
                prop_assert!(ids.iter().all(|&id| tokenizer.specials().get(id).is_none()));
            }
        }
    }

    #[test]
    fn any_tokens_stream_to_the_same_text(ids in vec(0..475u32, 0..40)) {
        let tokenizer = small::tokenizer();
        let mut detokenizer = Detokenizer::new();
        let mut streamed: String = ids.iter().map(|&id| detokenizer.push(tokenizer, id).unwrap()).collect();
        streamed.push_str(&detokenizer.finish());
        prop_assert_eq!(streamed, tokenizer.decode(&ids).unwrap());
    }

    #[test]
    fn any_bytes_in_any_chunks_decode_the_same(chunks in vec(vec(any::<u8>(), 0..5), 0..12)) {
        let mut detokenizer = Detokenizer::new();
        let mut streamed: String = chunks.iter().map(|chunk| detokenizer.push_bytes(chunk)).collect();
        streamed.push_str(&detokenizer.finish());
        let bytes = chunks.concat();
        prop_assert_eq!(streamed, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn user_text_never_becomes_a_control_token(user in text(20), name in text(3), template in select(Template::ALL.to_vec())) {
        let tokenizer = small::tokenizer();
        let message = |text: &str| Message { name: Some(name.clone()), ..Message::text(Role::User, text) };
        let control = |text: &str| {
            let rendered = render(template, &[message(text)], &[], RenderOptions::default()).unwrap();
            let ids = rendered.ids(tokenizer);
            assert_eq!(tokenizer.decode(&ids).unwrap(), rendered.text);
            ids.into_iter().filter(|&id| tokenizer.specials().get(id).is_some()).collect::<Vec<_>>()
        };
        prop_assert_eq!(control(&user), control("x"));
    }

    #[test]
    fn normalising_twice_changes_nothing_more(
        turns in vec((any::<bool>(), select(vec!["functions.a:0", "functions.b:1", "call_1", "call_2", "", "a:0"]), select(vec!["a", "b"])), 0..12)
    ) {
        let mut messages: Vec<Message> = turns.iter().map(|(call, id, name)| {
            let message = match call {
                true => json!({"role": "assistant", "content": null, "tool_calls": [{"id": id, "function": {"name": name}}]}),
                false => json!({"role": "tool", "tool_call_id": id, "content": "r"}),
            };
            serde_json::from_value(message).unwrap()
        }).collect();
        normalize(&mut messages);
        let once = messages.clone();
        normalize(&mut messages);
        prop_assert_eq!(once, messages);
    }

    #[test]
    fn any_chunking_parses_the_same(
        text in model_output(), places in vec(0.0..1.0f64, 0..20), thinking: bool, prefilled: bool, length: bool
    ) {
        let end = if length { EndReason::Length } else { EndReason::EndOfTurn };
        let whole = parse_text(options(thinking, prefilled), &text, end);
        let mut parser = ToolCallParser::new(options(thinking, prefilled), Markers::Text);
        let mut deltas: Vec<Delta> = cut(&text, &places).into_iter().flat_map(|chunk| parser.push_text(chunk)).collect();
        let finished = parser.finish(end);
        deltas.extend(finished.deltas.clone());
        check_deltas(&deltas);
        let mut streamed = Reply::default();
        streamed.extend(deltas);
        streamed.end(k2_chat::tool_calls::Finished { deltas: Vec::new(), ..finished });
        prop_assert_eq!(streamed, whole);
    }

    #[test]
    fn any_tokenisation_parses_the_same(text in model_output(), thinking: bool) {
        // By id every marker is a token of its own; between them the same text may be other tokens.
        let tokenizer = small::tokenizer();
        let parse = |ids: &[u32]| {
            k2_chat::tool_calls::parse_tokens(options(thinking, false), tokenizer, ids, EndReason::EndOfTurn).unwrap()
        };
        let ids = tokenizer.encode(&text, true);
        let bytes = ids.iter().flat_map(|&id| match tokenizer.specials().get(id) {
            Some(_) => vec![id],
            None => tokenizer.token_bytes(id).unwrap().iter().map(|&byte| u32::from(byte)).collect(),
        });
        prop_assert_eq!(parse(&ids), parse(&bytes.collect::<Vec<_>>()));
    }

    #[test]
    fn stop_strings_do_not_depend_on_chunks(
        text in "[ab<]{0,30}", stops in vec("[ab<]{1,4}", 0..4), places in vec(0.0..1.0f64, 0..10)
    ) {
        let matcher = StopMatcher::new(stops.clone()).unwrap();
        let run = |chunks: Vec<&str>| {
            let mut matcher = matcher.clone();
            let mut out: String = chunks.into_iter().map(|chunk| matcher.push(chunk)).collect();
            out.push_str(&matcher.finish());
            (out, matcher.stopped())
        };
        // Character by character: stop as soon as the text so far ends in a stop string.
        let slow = (0..=text.len()).find_map(|end| {
            let ending = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(String::len).max();
            ending.map(|length| (text[..end - length].to_owned(), true))
        });
        let slow = slow.unwrap_or((text.clone(), false));
        prop_assert_eq!(run(cut(&text, &places)), slow.clone());
        prop_assert_eq!(run(vec![&text]), slow);
    }

    #[test]
    fn content_of_any_shape_reads(text in text(5)) {
        let parts = json!({"role": "user", "content": [{"type": "text", "text": text}]});
        let message: Message = serde_json::from_value(parts.clone()).unwrap();
        prop_assert_eq!(serde_json::to_value(&message).unwrap(), parts);
        let plain: Message = serde_json::from_value(json!({"role": "user", "content": text})).unwrap();
        prop_assert_eq!(plain.content, Some(Content::Text(text)));
    }
}
