//! Which values of sampling parameters are taken, and which refused with status 400.
//!
//! On Moonshot's platform most are immutable: its suite wants every other value refused
//! (MoonshotAI/Kimi-Vendor-Verifier, `tests/params`). Elsewhere OpenAI's ranges hold.

use serde_json::{Value, json};

use super::Group;
use super::case::{Case, Expected};
use super::run::Planned;
use super::target::Transport;

/// Which values must be taken and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRules {
    /// Moonshot's: temperature from 0 to 1, everything else as it is.
    Kimi,
    /// OpenAI's ranges.
    Open,
}

/// How a request says whether the model should think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkMode {
    /// `thinking: {"type": "enabled"}`, Moonshot's.
    Kimi,
    /// `chat_template_kwargs: {"thinking": true}`, that of open servers.
    Opensource,
    /// It does not.
    None,
}

/// One parameter: values that must be taken by a model that does not think and by one that does, and two that must
/// be refused, by Moonshot's rules and by OpenAI's.
struct Rule {
    name: &'static str,
    taken: [f64; 2],
    refused_by_kimi: f64,
    refused_by_open: f64,
}

const RULES: [Rule; 7] = [
    Rule { name: "temperature", taken: [0.6, 0.6], refused_by_kimi: 1.1, refused_by_open: 2.1 },
    Rule { name: "temperature", taken: [0.6, 0.0], refused_by_kimi: 2.0, refused_by_open: 100.0 },
    Rule { name: "temperature", taken: [0.6, 1.0], refused_by_kimi: -0.1, refused_by_open: -0.1 },
    Rule { name: "top_p", taken: [0.95, 0.95], refused_by_kimi: 0.8, refused_by_open: 1.5 },
    Rule { name: "presence_penalty", taken: [0.0, 0.0], refused_by_kimi: 0.5, refused_by_open: 2.5 },
    Rule { name: "frequency_penalty", taken: [0.0, 0.0], refused_by_kimi: 0.5, refused_by_open: -2.5 },
    Rule { name: "n", taken: [1.0, 1.0], refused_by_kimi: 2.0, refused_by_open: 0.0 },
];

pub(super) fn plan<'a>(rules: ParameterRules, think_mode: ThinkMode) -> Vec<Planned<'a>> {
    [false, true].into_iter().flat_map(|thinking| of_thinking(rules, think_mode, thinking)).collect()
}

fn of_thinking<'a>(rules: ParameterRules, think_mode: ThinkMode, thinking: bool) -> Vec<Planned<'a>> {
    let words = if thinking { "thinking" } else { "not thinking" };
    let asked =
        |with: Option<(&str, f64)>, expected| Case::new("", body(think_mode, thinking, with), expected);
    let planned = |name: String, cases: Vec<Case>| {
        Planned::new(Group::Parameters, name, move |target| {
            cases.iter().try_for_each(|case| case.check(target, Transport::Whole))
        })
    };
    let mut plan = vec![
        planned(format!("no parameters are taken, {words}"), vec![asked(None, Expected::Answer)]),
        planned(
            format!("defaults are taken, {words}"),
            RULES
                .iter()
                .map(|rule| asked(Some((rule.name, rule.taken[usize::from(thinking)])), Expected::Answer))
                .collect(),
        ),
    ];
    plan.extend(RULES.iter().map(|rule| {
        let value = match rules {
            ParameterRules::Kimi => rule.refused_by_kimi,
            ParameterRules::Open => rule.refused_by_open,
        };
        let case = asked(Some((rule.name, value)), Expected::Refusal);
        planned(format!("{} {value} is refused, {words}", rule.name), vec![case])
    }));
    plan
}

fn body(think_mode: ThinkMode, thinking: bool, with: Option<(&str, f64)>) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Answer with the word OK." }],
        "max_tokens": 16,
    });
    match think_mode {
        ThinkMode::Kimi => {
            body["thinking"] = json!({ "type": if thinking { "enabled" } else { "disabled" } });
        }
        ThinkMode::Opensource => body["chat_template_kwargs"] = json!({ "thinking": thinking }),
        ThinkMode::None => {}
    }
    if let Some((name, value)) = with {
        // Whole numbers as such: `n` is one.
        body[name] = if value.fract() == 0.0 { json!(value as i64) } else { json!(value) };
    }
    body
}
