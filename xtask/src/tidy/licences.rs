//! Licences of all packages in Cargo.lock, as their authors declare them: SPDX expressions
//! (SPDX specification 2.3, annex D), the older `MIT/Apache-2.0` included.

use super::{Violation, crate_edges::packages};
use crate::repository::Repository;

/// Licences that a program under Apache-2.0 can be distributed with as one binary.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Every package's expression can be satisfied with allowed licences.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    let violation = |package: &serde_json::Value| {
        let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
        let message = match package["license"].as_str() {
            None => format!("{name} declares no licence"),
            Some(licence) if !satisfiable(licence) => {
                format!("{name} is under `{licence}`; allowed are {}", ALLOWED.join(", "))
            }
            Some(_) => return None,
        };
        Some(Violation::new("Cargo.lock", 1, message))
    };
    packages(&repository.metadata).filter_map(violation).collect()
}

/// Whether allowed licences satisfy an SPDX expression; false too if it cannot be read.
fn satisfiable(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let satisfied = alternatives(&mut words);
    satisfied && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `a OR b OR …`: one is enough.
fn alternatives(words: &mut Words<'_>) -> bool {
    let mut satisfied = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        satisfied |= all_of(words);
    }
    satisfied
}

/// `a AND b AND …`: binds closer.
fn all_of(words: &mut Words<'_>) -> bool {
    let mut satisfied = one(words);
    while words.next_if_eq(&"AND").is_some() {
        satisfied &= one(words);
    }
    satisfied
}

/// A licence, one with an exception, or an expression in parentheses.
fn one(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => alternatives(words) & words.next_if_eq(&")").is_some(),
        Some(licence) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().unwrap_or_default();
            ALLOWED.contains(&format!("{licence} WITH {exception}").as_str())
        }
        Some(licence) => ALLOWED.contains(&licence),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tidy::shown;

    #[test]
    fn expressions() {
        let check =
            |expression: &str, expected: bool| assert_eq!(satisfiable(expression), expected, "{expression}");
        check("MIT", true);
        check("MIT/Apache-2.0", true);
        check("GPL-3.0-only", false);
        check("MIT OR GPL-3.0-only", true);
        check("MIT AND GPL-3.0-only", false);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
        check("GPL-3.0-only OR MIT AND Zlib", true);
        check("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true);
        check("GPL-2.0-only WITH Classpath-exception-2.0", false);
        check("(MIT", false);
        check("MIT MIT", false);
        check("", false);
    }

    #[test]
    fn packages_are_named() {
        let metadata = json!({"packages": [
            {"name": "a", "version": "1.0.0", "license": "MIT"},
            {"name": "b", "version": "2.0.0", "license": null},
            {"name": "c", "version": "3.0.0", "license": "SSPL-1.0"},
        ]});
        let found = shown(&check(&Repository { metadata, ..Repository::of(&[]) }));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], "Cargo.lock:1: b 2.0.0 declares no licence");
        assert!(
            found[1].starts_with("Cargo.lock:1: c 3.0.0 is under `SSPL-1.0`; allowed are 0BSD"),
            "{found:?}"
        );
    }
}
