//! Server-sent events, read line by line (WHATWG HTML, section 9.2 "Server-sent events").

use std::mem;
use std::time::Duration;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The field `event`; most endpoints leave it out.
    pub name: Option<String>,
    /// The lines of its fields `data`, joined.
    pub data: String,
    /// When its last byte came, from the moment the request was sent.
    pub at: Duration,
}

/// Bytes to events, cut anywhere. Comments and other fields are passed over.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    after_carriage_return: bool,
    name: Option<String>,
    data: Option<String>,
    events: Vec<Event>,
}

impl EventParser {
    /// Takes the bytes that came at a moment.
    pub fn push(&mut self, bytes: &[u8], at: Duration) {
        for &byte in bytes {
            let ends = byte == b'\r' || (byte == b'\n' && !self.after_carriage_return);
            if ends {
                self.end_line(at);
            } else if byte != b'\n' {
                self.line.push(byte);
            }
            self.after_carriage_return = byte == b'\r';
        }
    }

    /// All events. One that no empty line has ended is dropped, as the specification says.
    pub fn finish(self) -> Vec<Event> {
        self.events
    }

    fn end_line(&mut self, at: Duration) {
        let line = mem::take(&mut self.line);
        if line.is_empty() {
            self.dispatch(at);
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            _ => {}
        }
    }

    fn dispatch(&mut self, at: Duration) {
        let name = self.name.take();
        if let Some(data) = self.data.take() {
            self.events.push(Event { name, data, at });
        }
    }
}
