//! A file of requests: do the calls fit their schemas, and are calls made where the reference makes them?
//!
//! The form is that of MoonshotAI/K2-Vendor-Verifier (`tool_calls_eval.py`): a line is the body of a request; the
//! role `_input` means system. Its two numbers: `schema_accuracy`, the share of answers with calls whose calls all
//! fit, and `tool_call_f1`, on whether an answer ends in `tool_calls` where the official API's does. Its README calls
//! an F1 of 0.80 (K2-0905) and 0.73 (K2-Thinking) good enough.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::case::declared;
use super::run::Planned;
use super::target::Transport;
use super::{Check, Group, Verdict};
use crate::answer::{Answer, Finding};
use crate::schema;

/// Longest file accepted; K2-Vendor-Verifier's has 2,000 requests.
const MAX_FILE: u64 = 1 << 30;

const TOOL_CALLS: &str = "tool_calls";

/// Why a file of requests is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RequestFileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("{path} has {bytes} bytes; at most {MAX_FILE} are read")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A line is no request, or no result.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// There is nothing in it.
    #[error("{path} has no requests")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Requests, and how the reference answered them.
#[derive(Clone, Debug)]
pub struct RequestFile {
    requests: Vec<(usize, Value)>,
    /// Finish reasons by line.
    reference: Option<HashMap<usize, String>>,
    least_f1: f64,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    line: usize,
    /// None: there was no answer.
    finish_reason: Option<String>,
    /// Whether all calls fit.
    fits: bool,
}

/// The numbers of K2-Vendor-Verifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trigger {
    /// Requests of the file.
    pub requests: usize,
    /// Those with an answer.
    pub answered: usize,
    /// Answers that end in calls.
    pub finish_tool_calls: usize,
    /// Of those, the ones whose calls all fit.
    pub successful_tool_calls: usize,
    /// The quotient; none without calls.
    pub schema_accuracy: Option<f64>,
    /// Against the reference, if there is one.
    #[serde(flatten)]
    pub score: Option<TriggerScore>,
}

/// Whether calls are made where the reference makes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TriggerScore {
    /// Both call.
    pub tp: usize,
    /// Only the model calls.
    pub fp: usize,
    /// Only the reference calls.
    #[serde(rename = "fn")]
    pub fn_: usize,
    /// Neither calls.
    pub tn: usize,
    /// tp / (tp + fp).
    pub precision: f64,
    /// tp / (tp + fn).
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// Compares finish reasons, the reference's first; an empty one is no answer and no call. Quotients of nothing are 0.
pub fn trigger_score<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> TriggerScore {
    let mut score = TriggerScore::default();
    for (reference, model) in pairs {
        let count = match (reference == TOOL_CALLS, model == TOOL_CALLS) {
            (true, true) => &mut score.tp,
            (false, true) => &mut score.fp,
            (true, false) => &mut score.fn_,
            (false, false) => &mut score.tn,
        };
        *count += 1;
    }
    let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
    let TriggerScore { tp, fp, fn_, .. } = score;
    let precision = share(tp as f64, (tp + fp) as f64);
    let recall = share(tp as f64, (tp + fn_) as f64);
    TriggerScore { precision, recall, f1: share(2.0 * precision * recall, precision + recall), ..score }
}

impl RequestFile {
    /// Reads requests, and the reference's results if there are any: lines with `data_index` (the request's line) and
    /// `finish_reason`, as K2-Vendor-Verifier writes them.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or a line of it.
    pub fn read(
        path: &Path,
        reference: Option<&Path>,
        least_f1: f64,
    ) -> Result<RequestFile, RequestFileError> {
        let requests = lines(path)?
            .into_iter()
            .map(|(line, request)| match request["messages"].is_array() {
                true => Ok((line, prepared(request))),
                false => {
                    let what = "there is no list `messages`".into();
                    Err(RequestFileError::Line { path: path.into(), line, what })
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        if requests.is_empty() {
            return Err(RequestFileError::Empty { path: path.into() });
        }
        Ok(RequestFile { requests, reference: reference.map(finish_reasons).transpose()?, least_f1 })
    }

    pub(super) fn trigger(&self, outcomes: &[Outcome]) -> Trigger {
        let answered: Vec<_> =
            outcomes.iter().filter_map(|o| Some((o, o.finish_reason.as_deref()?))).collect();
        let calling: Vec<_> = answered.iter().filter(|(_, reason)| *reason == TOOL_CALLS).collect();
        let successful = calling.iter().filter(|(outcome, _)| outcome.fits).count();
        let score = self.reference.as_ref().map(|reference| {
            trigger_score(outcomes.iter().filter_map(|outcome| {
                let reason = outcome.finish_reason.as_deref().unwrap_or_default();
                Some((reference.get(&outcome.line)?.as_str(), reason))
            }))
        });
        Trigger {
            requests: self.requests.len(),
            answered: answered.len(),
            finish_tool_calls: calling.len(),
            successful_tool_calls: successful,
            schema_accuracy: (!calling.is_empty()).then(|| successful as f64 / calling.len() as f64),
            score,
        }
    }

    /// The check that only all requests together give.
    pub(super) fn judge(&self, trigger: &Trigger) -> Option<Check> {
        let f1 = trigger.score?.f1;
        let verdict = match f1 >= self.least_f1 {
            true => Verdict::Passed,
            false => Verdict::Failed(format!("tool_call_f1 is {f1:.4}; expected at least {}", self.least_f1)),
        };
        let name = format!("tool_call_f1 is at least {}", self.least_f1);
        Some(Check { group: Group::Requests, name, verdict, seconds: Duration::ZERO })
    }
}

pub(super) fn plan<'a>(file: Option<&'a RequestFile>, outcomes: &'a Mutex<Vec<Outcome>>) -> Vec<Planned<'a>> {
    let Some(file) = file else {
        return vec![Planned::skipped(Group::Requests, "a file of requests", "no file was given")];
    };
    let each = |(line, request): &'a (usize, Value)| {
        Planned::new(Group::Requests, format!("line {line}"), move |target| {
            let stream = request["stream"] == true;
            let transport = if stream { Transport::Stream } else { Transport::Whole };
            let answer = target.answer(request, transport);
            let fits = answer.as_ref().map_err(Clone::clone).and_then(|answer| all_fit(request, answer));
            let finish_reason = answer.ok().map(|answer| answer.finish_reason);
            let outcome = Outcome { line: *line, finish_reason, fits: fits.is_ok() };
            if let Ok(mut outcomes) = outcomes.lock() {
                outcomes.push(outcome);
            }
            fits
        })
    };
    file.requests.iter().map(each).collect()
}

fn all_fit(request: &Value, answer: &Answer) -> Result<(), Finding> {
    if answer.finish_reason == TOOL_CALLS && answer.tool_calls.is_empty() {
        return Err(Finding("the finish reason is \"tool_calls\", and there are none".into()));
    }
    let calls = &answer.tool_calls;
    calls.iter().try_for_each(|call| schema::check(declared(request, &call.name)?, &call.arguments))
}

fn prepared(mut request: Value) -> Value {
    for message in request["messages"].as_array_mut().into_iter().flatten() {
        if message["role"] == "_input" {
            message["role"] = json!("system");
        }
    }
    if let Some(fields) = request.as_object_mut() {
        fields.shift_remove("model");
        fields.shift_remove("stream_options");
    }
    request
}

fn finish_reasons(path: &Path) -> Result<HashMap<usize, String>, RequestFileError> {
    let result = |(line, result): (usize, Value)| {
        let index = result["data_index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let what = "there is no whole number `data_index`".to_owned();
        let index = index.ok_or(RequestFileError::Line { path: path.into(), line, what })?;
        Ok((index, result["finish_reason"].as_str().unwrap_or_default().to_owned()))
    };
    lines(path)?.into_iter().map(result).collect()
}

/// The objects of a file of JSON lines, with their line numbers from 1.
fn lines(path: &Path) -> Result<Vec<(usize, Value)>, RequestFileError> {
    let read = |source| RequestFileError::Read { path: path.into(), source };
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE {
        return Err(RequestFileError::TooLong { path: path.into(), bytes });
    }
    let text = fs::read_to_string(path).map_err(read)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let object = |(index, line): (usize, &str)| {
        match serde_json::from_str(line) {
            Ok(object @ Value::Object(_)) => Ok((index + 1, object)),
            Ok(_) => Err("it is no JSON object".to_owned()),
            Err(error) => Err(error.to_string()),
        }
        .map_err(|what| RequestFileError::Line { path: path.into(), line: index + 1, what })
    };
    lines.map(object).collect()
}
