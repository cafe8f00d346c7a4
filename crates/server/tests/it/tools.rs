//! Tool choices and response formats with a model of random numbers: whatever it would say, the answer is right.

use k2_server::{Params, ServerOptions};
use serde_json::{Value, json};

use crate::fixtures::{self, Usual, routes};
use crate::metrics::samples;

const PATH: &str = "/v1/chat/completions";

/// Ids of bytes that close something, so that a random answer ends soon.
fn bias() -> Value {
    json!({ "34": 12, "125": 12, "93": 12, "44": -6, "92": -20 })
}

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "get_weather", "strict": true, "parameters": {
            "type": "object",
            "properties": { "unit": { "enum": ["celsius", "kelvin"], "type": "string" }, "city": { "type": "string" } },
            "required": ["city", "unit"],
            "additionalProperties": false,
        } } },
        { "type": "function", "function": { "name": "search", "parameters": {
            "type": "object", "properties": {}, "additionalProperties": false } } },
    ])
}

fn request(changed: Value) -> Value {
    let user = json!([{ "role": "user", "content": "weather?" }]);
    let mut request =
        json!({ "model": "bytes", "messages": user, "max_tokens": 600, "logit_bias": bias(), "seed": 5 });
    for (name, value) in changed.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

async fn choice(server: &Usual, changed: Value) -> Value {
    let answer = server.post(PATH, &request(changed).to_string()).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    serde_json::from_str::<Value>(&answer.text).unwrap()["choices"][0].clone()
}

/// Names and arguments of the calls.
fn calls(choice: &Value) -> Vec<(String, Value)> {
    let calls = choice["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
    let call = |call: &Value| {
        let function = &call["function"];
        let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        (function["name"].as_str().unwrap().to_owned(), arguments)
    };
    calls.iter().map(call).collect()
}

fn check_call((name, arguments): &(String, Value)) {
    match name.as_str() {
        "search" => assert_eq!(arguments, &json!({})),
        "get_weather" => {
            assert!(arguments["city"].is_string(), "{arguments}");
            assert!([json!("celsius"), json!("kelvin")].contains(&arguments["unit"]), "{arguments}");
        }
        _ => panic!("{name} is not declared"),
    }
}

#[tokio::test]
async fn required_and_named_calls_are_made_and_right() {
    let server = Usual::start(None);
    let named = json!({ "type": "function", "function": { "name": "get_weather" } });
    for seed in 0..6 {
        for (tool_choice, parallel) in
            [(json!("required"), true), (json!("required"), false), (named.clone(), true)]
        {
            let changed = json!({ "tools": tools(), "tool_choice": tool_choice, "parallel_tool_calls": parallel, "seed": seed });
            let choice = choice(&server, changed).await;
            assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
            let calls = calls(&choice);
            assert!(!calls.is_empty() && (parallel || calls.len() == 1), "{choice}");
            calls.iter().for_each(check_call);
            assert!(tool_choice == "required" || calls.iter().all(|(name, _)| name == "get_weather"));
        }
    }
}

/// The choices of a stream, put together as OpenAI's clients do.
fn joined(stream: &str) -> Vec<Value> {
    let mut choices: Vec<Value> = Vec::new();
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    for chunk in data.map(|data| serde_json::from_str::<Value>(data).unwrap()) {
        for piece in chunk["choices"].as_array().unwrap() {
            let index = piece["index"].as_u64().unwrap() as usize;
            choices.resize(
                choices.len().max(index + 1),
                json!({ "message": { "content": "", "tool_calls": [] } }),
            );
            let choice = &mut choices[index];
            if !piece["finish_reason"].is_null() {
                choice["finish_reason"] = piece["finish_reason"].clone();
            }
            let text = piece["delta"]["content"].as_str().unwrap_or_default();
            choice["message"]["content"] =
                json!(choice["message"]["content"].as_str().unwrap().to_owned() + text);
            let calls = choice["message"]["tool_calls"].as_array_mut().unwrap();
            for call in piece["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let place = call["index"].as_u64().unwrap() as usize;
                if place == calls.len() {
                    calls.push(
                        json!({ "id": call["id"], "type": call["type"], "function": call["function"] }),
                    );
                } else {
                    let arguments = calls[place]["function"]["arguments"].as_str().unwrap().to_owned();
                    let more = call["function"]["arguments"].as_str().unwrap();
                    calls[place]["function"]["arguments"] = json!(arguments + more);
                }
            }
        }
    }
    choices
}

#[tokio::test]
async fn streamed_choices_have_the_calls_of_whole_ones() {
    let server = Usual::start(None);
    for seed in 0..3 {
        let mut changed = json!({ "tools": tools(), "tool_choice": "required", "n": 3, "seed": seed });
        let whole = server.post(PATH, &request(changed.clone()).to_string()).await;
        let whole: Value = serde_json::from_str(&whole.text).unwrap();
        changed["stream"] = json!(true);
        let streamed = joined(&server.post(PATH, &request(changed).to_string()).await.text);
        assert_eq!(streamed.len(), 3);
        for (streamed, whole) in streamed.iter().zip(whole["choices"].as_array().unwrap()) {
            assert_eq!(streamed["message"]["tool_calls"], whole["message"]["tool_calls"]);
            assert_eq!(streamed["finish_reason"], "tool_calls");
        }
    }
}

/// With the only thread for such work taken, nothing is compiled, and others are served all the same.
#[test]
fn grammars_are_compiled_away_from_the_loop() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let router = routes(ServerOptions::default());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || held.recv().is_err());
        let wanted = request(json!({ "tools": tools(), "tool_choice": "required", "max_tokens": 1 }));
        let asked = fixtures::request(&format!("POST {PATH}"), &[], wanted.to_string());
        let asks = router.clone();
        let asked = tokio::spawn(async move { fixtures::send(&asks, asked).await.status });
        for _ in 0..100 {
            let found = samples(&router).await;
            assert!(found.keys().all(|name| !name.starts_with("k2_grammars_total")), "{found:#?}");
        }
        assert!(!asked.is_finished());
        drop(release);
        assert!(taken.await.unwrap());
        assert_eq!(asked.await.unwrap(), 200);
        assert_eq!(samples(&router).await["k2_grammars_total{outcome=\"compiled\"}"], 1.0);
    });
}

#[tokio::test]
async fn without_calls_there_are_none() {
    let server = Usual::start(None);
    let marker = "<|tool_calls_section_begin|>";
    for changed in [
        json!({ "tools": tools(), "tool_choice": "none" }),
        json!({ "tool_choice": "auto" }),
        json!({ "tool_choice": "none" }),
    ] {
        let choice = choice(&server, changed.clone()).await;
        assert!(choice["message"]["tool_calls"].is_null(), "{changed} {choice}");
        assert!(!choice["message"]["content"].as_str().unwrap().contains(marker));
    }
}

#[tokio::test]
async fn formats_are_kept() {
    let server = Usual::start(None);
    let schema = json!({ "type": "object", "properties": { "b": { "type": "boolean" }, "a": { "type": "string" } },
        "required": ["b", "a"], "additionalProperties": false });
    for seed in 0..4 {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let choice = choice(&server, json!({ "response_format": format, "seed": seed })).await;
        let content = choice["message"]["content"].as_str().unwrap();
        let found: Value = serde_json::from_str(content).unwrap();
        assert!(
            content.starts_with("{\"b\"") && found["b"].is_boolean() && found["a"].is_string(),
            "{content}"
        );
        assert!(!content.contains(['\n', '\t']), "{content}");
        assert_eq!(choice["finish_reason"], "stop");
    }
    let any = choice(&server, json!({ "response_format": { "type": "json_object" } })).await;
    assert!(serde_json::from_str::<Value>(any["message"]["content"].as_str().unwrap()).unwrap().is_object());
}

/// Look-around is beyond what can be enforced.
const LOOK_AROUND: &str = r"^(?!\.)(?!.*\.\.)[a-z.]+@[a-z.]+$";

fn tool_of_pattern(pattern: &str, strict: bool) -> Value {
    let parameters = json!({
        "type": "object", "properties": { "a": { "type": "string", "pattern": pattern } },
        "required": ["a"], "additionalProperties": false,
    });
    json!({ "type": "function", "function": { "name": "x", "strict": strict, "parameters": parameters } })
}

#[tokio::test]
async fn patterns_are_kept_where_they_can_be() {
    let server = Usual::start(None);
    let check = async |pattern: &str, strict: bool, kept: bool| {
        for seed in 0..3 {
            let tools = json!([tool_of_pattern(pattern, strict)]);
            let changed = json!({ "tools": tools, "tool_choice": "required", "seed": seed });
            let calls = calls(&choice(&server, changed).await);
            assert!(!calls.is_empty());
            for (_, arguments) in calls {
                let found = arguments["a"].as_str().unwrap_or_else(|| panic!("{arguments}"));
                assert!(!kept || found == "k2", "{pattern} {strict}: {arguments}");
                assert_eq!(arguments.as_object().unwrap().len(), 1, "{arguments}");
            }
        }
    };
    check("^k2$", true, true).await;
    check("^k2$", false, true).await;
    check(LOOK_AROUND, false, false).await;
}

/// The answer is a refusal that blames `param`.
async fn refused(server: &Usual, changed: Value, param: &str, message: &str) {
    let answer = server.post(PATH, &request(changed.clone()).to_string()).await;
    assert_eq!(answer.status.as_u16(), 400, "{changed}: {}", answer.text);
    let error = serde_json::from_str::<Value>(&answer.text).unwrap()["error"].clone();
    assert_eq!(error["param"], param, "{changed}: {error}");
    assert!(error["message"].as_str().unwrap().contains(message), "{changed}: {error}");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = Usual::start(None);
    let none = "but `tools` declares none";
    refused(&server, json!({ "tool_choice": "required" }), "tool_choice", none).await;
    refused(&server, json!({ "tool_choice": "required", "tools": [] }), "tool_choice", none).await;
    let expected = "expected \"auto\", \"none\", \"required\" or";
    refused(&server, json!({ "tool_choice": "bogus", "tools": tools() }), "tool_choice", expected).await;
    refused(&server, json!({ "tool_choice": { "type": "any" }, "tools": tools() }), "tool_choice", expected)
        .await;
    let other = json!({ "type": "function", "function": { "name": "delete" } });
    refused(&server, json!({ "tool_choice": other, "tools": tools() }), "tool_choice", "does not declare")
        .await;
    let with = |parameters: Value, strict: bool| {
        let function = json!({ "name": "x", "parameters": parameters, "strict": strict });
        json!({ "tools": [{ "type": "function", "function": function }] })
    };
    let not = json!({ "type": "object", "properties": { "a": { "not": {} } } });
    let at = "tools[0].function.parameters";
    refused(&server, with(not.clone(), true), at, "(tool \"x\"): the schema is not of Moonshot's").await;
    refused(&server, with(json!([]), false), at, "a schema must be an object").await;
    let strict = json!({ "tools": [tool_of_pattern(LOOK_AROUND, true)] });
    refused(&server, strict, at, "(tool \"x\"): the schema cannot be made a grammar").await;
    let strict = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": not } });
    let at = "response_format.json_schema.schema";
    refused(&server, json!({ "response_format": strict }), at, "at /properties/a: `not` is not").await;
    refused(
        &server,
        json!({ "response_format": { "type": "bogus" } }),
        "response_format.type",
        "must be text",
    )
    .await;
    let partial =
        json!([{ "role": "user", "content": "?" }, { "role": "assistant", "content": "{", "partial": true }]);
    let json_object = json!({ "type": "json_object" });
    refused(
        &server,
        json!({ "messages": partial, "response_format": json_object }),
        "messages",
        "`partial: true`",
    )
    .await;
    let declared = json!([{ "role": "system", "content": "", "tools": [] }]);
    refused(&server, json!({ "messages": declared }), "messages[0]", "use the field `tools`").await;
    for (part, message) in [
        (
            json!({ "type": "image_url", "image_url": { "url": "https://k2.example" } }),
            "images are not supported",
        ),
        (json!({ "type": "input_audio", "input_audio": {} }), "of type \"input_audio\" is not supported"),
        (json!({ "type": "file", "file": {} }), "of type \"file\" is not supported"),
        (json!({ "type": "note", "text": "a" }), "of type \"note\" is not supported"),
        (json!({ "type": "text" }), "has no text"),
        (json!({}), "has no text"),
    ] {
        let said = json!([{ "role": "user", "content": [{ "type": "text", "text": "a" }, part] }]);
        refused(&server, json!({ "messages": said }), "messages[0]", message).await;
    }
    let nameless = json!([{ "role": "tool", "content": "" }]);
    refused(&server, json!({ "messages": nameless }), "messages[0]", "needs `tool_call_id`").await;
}

#[tokio::test]
async fn parameters_as_on_moonshots_platform() {
    let (open, kimi) = (Usual::start(None), Usual::with(|served| served.params = Params::Kimi));
    let check = async |changed: Value, in_open: bool, in_kimi: bool| {
        for (server, taken) in [(&open, in_open), (&kimi, in_kimi)] {
            let mut request = request(changed.clone());
            request["max_tokens"] = json!(1);
            let answer = server.post(PATH, &request.to_string()).await;
            assert_eq!(answer.status.as_u16(), if taken { 200 } else { 400 }, "{changed}: {}", answer.text);
        }
    };
    for temperature in [0.0, 0.6, 1.0] {
        check(json!({ "temperature": temperature }), true, true).await;
    }
    check(json!({ "temperature": 1.1 }), true, false).await;
    check(json!({ "temperature": -0.1 }), false, false).await;
    for (name, fixed, other) in
        [("top_p", 0.95, 0.8), ("presence_penalty", 0.0, 0.5), ("frequency_penalty", 0.0, 0.5)]
    {
        check(json!({ name: fixed }), true, true).await;
        check(json!({ name: other }), true, false).await;
    }
    check(json!({ "n": 1 }), true, true).await;
    check(json!({ "n": 2 }), true, false).await;
    for thinking in ["enabled", "disabled"] {
        check(json!({ "thinking": { "type": thinking } }), true, true).await;
        check(json!({ "chat_template_kwargs": { "thinking": thinking == "enabled" } }), true, true).await;
    }
    check(json!({ "thinking": { "type": "maybe" } }), false, false).await;
    // As kimi-cli and others say how much, which is no choice here.
    check(json!({ "thinking": { "type": "enabled", "effort": "high", "keep": "all" } }), true, true).await;
    check(json!({ "reasoning_effort": "high", "verbosity": "low" }), true, true).await;
    let kwargs = json!({ "enable_thinking": true, "preserve_thinking": true });
    check(json!({ "chat_template_kwargs": kwargs }), true, true).await;
}
