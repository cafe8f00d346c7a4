//! ARCHITECTURE.md and README.md against the tree: what they name exists.

use super::{CHECKS, Violation};
use crate::{
    repository::Repository,
    rust_source::{code_only, has_word},
};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// The heading over the numbered list.
const INVARIANTS: &str = "## Invariants";
/// What introduces the names of tests and checks at the end of an invariant.
const CHECKED_BY: &str = "Checked by";
/// A word in backticks is a file's name if it ends like one; a path begins in one of the root's folders.
const ENDINGS: [&str; 5] = [".rs", ".py", ".md", ".toml", ".json"];

/// Both pages name every crate; every path they name exists. A bare file name means one in the
/// `src` of the crate whose heading (`### … crates/NAME`) it stands under, or one in the root.
pub(super) fn code_map(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for page in [ARCHITECTURE, "README.md"] {
        let Some(text) = repository.files.get(page) else {
            violations.push(Violation::new(page, 1, "the page is missing"));
            continue;
        };
        for name in repository.crates().filter(|name| !text.contains(&format!("crates/{name}"))) {
            violations.push(Violation::new(page, 1, format!("`crates/{name}` is not on the page")));
        }
        violations.extend(missing_files(repository, page, text));
    }
    violations
}

fn missing_files(repository: &Repository, page: &str, text: &str) -> Vec<Violation> {
    let mut section = "";
    let mut violations = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            section = line.split('`').find(|word| word.starts_with("crates/")).unwrap_or("");
        }
        for word in in_backticks(line).filter(|word| is_path(repository, word)) {
            let word = word.trim_end_matches('/');
            if !exists(repository, word) && !exists(repository, &format!("{section}/src/{word}")) {
                let message = format!("`{word}` does not exist, nor does `{section}/src/{word}`");
                violations.push(Violation::new(page, index + 1, message));
            }
        }
    }
    violations
}

/// Whether a word in backticks means a file or folder of this repository.
fn is_path(repository: &Repository, word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    let in_root = word.split_once('/').is_some_and(|(first, _)| exists(repository, first));
    // A checkpoint's own files are not ours.
    let of_a_checkpoint = ["config.json", "tokenizer_config.json", "generation_config.json"].contains(&word);
    plain
        && !of_a_checkpoint
        && !word.starts_with('.')
        && (in_root || ENDINGS.iter().any(|end| word.ends_with(end)))
}

/// A file of this path, or a folder with files in it.
fn exists(repository: &Repository, path: &str) -> bool {
    let folder = format!("{path}/");
    repository.files.contains_key(path)
        || repository
            .files
            .range(folder.clone()..)
            .next()
            .is_some_and(|(first, _)| first.starts_with(&folder))
}

/// Every numbered invariant ends in `Checked by …` with names in backticks, each a check of tidy or
/// a test function somewhere in the tree.
pub(super) fn invariants(repository: &Repository) -> Vec<Violation> {
    let text = repository.files.get(ARCHITECTURE).map_or("", String::as_str);
    let tests = test_functions(repository);
    let is_known = |name: &str| {
        let function = name.rsplit("::").next().unwrap_or(name);
        tests.iter().any(|test| test == function) || CHECKS.iter().any(|check| check.name == name)
    };
    let items = numbered(text);
    let mut violations = Vec::new();
    if items.is_empty() {
        violations.push(Violation::new(ARCHITECTURE, 1, format!("no numbered list under `{INVARIANTS}`")));
    }
    for (line, item) in items {
        let Some((_, names)) = item.split_once(CHECKED_BY) else {
            violations.push(Violation::new(
                ARCHITECTURE,
                line,
                format!("the invariant does not end in `{CHECKED_BY} …`"),
            ));
            continue;
        };
        if in_backticks(names).next().is_none() {
            violations.push(Violation::new(ARCHITECTURE, line, "the invariant names no check"));
        }
        for name in in_backticks(names).filter(|name| !is_known(name)) {
            let message = format!("`{name}` is neither a check of tidy nor a test in the tree");
            violations.push(Violation::new(ARCHITECTURE, line, message));
        }
    }
    violations
}

/// The items of the list under [`INVARIANTS`], each on one line, with the number of its first line.
fn numbered(text: &str) -> Vec<(usize, String)> {
    let mut items: Vec<(usize, String)> = Vec::new();
    let section = text.lines().enumerate().skip_while(|(_, line)| *line != INVARIANTS).skip(1);
    for (index, line) in section.take_while(|(_, line)| !line.starts_with("## ")) {
        let starts_item = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        match items.last_mut() {
            _ if starts_item => items.push((index + 1, line.to_owned())),
            Some((_, item)) if line.starts_with("   ") => *item = format!("{item} {}", line.trim_start()),
            _ => {}
        }
    }
    items
}

/// Names of functions marked as tests, `proptest!` ones included.
fn test_functions(repository: &Repository) -> Vec<String> {
    let mut names = Vec::new();
    for (_, text) in repository.rust_files() {
        let code = code_only(text);
        let mut after_attribute = false;
        for line in code.lines() {
            after_attribute |= line.trim_start().starts_with("#[test]") || line.contains("::test]");
            if after_attribute && has_word(line, "fn") {
                let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
                names.extend(name.map(str::to_owned));
                after_attribute = false;
            }
        }
    }
    names
}

/// What stands between backticks.
fn in_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    const TREE: [(&str, &str); 3] = [
        ("crates/chat/Cargo.toml", ""),
        ("crates/chat/src/render.rs", "//! x"),
        ("README.md", "crates/chat"),
    ];

    #[test]
    fn the_map_is_of_this_country() {
        let check = |page: &str, expected: &[&str]| {
            let files = [&TREE[..], &[("ARCHITECTURE.md", page)]].concat();
            assert_eq!(shown(&code_map(&Repository::of(&files))), expected, "{page}");
        };
        check(
            "### `crates/chat`\n`render.rs`, `README.md`, `crates/chat/src/`, `/v1/chat`, `config.json`, `a/b`",
            &[],
        );
        check("nothing", &["ARCHITECTURE.md:1: `crates/chat` is not on the page"]);
        check(
            "### `crates/chat`\n`parse.rs`",
            &["ARCHITECTURE.md:2: `parse.rs` does not exist, nor does `crates/chat/src/parse.rs`"],
        );
        check(
            "`crates/chat` `crates/eval`",
            &["ARCHITECTURE.md:1: `crates/eval` does not exist, nor does `/src/crates/eval`"],
        );
    }

    #[test]
    fn invariants_name_their_checks() {
        let check = |list: &str, expected: &[&str]| {
            let page = format!("## Invariants\n{list}\n## Next\n1. not an invariant\n");
            let files =
                [("ARCHITECTURE.md", page.as_str()), ("a.rs", "#[test]\nfn bits_are_equal() {}\nfn f() {}")];
            assert_eq!(shown(&invariants(&Repository::of(&files))), expected, "{list}");
        };
        check("1. Bits.\n   Checked by `it::bits_are_equal` and\n   `unsafe-code`.", &[]);
        check(
            "1. Bits. Checked by `f`.",
            &["ARCHITECTURE.md:2: `f` is neither a check of tidy nor a test in the tree"],
        );
        check("1. Bits.", &["ARCHITECTURE.md:2: the invariant does not end in `Checked by …`"]);
        check("1. Bits. Checked by us.", &["ARCHITECTURE.md:2: the invariant names no check"]);
        check("none", &["ARCHITECTURE.md:1: no numbered list under `## Invariants`"]);
    }
}
