//! All checks that were asked for, several at a time.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::case::Case;
use super::parameters::{ParameterRules, ThinkMode};
use super::prompt_tokens::Renderer;
use super::requests::{Outcome, RequestFile};
use super::target::{Target, Transport};
use super::{Check, Group, Report, Verdict};
use super::{
    dynamic_tools, model, parameters, prompt_tokens, raw_completions, requests, response_format, stream,
    tool_choice, tool_schemas,
};
use crate::answer::Finding;
use crate::endpoint::Endpoint;

/// What is checked, and how.
pub struct Settings<'a> {
    /// The groups.
    pub groups: Vec<Group>,
    /// Which values of parameters must be taken and refused.
    pub parameter_rules: ParameterRules,
    /// How requests say whether the model should think.
    pub think_mode: ThinkMode,
    /// Our own count of prompts, if there is a tokenizer.
    pub renderer: Option<Renderer<'a>>,
    /// Requests of [`Group::Requests`].
    pub requests: Option<RequestFile>,
    /// Requests under way at a time.
    pub concurrency: usize,
}

/// A check that is still to be done.
pub(super) struct Planned<'a> {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) work: Work<'a>,
}

type Look<'a> = dyn Fn(&Target<'_>) -> Result<(), Finding> + Sync + Send + 'a;

/// How it is done.
pub(super) enum Work<'a> {
    /// Looks at the target.
    Look(Box<Look<'a>>),
    /// Not at all, for a reason.
    Skip(String),
}

impl<'a> Planned<'a> {
    pub(super) fn new(
        group: Group,
        name: impl Into<String>,
        look: impl Fn(&Target<'_>) -> Result<(), Finding> + Sync + Send + 'a,
    ) -> Planned<'a> {
        Planned { group, name: name.into(), work: Work::Look(Box::new(look)) }
    }

    pub(super) fn skipped(group: Group, name: impl Into<String>, why: impl Into<String>) -> Planned<'a> {
        Planned { group, name: name.into(), work: Work::Skip(why.into()) }
    }

    /// Each case whole and as a stream.
    pub(super) fn both(group: Group, cases: Vec<Case>) -> Vec<Planned<'a>> {
        let each = |case: Case| {
            Transport::BOTH.map(|transport| {
                let (name, case) = (format!("{}, {}", case.name, transport.name()), case.clone());
                Planned::new(group, name, move |target| case.check(target, transport))
            })
        };
        cases.into_iter().flat_map(each).collect()
    }

    fn check(&self, target: &Target<'_>) -> Check {
        let start = Instant::now();
        let verdict = match &self.work {
            Work::Skip(why) => Verdict::Skipped(why.clone()),
            Work::Look(look) => match look(target) {
                Ok(()) => Verdict::Passed,
                Err(Finding(found)) => Verdict::Failed(found),
            },
        };
        Check { group: self.group, name: self.name.clone(), verdict, seconds: start.elapsed() }
    }
}

/// Checks a model of an endpoint. `seen` hears each finished check, and how many there are.
pub fn run(
    endpoint: &Endpoint,
    model: &str,
    settings: &Settings<'_>,
    seen: impl Fn(&Check, usize) + Sync,
) -> Report {
    let target = Target { endpoint, model };
    let outcomes = Mutex::new(Vec::new());
    let planned: Vec<_> =
        settings.groups.iter().flat_map(|group| plan(*group, settings, &outcomes)).collect();
    let mut checks = in_parallel(settings.concurrency, &planned, |work| {
        let check = work.check(&target);
        seen(&check, planned.len());
        check
    });
    let outcomes = outcomes.lock().map(|outcomes| outcomes.clone()).unwrap_or_default();
    let file = settings.requests.as_ref().filter(|_| settings.groups.contains(&Group::Requests));
    let tool_calls = file.map(|file| file.trigger(&outcomes));
    checks.extend(tool_calls.as_ref().zip(file).and_then(|(trigger, file)| file.judge(trigger)));
    let failed = checks.iter().filter(|check| matches!(check.verdict, Verdict::Failed(_))).count();
    Report { url: endpoint.url().to_owned(), model: model.to_owned(), failed, tool_calls, checks }
}

fn plan<'a>(group: Group, settings: &'a Settings<'_>, outcomes: &'a Mutex<Vec<Outcome>>) -> Vec<Planned<'a>> {
    match group {
        Group::Parameters => parameters::plan(settings.parameter_rules, settings.think_mode),
        Group::PromptTokens => prompt_tokens::plan(settings.renderer.as_ref()),
        Group::ToolSchemas => tool_schemas::plan(),
        Group::ToolChoice => Planned::both(group, tool_choice::cases()),
        Group::ResponseFormat => Planned::both(group, response_format::cases()),
        Group::DynamicTools => Planned::both(group, dynamic_tools::cases()),
        Group::Stream => stream::plan(),
        Group::RawCompletions => raw_completions::plan(settings.renderer.as_ref()),
        Group::Model => model::plan(),
        Group::Requests => requests::plan(settings.requests.as_ref(), outcomes),
    }
}

/// The results of `work` on all items, in their order, computed on so many threads.
fn in_parallel<I: Sync, R: Send>(threads: usize, items: &[I], work: impl Fn(&I) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return results };
            results.push((index, work(item)));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, items.len().max(1))).map(|_| scope.spawn(some)).collect();
        let results = |thread: thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().flat_map(results).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
