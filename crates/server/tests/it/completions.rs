//! Raw completions: prompts in all forms, several answers, and the probabilities that benchmarks read.

use serde_json::{Value, json};

use crate::fixtures::Usual;

async fn ask(server: &Usual, changed: Value) -> Value {
    let mut body = json!({ "model": "bytes", "prompt": "tide", "max_tokens": 6, "temperature": 0 });
    for (name, value) in changed.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = server.post("/v1/completions", &body.to_string()).await;
    assert_eq!(answer.status.as_u16(), 200, "{changed}: {}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

fn texts(completion: &Value) -> Vec<&str> {
    completion["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn prompts_come_in_four_forms() {
    let server = Usual::start(None);
    let (tide, sea) = (ask(&server, json!({})).await, ask(&server, json!({ "prompt": "sea" })).await);
    let both = [texts(&tide)[0], texts(&sea)[0]];
    let ids = [[116, 105, 100, 101].as_slice(), &[115, 101, 97]];
    for (prompt, expected) in [
        (json!(["tide"]), &both[..1]),
        (json!(ids[0]), &both[..1]),
        (json!(["tide", "sea"]), &both),
        (json!(ids), &both),
    ] {
        let completion = ask(&server, json!({ "prompt": prompt })).await;
        assert_eq!(texts(&completion), expected, "{prompt}");
        let indices =
            completion["choices"].as_array().unwrap().iter().map(|choice| choice["index"].as_u64().unwrap());
        assert!(indices.eq(0..expected.len() as u64));
    }
}

#[tokio::test]
async fn several_answers_are_those_that_would_come_alone_in_a_stream_too() {
    let server = Usual::start(None);
    let warm = json!({ "n": 3, "prompt": ["tide", "sea"], "temperature": 1, "seed": 4 });
    let several = ask(&server, warm.clone()).await;
    let alone = ask(&server, json!({ "temperature": 1, "seed": 4 })).await;
    assert_eq!((texts(&several).len(), texts(&several)[0]), (6, texts(&alone)[0]));
    let mut body = warm;
    for (name, value) in [("model", json!("bytes")), ("max_tokens", json!(6)), ("stream", json!(true))] {
        body[name] = value;
    }
    let streamed = server.post("/v1/completions", &body.to_string()).await;
    let mut joined = vec![String::new(); 6];
    for line in streamed.text.lines().filter_map(|line| line.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
        let choice = &chunk["choices"][0];
        joined[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
    }
    assert_eq!(joined, texts(&several));
    assert_eq!(streamed.text.matches("[DONE]").count(), 1);
}

#[tokio::test]
async fn an_echo_has_the_probabilities_of_the_prompt() {
    let server = Usual::start(None);
    let asked = json!({ "prompt": "tide of", "max_tokens": 4, "logprobs": 2, "echo": true });
    let echoed = ask(&server, asked).await;
    let text = texts(&echoed)[0];
    assert!(text.starts_with("tide of") && text.len() > "tide of".len(), "{text:?}");
    let logprobs = &echoed["choices"][0]["logprobs"];
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    let (tokens, offsets) = (list("tokens"), list("text_offset"));
    assert_eq!(tokens[..7], ["t", "i", "d", "e", " ", "o", "f"]);
    assert_eq!(offsets[..7], [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((&list("token_logprobs")[0], &list("top_logprobs")[0]), (&Value::Null, &Value::Null));
    for (place, token) in tokens.iter().enumerate().skip(1) {
        let (logprob, top) = (&list("token_logprobs")[place], &list("top_logprobs")[place]);
        assert!(
            logprob.as_f64().unwrap() < 0.0 && (2..=3).contains(&top.as_object().unwrap().len()),
            "{top}"
        );
        assert_eq!(&top[token.as_str().unwrap()], logprob);
    }
    // The answer's own tokens are as likely without the echo, and read back they are as likely as when chosen.
    let plain = ask(&server, json!({ "prompt": "tide of", "max_tokens": 4, "logprobs": 2 })).await;
    assert_eq!(plain["choices"][0]["logprobs"]["token_logprobs"], json!(list("token_logprobs")[7..]));
    let only =
        ask(&server, json!({ "prompt": "tide of", "max_tokens": 0, "logprobs": 2, "echo": true })).await;
    assert_eq!(only["choices"][0]["logprobs"]["token_logprobs"], json!(list("token_logprobs")[..7]));
    assert_eq!((texts(&only)[0], &only["usage"]["completion_tokens"]), ("tide of", &json!(0)));
}
