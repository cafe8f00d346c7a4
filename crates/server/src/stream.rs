//! Server-sent events (WHATWG HTML, section 9.2): an answer becomes events as it comes, in the words of one endpoint.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use k2_chat::Delta;
use k2_engine::Usage;
use serde_json::{Value, json};

use crate::answer::{Answer, End, Step};
use crate::error::ApiError;

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
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Head { id: new_id(&format!("{prefix}-")), created, model: model.to_owned() }
    }

    pub(crate) fn json(&self, object: &str, choices: Value) -> Value {
        let Head { id, created, model } = self;
        json!({ "id": id, "object": object, "created": created, "model": model, "choices": choices })
    }
}

/// A new id: a prefix and 16 hexadecimal digits.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}{:016x}", RandomState::new().build_hasher().finish())
}

/// `usage`, with OpenAI's and Moonshot's field for cached tokens.
pub(crate) fn usage(end: &End) -> Value {
    let Usage { prompt_tokens, num_cached_tokens, completion_tokens } = end.usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": { "cached_tokens": num_cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": end.reasoning_tokens },
        "cached_tokens": num_cached_tokens,
    })
}

/// How one endpoint words an answer as it comes.
pub(crate) trait Wire {
    /// What comes before everything else.
    fn first(&mut self) -> Vec<Event>;

    /// The prompt is being computed.
    fn prefill(&mut self, _num_computed_tokens: usize, _usage: Usage) -> Vec<Event> {
        Vec::new()
    }

    /// A piece.
    fn delta(&mut self, delta: Delta) -> Vec<Event>;

    /// What comes after all pieces.
    fn last(&mut self, end: &End) -> Vec<Event>;

    /// The answer cannot be finished.
    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&error.json())]
    }
}

/// The response that streams an answer. It is cancelled when the client goes away.
pub(crate) fn sse<W: Wire + Send + 'static>(answer: Answer, mut wire: W) -> Response {
    let ready = wire.first().into();
    let events = stream::unfold(Sending { answer, wire, ready }, |mut sending| async move {
        let event = sending.next().await?;
        Some((Ok::<_, Infallible>(event), sending))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// An event without a name.
pub(crate) fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// OpenAI's end of a stream.
pub(crate) fn done() -> Event {
    Event::default().data("[DONE]")
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
                Step::Prefill { num_computed_tokens, usage } => {
                    self.ready.extend(self.wire.prefill(num_computed_tokens, usage));
                }
                Step::Deltas(deltas) => self.deltas(deltas),
                Step::End(deltas, end) => {
                    self.deltas(deltas);
                    self.ready.extend(self.wire.last(&end));
                }
                Step::Failed(error) => self.ready.extend(self.wire.failed(&error)),
            }
        }
        self.ready.pop_front()
    }

    fn deltas(&mut self, deltas: Vec<Delta>) {
        self.ready.extend(deltas.into_iter().flat_map(|delta| self.wire.delta(delta)));
    }
}

/// What a client reads of these pieces and this end: one line for each event, new ids as `ID`.
#[cfg(test)]
pub(crate) async fn transcript(wire: &mut impl Wire, deltas: Vec<Delta>, end: &End) -> Vec<String> {
    let mut events = wire.first();
    events.extend(wire.prefill(0, Usage { completion_tokens: 0, ..end.usage }));
    events.extend(deltas.into_iter().flat_map(|delta| wire.delta(delta)));
    events.extend(wire.last(end));
    let response = Sse::new(stream::iter(events.into_iter().map(Ok::<_, Infallible>))).into_response();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let is_id = |word: &&str| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = |line: &str| {
        let words: Vec<_> = line.split('_').map(|word| word.split('"').collect::<Vec<_>>()).collect();
        let word = |word: &&str| if is_id(word) { "ID".to_owned() } else { (*word).to_owned() };
        words
            .iter()
            .map(|parts| parts.iter().map(word).collect::<Vec<_>>().join("\""))
            .collect::<Vec<_>>()
            .join("_")
    };
    body.lines().filter_map(|line| line.strip_prefix("data: ")).map(shown).collect()
}
