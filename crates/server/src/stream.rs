//! Server-sent events (WHATWG HTML, section 9.2): an answer becomes events as it comes, in the words of one endpoint.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use k2_chat::Delta;
use k2_engine::Usage;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::answer::{Answer, End, Step, TokenLogprobs};
use crate::error::ApiError;
use crate::record::Record;

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
    let Usage { prompt_tokens, num_cached_tokens, completion_tokens, .. } = end.usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": { "cached_tokens": num_cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": end.reasoning_tokens },
        "cached_tokens": num_cached_tokens,
    })
}

/// How far a prompt is.
pub(crate) fn prefill_progress(num_computed_tokens: usize, usage: Usage) -> Value {
    json!({
        "computed_tokens": num_computed_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.num_cached_tokens,
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

    /// How likely the tokens were that the next pieces come from, if that was asked for.
    fn logprobs(&mut self, _tokens: &[TokenLogprobs]) -> Vec<Event> {
        Vec::new()
    }

    /// How likely the prompt's next tokens are, if that was asked for.
    fn prompt(&mut self, _tokens: &[TokenLogprobs]) -> Vec<Event> {
        Vec::new()
    }

    /// What comes after all pieces.
    fn last(&mut self, end: &End) -> Vec<Event>;

    /// What comes after the last of all answers, which ended so.
    fn closing(&mut self, _ends: &[End]) -> Vec<Event> {
        Vec::new()
    }

    /// The answer cannot be finished.
    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&error.json())]
    }
}

/// The response that streams answers, their pieces as they come. They are cancelled when the client goes away, and
/// fail when the request has had its time.
pub(crate) fn sse<W: Wire + Send + 'static>(answers: Vec<(Answer, W)>) -> Response {
    let (answers, mut wires): (Vec<Answer>, Vec<W>) = answers.into_iter().unzip();
    let ready = wires.iter_mut().flat_map(Wire::first).collect();
    let steps =
        stream::select_all(answers.into_iter().enumerate().map(|(place, answer)| steps(place, answer)));
    let sending = Sending { wires, steps, ready, ends: Vec::new(), record: Record::current() };
    let events = stream::unfold(sending, |mut sending| async move {
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

/// A step of the answer at this place, with the log-probabilities of its pieces.
type Placed = (usize, Step, Vec<TokenLogprobs>);

/// All steps of an answer.
fn steps(place: usize, answer: Answer) -> BoxStream<'static, Placed> {
    let steps = stream::unfold(answer, move |mut answer| async move {
        let step = answer.next().await?;
        let logprobs = answer.take_logprobs();
        Some(((place, step, logprobs), answer))
    });
    steps.boxed()
}

struct Sending<W> {
    /// One for each answer.
    wires: Vec<W>,
    /// Of all answers that have not ended.
    steps: SelectAll<BoxStream<'static, Placed>>,
    ready: VecDeque<Event>,
    /// Of the answers that have ended, and their places.
    ends: Vec<(usize, End)>,
    /// The request that they belong to.
    record: Option<Arc<Record>>,
}

impl<W: Wire> Sending<W> {
    async fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            let (place, step, logprobs) = self.step().await?;
            let wire = self.wires.get_mut(place)?;
            match step {
                Step::Prefill { num_computed_tokens, usage } => {
                    self.ready.extend(wire.prefill(num_computed_tokens, usage));
                }
                Step::Prompt(tokens) => self.ready.extend(wire.prompt(&tokens)),
                Step::Deltas(deltas) => self.ready.extend(pieces(wire, &logprobs, deltas)),
                Step::End(deltas, end) => {
                    self.ready.extend(pieces(wire, &end.logprobs, deltas));
                    self.ready.extend(wire.last(&end));
                    self.ended(place, end);
                }
                Step::Failed(error) => {
                    self.ready.extend(wire.failed(&error));
                    self.steps.clear();
                }
            }
        }
        self.ready.pop_front()
    }

    /// The next step of any answer; a failure when the request has had its time.
    async fn step(&mut self) -> Option<Placed> {
        let Some(record) = &self.record else { return self.steps.next().await };
        match timeout(record.time_left(), self.steps.next()).await {
            Ok(step) => step,
            Err(_) => {
                record.timed_out();
                Some((0, Step::Failed(record.took_too_long()), Vec::new()))
            }
        }
    }

    fn ended(&mut self, place: usize, end: End) {
        self.ends.push((place, end));
        if self.ends.len() == self.wires.len() {
            self.ends.sort_by_key(|(place, _)| *place);
            let ends: Vec<End> = self.ends.drain(..).map(|(_, end)| end).collect();
            self.ready.extend(self.wires[place].closing(&ends));
        }
    }
}

fn pieces(wire: &mut impl Wire, logprobs: &[TokenLogprobs], deltas: Vec<Delta>) -> Vec<Event> {
    let mut events = if logprobs.is_empty() { Vec::new() } else { wire.logprobs(logprobs) };
    events.extend(deltas.into_iter().flat_map(|delta| wire.delta(delta)));
    events
}

/// What a client reads of these pieces and this end: one line for each event, new ids as `ID`.
#[cfg(test)]
pub(crate) async fn transcript(wire: &mut impl Wire, deltas: Vec<Delta>, end: &End) -> Vec<String> {
    let mut events = wire.first();
    events.extend(wire.prefill(0, Usage { completion_tokens: 0, ..end.usage }));
    events.extend(deltas.into_iter().flat_map(|delta| wire.delta(delta)));
    events.extend(wire.last(end));
    events.extend(wire.closing(std::slice::from_ref(end)));
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
