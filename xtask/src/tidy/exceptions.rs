//! Exceptions that would make other promises empty: lints switched off, tests ignored.
//!
//! clippy forbids `unwrap`, `expect` and `panic!` outside tests (root Cargo.toml); nobody may allow them
//! again for a place, nor keep dead code, nor a test that does not run.

use super::Violation;
use crate::{
    repository::Repository,
    rust_source::{code_only, test_lines},
};

/// Lints that only tests may switch off.
const KEPT_ON: [&str; 7] = [
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::todo",
    "clippy::unimplemented",
    "dead_code",
    "warnings",
];

/// No `allow` or `expect` attribute for the lints of [`KEPT_ON`] outside tests, no `#[ignore]` anywhere.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in repository.rust_files() {
        let code = code_only(text);
        let all_tests = ["/tests/", "/benches/", "/examples/"].iter().any(|folder| path.contains(folder));
        for ((index, line), is_test) in code.lines().enumerate().zip(test_lines(&code)) {
            let mut violation = |message: String| violations.push(Violation::new(path, index + 1, message));
            if line.contains("#[ignore") {
                violation("a test that does not run proves nothing: mend or remove it".into());
            }
            let attribute = ["[allow(", "[expect("].iter().any(|start| line.contains(start));
            if let Some(lint) =
                KEPT_ON.iter().find(|lint| attribute && !is_test && !all_tests && names(line, lint))
            {
                violation(format!(
                    "`{lint}` is switched off outside tests; return an error instead, or remove the code"
                ));
            }
        }
    }
    violations
}

/// Whether an attribute's list has exactly this lint.
fn names(line: &str, lint: &str) -> bool {
    line.split(['(', ')', ',', ' ']).any(|word| word == lint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    #[test]
    fn only_tests_may_panic() {
        let check = |path: &str, text: &str, expected: &[&str]| {
            assert_eq!(shown(&check(&Repository::of(&[(path, text)]))), expected, "{path}: {text}");
        };
        let path = "crates/chat/src/x.rs";
        check("crates/chat/tests/it/main.rs", "#![allow(clippy::unwrap_used, clippy::panic)]", &[]);
        check(path, "#[allow(missing_docs)]", &[]);
        check(path, "#[cfg(test)]\n#[allow(clippy::unwrap_used)]\nmod tests {}", &[]);
        check(path, "// #[allow(dead_code)]", &[]);
        let off = |lint: &str| {
            format!(
                "{path}:1: `{lint}` is switched off outside tests; return an error instead, or remove the code"
            )
        };
        check(path, "#[allow(clippy::unwrap_used)] // surely", &[&off("clippy::unwrap_used")]);
        check(path, "#![expect(missing_docs, dead_code)]", &[&off("dead_code")]);
        let ignored = format!("{path}:2: a test that does not run proves nothing: mend or remove it");
        check(path, "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &[&ignored]);
    }
}
