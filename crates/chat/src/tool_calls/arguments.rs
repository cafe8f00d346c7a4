//! The arguments of a call, passed through as the model writes them.
//!
//! Blanks around them are dropped, everything else is kept byte for byte, valid JSON or not.
//! Arguments that begin with a quote may be JSON inside a JSON string (MoonshotAI/Kimi-K2 issue
//! 26) and wait for their end; if a string that holds an object comes out, it is unwrapped.

use crate::json::Json;

/// Trims and unwraps a stream of arguments.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Something other than blanks has come.
    started: bool,
    /// The first byte was a quote: all text waits here.
    quoted: Option<String>,
    /// Blanks that may be the last.
    blanks: String,
    /// What has been passed on.
    passed: String,
}

impl Arguments {
    /// Takes more text; gives what can be passed on.
    pub fn push(&mut self, text: &str) -> String {
        let text = if self.started { text } else { text.trim_start() };
        if text.is_empty() {
            return String::new();
        }
        if !self.started {
            self.started = true;
            self.quoted = text.starts_with('"').then(String::new);
        }
        let trimmed = text.trim_end();
        let mut ready = String::new();
        if !trimmed.is_empty() {
            ready = std::mem::take(&mut self.blanks) + trimmed;
        }
        self.blanks.push_str(&text[trimmed.len()..]);
        match &mut self.quoted {
            Some(quoted) => {
                quoted.push_str(&ready);
                String::new()
            }
            None => {
                self.passed.push_str(&ready);
                ready
            }
        }
    }

    /// The end: the last text, and whether all of it is an object. Complete arguments are at least
    /// the empty one; those that were cut off stay as they are.
    pub fn finish(mut self, complete: bool) -> (String, bool) {
        let rest = match self.quoted {
            Some(quoted) => unwrap(&quoted).unwrap_or(quoted),
            None if !self.started && complete => "{}".to_owned(),
            None => String::new(),
        };
        self.passed.push_str(&rest);
        let is_object = is_object(&self.passed);
        (rest, is_object)
    }
}

/// The JSON object inside a JSON string.
fn unwrap(quoted: &str) -> Option<String> {
    let inner: String = serde_json::from_str(quoted).ok()?;
    is_object(&inner).then_some(inner)
}

fn is_object(text: &str) -> bool {
    matches!(Json::parse(text), Ok(Json::Object(_)))
}
