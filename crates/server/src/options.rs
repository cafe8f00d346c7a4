//! The fields that all kinds of completion share: length, sampling, stop strings, streaming.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use k2_chat::StopMatcher;
use k2_engine::Sampling;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::body::Body;
use crate::error::ApiError;
use crate::served::Served;

/// What a request says beside its prompt.
pub(crate) struct Options {
    /// Most tokens of the answer, if the client says so.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) sampling: Sampling,
    pub(crate) stop: StopMatcher,
    /// vLLM's field: smaller comes earlier.
    pub(crate) priority: i32,
    /// Whose turn it is when several wait.
    pub(crate) user: Option<Arc<str>>,
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
    /// Whether chunks say how far the prompt is (chat only).
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
    /// Reads them, and refuses what would need more than sampling one answer.
    pub(crate) fn take(body: &mut Body, served: &Served) -> Result<Options, ApiError> {
        body.only("n", &[1])?;
        body.only("frequency_penalty", &[0.0])?;
        body.only("presence_penalty", &[0.0])?;
        body.only("logit_bias", &[Map::<String, Value>::new()])?;
        Ok(Options {
            max_tokens: max_tokens(body)?,
            sampling: sampling(body, served)?,
            stop: stop(body, served.limits.stops)?,
            priority: body.optional("priority")?.unwrap_or_default(),
            user: body.optional::<String>("user")?.map(Arc::from),
            stream: stream(body)?,
        })
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

fn sampling(body: &mut Body, served: &Served) -> Result<Sampling, ApiError> {
    let temperature = body.number("temperature", 0.0, 2.0)?.map_or(served.temperature, |t| t as f32);
    let top_p = body.number("top_p", 0.0, 1.0)?.map_or(served.top_p, |p| p as f32);
    if top_p <= 0.0 {
        return Err(ApiError::field("top_p", format!("`top_p` is {top_p}, expected above 0, at most 1")));
    }
    // Any whole number is a seed; without one each request has its own.
    let seed = body
        .optional::<i64>("seed")?
        .map_or_else(|| RandomState::new().build_hasher().finish(), i64::cast_unsigned);
    Ok(Sampling { temperature, top_p, seed, ..Sampling::default() })
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
