//! Server-sent events (WHATWG HTML, section 9.2) in OpenAI's manner: `data:` lines, the last one `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use k2_chat::{Delta, FinishReason};
use k2_engine::Usage;
use serde_json::{Value, json};

use crate::answer::{Answer, Step};

/// A comment is sent when nothing else was for so long, so that nobody in between closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What all objects of one answer share.
pub(crate) struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    pub(crate) fn new(prefix: &str, model: &str) -> Head {
        let random = RandomState::new().build_hasher().finish();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Head { id: format!("{prefix}-{random:016x}"), created, model: model.to_owned() }
    }

    pub(crate) fn json(&self, object: &str, choices: Value) -> Value {
        let Head { id, created, model } = self;
        json!({ "id": id, "object": object, "created": created, "model": model, "choices": choices })
    }
}

/// `usage`, with OpenAI's and Moonshot's field for cached tokens.
pub(crate) fn usage(usage: Usage) -> Value {
    let Usage { prompt_tokens, num_cached_tokens, completion_tokens } = usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": { "cached_tokens": num_cached_tokens },
        "cached_tokens": num_cached_tokens,
    })
}

/// How one endpoint words the pieces of an answer.
pub(crate) trait Wire {
    /// What comes before all pieces.
    fn first(&self) -> Option<Value>;
    /// A piece.
    fn delta(&self, delta: Delta) -> Value;
    /// What comes after all pieces.
    fn last(&self, reason: FinishReason, usage: Usage) -> Vec<Value>;
}

/// The response that streams an answer. It is cancelled when the client goes away.
pub(crate) fn sse<W: Wire + Send + 'static>(answer: Answer, wire: W) -> Response {
    let ready = wire.first().iter().map(data).collect();
    let events = stream::unfold(Sending { answer, wire, ready }, |mut sending| async move {
        let event = sending.next().await?;
        Some((Ok::<_, Infallible>(event), sending))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

struct Sending<W> {
    answer: Answer,
    wire: W,
    ready: VecDeque<Event>,
}

impl<W: Wire> Sending<W> {
    async fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            match self.answer.next().await? {
                Step::Deltas(deltas) => self.deltas(deltas),
                Step::End(deltas, reason, usage) => {
                    self.deltas(deltas);
                    self.ready.extend(self.wire.last(reason, usage).iter().map(data));
                    self.ready.push_back(Event::default().data("[DONE]"));
                }
                Step::Failed(error) => self.ready.push_back(data(&error.json())),
            }
        }
        self.ready.pop_front()
    }

    fn deltas(&mut self, deltas: Vec<Delta>) {
        self.ready.extend(deltas.into_iter().map(|delta| data(&self.wire.delta(delta))));
    }
}

fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}
