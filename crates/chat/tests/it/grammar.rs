//! What a grammar lets come: answers as text, token by token, and walks that take any allowed token.

use k2_chat::grammar::{Calls, ContentForm, GrammarCompiler, Reasoning, Wanted, may_come};
use k2_chat::tool_calls::parse_tokens;
use k2_chat::{EndReason, FinishReason, GrammarError, Json, ParserOptions, Tokenizer, Tool};
use serde_json::{Value, json};

use crate::fixtures::walle;
use crate::small;

const BEGIN: &str = "<|tool_calls_section_begin|>";
const END: &str = "<|tool_calls_section_end|>";

/// A pattern that the library has no words for; zod writes such a one for addresses of mail.
const LOOK_AROUND: &str = r"^(?!\.)(?!.*\.\.)[a-z.]+@[a-z.]+$";

fn stop_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    tokenizer.stop_ids(&[])
}

fn compiler() -> GrammarCompiler {
    GrammarCompiler::new(small::tokenizer(), &stop_ids(small::tokenizer())).unwrap()
}

fn tools(tools: Value) -> Vec<Tool> {
    serde_json::from_str(&tools.to_string()).unwrap()
}

fn weather_and_search() -> Vec<Tool> {
    tools(json!([
        { "type": "function", "function": { "name": "get_weather", "parameters": {
            "type": "object",
            "properties": { "unit": { "enum": ["celsius", "kelvin"], "type": "string" }, "city": { "type": "string" } },
            "required": ["city"],
            "additionalProperties": false,
        } } },
        { "type": "function", "function": { "name": "search" } },
    ]))
}

fn call(id: &str, arguments: &str) -> String {
    format!("<|tool_call_begin|>{id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>")
}

/// How far an answer comes: all of it and its end (`Ok`), or the text before the first thing that may not come.
fn follow(wanted: Wanted<'_>, answer: &str) -> Result<(), String> {
    let tokenizer = small::tokenizer();
    let mut progress = compiler().compile(wanted).unwrap().unwrap().start();
    let ids = tokenizer.encode(answer, true);
    for (at, id) in ids.iter().enumerate() {
        if !may_come(progress.allowed().unwrap(), *id) {
            return Err(tokenizer.decode(&ids[..at]).unwrap());
        }
        progress.accept(*id).unwrap();
    }
    let words = progress.allowed().unwrap();
    let ends: Vec<bool> = stop_ids(tokenizer).iter().map(|id| may_come(words, *id)).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "all stop ids or none: {ends:?}");
    if ends[0] { Ok(()) } else { Err(answer.to_owned()) }
}

#[test]
fn calls() {
    let tools = weather_and_search();
    let wanted = |content, parallel| Wanted {
        calls: Some(Calls { tools: &tools, only: None, parallel, sorted: true }),
        content,
        reasoning: Reasoning::Never,
    };
    let check = |parallel: bool, answer: &str, auto: Result<(), &str>, required: Result<(), &str>| {
        for (content, expected) in [(ContentForm::Free, auto), (ContentForm::Nothing, required)] {
            let found = follow(wanted(content, parallel), answer);
            assert_eq!(found.as_ref().map(|_| ()).map_err(String::as_str), expected, "{content:?} {answer}");
        }
    };
    let beijing = call("functions.get_weather:0", r#"{"city": "Beijing"}"#);
    let both = beijing.clone() + &call("functions.search:12", "{}");
    let good = format!("{BEGIN}{beijing}{END}");
    check(true, "Hello <|tool_call spelled", Ok(()), Err(""));
    check(true, &good, Ok(()), Ok(()));
    check(true, &format!("Let me see.{good}"), Ok(()), Err(""));
    check(true, &format!("{BEGIN}{both}{END}"), Ok(()), Ok(()));
    check(false, &good, Ok(()), Ok(()));
    let one = format!("{BEGIN}{beijing}");
    check(false, &format!("{BEGIN}{both}{END}"), Err(&one), Err(&one));
    check(true, &beijing, Ok(()), Err("")); // without a section
    check(true, &one, Err(&one), Err(&one));
    check(true, &format!("{good} More."), Err(&good), Err(&good));
    check(true, &format!("{BEGIN}{END}"), Err(BEGIN), Err(BEGIN));
    check(true, END, Err(""), Err(""));
    check(true, "text<|tool_call_end|>", Err("text"), Err(""));
    // Names, counters, arguments.
    let open = format!("{BEGIN}<|tool_call_begin|>functions.");
    let stop_at = |id: &str, arguments: &str, before: &str| {
        let answer = format!("{BEGIN}{}{END}", call(id, arguments));
        let found = follow(wanted(ContentForm::Nothing, true), &answer).unwrap_err();
        // How far a blank or a piece of a name is part of the wrong token is the tokenizer's matter.
        let expected = format!("{open}{before}");
        assert!(open.starts_with(&found) || found.trim_end() == expected, "{answer}: {found}");
    };
    let argument = "get_weather:0<|tool_call_argument_begin|>";
    stop_at("functions.delete:0", "{}", "");
    stop_at("get_weather:0", "{}", "");
    stop_at("functions.get_weather:x", "{}", "get_weather:");
    stop_at("functions.get_weather:0", "[]", argument);
    stop_at("functions.get_weather:0", "{}", &format!("{argument}{{"));
    stop_at("functions.get_weather:0", r#"{"city": 1}"#, &format!(r#"{argument}{{"city":"#));
    stop_at(
        "functions.get_weather:0",
        r#"{"city": "a", "unit": "rankine"}"#,
        &format!(r#"{argument}{{"city": "a", "unit": ""#),
    );
    stop_at("functions.get_weather:0", "{\"city\":\n\"a\"}", &format!(r#"{argument}{{"city":"#));
    // The one that is named.
    for (only, expected) in [(Some(0), true), (Some(1), false)] {
        let calls = Some(Calls { tools: &tools, only, parallel: true, sorted: true });
        assert_eq!(follow(Wanted { calls, ..wanted(ContentForm::Nothing, true) }, &good).is_ok(), expected);
    }
    // The order is that of the sorted schema, which the model reads.
    for (answer, sorted, unsorted) in
        [(r#"{"city":"a","unit":"kelvin"}"#, true, false), (r#"{"unit":"kelvin","city":"a"}"#, false, true)]
    {
        for (order, expected) in [(true, sorted), (false, unsorted)] {
            let wanted = Wanted {
                calls: Some(Calls { tools: &tools, only: None, parallel: true, sorted: order }),
                ..wanted(ContentForm::Nothing, true)
            };
            let answer = format!("{BEGIN}{}{END}", call("functions.get_weather:0", answer));
            assert_eq!(follow(wanted, &answer).is_ok(), expected, "{order} {answer}");
        }
    }
}

#[test]
fn arguments_are_objects_where_the_schema_does_not_say_so() {
    for parameters in
        [json!({}), json!({ "properties": { "city": { "type": "string" } }, "required": ["city"] })]
    {
        let tools =
            tools(json!([{ "type": "function", "function": { "name": "f", "parameters": parameters } }]));
        let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
        for (arguments, expected) in
            [(r#"{"city": "a"}"#, true), ("null", false), ("5", false), (r#""x""#, false)]
        {
            let answer = format!("{BEGIN}{}{END}", call("functions.f:0", arguments));
            assert_eq!(follow(wanted, &answer).is_ok(), expected, "{parameters} {arguments}");
        }
    }
}

#[test]
fn undeclared_arguments_need_a_schema_that_speaks_of_them() {
    let declared = json!({ "city": { "type": "string" } });
    for (parameters, expected) in [
        (json!({ "type": "object", "properties": declared }), false),
        (json!({ "type": "object", "properties": declared, "additionalProperties": true }), true),
        (json!({ "type": "object" }), true),
        (json!({ "type": "object", "properties": declared, "required": ["city", "town"] }), true),
        (json!({ "type": "object", "properties": declared, "allOf": [{ "required": ["town"] }] }), true),
    ] {
        let tools =
            tools(json!([{ "type": "function", "function": { "name": "f", "parameters": parameters } }]));
        let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
        let answer = format!("{BEGIN}{}{END}", call("functions.f:0", r#"{"city": "a", "town": "a"}"#));
        assert_eq!(follow(wanted, &answer).is_ok(), expected, "{parameters}");
    }
}

#[test]
fn content_and_reasoning() {
    let schema: Json = serde_json::from_value::<Value>(json!({
        "type": "object",
        "properties": { "b": { "type": "integer" }, "a": { "type": "boolean" } },
        "required": ["a", "b"],
        "additionalProperties": false,
        "$id": "https://example.com/odd#%",
    }))
    .unwrap()
    .into();
    let tools = weather_and_search();
    let check = |reasoning, with_tools: bool, answer: &str, expected: bool| {
        let calls = with_tools.then_some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let wanted =
            Wanted { calls, content: ContentForm::Json { schema: &schema, strict: true }, reasoning };
        assert_eq!(follow(wanted, answer).is_ok(), expected, "{reasoning:?} {answer}");
    };
    let (json, calls) =
        (r#"{"b":-12,"a":true}"#, format!("{BEGIN}{}{END}", call("functions.search:0", "{}")));
    check(Reasoning::Never, false, json, true);
    check(Reasoning::Never, false, r#"{"b": -12, "a": true}"#, true);
    check(Reasoning::Never, false, r#"{"a":true,"b":-12}"#, false);
    check(Reasoning::Never, false, "{\"b\":-12,\n\"a\":true}", false);
    check(Reasoning::Never, false, r#"{"b":-12,"a":true,"c":1}"#, false);
    check(Reasoning::Never, false, &format!(" {json}"), false);
    check(Reasoning::Never, false, &format!("{json} "), false);
    check(Reasoning::Never, false, &calls, false);
    check(Reasoning::Never, true, &calls, true);
    check(Reasoning::Never, true, json, true);
    check(Reasoning::Never, true, &format!("{calls}{json}"), false);
    let thoughts = "the user asks \u{5317}";
    check(Reasoning::Never, false, &format!("<think>{thoughts}</think>{json}"), false);
    check(Reasoning::MayOpen, false, &format!("<think>{thoughts}</think>{json}"), true);
    check(Reasoning::MayOpen, false, json, true);
    check(Reasoning::MayOpen, false, &format!("<think>{thoughts}"), false);
    check(Reasoning::MayOpen, false, &format!("{thoughts}<think></think>{json}"), false);
    check(Reasoning::Opened, false, &format!("{thoughts}</think>{json}"), true);
    check(Reasoning::Opened, false, json, false); // still thinking
    check(Reasoning::Opened, true, &format!("{thoughts}{calls}"), true); // a call closes it
    check(Reasoning::Opened, false, &format!("{thoughts}{calls}"), false);
    let free = Wanted { calls: None, content: ContentForm::Free, reasoning: Reasoning::Never };
    assert!(compiler().compile(free).unwrap().is_none());
}

/// Takes any allowed token, again and again; towards the end of `most` those that close something.
fn walk(
    tokenizer: &Tokenizer,
    compiler: &GrammarCompiler,
    wanted: Wanted<'_>,
    mut seed: u64,
    most: usize,
) -> Option<Vec<u32>> {
    let mut progress = compiler.compile(wanted).unwrap().unwrap().start();
    let stops = stop_ids(tokenizer);
    let mut ids = Vec::new();
    while ids.len() < most {
        let words = progress.allowed().unwrap();
        let allowed: Vec<u32> = (0..tokenizer.n_vocab()).filter(|id| may_come(words, *id)).collect();
        assert!(!allowed.is_empty(), "nothing may come after {:?}", tokenizer.decode(&ids));
        if stops.iter().any(|id| allowed.contains(id)) {
            return Some(ids);
        }
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let closing =
            |id: &&u32| matches!(tokenizer.token_bytes(**id).unwrap(), b"\"" | b"}" | b"]" | b"," | b"\",");
        let close = (seed >> 60) > 8 || ids.len() > most / 4;
        let closers: Vec<u32> = allowed.iter().filter(closing).copied().collect();
        let from = if close && !closers.is_empty() { &closers } else { &allowed };
        let id = from[(seed >> 33) as usize % from.len()];
        ids.push(id);
        progress.accept(id).unwrap();
    }
    None
}

#[test]
fn whatever_is_allowed_is_a_call_that_is_parsed() {
    let (tokenizer, compiler, tools) = (small::tokenizer(), compiler(), weather_and_search());
    let mut finished = 0;
    for seed in 0..60 {
        let calls = Some(Calls { tools: &tools, only: None, parallel: seed % 2 == 0, sorted: true });
        let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
        let Some(ids) = walk(tokenizer, &compiler, wanted, seed, 3000) else { continue };
        finished += 1;
        let reply =
            parse_tokens(ParserOptions::with_tools(&tools), tokenizer, &ids, EndReason::EndOfTurn).unwrap();
        assert_eq!(reply.finish_reason, FinishReason::ToolCalls);
        assert!(seed % 2 == 0 || reply.tool_calls.len() == 1);
        for call in &reply.tool_calls {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            let city = arguments["city"].is_string()
                && ["celsius", "kelvin"].contains(&arguments["unit"].as_str().unwrap_or("kelvin"));
            let fits = if call.name == "search" { arguments == json!({}) } else { city };
            assert!(fits, "{call:?}");
        }
    }
    assert!(finished > 20, "{finished}");
}

/// Every schema that Moonshot's validator accepts, as a strict tool, with any tokenizer that is at hand.
#[test]
fn every_valid_walle_schema_compiles() {
    for tokenizer in small::tokenizers() {
        let compiler = GrammarCompiler::new(tokenizer, &stop_ids(tokenizer)).unwrap();
        let mut refused = Vec::new();
        for case in walle().filter(|case| case.valid) {
            let parameters = json!({ "type": "object", "properties": { "value": serde_json::from_str::<Value>(&case.schema).unwrap() } });
            let parameters = match parameters["properties"]["value"]["$defs"].is_null() {
                true => parameters,
                false => serde_json::from_str(&case.schema).unwrap(),
            };
            let tools = tools(
                json!([{ "type": "function", "function": { "name": "case", "parameters": parameters } }]),
            );
            let calls = Some(Calls { tools: &tools, only: None, parallel: false, sorted: true });
            let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
            if let Err(error) = compiler.compile(wanted) {
                refused.push(format!("{error} {}", case.schema));
            }
        }
        // A string of 10^12 letters is beyond everybody.
        assert!(refused.iter().all(|case| case.contains("999999999999")), "{refused:#?}");
    }
}

/// A schema whose property is the first of so many definitions, each of which is a link to the next.
fn chain(links: usize, link: impl Fn(Value) -> Value) -> Value {
    let next = |place: usize| json!({ "$ref": format!("#/$defs/{}", place + 1) });
    let definitions = (0..links).map(|place| (place.to_string(), link(next(place))));
    let last = (links.to_string(), json!({ "type": "string" }));
    let definitions: serde_json::Map<String, Value> = definitions.chain([last]).collect();
    json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/0" } }, "$defs": definitions })
}

/// Chains of references of a few bytes a link, by every way from a schema to another, in threads of the usual stack.
#[test]
fn chains_are_followed_as_long_as_they_may_be() {
    let (compiler, free) = (compiler(), json!({ "type": "null" }));
    let compile = |schema: Value| {
        let tools = tools(
            json!([{ "type": "function", "function": { "name": "deep", "parameters": schema.clone() } }]),
        );
        let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let called = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
        let content = ContentForm::Json { schema: &schema.into(), strict: false };
        let said = Wanted { calls: None, content, reasoning: Reasoning::Never };
        [called, said].map(|wanted| compiler.compile(wanted).map(|grammar| assert!(grammar.is_some())))
    };
    let check = |most: usize, link: &dyn Fn(Value) -> Value| {
        for result in compile(chain(most, link)) {
            result.unwrap();
        }
        let [in_tool, in_format] = compile(chain(most + 1, link)).map(Result::unwrap_err);
        let says = "the schema is too much to make a grammar of: it is nested ";
        for (error, param, name) in [
            (in_tool, "tools[0].function.parameters", " (tool \"deep\")"),
            (in_format, "response_format.json_schema.schema", ""),
        ] {
            assert!(error.to_string().starts_with(&format!("{param}{name}: {says}")), "{error}");
            assert_eq!(error.param(), Some(param));
        }
    };
    check(998, &|next| next);
    check(664, &|next| json!({ "type": "object", "properties": { "a": next } }));
    check(664, &|next| json!({ "properties": { "a": next } }));
    check(798, &|next| json!({ "additionalProperties": next }));
    check(798, &|next| json!({ "type": "array", "items": next }));
    check(664, &|next| json!({ "prefixItems": [next] }));
    check(664, &|next| json!({ "allOf": [next] }));
    check(664, &|next| json!({ "anyOf": [next, free] }));
    check(664, &|next| json!({ "oneOf": [next, free] }));
}

/// The same tools, strict or not: what became of one request says nothing of the other.
#[test]
fn strict_or_not_is_no_matter_of_who_came_first() {
    let parameters =
        json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": LOOK_AROUND } } });
    let compile = |compiler: &GrammarCompiler, strict: bool| {
        let function = json!({ "name": "x", "parameters": parameters, "strict": strict });
        let tools = tools(json!([{ "type": "function", "function": function }]));
        let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let wanted = Wanted { calls, content: ContentForm::Free, reasoning: Reasoning::Never };
        compiler.compile(wanted).map(|grammar| grammar.unwrap().leaves_out_patterns())
    };
    for order in [[false, true, false], [true, false, true]] {
        let compiler = compiler();
        for strict in order {
            match compile(&compiler, strict) {
                Ok(left_out) => assert!(!strict && left_out, "{order:?}"),
                Err(GrammarError::Schema { .. }) => assert!(strict, "{order:?}"),
                Err(error) => panic!("{order:?}: {error}"),
            }
        }
    }
}

#[test]
fn errors() {
    let tokenizer = small::tokenizer();
    let error = |tool_list: Value| {
        let tools = tools(tool_list);
        let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let wanted = Wanted { calls, content: ContentForm::Free, reasoning: Reasoning::Never };
        compiler().compile(wanted).unwrap_err()
    };
    let check = |parameters: Value, strict: Value, expected: &str, param: &str| {
        let good = json!({ "type": "function", "function": { "name": "good" } });
        let function = json!({ "name": "bad", "parameters": parameters, "strict": strict });
        let error = error(json!([good, { "type": "function", "function": function }]));
        let message = error.to_string();
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(error.param(), Some(param));
    };
    let of_parameters = "tools[1].function.parameters";
    check(
        json!([]),
        json!(null),
        "tools[1].function.parameters (tool \"bad\"): a schema must be an object",
        of_parameters,
    );
    check(
        json!({}),
        json!(1),
        "tools[1].function.strict (tool \"bad\"): `strict` must be true or false",
        "tools[1].function.strict",
    );
    let not = json!({ "type": "object", "properties": { "a": { "not": {} } } });
    check(
        not.clone(),
        json!(true),
        "tools[1].function.parameters (tool \"bad\"): the schema is not of Moonshot's JSON schema (MFJS), which `strict` asks for: \
         at /properties/a: `not` is not a supported keyword",
        of_parameters,
    );
    check(
        json!({ "type": "object", "properties": { "a": { "$ref": "#/nowhere" } } }),
        json!(false),
        "tools[1].function.parameters (tool \"bad\"): the schema cannot be made a grammar: ",
        of_parameters,
    );
    let of_pattern = |pattern: &str| json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": pattern } } });
    check(
        of_pattern(LOOK_AROUND),
        json!(true),
        "tools[1].function.parameters (tool \"bad\"): the schema cannot be made a grammar: ",
        of_parameters,
    );
    let large = json!({ "type": "object", "description": "x".repeat(2 << 20) });
    check(large, json!(false), "tools[1].function.parameters: the schemas have 2097", of_parameters);
    // Keywords and patterns that the library does not know are no reason to refuse a schema that is not strict.
    let compiler = compiler();
    for (parameters, left_out) in
        [(not, false), (of_pattern("^[a-z]+$"), false), (of_pattern(LOOK_AROUND), true)]
    {
        let tools =
            tools(json!([{ "type": "function", "function": { "name": "lax", "parameters": parameters } }]));
        let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
        let wanted = Wanted { calls, content: ContentForm::Free, reasoning: Reasoning::Never };
        for cached in [false, true] {
            let grammar = compiler.compile(wanted).unwrap().unwrap();
            let found = (grammar.was_cached(), grammar.leaves_out_patterns());
            assert_eq!(found, (cached, left_out), "{parameters}");
        }
    }
    assert!(matches!(
        GrammarCompiler::new(tokenizer, &[]).err().unwrap(),
        GrammarError::Vocabulary { stop_ids: 0, .. }
    ));
    assert!(matches!(
        GrammarCompiler::new(tokenizer, &[99_999]).err().unwrap(),
        GrammarError::Vocabulary { .. }
    ));
}
