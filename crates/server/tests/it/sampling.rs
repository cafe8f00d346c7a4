//! The fields of the sampler: each does what it says, and each has its range.

use serde_json::{Value, json};

use crate::fixtures::Usual;

async fn ask(server: &Usual, changed: Value) -> (u16, Value) {
    let user = json!([{ "role": "user", "content": "b" }]);
    let mut request = json!({ "model": "bytes", "messages": user, "max_tokens": 8, "temperature": 0 });
    for (name, value) in changed.as_object().unwrap() {
        request[name] = value.clone();
    }
    let answer = server.post("/v1/chat/completions", &request.to_string()).await;
    (answer.status.as_u16(), serde_json::from_str(&answer.text).unwrap())
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[tokio::test]
async fn every_field_changes_the_answer() {
    let server = Usual::start(None);
    let (_, plain) = ask(&server, json!({})).await;
    let (_, biased) = ask(&server, json!({ "logit_bias": { "65": 100 } })).await;
    assert_eq!(content(&biased), "AAAAAAAA");
    assert_ne!(content(&plain), content(&biased));
    let (_, varied) =
        ask(&server, json!({ "logit_bias": { "65": 20, "66": 19 }, "presence_penalty": 2 })).await;
    assert!(content(&varied).starts_with("AB"), "{varied}");
    let often = |answer: &Value, letter| content(answer).matches(letter).count();
    let (_, counted) =
        ask(&server, json!({ "logit_bias": { "65": 20, "66": 19 }, "frequency_penalty": 2 })).await;
    assert!(often(&counted, "A") + often(&counted, "B") == 8, "{counted}");
    assert!((2..=6).contains(&often(&counted, "A")), "{counted}");
    let (_, top) = ask(&server, json!({ "temperature": 2, "top_k": 1, "logit_bias": { "65": 100 } })).await;
    assert_eq!(content(&top), "AAAAAAAA");
    let (_, stopped) = ask(&server, json!({ "logit_bias": { "65": 100 }, "stop_token_ids": [65] })).await;
    assert_eq!((content(&stopped), &stopped["choices"][0]["finish_reason"]), ("", &json!("stop")));
    let stop = json!({ "logit_bias": { "65": 80, "66": 40 }, "stop_token_ids": [65], "min_tokens": 3 });
    assert_eq!(content(&ask(&server, stop).await.1), "BBB");
    let end = json!({ "logit_bias": { "258": 100 } });
    let (_, ended) = ask(&server, end).await;
    assert_eq!(ended["usage"]["completion_tokens"], 1);
    let (_, ignored) = ask(&server, json!({ "logit_bias": { "258": 100 }, "ignore_eos": true })).await;
    assert_eq!(ignored["usage"]["completion_tokens"], 8);
}

#[tokio::test]
async fn several_answers_begin_with_the_one_that_comes_alone() {
    let server = Usual::start(None);
    let sampled = json!({ "temperature": 1, "seed": 3 });
    let (_, alone) = ask(&server, sampled.clone()).await;
    let mut several = sampled;
    several["n"] = json!(3);
    let (_, several) = ask(&server, several).await;
    let choices = several["choices"].as_array().unwrap();
    let contents: Vec<&Value> = choices.iter().map(|choice| &choice["message"]["content"]).collect();
    assert_eq!(contents[0], content(&alone));
    assert!(
        contents[0] != contents[1] && contents[1] != contents[2] && contents[0] != contents[2],
        "{contents:?}"
    );
    assert_eq!(choices[2]["index"], 2);
    let tokens = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(tokens(&several) > tokens(&alone) && tokens(&several) <= 24, "{several}");
    assert_eq!(several["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn log_probabilities_come_with_the_tokens() {
    let server = Usual::start(None);
    assert!(ask(&server, json!({})).await.1["choices"][0]["logprobs"].is_null());
    let (_, answer) = ask(&server, json!({ "logprobs": true, "top_logprobs": 2 })).await;
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 8);
    for token in tokens {
        // Ids that are never chosen are among the likeliest too: these are the model's own probabilities.
        let top = token["top_logprobs"].as_array().unwrap();
        let logprob = |entry: &Value| entry["logprob"].as_f64().unwrap();
        assert!(top.len() == 2 && logprob(&top[0]) >= logprob(&top[1]));
        assert!(logprob(&top[0]) >= logprob(token) && token["bytes"].is_array(), "{token}");
        assert!(token["logprob"].as_f64().unwrap() < 0.0);
    }
    let user = json!([{ "role": "user", "content": "b" }]);
    let request = json!({ "model": "bytes", "messages": user, "max_tokens": 8, "temperature": 0, "stream": true,
        "logprobs": true, "top_logprobs": 2 });
    let streamed = server.post("/v1/chat/completions", &request.to_string()).await;
    let data = streamed.text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let chunks = data.map(|data| serde_json::from_str::<Value>(&format!("{{{data}")).unwrap());
    let in_chunks: Vec<Value> = chunks
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(&in_chunks, tokens);
}

#[tokio::test]
async fn ranges() {
    let server = Usual::start(None);
    let ids = |count: u32| (0..count).collect::<Vec<u32>>();
    for (name, good, bad) in [
        ("temperature", json!([0, 2]), json!([-0.1, 2.1, "x"])),
        ("top_p", json!([0.01, 1]), json!([0, 1.1])),
        ("top_k", json!([-1, 0, 1, 100_000]), json!([-2, 1.5])),
        ("min_p", json!([0, 1]), json!([-0.1, 1.1])),
        ("repetition_penalty", json!([0.1, 2]), json!([0, 2.1])),
        ("presence_penalty", json!([-2, 2]), json!([-2.1, 2.1])),
        ("frequency_penalty", json!([-2, 2]), json!([-2.1, 2.1])),
        (
            "logit_bias",
            json!([{}, { "0": -100, "5": 100 }]),
            json!([{ "0": 101 }, { "x": 1 }, { "99999": 1 }, { "07": 1 }]),
        ),
        ("n", json!([1, 8]), json!([0, 9])),
        ("min_tokens", json!([0, 8]), json!([-1, 9])),
        ("stop_token_ids", json!([[], [1, 2], vec![1; 300], ids(256)]), json!([[99_999], "x", ids(257)])),
        (
            "stop",
            json!(["x".repeat(4096), ["x".repeat(4000), "y".repeat(96)]]),
            json!(["", "x".repeat(4097), ["x".repeat(4000), "y".repeat(97)]]),
        ),
        ("user", json!(["x".repeat(512)]), json!(["x".repeat(513), 1])),
        ("ignore_eos", json!([true]), json!([1])),
        ("seed", json!([-1, 0, 1u64 << 40]), json!([0.5])),
        ("top_logprobs", json!([0]), json!([1, 21])),
        ("logprobs", json!([true, false]), json!([3])),
        ("parallel_tool_calls", json!([true, false]), json!(["no"])),
    ] {
        for (values, status) in [(good, 200), (bad, 400)] {
            for value in values.as_array().unwrap() {
                let (found, answer) = ask(&server, json!({ name: value })).await;
                assert_eq!(found, status, "{name} {value}: {answer}");
                assert!(status == 200 || answer["error"]["param"] == name, "{name} {value}: {answer}");
            }
        }
    }
}
