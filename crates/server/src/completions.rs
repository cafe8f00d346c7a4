//! `POST /v1/completions`: raw continuation, as in OpenAI's API reference ("Create completion").
//!
//! Markers of tool calls stay text here, so that clients can parse them by hand; in the prompt they become
//! control tokens, since whoever writes a raw prompt writes the turn format too. With `echo` and `logprobs` a
//! prompt's own tokens get their probabilities: benchmarks of base models choose the likeliest of several texts.

mod choice;
mod prompt;
mod token_list;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use k2_chat::Detokenizer;
use k2_engine::{Request, Usage};

use crate::answer::{Answer, End, Reader};
use crate::blocking::blocking;
use crate::body::Body;
use crate::error::ApiError;
use crate::options::Options;
use crate::served::Served;
use crate::stream::{Head, sse, usage};
use choice::{Choice, Shown};

/// OpenAI's default for this endpoint.
const MAX_TOKENS: usize = 16;

/// Most answers to one request, over all its prompts.
const MAX_CHOICES: usize = 128;

/// What a client asks for.
struct Completion {
    /// Each prompt's ids.
    prompts: Vec<Vec<u32>>,
    options: Options,
    /// Answers to each.
    n: usize,
    /// `max_tokens` is 0: the prompt is computed and nothing else.
    only_prompt: bool,
    shown: Shown,
}

pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let head = Arc::new(Head::new("cmpl", &served.model_name));
    let of_choices = Arc::clone(&head);
    let begin = move || {
        let completion = Completion::take(Body::parse(&body)?, &served)?;
        Ok((completion.options.stream.is_some(), completion.start(&served, &of_choices)?))
    };
    let (streams, choices) = blocking(begin).await?;
    if streams {
        return Ok(sse(choices));
    }
    let (mut shown, mut ends) = (Vec::new(), Vec::new());
    for (answer, mut choice) in choices {
        let (reply, end) = answer.whole().await?;
        shown.push(choice.whole(reply.content.as_deref().unwrap_or_default(), &end));
        ends.push(end);
    }
    let mut completion = head.json("text_completion", shown.into());
    completion["usage"] = usage(&total(&ends));
    Ok(Json(completion).into_response())
}

impl Completion {
    fn take(mut body: Body, served: &Served) -> Result<Completion, ApiError> {
        served.check_model(&mut body)?;
        let only_prompt = body.peek::<Option<i64>>("max_tokens")?.flatten() == Some(0);
        if only_prompt {
            body.optional::<i64>("max_tokens")?;
        }
        let options = Options::take(&mut body, served)?;
        let n = options.n;
        body.only("suffix", &[String::new()])?;
        if let Some(best_of) = body.optional::<usize>("best_of")?.filter(|best_of| *best_of != n) {
            let message = format!("`best_of` is {best_of} and `n` is {}; this server gives all answers", n);
            return Err(ApiError::unsupported("best_of", message));
        }
        let shown = Shown::take(&mut body, &options, served.limits.top_logprobs)?;
        let prompts = prompt::take(&mut body, served)?;
        body.finish()?;
        let (given, most) = (prompts.len(), served.most_answers(MAX_CHOICES));
        if given.saturating_mul(n) > most {
            let message = format!("{given} prompts with {n} answers each; at most {most} answers are given");
            return Err(ApiError::field("prompt", message));
        }
        Ok(Completion { prompts, options, n, only_prompt, shown })
    }

    fn request(&self, served: &Served, prompt: &[u32]) -> Request {
        let request = self.options.request(served, prompt.to_vec(), MAX_TOKENS);
        Request {
            max_tokens: if self.only_prompt { 0 } else { request.max_tokens },
            logprobs: self.shown.logprobs,
            prompt_logprobs: self.shown.logprobs.filter(|_| self.shown.echo),
            ..request
        }
    }

    /// Submits every prompt as often as answers are wanted.
    fn start(&self, served: &Arc<Served>, head: &Arc<Head>) -> Result<Vec<(Answer, Choice)>, ApiError> {
        let mut choices = Vec::new();
        for prompt in &self.prompts {
            let request = self.request(served, prompt);
            for index in 0..self.n {
                let sampling = request.sampling.of_answer(index as u64);
                let events = served
                    .engine
                    .submit(Request { sampling, ..request.clone() })
                    .map_err(|error| ApiError::submit(&error, "prompt"))?;
                let reader = Reader::Text(Detokenizer::new(), self.options.stop.clone());
                let choice = Choice::new(Arc::clone(head), choices.len(), self.shown, prompt, served);
                choices.push((Answer::new(Arc::clone(served), events, reader), choice));
            }
        }
        Ok(choices)
    }
}

/// What all answers took together. Answers to the same prompt each count it, since each has read it.
fn total(ends: &[End]) -> End {
    let sum = |of: fn(&Usage) -> usize| ends.iter().map(|end| of(&end.usage)).sum();
    let usage = Usage {
        prompt_tokens: sum(|usage| usage.prompt_tokens),
        num_cached_tokens: sum(|usage| usage.num_cached_tokens),
        completion_tokens: sum(|usage| usage.completion_tokens),
        num_accepted_tokens: sum(|usage| usage.num_accepted_tokens),
    };
    End { usage, ..End::default() }
}
