//! The log: lines on standard error, as text or as JSON, one for each request.
//!
//! A thread of its own writes them. When nobody reads standard error any more, lines are lost and the server goes on.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<LogFormat, String> {
        [LogFormat::Text, LogFormat::Json]
            .into_iter()
            .find(|format| format.to_string() == name)
            .ok_or_else(|| format!("{name:?} is neither text nor json"))
    }
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

impl LogLevel {
    /// What somebody should look at, and worse.
    pub const WARN: LogLevel = LogLevel(LevelFilter::WARN);
}

impl Default for LogLevel {
    fn default() -> LogLevel {
        LogLevel(LevelFilter::INFO)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(name: &str) -> Result<LogLevel, String> {
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        let level = known.contains(&name).then(|| name.parse().ok()).flatten();
        level.map(LogLevel).ok_or_else(|| format!("{name:?} is none of {}", known.join(", ")))
    }
}

/// Lines that may wait to be written.
const MAX_LINES: usize = 4096;
/// How long the end of the process waits for them.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of this process. Dropping it waits for the last lines.
#[derive(Debug)]
pub struct Log(Lines);

#[derive(Clone, Debug)]
struct Lines(SyncSender<Line>);

enum Line {
    Text(Vec<u8>),
    /// Everything before this has been written.
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts it; if the process has one already, that one goes on.
    pub fn start(format: LogFormat, level: LogLevel) -> io::Result<Log> {
        let (sender, receiver) = sync_channel(MAX_LINES);
        thread::Builder::new().name("k2-log".into()).spawn(move || write(&receiver))?;
        let lines = Lines(sender);
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level.0)
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        // The one error is that there is a log already.
        let _ = match format {
            LogFormat::Text => subscriber.try_init(),
            LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        };
        Ok(Log(lines))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (written, wait) = sync_channel(1);
        if self.0.0.try_send(Line::Flush(written)).is_ok() {
            let _ = wait.recv_timeout(LAST_LINES);
        }
    }
}

impl Write for Lines {
    /// The formatter gives whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(Line::Text(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(lines: &Receiver<Line>) {
    for line in lines {
        match line {
            Line::Text(text) => drop(io::stderr().write_all(&text)),
            Line::Flush(written) => drop(written.try_send(())),
        }
    }
}
