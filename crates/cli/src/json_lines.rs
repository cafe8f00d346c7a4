//! JSON lines: one object in, one object out.

use std::error::Error;
use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line accepted; a context of any model is far shorter.
const MAX_LINE: usize = 256 << 20;

/// Answers each line of standard input with a line on standard output. Blank lines are passed over; the first
/// line that cannot be answered ends it, with an error that has its number.
pub(crate) fn answer_each<In: DeserializeOwned, Out: Serialize>(
    mut answer: impl FnMut(In) -> Result<Out, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if io::Read::take(&mut input, MAX_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() > MAX_LINE {
            return Err(format!("line {number}: longer than {MAX_LINE} bytes").into());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answered = serde_json::from_slice(&line).map_err(Into::into).and_then(&mut answer);
        let answered = answered.map_err(|error| format!("line {number}: {error}"))?;
        print(&mut output, &answered)?;
    }
    Ok(())
}

/// Writes one line.
pub(crate) fn print(output: &mut impl Write, value: &impl Serialize) -> Result<(), Box<dyn Error>> {
    serde_json::to_writer(&mut *output, value)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}
