//! Stop strings in a stream of text.
//!
//! Generation stops at the first character that completes any of the strings, and the text ends
//! before the string. Text that could still become the head of a stop string is held back, so what
//! has been given out is right whatever comes next and however the text was cut into chunks.

/// More stop strings than any client sends (OpenAI allows 4).
pub const MAX_STOPS: usize = 64;

/// Watches a stream for stop strings.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the head of a stop string.
    held: String,
    /// The stop string that has been seen.
    found: Option<String>,
}

/// Why a list of stop strings is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// An empty string would stop before anything.
    #[error("stop[{index}] is empty; a stop string has at least one character")]
    Empty {
        /// Position in the list.
        index: usize,
    },
    /// Too many strings.
    #[error("{count} stop strings; at most {MAX_STOPS} are accepted")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl StopMatcher {
    /// A matcher for these strings; without any it lets all text through.
    pub fn new(stops: Vec<String>) -> Result<Self, StopError> {
        if stops.len() > MAX_STOPS {
            return Err(StopError::TooMany { count: stops.len() });
        }
        match stops.iter().position(String::is_empty) {
            Some(index) => Err(StopError::Empty { index }),
            None => Ok(Self { stops, ..Self::default() }),
        }
    }

    /// Takes more text and gives back what is certainly before any stop string. Once stopped it
    /// gives nothing more.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped() {
            return String::new();
        }
        self.held.push_str(text);
        let safe = match self.first_stop() {
            Some((start, stop)) => {
                self.found = Some(stop);
                start
            }
            None => self.held.len() - self.head_at_end(),
        };
        let rest = self.held.split_off(safe);
        let safe = std::mem::replace(&mut self.held, rest);
        if self.stopped() {
            self.held.clear();
        }
        safe
    }

    /// The end of the text: what was held back was no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// True once a stop string has been seen.
    pub fn stopped(&self) -> bool {
        self.found.is_some()
    }

    /// The stop string that has been seen.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// The stop string that is complete first, and where it begins.
    fn first_stop(&self) -> Option<(usize, String)> {
        let found = |stop: &String| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start));
        let all = self.stops.iter().filter_map(|stop| found(stop).map(|place| (place, stop)));
        all.min().map(|((_, start), stop)| (start, stop.clone()))
    }

    /// Length of the longest end of the text that begins a stop string.
    fn head_at_end(&self) -> usize {
        self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0)
    }
}

/// Length of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len().saturating_sub(1));
    let is_end = |at: &usize| stop.get(..*at).is_some_and(|head| text.ends_with(head));
    (1..=most).rev().find(is_end).unwrap_or(0)
}
