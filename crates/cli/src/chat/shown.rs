//! An answer as it appears on the screen.

use std::io::{self, IsTerminal, Write};

use k2_chat::tool_calls::ReplyCall;
use k2_chat::{Delta, Reply};
use k2_engine::FinishReason;

/// An answer on the screen; reasoning is dim.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) reply: Reply,
    dim: bool,
}

impl Shown {
    pub(super) fn add(&mut self, deltas: Vec<Delta>) -> io::Result<()> {
        let mut output = io::stdout().lock();
        for delta in &deltas {
            match delta {
                Delta::Reasoning(text) => {
                    self.set_dim(true, &mut output)?;
                    output.write_all(text.as_bytes())?;
                }
                Delta::Content(text) => {
                    self.set_dim(false, &mut output)?;
                    output.write_all(text.as_bytes())?;
                }
                // Calls are shown when they are made.
                Delta::Call { .. } | Delta::Arguments { .. } => {}
            }
        }
        self.reply.extend(deltas);
        output.flush()
    }

    fn set_dim(&mut self, dim: bool, output: &mut impl Write) -> io::Result<()> {
        if std::mem::replace(&mut self.dim, dim) == dim {
            return Ok(());
        }
        let code = match (io::stdout().is_terminal(), dim) {
            (true, true) => "\x1b[2m",
            (true, false) => "\x1b[0m\n",
            (false, true) => "",
            (false, false) => "\n",
        };
        output.write_all(code.as_bytes())
    }

    pub(super) fn end(&mut self, reason: &FinishReason) -> io::Result<()> {
        let mut output = io::stdout().lock();
        if self.dim {
            self.set_dim(false, &mut output)?;
        }
        if self.reply.tool_calls.is_empty() || self.reply.content.is_some() {
            writeln!(output)?;
        }
        match reason {
            FinishReason::Cancelled => eprintln!("[stopped]"),
            FinishReason::Length => eprintln!("[cut off: no more tokens]"),
            FinishReason::Stop(_) | FinishReason::Failed(_) => {}
        }
        Ok(())
    }
}

/// A call that is made.
pub(super) fn call(call: &ReplyCall) -> io::Result<()> {
    aside(&format!("→ {}({})", call.name, call.arguments))
}

/// What it gave.
pub(super) fn result(result: &str) -> io::Result<()> {
    aside(&format!("← {result}"))
}

/// A line that is not the model's answer: dim on a terminal.
fn aside(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match io::stdout().is_terminal() {
        true => writeln!(output, "\x1b[2m{line}\x1b[0m"),
        false => writeln!(output, "{line}"),
    }
}
