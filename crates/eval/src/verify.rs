//! `k2 verify`: what a deployment of Kimi K2 must get right, asked from outside.
//!
//! The groups cover the ground of Moonshot's public suites as far as it is K2's; the correspondence, with
//! MoonshotAI/Kimi-Vendor-Verifier of 13 August 2026 (`KVV`) and MoonshotAI/K2-Vendor-Verifier (`K2VV`):
//!
//! | group | there | what differs here |
//! |---|---|---|
//! | `parameters` | KVV `tests/params` (18) | the same 18 under `--params kimi`; under `open` OpenAI's ranges |
//! | `prompt-tokens` | KVV `tests/prompt_tokens` (K3's renderer, files in LFS) | K2's renderer, conversations of our own, exact counts |
//! | `tool-schemas` | KVV `tests/tool_call_json_schema` (204 × 2) | the same selection of today's walle: 205 × 2 |
//! | `tool-choice` | KVV `k3_features/test_tool_choice` (20, 2 skipped) | named functions force that function, as in OpenAI's API; `parallel_tool_calls` |
//! | `response-format` | KVV `k3_features/test_response_format` (24) | without the two token counts ×2 of K3 |
//! | `dynamic-tools` | KVV `k3_features/test_dynamic_tools` (36 refused of 54) | the others need K3's `messages[].tools` |
//! | `stream` | the accumulators of both suites | the rules that they rely on, each by itself; whole = stream |
//! | `raw-completions` | K2VV `--use_raw_completions` | |
//! | `model` | the parts of the above that only a trained model passes | |
//! | `requests` | K2VV `tool_calls_eval.py` | with `--reference`, F1 is computed at once |
//!
//! Not covered: KVV `test_thinking_effort`, `test_tokenization_groundtruth` (K3 only), its benchmarks (AIME, OCR, …).
//! Where their suites want `finish_reason` "stop" of a free answer, here "length" will do too if the answer has as many
//! tokens as were allowed: how long an answer gets is the model's matter.

mod case;
mod dynamic_tools;
mod model;
mod parameters;
mod prompt_tokens;
mod raw_completions;
mod requests;
mod response_format;
mod run;
mod stream;
mod target;
mod tool_choice;
mod tool_schemas;

use std::time::Duration;

use serde::Serialize;

pub use parameters::{ParameterRules, ThinkMode};
pub use prompt_tokens::Renderer;
pub use requests::{RequestFile, RequestFileError, Trigger, TriggerScore, trigger_score};
pub use run::{Settings, run};

/// What is checked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Which values of sampling parameters are taken and which refused.
    Parameters,
    /// `usage.prompt_tokens` against our own tokenizer and turn format.
    PromptTokens,
    /// A tool for each schema of Moonshot's subset, called with arguments that fit.
    ToolSchemas,
    /// `tool_choice` and `parallel_tool_calls`.
    ToolChoice,
    /// `response_format`.
    ResponseFormat,
    /// `messages[].tools` and malformed tool messages are refused.
    DynamicTools,
    /// The shape of streams and errors.
    Stream,
    /// `/completions`.
    RawCompletions,
    /// What only a trained model does.
    Model,
    /// A file of requests: schema accuracy and the F1 of triggered calls.
    Requests,
}

impl Group {
    /// All, in the order in which they are run.
    pub const ALL: [Group; 10] = [
        Group::Parameters,
        Group::PromptTokens,
        Group::Stream,
        Group::RawCompletions,
        Group::ToolChoice,
        Group::ResponseFormat,
        Group::DynamicTools,
        Group::ToolSchemas,
        Group::Model,
        Group::Requests,
    ];

    /// Its name on a command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Group::Parameters => "parameters",
            Group::PromptTokens => "prompt-tokens",
            Group::ToolSchemas => "tool-schemas",
            Group::ToolChoice => "tool-choice",
            Group::ResponseFormat => "response-format",
            Group::DynamicTools => "dynamic-tools",
            Group::Stream => "stream",
            Group::RawCompletions => "raw-completions",
            Group::Model => "model",
            Group::Requests => "requests",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its group.
    pub group: Group,
    /// What must hold.
    pub name: String,
    /// Whether it does.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    #[serde(serialize_with = "seconds")]
    pub seconds: Duration,
}

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not; what was found.
    Failed(String),
    /// It was not tried; why.
    Skipped(String),
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub url: String,
    /// Of which model.
    pub model: String,
    /// How many checks failed.
    pub failed: usize,
    /// How the calls of a file of requests compare, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Trigger>,
    /// All checks, group by group.
    pub checks: Vec<Check>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e3).round() / 1e3)
}
