//! The table of an evaluation.

use serde::Serialize;
use std::fmt;

use super::interval::wilson;

/// A share with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Cases that were right.
    pub right: usize,
    /// Cases.
    pub of: usize,
    /// The share.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Rate {
    /// So many of so many.
    pub fn new(right: usize, of: usize) -> Rate {
        let (low, high) = wilson(right, of);
        Rate { right, of, share: if of == 0 { 0.0 } else { right as f64 / of as f64 }, low, high }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5.1} [{:4.1}, {:5.1}]", 100.0 * self.share, 100.0 * self.low, 100.0 * self.high)
    }
}

/// What came out of one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellReport {
    /// The cell.
    pub name: &'static str,
    /// Everything was right.
    pub end_to_end: Rate,
    /// Calls, or none, as they should be: syntax that can be read, and a call if and only if there should be one.
    pub syntax: Rate,
    /// The right tools, or rightly none.
    pub tool: Rate,
    /// The right arguments, to the letter.
    pub arguments: Rate,
    /// The answer says the results' values; without a call, it is the wanted answer to the letter.
    pub answer: Rate,
    /// The first cases that were wrong.
    pub failures: Vec<Failure>,
}

/// A case that was wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// What the user said.
    pub user: String,
    /// The declared tools.
    pub tools: Vec<String>,
    /// What should have come.
    pub wanted: String,
    /// What came.
    pub found: String,
}

/// What came out of all cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Cell by cell.
    pub cells: Vec<CellReport>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:30} {:>5}  {:20} {:>6} {:>6} {:>9} {:>6}",
            "cell", "cases", "end to end, 95 %", "call?", "tool", "arguments", "answer"
        )?;
        for cell in &self.cells {
            let percent = |rate: Rate| 100.0 * rate.share;
            writeln!(
                f,
                "{:30} {:5}  {:20} {:6.1} {:6.1} {:9.1} {:6.1}",
                cell.name,
                cell.end_to_end.of,
                cell.end_to_end.to_string(),
                percent(cell.syntax),
                percent(cell.tool),
                percent(cell.arguments),
                percent(cell.answer),
            )?;
        }
        Ok(())
    }
}
