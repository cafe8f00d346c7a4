//! A report for eyes: a row for each group, then what failed, then what was not tried.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use k2_eval::verify::{Check, Group, Report, Trigger, Verdict};

/// Colours of a terminal (ECMA-48, SGR), or none.
struct Paint {
    colours: bool,
}

impl Paint {
    fn new() -> Paint {
        Paint { colours: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() }
    }

    fn red(&self, text: &str) -> String {
        if self.colours { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn green(&self, text: &str) -> String {
        if self.colours { format!("\x1b[32m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) fn print(report: &Report) -> io::Result<()> {
    let (paint, mut out) = (Paint::new(), io::stdout().lock());
    writeln!(out, "{} of {}\n", report.model, report.url)?;
    writeln!(out, "{:<16} {:>7} {:>7} {:>8} {:>10}", "group", "passed", "failed", "skipped", "seconds")?;
    for group in Group::ALL {
        let checks: Vec<_> = report.checks.iter().filter(|check| check.group == group).collect();
        if !checks.is_empty() {
            row(&mut out, &paint, group.name(), &checks)?;
        }
    }
    row(&mut out, &paint, "all", &report.checks.iter().collect::<Vec<_>>())?;
    failures(&mut out, &paint, report)?;
    skipped(&mut out, report)?;
    report.tool_calls.as_ref().map_or(Ok(()), |trigger| tool_calls(&mut out, trigger))
}

fn row(out: &mut impl Write, paint: &Paint, name: &str, checks: &[&Check]) -> io::Result<()> {
    let count = |is: fn(&Verdict) -> bool| checks.iter().filter(|check| is(&check.verdict)).count();
    let passed = count(|verdict| *verdict == Verdict::Passed);
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let skipped = checks.len() - passed - failed;
    let seconds: Duration = checks.iter().map(|check| check.seconds).sum();
    let (passed_text, failed_text) = (format!("{passed:>7}"), format!("{failed:>7}"));
    let passed_text = if failed == 0 && passed > 0 { paint.green(&passed_text) } else { passed_text };
    let failed_text = if failed > 0 { paint.red(&failed_text) } else { failed_text };
    writeln!(out, "{name:<16} {passed_text} {failed_text} {skipped:>8} {:>10.1}", seconds.as_secs_f64())
}

fn failures(out: &mut impl Write, paint: &Paint, report: &Report) -> io::Result<()> {
    for check in &report.checks {
        if let Verdict::Failed(found) = &check.verdict {
            write!(out, "\n{} {}: {}\n    {found}\n", paint.red("failed"), check.group.name(), check.name)?;
        }
    }
    Ok(())
}

/// Reasons, each with how often it held.
fn skipped(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut reasons: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for check in &report.checks {
        if let Verdict::Skipped(why) = &check.verdict {
            *reasons.entry((check.group.name(), why)).or_default() += 1;
        }
    }
    if !reasons.is_empty() {
        writeln!(out)?;
    }
    for ((group, why), count) in reasons {
        writeln!(out, "skipped {count} of {group}: {why}")?;
    }
    Ok(())
}

fn tool_calls(out: &mut impl Write, trigger: &Trigger) -> io::Result<()> {
    writeln!(
        out,
        "\n{} of {} requests answered, {} with calls",
        trigger.answered, trigger.requests, trigger.finish_tool_calls
    )?;
    if let Some(accuracy) = trigger.schema_accuracy {
        writeln!(out, "schema_accuracy {accuracy:.4}")?;
    }
    if let Some(score) = trigger.score {
        let (f1, precision, recall) = (score.f1, score.precision, score.recall);
        writeln!(out, "tool_call_f1 {f1:.4} (precision {precision:.4}, recall {recall:.4})")?;
    }
    Ok(())
}
