//! Does it work? Held-out cases, each end to end, counted honestly.
//!
//! A case is one exchange of a synthetic dialogue. The messages are answered, calls are compared with the wanted
//! ones to the letter, their results are sent back, and the answer has to say what they say. Nothing is
//! forgiven: a right tool with a wrong comma in an argument is a wrong call.
//!
//! Who answers is a function from messages to a reply. [`of_model`] makes one from whatever generates token
//! ids, [`baseline`] is a program of keywords to compare with.

pub mod baseline;
mod cells;
mod greedy;
mod interval;
mod report;

pub use cells::{CELLS, Cell};
pub use greedy::{GreedyError, greedy};
pub use interval::wilson;
pub use report::{CellReport, Failure, Rate, Report};

use k2_chat::grammar::{Calls, ContentForm, Progress, Reasoning, Wanted};
use k2_chat::normalize::count_calls;
use k2_chat::python_json::Style;
use k2_chat::render::RenderError;
use k2_chat::tokenizer::UnknownToken;
use k2_chat::tool_calls::{ReplyCall, parse_tokens};
use k2_chat::{
    EndReason, FinishReason, GrammarCompiler, GrammarError, Json, Message, ParserOptions, RenderOptions,
    Reply, Template, Tokenizer, Tool, normalize, render,
};

use crate::dialogues::{Call, Dialogue, Exchange, Generator};

/// Answers messages, with these tools declared.
pub type Answer<'a> = dyn FnMut(&[Message], &[Tool]) -> Result<Reply, EvaluateError> + 'a;

/// How many failures of a cell are kept.
const FAILURES: usize = 20;

/// Why an evaluation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A conversation that cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The model gave an id that is no token.
    #[error(transparent)]
    Token(#[from] UnknownToken),
    /// Tools without a grammar.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// Generation failed.
    #[error("generation failed: {0}")]
    Generate(Box<dyn std::error::Error + Send + Sync>),
}

/// Evaluates `count` cases of each cell. `watch` is told each cell's report when it is done.
pub fn evaluate(
    cells: &[Cell],
    generator: &Generator,
    count: usize,
    answer: &mut Answer<'_>,
    watch: &mut dyn FnMut(&CellReport),
) -> Result<Report, EvaluateError> {
    let mut reports = Vec::new();
    for cell in cells {
        let cases = cell.cases(generator, count);
        let report = evaluate_cell(cell.name, &cases, answer)?;
        watch(&report);
        reports.push(report);
    }
    Ok(Report { cells: reports })
}

/// Evaluates cases.
pub fn evaluate_cell(
    name: &'static str,
    cases: &[Dialogue],
    answer: &mut Answer<'_>,
) -> Result<CellReport, EvaluateError> {
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for case in cases {
        let outcome = run(case, answer)?;
        if let Some(failure) = failure(case, &outcome).filter(|_| failures.len() < FAILURES) {
            failures.push(failure);
        }
        outcomes.push(outcome);
    }
    let rate = |right: &dyn Fn(&Outcome) -> bool| {
        Rate::new(outcomes.iter().filter(|outcome| right(outcome)).count(), outcomes.len())
    };
    Ok(CellReport {
        name,
        end_to_end: rate(&Outcome::is_right),
        syntax: rate(&|outcome| outcome.syntax),
        tool: rate(&|outcome| outcome.tool),
        arguments: rate(&|outcome| outcome.arguments),
        answer: rate(&|outcome| outcome.answer),
        failures,
    })
}

/// An answerer out of a generator of token ids: it gets the ids of a prompt in the model's turn format, and what its calls
/// have to follow if there is a compiler of `grammars`, and gives the answer's ids, with the token that ended it or cut off by a
/// limit.
pub fn of_model<'a, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    tokenizer: &'a Tokenizer,
    template: Template,
    grammars: Option<&'a GrammarCompiler>,
    mut generate: impl FnMut(&[u32], Option<Progress>) -> Result<Vec<u32>, E> + 'a,
) -> impl FnMut(&[Message], &[Tool]) -> Result<Reply, EvaluateError> + 'a {
    let stop = tokenizer.stop_ids(&[]);
    move |messages, tools| {
        let mut messages = messages.to_vec();
        normalize(&mut messages);
        let prompt = render(template, &messages, tools, RenderOptions::default())?.ids(tokenizer);
        let progress = grammars.map(|grammars| progress(grammars, template, tools)).transpose()?.flatten();
        let ids = generate(&prompt, progress).map_err(|error| EvaluateError::Generate(error.into()))?;
        let ended = ids.last().is_some_and(|last| stop.contains(last));
        let reason = if ended { EndReason::EndOfTurn } else { EndReason::Length };
        let options = match tools {
            [] => ParserOptions::default(),
            tools => {
                ParserOptions { history_calls: count_calls(&messages), ..ParserOptions::with_tools(tools) }
            }
        };
        let (thinking, think_prefilled) = (template.form().thinking, template.form().prompts_thinking);
        let options = ParserOptions { thinking, think_prefilled, ..options };
        Ok(parse_tokens(options, tokenizer, &ids, reason)?)
    }
}

/// The grammar of calls of these tools, as the server makes it for `tool_choice` auto.
fn progress(
    grammars: &GrammarCompiler,
    template: Template,
    tools: &[Tool],
) -> Result<Option<Progress>, GrammarError> {
    let form = template.form();
    let sorted = form.tools == Style::CompactSorted;
    let calls = (!tools.is_empty()).then_some(Calls { tools, only: None, parallel: true, sorted });
    let reasoning = Reasoning::of(form, RenderOptions::default().thinking);
    let grammar = grammars.compile(Wanted { calls, content: ContentForm::Free, reasoning })?;
    Ok(grammar.map(|grammar| grammar.start()))
}

/// What was right in a case.
struct Outcome {
    syntax: bool,
    tool: bool,
    arguments: bool,
    answer: bool,
    /// What came, for the report of failures.
    found: String,
}

impl Outcome {
    fn is_right(&self) -> bool {
        self.syntax && self.tool && self.arguments && self.answer
    }
}

/// Runs a case's last exchange; those before stand in the history as they should have been.
fn run(case: &Dialogue, answer: &mut Answer<'_>) -> Result<Outcome, EvaluateError> {
    let Some(last) = case.exchanges.len().checked_sub(1) else { return Ok(nothing()) };
    let exchange = &case.exchanges[last];
    let mut messages = case.asked(last);
    let reply = answer(&messages, &case.tools)?;
    let mut outcome = compare(exchange, &reply);
    if !outcome.arguments || exchange.calls.is_empty() {
        return Ok(outcome);
    }
    messages.push(Message::from(&reply));
    for (call, made) in exchange.calls.iter().zip(&reply.tool_calls) {
        messages.push(case.result(call, &made.id));
    }
    let reply = answer(&messages, &case.tools)?;
    let said = reply.content.unwrap_or_default();
    let values = || exchange.calls.iter().flat_map(|call| &call.values);
    outcome.answer = reply.finish_reason == FinishReason::Stop && values().all(|value| says(&said, value));
    outcome.found = format!("{} → {said}", outcome.found);
    Ok(outcome)
}

/// Whether a text has a value in it, and not as a part of another: 15, 1.5 and -5 do not say 5.
pub fn says(text: &str, value: &str) -> bool {
    text.match_indices(value).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + value.len()..]);
        let is_negated = before.ends_with('-') && value.starts_with(|c: char| c.is_ascii_digit());
        !is_negated && !goes_on(before.chars().rev()) && !goes_on(after.chars())
    })
}

/// With a letter or digit, or with a digit behind a point.
fn goes_on(mut chars: impl Iterator<Item = char>) -> bool {
    match chars.next() {
        Some('.') => chars.next().is_some_and(|next| next.is_ascii_digit()),
        next => next.is_some_and(char::is_alphanumeric),
    }
}

fn nothing() -> Outcome {
    Outcome { syntax: true, tool: true, arguments: true, answer: true, found: String::new() }
}

/// The first reply against what is wanted. The answer after a call is not yet known to be right.
fn compare(exchange: &Exchange, reply: &Reply) -> Outcome {
    let found = match reply.tool_calls.as_slice() {
        [] => reply.content.clone().unwrap_or_default(),
        calls => calls
            .iter()
            .map(|call| format!("{}({})", call.name, call.arguments))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let parsed: Vec<Option<Json>> =
        reply.tool_calls.iter().map(|call| Json::parse(&call.arguments).ok()).collect();
    let wanted = if exchange.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    let syntax = reply.finish_reason == wanted && parsed.iter().all(Option::is_some);
    let same = |same: &dyn Fn(&Call, &ReplyCall) -> bool| {
        exchange.calls.len() == reply.tool_calls.len()
            && exchange.calls.iter().zip(&reply.tool_calls).all(|(wanted, found)| same(wanted, found))
    };
    let tool = syntax && same(&|wanted, found| wanted.name == found.name);
    let arguments = tool && same(&|wanted, found| same_arguments(&wanted.arguments, &found.arguments));
    let answer = exchange.calls.is_empty() && reply.content.as_deref() == Some(&exchange.answer);
    Outcome { syntax, tool, arguments, answer, found }
}

/// The same keys and values in any order; numbers by value.
fn same_arguments(wanted: &Json, found: &str) -> bool {
    let Ok(found) = Json::parse(found) else { return false };
    match (wanted, &found) {
        (Json::Object(wanted), Json::Object(found)) => {
            wanted.len() == found.len()
                && wanted
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|found| same_value(value, found)))
        }
        _ => false,
    }
}

fn same_value(wanted: &Json, found: &Json) -> bool {
    match (wanted, found) {
        (Json::Number(wanted), Json::Number(found)) => {
            wanted.parse::<f64>().ok() == found.parse::<f64>().ok()
        }
        (wanted, found) => wanted == found,
    }
}

fn failure(case: &Dialogue, outcome: &Outcome) -> Option<Failure> {
    let exchange = case.exchanges.last().filter(|_| !outcome.is_right())?;
    let calls: Vec<String> = exchange
        .calls
        .iter()
        .map(|call| {
            format!(
                "{}({})",
                call.name,
                k2_chat::python_json::dumps(&call.arguments, k2_chat::python_json::Style::Default)
            )
        })
        .collect();
    let wanted = if calls.is_empty() {
        exchange.answer.clone()
    } else {
        format!("{} → {}", calls.join(", "), exchange.answer)
    };
    let tools = case.tools.iter().filter_map(Tool::name).map(str::to_owned).collect();
    Some(Failure { user: exchange.user.clone(), tools, wanted, found: outcome.found.clone() })
}
