//! The checks of `tidy`: promises of ARCHITECTURE.md that neither the compiler nor clippy keeps.
//!
//! Each check is a function from the repository to its violations, so that it can be tested on a few
//! lines in memory. (The habit is rust-analyzer's, see its `xtask/src/tidy.rs`.)

mod architecture;
mod crate_edges;
mod dependencies;
mod exceptions;
mod file_form;
mod licences;
mod unsafe_code;

use crate::repository::Repository;

/// One check.
pub(crate) struct Check {
    /// Its name in reports and in ARCHITECTURE.md.
    pub(crate) name: &'static str,
    /// What holds where it finds nothing.
    pub(crate) promise: &'static str,
    run: fn(&Repository) -> Vec<Violation>,
}

/// A place that breaks a promise.
#[derive(Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Violation {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

/// All of them.
pub(crate) const CHECKS: [Check; 13] = [
    Check {
        name: "crate-edges",
        promise: "crates depend on each other along the arrows of ARCHITECTURE.md only",
        run: crate_edges::between_crates,
    },
    Check {
        name: "owned-libraries",
        promise: "libraries for HTTP, file mapping and flags stay with their crate; none for templates",
        run: crate_edges::owned_libraries,
    },
    Check {
        name: "dependency-reasons",
        promise: "every dependency stands once in the root Cargo.toml, with the reason it is there",
        run: dependencies::check,
    },
    Check {
        name: "licences",
        promise: "every package that can be linked has a licence from the list",
        run: licences::check,
    },
    Check {
        name: "unsafe-code",
        promise: "`unsafe` stands in the listed places only, each with its SAFETY comment",
        run: unsafe_code::check,
    },
    Check {
        name: "exceptions",
        promise: "no lint about panics or dead code is switched off outside tests, no test is ignored",
        run: exceptions::check,
    },
    Check { name: "headers", promise: "every Rust file says first what it is", run: file_form::headers },
    Check { name: "lengths", promise: "no Rust file is longer than 700 lines", run: file_form::lengths },
    Check {
        name: "names",
        promise: "no file is a drawer called common, util or helpers",
        run: file_form::names,
    },
    Check {
        name: "machine-paths",
        promise: "no file names a place of somebody's machine",
        run: file_form::machine_paths,
    },
    Check {
        name: "whitespace",
        promise: "lines end without blanks, files with one newline",
        run: file_form::whitespace,
    },
    Check {
        name: "code-map",
        promise: "ARCHITECTURE.md and README.md name every crate, and no file that is missing",
        run: architecture::code_map,
    },
    Check {
        name: "invariants",
        promise: "every invariant of ARCHITECTURE.md names a check or a test that exists",
        run: architecture::invariants,
    },
];

/// Runs every check; each violation comes with the name of its check.
pub(crate) fn run(repository: &Repository) -> Vec<(&'static str, Violation)> {
    let found = |&Check { name, run, .. }: &Check| {
        run(repository).into_iter().map(move |violation| (name, violation))
    };
    CHECKS.iter().flat_map(found).collect()
}

/// The violations as lines `path:line: message`, for comparison in tests.
#[cfg(test)]
fn shown(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(|v| format!("{}:{}: {}", v.path, v.line, v.message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checks_are_distinct() {
        let mut names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }
}
