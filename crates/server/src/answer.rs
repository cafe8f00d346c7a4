//! From the engine's events to the pieces of an answer, for all endpoints and for streams and wholes alike.

use std::sync::Arc;

use k2_chat::tool_calls::Finished;
use k2_chat::{Delta, Detokenizer, EndReason, FinishReason, Reply, StopMatcher, ToolCallParser};
use k2_engine::{Event, Events, FinishReason as EngineReason, Logprobs, Usage};

use crate::error::ApiError;
use crate::record::Record;
use crate::served::Served;

/// An answer on its way. Dropping it cancels the request.
pub(crate) struct Answer {
    served: Arc<Served>,
    events: Events,
    /// None once the end has been given out.
    reader: Option<Reader>,
    /// The request that it belongs to.
    record: Option<Arc<Record>>,
    /// Tokens so far, up to the one that completes a stop string.
    num_tokens: usize,
    /// Tokens of reasoning so far.
    reasoning_tokens: usize,
    /// Of the tokens since they were last taken.
    logprobs: Vec<TokenLogprobs>,
    /// The ids of the turn so far, if it is to be remembered.
    turn: Option<Vec<u32>>,
}

/// How likely a token was, as the client may see it: tokens by their bytes.
#[derive(Clone, Debug)]
pub(crate) struct TokenLogprobs {
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f32,
    /// The likeliest tokens at its place.
    pub(crate) top: Vec<(Vec<u8>, f32)>,
}

/// What tokens become.
pub(crate) enum Reader {
    /// Reasoning, content and calls.
    Chat(Box<ToolCallParser>),
    /// Text as it is, markers included.
    Text(Detokenizer, StopMatcher),
}

/// Something of an answer.
pub(crate) enum Step {
    /// The prompt is being computed.
    Prefill {
        /// Prompt tokens done.
        num_computed_tokens: usize,
        /// Tokens of the prompt.
        usage: Usage,
    },
    /// How likely the prompt's next tokens are, each after those before it; the first has none.
    Prompt(Vec<TokenLogprobs>),
    /// Its next pieces.
    Deltas(Vec<Delta>),
    /// Its last pieces, and its end.
    End(Vec<Delta>, End),
    /// It cannot be finished.
    Failed(ApiError),
}

/// How an answer ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    pub(crate) finish_reason: FinishReason,
    /// The call, by its place, in which it ended. A whole answer is without it.
    pub(crate) cut_call: Option<usize>,
    /// The stop string that ended it.
    pub(crate) stop: Option<String>,
    pub(crate) usage: Usage,
    /// How many of the tokens were reasoning.
    pub(crate) reasoning_tokens: usize,
    /// Those of the prompt's tokens from the second on, in a whole answer.
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    /// Those that have not been taken before.
    pub(crate) logprobs: Vec<TokenLogprobs>,
}

impl Answer {
    pub(crate) fn new(served: Arc<Served>, events: Events, reader: Reader) -> Answer {
        Answer {
            served,
            events,
            reader: Some(reader),
            record: Record::current(),
            num_tokens: 0,
            reasoning_tokens: 0,
            logprobs: Vec::new(),
            turn: None,
        }
    }

    /// Remembers the turn that continues this prompt, what the prompt has of it already included.
    pub(crate) fn remembered_after(mut self, prompt: &[u32]) -> Answer {
        let head = self.served.tokenizer.specials().id("<|im_middle|>");
        let begin = prompt.iter().rposition(|id| Some(*id) == head);
        self.turn = begin.map(|begin| prompt[begin + 1..].to_vec());
        self
    }

    /// Waits for the next step; none after [`Step::End`] and [`Step::Failed`].
    pub(crate) async fn next(&mut self) -> Option<Step> {
        loop {
            self.reader.as_ref()?;
            match self.events.recv().await {
                Some(Event::Prefill { num_computed_tokens, usage }) => {
                    return Some(Step::Prefill { num_computed_tokens, usage });
                }
                Some(Event::Token { id, logprobs }) => match self.token(id, logprobs.as_ref()) {
                    Ok(deltas) if deltas.is_empty() => {}
                    Ok(deltas) => return Some(Step::Deltas(deltas)),
                    Err(error) => return Some(self.fail(error)),
                },
                Some(Event::PromptLogits { .. }) => {}
                Some(Event::PromptLogprobs { tokens }) => {
                    let shown =
                        |(id, logprobs): &(u32, Logprobs)| TokenLogprobs::new(&self.served, *id, logprobs);
                    return Some(Step::Prompt(tokens.iter().map(shown).collect()));
                }
                Some(Event::Finished { reason, usage, timings }) => {
                    if let Some(record) = &self.record {
                        record.answered(usage, timings);
                    }
                    return match reason {
                        EngineReason::Failed(why) => Some(self.fail(format!("the model failed: {why}"))),
                        reason => self.end(&reason, usage),
                    };
                }
                None => return Some(self.fail("the engine has stopped".to_owned())),
            }
        }
    }

    /// Waits for all of it.
    pub(crate) async fn whole(mut self) -> Result<(Reply, End), ApiError> {
        let (mut reply, mut prompt_logprobs) = (Reply::default(), Vec::new());
        while let Some(step) = self.next().await {
            match step {
                Step::Prefill { .. } => {}
                Step::Prompt(tokens) => prompt_logprobs.extend(tokens),
                Step::Deltas(deltas) => reply.extend(deltas),
                Step::End(deltas, mut end) => {
                    end.prompt_logprobs = prompt_logprobs;
                    reply.extend(deltas);
                    reply.finish_reason = end.finish_reason;
                    reply.leave_out(end.cut_call);
                    return Ok((reply, end));
                }
                Step::Failed(error) => return Err(error),
            }
        }
        Err(ApiError::failed("the answer has no end"))
    }

    /// Log-probabilities of the tokens since this was last asked.
    pub(crate) fn take_logprobs(&mut self) -> Vec<TokenLogprobs> {
        std::mem::take(&mut self.logprobs)
    }

    fn token(&mut self, id: u32, logprobs: Option<&Logprobs>) -> Result<Vec<Delta>, String> {
        let Some(reader) = self.reader.as_mut().filter(|reader| !reader.stopped()) else {
            return Ok(Vec::new());
        };
        self.num_tokens += 1;
        self.reasoning_tokens += usize::from(reader.is_reasoning());
        if let Some(turn) = &mut self.turn {
            turn.push(id);
        }
        self.logprobs.extend(logprobs.map(|logprobs| TokenLogprobs::new(&self.served, id, logprobs)));
        let deltas = reader.push(&self.served, id)?;
        if reader.stopped() {
            self.events.canceller().cancel();
        }
        Ok(deltas)
    }

    fn end(&mut self, reason: &EngineReason, mut usage: Usage) -> Option<Step> {
        let reader = self.reader.take()?;
        if reader.stopped() {
            // The engine went on until it heard of the stop string.
            usage.completion_tokens = self.num_tokens;
        }
        if let (EngineReason::Stop(_), Some(turn)) = (reason, &self.turn) {
            self.served.turns.remember(&self.served.tokenizer, turn);
        }
        let reason = match reason {
            EngineReason::Length if !reader.stopped() => EndReason::Length,
            _ => EndReason::EndOfTurn,
        };
        let (deltas, end) = reader.finish(reason);
        let (reasoning_tokens, logprobs) = (self.reasoning_tokens, self.take_logprobs());
        Some(Step::End(deltas, End { usage, reasoning_tokens, logprobs, ..end }))
    }

    fn fail(&mut self, message: String) -> Step {
        tracing::error!(message, "an answer failed");
        self.reader = None;
        Step::Failed(ApiError::failed(message))
    }
}

impl TokenLogprobs {
    fn new(served: &Served, id: u32, logprobs: &Logprobs) -> TokenLogprobs {
        // Ids without a token have no bytes.
        let bytes = |id: u32| served.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
        let top = logprobs.top.iter().map(|(id, logprob)| (bytes(*id), *logprob)).collect();
        TokenLogprobs { bytes: bytes(id), logprob: logprobs.chosen, top }
    }
}

impl Reader {
    fn push(&mut self, served: &Served, id: u32) -> Result<Vec<Delta>, String> {
        match self {
            Reader::Chat(parser) => {
                parser.push_token(&served.tokenizer, id).map_err(|error| error.to_string())
            }
            Reader::Text(detokenizer, stop) => {
                let text = detokenizer.push(&served.tokenizer, id).map_err(|error| error.to_string())?;
                Ok(content(stop.push(&text)))
            }
        }
    }

    fn is_reasoning(&self) -> bool {
        matches!(self, Reader::Chat(parser) if parser.is_reasoning())
    }

    fn stopped(&self) -> bool {
        match self {
            Reader::Chat(parser) => parser.stopped(),
            Reader::Text(_, stop) => stop.stopped(),
        }
    }

    /// The last pieces, and what of the end it knows.
    fn finish(self, reason: EndReason) -> (Vec<Delta>, End) {
        match self {
            Reader::Chat(parser) => {
                let Finished { deltas, finish_reason, cut_call, stop, dropped } = parser.finish(reason);
                if !dropped.is_empty() {
                    let calls = dropped.len();
                    tracing::warn!(calls, "tool calls were dropped that name no declared tool");
                }
                // An id that the client stops at may come in the middle of a call, which then is not to be made.
                let finish_reason = match (finish_reason, cut_call) {
                    (FinishReason::ToolCalls, Some(_)) => FinishReason::Stop,
                    (reason, _) => reason,
                };
                (deltas, End { finish_reason, cut_call, stop, ..End::default() })
            }
            Reader::Text(mut detokenizer, mut stop) => {
                let text = stop.push(&detokenizer.finish()) + &stop.finish();
                let finish_reason = match reason {
                    EndReason::EndOfTurn => FinishReason::Stop,
                    EndReason::Length => FinishReason::Length,
                };
                let stop = stop.found().map(str::to_owned);
                (content(text), End { finish_reason, stop, ..End::default() })
            }
        }
    }
}

fn content(text: String) -> Vec<Delta> {
    if text.is_empty() { Vec::new() } else { vec![Delta::Content(text)] }
}
