//! The form of files: headers, lengths, names, no machine's paths, no stray blanks.

use super::Violation;
use crate::repository::Repository;

/// A longer file holds more than one idea, unless it is one flat table.
const MOST_LINES: usize = 700;
/// What a longer file's header says.
const TABLE: &str = "flat table";
/// Names under which anything could hide.
const DRAWERS: [&str; 7] = ["common", "helper", "helpers", "misc", "types", "util", "utils"];
/// Files from outside or made by programs, whose form is not ours.
const MADE_ELSEWHERE: [&str; 6] =
    ["/data/", "/malformed/", "fixtures/model/", "fuzz/corpus/", "fuzz/seeds/", "Cargo.lock"];

/// Every Rust file begins with `//!`, a line of at least two words.
pub(super) fn headers(repository: &Repository) -> Vec<Violation> {
    let says_little = |text: &str| {
        let header = text.lines().next().and_then(|first| first.strip_prefix("//! "));
        header.is_none_or(|header| header.split_whitespace().count() < 2)
    };
    repository
        .rust_files()
        .filter(|(_, text)| says_little(text))
        .map(|(path, _)| Violation::new(path, 1, "the first line does not say what the file is: `//! …`"))
        .collect()
}

/// No Rust file is longer than [`MOST_LINES`], but for flat tables that say so.
pub(super) fn lengths(repository: &Repository) -> Vec<Violation> {
    let is_table =
        |text: &str| text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(TABLE));
    repository
        .rust_files()
        .map(|(path, text)| (path, text, text.lines().count()))
        .filter(|&(_, text, lines)| lines > MOST_LINES && !is_table(text))
        .map(|(path, _, lines)| {
            let message =
                format!("{lines} lines; at most {MOST_LINES}, unless its header calls it one {TABLE}");
            Violation::new(path, MOST_LINES + 1, message)
        })
        .collect()
}

/// No file or folder of code has one of the [`DRAWERS`]' names; the server's wire types are `types`.
pub(super) fn names(repository: &Repository) -> Vec<Violation> {
    let code = |path: &str| path.ends_with(".rs") || path.ends_with(".py");
    let wire_types = |path: &str| path.starts_with("crates/server/") && path.ends_with("/types.rs");
    let drawer = |path: &str| {
        let stems = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
        stems.map(str::to_lowercase).find(|stem| DRAWERS.contains(&stem.as_str()))
    };
    repository
        .files
        .keys()
        .filter(|path| code(path) && !wire_types(path))
        .filter_map(|path| drawer(path).map(|name| (path, name)))
        .map(|(path, name)| Violation::new(path, 1, format!("`{name}` says nothing about what is inside")))
        .collect()
}

/// No text names a home folder or another place that only one machine has.
pub(super) fn machine_paths(repository: &Repository) -> Vec<Violation> {
    // In two pieces, so that this file does not name them either.
    let places = [("/ro", "ot/"), ("/ho", "me/"), ("/Us", "ers/"), ("C:\\Us", "ers"), ("/wo", "rk/")];
    let places = places.map(|(start, end)| format!("{start}{end}"));
    let named = |line: &str| places.iter().find(|place| begins_a_path(line, place)).cloned();
    on_lines(repository, |line| named(line).map(|place| format!("`{place}…` is a place of one machine")))
}

/// Whether `place` stands in the line at the beginning of a path, not in the middle of one.
fn begins_a_path(line: &str, place: &str) -> bool {
    let in_a_path = |c: char| c.is_alphanumeric() || "._-/}".contains(c);
    line.match_indices(place).any(|(at, _)| !line[..at].chars().next_back().is_some_and(in_a_path))
}

/// No blanks before the end of a line, no carriage returns, one newline at the end of a file.
pub(super) fn whitespace(repository: &Repository) -> Vec<Violation> {
    let mut violations = on_lines(repository, |line| {
        line.ends_with([' ', '\t', '\r']).then(|| "the line ends in white space".to_owned())
    });
    for (path, text) in ours(repository) {
        let end = match text {
            _ if text.is_empty() => continue,
            _ if !text.ends_with('\n') => "the last line has no newline",
            _ if text.ends_with("\n\n") => "the file ends in an empty line",
            _ => continue,
        };
        violations.push(Violation::new(path, text.lines().count(), end));
    }
    violations
}

fn ours(repository: &Repository) -> impl Iterator<Item = (&String, &String)> {
    repository.files.iter().filter(|(path, _)| !MADE_ELSEWHERE.iter().any(|place| path.contains(place)))
}

fn on_lines(repository: &Repository, judge: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in ours(repository) {
        for (index, line) in text.split('\n').enumerate() {
            violations.extend(judge(line).map(|message| Violation::new(path, index + 1, message)));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    type Judge = fn(&Repository) -> Vec<Violation>;

    fn check(judge: Judge, path: &str, text: &str, expected: &[&str]) {
        assert_eq!(shown(&judge(&Repository::of(&[(path, text)]))), expected, "{path}");
    }

    #[test]
    fn files_say_what_they_are() {
        let silent = "a.rs:1: the first line does not say what the file is: `//! …`";
        check(headers, "a.rs", "//! Text to ids.\n", &[]);
        check(headers, "a.py", "import os\n", &[]);
        check(headers, "a.rs", "use std::fs;\n//! Text to ids.\n", &[silent]);
        check(headers, "a.rs", "//!\n", &[silent]);
        check(headers, "a.rs", "", &[silent]);
    }

    #[test]
    fn long_files_are_tables() {
        let long = "x\n".repeat(MOST_LINES + 1);
        check(lengths, "a.rs", &long[2..], &[]);
        check(lengths, "a.rs", &format!("//! Weight names as one flat table.\n{long}"), &[]);
        let message = "a.rs:701: 701 lines; at most 700, unless its header calls it one flat table";
        check(lengths, "a.rs", &long, &[message]);
    }

    #[test]
    fn there_are_no_drawers() {
        check(names, "crates/model/src/router.rs", "", &[]);
        check(names, "crates/server/src/openai/types.rs", "", &[]);
        check(names, "docs/utils.md", "", &[]);
        let message = "says nothing about what is inside";
        check(
            names,
            "crates/model/src/utils.rs",
            "",
            &[&format!("crates/model/src/utils.rs:1: `utils` {message}")],
        );
        check(
            names,
            "crates/common/src/a.rs",
            "",
            &[&format!("crates/common/src/a.rs:1: `common` {message}")],
        );
        check(
            names,
            "crates/chat/src/types.rs",
            "",
            &[&format!("crates/chat/src/types.rs:1: `types` {message}")],
        );
    }

    #[test]
    fn machines_are_not_named() {
        let place = format!("{}{}", "/ho", "me/");
        check(machine_paths, "a.md", "see /usr/share and a/home/b\n", &[]);
        check(
            machine_paths,
            "a.md",
            &format!("x\ncd {place}me/k2\n"),
            &[&format!("a.md:2: `{place}…` is a place of one machine")],
        );
    }

    #[test]
    fn blanks_do_not_stray() {
        check(whitespace, "a.md", "x\n\ny\n", &[]);
        check(whitespace, "a.md", "", &[]);
        check(whitespace, "crates/a/tests/data/x.txt", "x  ", &[]);
        check(
            whitespace,
            "a.md",
            "x \ny\r\n",
            &["a.md:1: the line ends in white space", "a.md:2: the line ends in white space"],
        );
        check(whitespace, "a.md", "x", &["a.md:1: the last line has no newline"]);
        check(whitespace, "a.md", "x\n\n", &["a.md:2: the file ends in an empty line"]);
    }
}
