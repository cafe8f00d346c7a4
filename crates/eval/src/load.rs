//! `k2 bench serve`: clients that ask for streamed answers, and what they see of the time.
//!
//! Either so many clients ask one question after the other (a closed loop), or questions arrive by themselves at a
//! rate (Poisson) whether or not earlier ones are answered. Tokens are counted by the endpoint (`usage`).

mod prompt;
mod random;
mod report;
mod request;

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use k2_chat::Tokenizer;

use crate::endpoint::Endpoint;
use crate::error::EndpointError;

use random::Random;
pub use report::{Distribution, Report};
pub use request::Sample;
use request::{Asked, Form};

/// What is asked, how often and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it is asked.
    pub route: Route,
    /// Requests under way at a time, at most.
    pub clients: usize,
    /// Questions a second; none: each client asks when its last answer has come.
    pub rate: Option<f64>,
    /// When no more is asked. What is under way is waited for.
    pub until: Until,
    /// Tokens of a prompt's text, drawn evenly.
    pub prompt_tokens: Between,
    /// Tokens of an answer, drawn evenly.
    pub answer_tokens: Between,
    /// Ask for answers that do not end by themselves, if the endpoint can do that.
    pub ignore_eos: bool,
    /// Decides lengths, texts and arrivals.
    pub seed: u64,
}

/// Which API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/chat/completions`: the text is a user's message.
    Chat,
    /// `/completions`: the text is the prompt.
    Completions,
}

/// When it is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After so many requests.
    Requests(usize),
    /// After so much time.
    Elapsed(Duration),
}

/// A length between two, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// The least.
    pub least: usize,
    /// The most.
    pub most: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The first request got no answer.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The first request was refused.
    #[error("the endpoint refuses the first request: {0}")]
    Refused(String),
    /// A plan that asks for nothing.
    #[error("{what} is {found}, expected {expected}")]
    Plan {
        /// Which part.
        what: &'static str,
        /// What was given.
        found: String,
        /// What would do.
        expected: &'static str,
    },
}

/// Puts load on a model of an endpoint. `seen` hears each request as it ends.
///
/// # Errors
///
/// The plan asks for nothing, or a first request of one token shows that the endpoint does not answer.
pub fn run(
    endpoint: &Endpoint,
    model: &str,
    plan: &Plan,
    tokenizer: Option<&Tokenizer>,
    seen: impl Fn(&Sample) + Sync,
) -> Result<Report, LoadError> {
    check(plan)?;
    let form = Form::settle(endpoint, model, plan)?;
    let source = Mutex::new(Source { random: Random::new(plan.seed), asked: 0, due: Duration::ZERO });
    let start = Instant::now();
    let client = || {
        let mut samples = Vec::new();
        while let Some(asked) = next(&source, plan, tokenizer, start) {
            let late = wait(start, asked.due);
            let sample = Sample { late, ..form.ask(endpoint, &asked) };
            seen(&sample);
            samples.push(sample);
        }
        samples
    };
    let samples: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients).map(|_| scope.spawn(client)).collect();
        let samples = |client: thread::ScopedJoinHandle<'_, Vec<Sample>>| {
            client.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        clients.into_iter().flat_map(samples).collect()
    });
    Ok(Report::new(endpoint.url(), model, plan, form.ignores_eos(), &samples, start.elapsed()))
}

fn check(plan: &Plan) -> Result<(), LoadError> {
    let wrong = |what, found: String, expected| Err(LoadError::Plan { what, found, expected });
    match plan {
        Plan { clients: 0 | 10_001.., .. } => {
            wrong("the number of clients", plan.clients.to_string(), "1 to 10000")
        }
        Plan { rate: Some(rate), .. } if !(rate.is_finite() && *rate > 0.0) => {
            wrong("the rate", rate.to_string(), "a number above 0")
        }
        Plan { until: Until::Requests(0), .. } => wrong("the number of requests", "0".into(), "at least 1"),
        _ => [("the prompt's length", plan.prompt_tokens), ("the answer's length", plan.answer_tokens)]
            .into_iter()
            .try_for_each(|(what, Between { least, most })| {
                match least >= 1 && least <= most && most <= 10_000_000 {
                    true => Ok(()),
                    false => wrong(
                        what,
                        format!("{least} to {most} tokens"),
                        "1 or more, the smaller number first",
                    ),
                }
            }),
    }
}

/// What the clients share: which question comes next.
struct Source {
    random: Random,
    asked: usize,
    /// When the next question arrives, if questions arrive by themselves.
    due: Duration,
}

/// The next question, or none if it is enough.
fn next(source: &Mutex<Source>, plan: &Plan, tokenizer: Option<&Tokenizer>, start: Instant) -> Option<Asked> {
    let (mut random, index, due) = {
        let mut source = source.lock().ok()?;
        let index = source.asked;
        let due = match plan.rate {
            None => start.elapsed(),
            Some(rate) => {
                let gap = source.random.exponential() / rate;
                source.due += Duration::from_secs_f64(gap.min(1e6));
                source.due
            }
        };
        let enough = match plan.until {
            Until::Requests(count) => index >= count,
            Until::Elapsed(limit) => due >= limit,
        };
        if enough {
            return None;
        }
        source.asked += 1;
        (source.random.fork(), index, due)
    };
    let prompt_tokens = random.between(plan.prompt_tokens);
    let answer_tokens = random.between(plan.answer_tokens);
    let prompt = prompt::text(&mut random, index, prompt_tokens, tokenizer);
    Some(Asked { prompt, answer_tokens, seed: random.next(), due })
}

/// Waits until a question is due; how late it is if that has passed.
fn wait(start: Instant, due: Duration) -> Duration {
    let now = start.elapsed();
    thread::sleep(due.saturating_sub(now));
    now.saturating_sub(due)
}
