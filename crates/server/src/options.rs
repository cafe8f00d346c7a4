//! The fields that all kinds of completion share: length, sampling, stop strings, streaming.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use k2_chat::StopMatcher;
use k2_engine::{Request, Sampling};
use serde::Deserialize;

use crate::body::Body;
use crate::error::ApiError;
use crate::record::Record;
use crate::served::Served;

/// Most ids of a request that end its answer: each is looked for at every token.
const MAX_STOP_IDS: usize = 256;

/// Most bytes of all stop strings together: an answer's text is held back as long as it could be one.
const MAX_STOP_BYTES: usize = 4096;

/// Most bytes of a user's name.
const MAX_USER_BYTES: usize = 512;

/// What a request says beside its prompt.
pub(crate) struct Options {
    /// Most tokens of the answer, if the client says so.
    pub(crate) max_tokens: Option<usize>,
    /// No end before so many tokens.
    pub(crate) min_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) logit_bias: Arc<[(u32, f32)]>,
    /// How many answers.
    pub(crate) n: usize,
    pub(crate) stop: StopMatcher,
    /// vLLM's field: smaller comes earlier.
    pub(crate) priority: i32,
    /// Who asks, if the request says.
    pub(crate) user: Option<Arc<str>>,
    /// Ids that end the answer: those of the model, unless `ignore_eos`, and the client's own.
    pub(crate) stop_ids: Arc<[u32]>,
    /// None: the answer in one piece.
    pub(crate) stream: Option<StreamOptions>,
}

/// How an answer is streamed.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Whether a last chunk holds the usage.
    #[serde(default)]
    pub(crate) include_usage: bool,
    /// Whether chunks say how far the prompt is.
    #[serde(default)]
    pub(crate) include_progress: bool,
    /// Padding against side channels: never added here, which every client understands.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: bool,
}

/// One stop string or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

impl Options {
    /// Reads them.
    pub(crate) fn take(body: &mut Body, served: &Served) -> Result<Options, ApiError> {
        served.params.check(body)?;
        let max_tokens = max_tokens(body)?;
        Ok(Options {
            max_tokens,
            min_tokens: min_tokens(body, max_tokens)?,
            sampling: sampling(body, served)?,
            logit_bias: logit_bias(body, served.engine.vocab_size())?,
            n: answers(body, served.most_answers(served.limits.n))?,
            stop: stop(body, served.limits.stops)?,
            priority: body.optional("priority")?.unwrap_or_default(),
            user: named(body)?,
            stop_ids: stop_ids(body, served)?,
            stream: stream(body)?,
        })
    }

    /// The engine's request for an answer of at most `max_tokens` if the client does not say.
    pub(crate) fn request(&self, served: &Served, prompt: Vec<u32>, max_tokens: usize) -> Request {
        Request {
            prompt,
            max_tokens: self.max_tokens.unwrap_or(max_tokens),
            min_tokens: self.min_tokens,
            sampling: self.sampling,
            logit_bias: Arc::clone(&self.logit_bias),
            stop_ids: Arc::clone(&self.stop_ids),
            masked_ids: Arc::clone(&served.masked_ids),
            priority: self.priority,
            user: Some(user(Record::current().and_then(|record| record.key()), self.user.as_ref())),
            ..Request::default()
        }
    }
}

/// Whose turn it is when several wait: the name of the key, which has no `/`, and after it the request's own user. Keys
/// take turns first, so none gets more of them by naming users.
fn user(key: Option<Arc<str>>, named: Option<&Arc<str>>) -> Arc<str> {
    format!("{}/{}", key.as_deref().unwrap_or("-"), named.map_or("", |named| named)).into()
}

fn named(body: &mut Body) -> Result<Option<Arc<str>>, ApiError> {
    match body.optional::<String>("user")? {
        Some(user) if user.len() > MAX_USER_BYTES => {
            let bytes = user.len();
            Err(ApiError::field(
                "user",
                format!("`user` has {bytes} bytes, expected at most {MAX_USER_BYTES}"),
            ))
        }
        user => Ok(user.map(Arc::from)),
    }
}

fn max_tokens(body: &mut Body) -> Result<Option<usize>, ApiError> {
    let (older, newer) = ("max_tokens", "max_completion_tokens");
    let found = match (body.optional::<i64>(older)?, body.optional::<i64>(newer)?) {
        (Some(a), Some(b)) if a != b => {
            return Err(ApiError::field(
                newer,
                format!("`{older}` is {a} and `{newer}` is {b}; give one of them"),
            ));
        }
        (a, b) => b.map(|tokens| (newer, tokens)).or(a.map(|tokens| (older, tokens))),
    };
    let Some((name, tokens)) = found else { return Ok(None) };
    match usize::try_from(tokens) {
        Ok(tokens) if tokens > 0 => Ok(Some(tokens)),
        _ => Err(ApiError::field(name, format!("`{name}` is {tokens}, expected at least 1"))),
    }
}

fn min_tokens(body: &mut Body, max_tokens: Option<usize>) -> Result<usize, ApiError> {
    let min_tokens = body.optional::<usize>("min_tokens")?.unwrap_or(0);
    match max_tokens {
        Some(max_tokens) if min_tokens > max_tokens => {
            let message =
                format!("`min_tokens` is {min_tokens}, above the {max_tokens} that the answer may have");
            Err(ApiError::field("min_tokens", message))
        }
        _ => Ok(min_tokens),
    }
}

/// Ranges as in OpenAI's API, and as in vLLM's where that goes further.
fn sampling(body: &mut Body, served: &Served) -> Result<Sampling, ApiError> {
    let highest = served.params.max_temperature();
    let temperature = body.number("temperature", 0.0, highest)?.map_or(served.temperature, |t| t as f32);
    let top_p =
        body.number("top_p", 0.0, 1.0)?.map(|p| p as f32).or(served.params.top_p()).unwrap_or(served.top_p);
    if top_p <= 0.0 {
        return Err(ApiError::field("top_p", format!("`top_p` is {top_p}, expected above 0, at most 1")));
    }
    let repetition_penalty = body.number("repetition_penalty", 0.0, 2.0)?.unwrap_or(1.0) as f32;
    if repetition_penalty <= 0.0 {
        let message = format!("`repetition_penalty` is {repetition_penalty}, expected above 0, at most 2");
        return Err(ApiError::field("repetition_penalty", message));
    }
    // Any whole number is a seed; without one each request has its own.
    let seed = body
        .optional::<i64>("seed")?
        .map_or_else(|| RandomState::new().build_hasher().finish(), i64::cast_unsigned);
    Ok(Sampling {
        temperature,
        top_k: top_k(body)?,
        top_p,
        min_p: body.number("min_p", 0.0, 1.0)?.unwrap_or(0.0) as f32,
        repetition_penalty,
        presence_penalty: body.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0) as f32,
        frequency_penalty: body.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0) as f32,
        seed,
        greedy: false,
    })
}

/// 0 and -1 are all.
fn top_k(body: &mut Body) -> Result<usize, ApiError> {
    match body.optional::<i64>("top_k")? {
        None | Some(-1) => Ok(0),
        Some(top_k) => usize::try_from(top_k).map_err(|_| {
            ApiError::field("top_k", format!("`top_k` is {top_k}, expected at least 1, or 0 or -1 for all"))
        }),
    }
}

/// From token ids, which JSON has as strings, to biases.
fn logit_bias(body: &mut Body, vocab_size: usize) -> Result<Arc<[(u32, f32)]>, ApiError> {
    let biases = body.optional::<BTreeMap<String, f64>>("logit_bias")?.unwrap_or_default();
    let wrong = |message: String| ApiError::field("logit_bias", message);
    biases
        .into_iter()
        .map(|(id, bias)| match id.parse::<u32>() {
            Ok(number) if (number as usize) < vocab_size && number.to_string() == id => {
                match (-100.0..=100.0).contains(&bias) {
                    true => Ok((number, bias as f32)),
                    false => Err(wrong(format!("`logit_bias` of {id} is {bias}, expected -100 to 100"))),
                }
            }
            _ => {
                Err(wrong(format!("`logit_bias` has the key {id:?}; keys are token ids below {vocab_size}")))
            }
        })
        .collect()
}

fn answers(body: &mut Body, most: usize) -> Result<usize, ApiError> {
    match body.optional::<i64>("n")?.unwrap_or(1) {
        n if n >= 1 && n <= most as i64 => Ok(n as usize),
        n => Err(ApiError::field("n", format!("`n` is {n}, expected 1 to {most}"))),
    }
}

fn stop_ids(body: &mut Body, served: &Served) -> Result<Arc<[u32]>, ApiError> {
    let mut own = body.optional::<Vec<u32>>("stop_token_ids")?.unwrap_or_default();
    own.sort_unstable();
    own.dedup();
    if own.len() > MAX_STOP_IDS {
        let message = format!("`stop_token_ids` has {} ids, expected at most {MAX_STOP_IDS}", own.len());
        return Err(ApiError::field("stop_token_ids", message));
    }
    let vocab_size = served.engine.vocab_size();
    if let Some(id) = own.iter().find(|id| **id as usize >= vocab_size) {
        let message = format!("`stop_token_ids` has {id}; ids are below {vocab_size}");
        return Err(ApiError::field("stop_token_ids", message));
    }
    match body.optional::<bool>("ignore_eos")?.unwrap_or(false) {
        true => Ok(own.into()),
        false if own.is_empty() => Ok(Arc::clone(&served.stop_ids)),
        false => Ok([&served.stop_ids[..], &own[..]].concat().into()),
    }
}

fn stop(body: &mut Body, most: usize) -> Result<StopMatcher, ApiError> {
    let stops = match body.optional::<Stop>("stop")? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Several(stops)) => stops,
    };
    if stops.len() > most {
        let message = format!("`stop` has {} strings, expected at most {most}", stops.len());
        return Err(ApiError::field("stop", message));
    }
    let bytes: usize = stops.iter().map(String::len).sum();
    if bytes > MAX_STOP_BYTES {
        let message = format!("`stop` has {bytes} bytes in all, expected at most {MAX_STOP_BYTES}");
        return Err(ApiError::field("stop", message));
    }
    StopMatcher::new(stops).map_err(|error| ApiError::field("stop", error.to_string()))
}

fn stream(body: &mut Body) -> Result<Option<StreamOptions>, ApiError> {
    let options = body.optional::<StreamOptions>("stream_options")?;
    match (body.optional("stream")?.unwrap_or(false), options) {
        (true, options) => Ok(Some(options.unwrap_or_default())),
        (false, None) => Ok(None),
        (false, Some(_)) => {
            Err(ApiError::field("stream_options", "`stream_options` is for requests with `stream: true`"))
        }
    }
}
