//! A server on a free port that answers everything as Moonshot's platform would, and can be told one thing to get
//! wrong.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::LazyLock;

use k2_chat::{Template, Tokenizer};
use k2_eval::verify::Renderer;
use serde_json::{Value, json};

use crate::smallest::smallest;

pub(crate) const MODEL: &str = "kimi-k2-test";

const TEXT: &str = "The tide rises and falls twice a day, says the moon.";

/// One token per byte.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model/bytes");
        Tokenizer::from_dir(&folder).unwrap()
    });
    &TOKENIZER
}

pub(crate) fn renderer() -> Renderer<'static> {
    Renderer { tokenizer: tokenizer(), template: Template::K2Instruct }
}

/// An answer before it is written.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The body of an answer in one piece, or of an error.
    pub(crate) whole: Value,
    /// The chunks of a stream.
    pub(crate) chunks: Vec<Value>,
    pub(crate) streams: bool,
    /// What is written after the chunks.
    pub(crate) end: &'static str,
    /// What is written before each chunk.
    pub(crate) prefix: &'static str,
    pub(crate) headers: &'static str,
}

/// What a vendor gets wrong: sees the request and changes the reply.
pub(crate) type Fault = fn(&Value, &mut Reply);

/// Nothing.
pub(crate) fn flawless(_: &Value, _: &mut Reply) {}

/// Starts a vendor; the address of its API. It serves until the tests end.
pub(crate) fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            std::thread::spawn(move || serve(connection, fault));
        }
    });
    address
}

fn serve(mut connection: TcpStream, fault: Fault) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    while let Some((path, body)) = request(&mut reader) {
        let mut reply = reply(&path, &body);
        fault(&body, &mut reply);
        connection.write_all(reply.text().as_bytes()).unwrap();
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or_default()))
}

impl Reply {
    fn of(status: u16, whole: Value) -> Reply {
        let chunks = Vec::new();
        Reply { status, whole, chunks, streams: false, end: "data: [DONE]\n\n", prefix: "", headers: "" }
    }

    fn text(&self) -> String {
        let (kind, body) = match self.streams {
            true => {
                let event = |chunk: &Value| format!("{}data: {chunk}\n\n", self.prefix);
                ("text/event-stream", self.chunks.iter().map(event).collect::<String>() + self.end)
            }
            false => ("application/json", self.whole.to_string()),
        };
        let (status, length, headers) = (self.status, body.len(), self.headers);
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    }
}

fn reply(path: &str, body: &Value) -> Reply {
    if path == "/v1/models" {
        return Reply::of(200, json!({ "data": [{ "id": MODEL }] }));
    }
    let refused = |status, message: &str| {
        let error =
            json!({ "message": message, "type": "invalid_request_error", "param": null, "code": null });
        Reply::of(status, json!({ "error": error }))
    };
    if !body.is_object() {
        return refused(400, "no object");
    }
    if body["model"] != MODEL {
        return refused(404, "no such model");
    }
    match (path, wrong(body)) {
        (_, Some(what)) => refused(400, &format!("wrong: {what}")),
        ("/v1/completions", None) => completion(body),
        ("/v1/chat/completions", None) => chat(body),
        _ => refused(404, "no such path"),
    }
}

/// The field that Moonshot would refuse.
fn wrong(body: &Value) -> Option<&'static str> {
    let number =
        |name: &str, taken: fn(f64) -> bool| !body[name].is_null() && !body[name].as_f64().is_some_and(taken);
    let tools = body["tools"].as_array().map_or(0, Vec::len);
    let choice = &body["tool_choice"];
    let declared = |name: &Value| {
        body["tools"].as_array().into_iter().flatten().any(|tool| tool["function"]["name"] == *name)
    };
    let messages = || body["messages"].as_array().into_iter().flatten();
    let format = &body["response_format"];
    let schema = &format["json_schema"];
    let bad_format = match format["type"].as_str() {
        None => !format.is_null(),
        Some("text" | "json_object") => false,
        Some("json_schema") => {
            let strict = schema["strict"].is_null() || schema["strict"].is_boolean();
            !(schema["name"].is_string() && schema["schema"].is_object() && strict)
        }
        Some(_) => true,
    };
    let wrongs = [
        ("temperature", number("temperature", |t| (0.0..=1.0).contains(&t))),
        ("top_p", number("top_p", |p| p == 0.95)),
        ("presence_penalty", number("presence_penalty", |p| p == 0.0)),
        ("frequency_penalty", number("frequency_penalty", |p| p == 0.0)),
        ("n", number("n", |n| n == 1.0)),
        ("tool_choice", choice == "required" && tools == 0),
        (
            "tool_choice",
            choice.is_string() && !["auto", "none", "required"].map(Value::from).contains(choice),
        ),
        ("tool_choice", choice.is_object() && !declared(&choice["function"]["name"])),
        ("messages", messages().any(|message| !message["tools"].is_null())),
        (
            "messages",
            messages().any(|message| message["role"] == "tool" && message["tool_call_id"].is_null()),
        ),
        ("response_format", bad_format),
    ];
    wrongs.into_iter().find(|(_, wrong)| *wrong).map(|(name, _)| name)
}

fn usage(prompt: usize, completion: usize) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

fn completion(body: &Value) -> Reply {
    let prompt = body["prompt"].as_str().unwrap();
    let text = match prompt.ends_with("<|tool_call_argument_begin|>") {
        true => "{\"city\": \"Beijing\"}<|tool_call_end|><|tool_calls_section_end|>",
        false => TEXT,
    };
    let head = |choice: Value| json!({ "id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL, "choices": [choice] });
    let mut whole = head(json!({ "index": 0, "text": text, "finish_reason": "stop" }));
    whole["usage"] = usage(tokenizer().encode(prompt, true).len(), 12);
    let mut chunks: Vec<_> = pieces(text).map(|piece| head(json!({ "index": 0, "text": piece }))).collect();
    let mut last = whole.clone();
    last["choices"][0]["text"] = json!("");
    chunks.push(last);
    Reply { chunks, streams: body["stream"] == true, ..Reply::of(200, whole) }
}

/// A text in several.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', ','])
}

/// The chat answer of a good model to a request that is right.
pub(crate) fn chat(body: &Value) -> Reply {
    let (message, reason) = message(body);
    let prompt = renderer().prompt_tokens(&body["messages"], body.get("tools")).unwrap_or(7);
    let usage = usage(prompt as usize, 12);
    let head = |object: &str, choices: Value| json!({ "id": "chatcmpl-1", "object": object, "created": 1, "model": MODEL, "choices": choices });
    let mut whole =
        head("chat.completion", json!([{ "index": 0, "message": message, "finish_reason": reason }]));
    whole["usage"] = usage.clone();
    let chunk = |delta: Value| {
        head("chat.completion.chunk", json!([{ "index": 0, "delta": delta, "finish_reason": null }]))
    };
    let mut chunks = vec![chunk(json!({ "role": "assistant", "content": "" }))];
    chunks.extend(
        pieces(message["content"].as_str().unwrap_or_default())
            .map(|piece| chunk(json!({ "content": piece }))),
    );
    for (index, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
        let name = &call["function"]["name"];
        let mut begin = |call: Value| chunks.push(chunk(json!({ "tool_calls": [call] })));
        begin(
            json!({ "index": index, "id": call["id"], "type": "function", "function": { "name": name, "arguments": "" } }),
        );
        let arguments = call["function"]["arguments"].as_str().unwrap();
        pieces(arguments)
            .for_each(|piece| begin(json!({ "index": index, "function": { "arguments": piece } })));
    }
    let mut last = chunk(json!({}));
    last["choices"][0]["finish_reason"] = json!(reason);
    last["choices"][0]["usage"] = usage.clone();
    chunks.push(last);
    if body["stream_options"]["include_usage"] == true {
        let mut last = head("chat.completion.chunk", json!([]));
        last["usage"] = usage;
        chunks.push(last);
    }
    Reply { chunks, streams: body["stream"] == true, ..Reply::of(200, whole) }
}

fn message(body: &Value) -> (Value, &'static str) {
    let choice = &body["tool_choice"];
    let asked = body["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .last()
        .map_or("", |last| last["content"].as_str().unwrap_or_default());
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    let named = tools.iter().find(|tool| tool["function"]["name"] == choice["function"]["name"]);
    let calls = choice == "required" || asked.contains("Use the tool");
    let tool = named.or(tools.first().filter(|_| calls));
    if let Some(tool) = tool {
        let (name, schema) = (&tool["function"]["name"], &tool["function"]["parameters"]);
        let arguments = smallest(schema, schema).to_string();
        let id = format!("functions.{}:0", name.as_str().unwrap());
        let call =
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        return (json!({ "role": "assistant", "content": null, "tool_calls": [call] }), "tool_calls");
    }
    let schema = &body["response_format"]["json_schema"]["schema"];
    let content = match body["response_format"]["type"].as_str() {
        Some("json_object") => "{\"city\":\"Beijing\"}".to_owned(),
        Some("json_schema") => smallest(schema, schema).to_string(),
        _ => TEXT.to_owned(),
    };
    (json!({ "role": "assistant", "content": content }), "stop")
}
