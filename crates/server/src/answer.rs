//! From the engine's events to the pieces of an answer, for all endpoints and for streams and wholes alike.

use std::sync::Arc;

use k2_chat::{Delta, Detokenizer, EndReason, FinishReason, StopMatcher, ToolCallParser};
use k2_engine::{Event, Events, FinishReason as EngineReason, Usage};

use crate::error::ApiError;
use crate::served::Served;

/// An answer on its way. Dropping it cancels the request.
pub(crate) struct Answer {
    served: Arc<Served>,
    events: Events,
    /// None once the end has been given out.
    reader: Option<Reader>,
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
    /// Its next pieces.
    Deltas(Vec<Delta>),
    /// Its last pieces, why it ended and what it took.
    End(Vec<Delta>, FinishReason, Usage),
    /// It cannot be finished.
    Failed(ApiError),
}

impl Answer {
    pub(crate) fn new(served: Arc<Served>, events: Events, reader: Reader) -> Answer {
        Answer { served, events, reader: Some(reader) }
    }

    /// Waits for the next step; none after [`Step::End`] and [`Step::Failed`].
    pub(crate) async fn next(&mut self) -> Option<Step> {
        loop {
            self.reader.as_ref()?;
            match self.events.recv().await {
                Some(Event::Token { id }) => match self.token(id) {
                    Ok(deltas) if deltas.is_empty() => {}
                    Ok(deltas) => return Some(Step::Deltas(deltas)),
                    Err(error) => return Some(self.fail(error)),
                },
                Some(Event::PromptLogits { .. }) => {}
                Some(Event::Finished { reason: EngineReason::Failed(why), .. }) => {
                    return Some(self.fail(format!("the model failed: {why}")));
                }
                Some(Event::Finished { reason, usage, .. }) => return self.end(&reason, usage),
                None => return Some(self.fail("the engine has stopped".to_owned())),
            }
        }
    }

    fn token(&mut self, id: u32) -> Result<Vec<Delta>, String> {
        let Some(reader) = self.reader.as_mut().filter(|reader| !reader.stopped()) else {
            return Ok(Vec::new());
        };
        let deltas = reader.push(&self.served, id)?;
        if reader.stopped() {
            self.events.canceller().cancel();
        }
        Ok(deltas)
    }

    fn end(&mut self, reason: &EngineReason, usage: Usage) -> Option<Step> {
        let reader = self.reader.take()?;
        let reason = match reason {
            EngineReason::Length if !reader.stopped() => EndReason::Length,
            _ => EndReason::EndOfTurn,
        };
        let (deltas, reason) = reader.finish(reason);
        Some(Step::End(deltas, reason, usage))
    }

    fn fail(&mut self, message: String) -> Step {
        self.reader = None;
        Step::Failed(ApiError::failed(message))
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

    fn stopped(&self) -> bool {
        match self {
            Reader::Chat(parser) => parser.stopped(),
            Reader::Text(_, stop) => stop.stopped(),
        }
    }

    fn finish(self, reason: EndReason) -> (Vec<Delta>, FinishReason) {
        match self {
            Reader::Chat(parser) => {
                let finished = parser.finish(reason);
                for id in &finished.dropped {
                    eprintln!("a tool call was dropped: no declared tool can be read from {id:?}");
                }
                (finished.deltas, finished.finish_reason)
            }
            Reader::Text(mut detokenizer, mut stop) => {
                let text = stop.push(&detokenizer.finish()) + &stop.finish();
                let reason = match reason {
                    EndReason::EndOfTurn => FinishReason::Stop,
                    EndReason::Length => FinishReason::Length,
                };
                (content(text), reason)
            }
        }
    }
}

fn content(text: String) -> Vec<Delta> {
    if text.is_empty() { Vec::new() } else { vec![Delta::Content(text)] }
}
