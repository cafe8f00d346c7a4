//! Manifests: each dependency is declared once, in the root, with the reason it is there.

use super::Violation;
use crate::repository::Repository;

const ROOT: &str = "Cargo.toml";

/// Reasons in the root; `workspace = true` and the workspace's lints in the members.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    let root = repository.files.get(ROOT).map_or("", String::as_str);
    let mut violations = without_reason(root);
    for (path, text) in &repository.files {
        if path == "xtask/Cargo.toml" || (path.starts_with("crates/") && path.ends_with("/Cargo.toml")) {
            violations.extend(member(path, text));
        }
    }
    violations
}

/// Lines of `[workspace.dependencies]` without a comment of at least two words. Members need none.
fn without_reason(root: &str) -> Vec<Violation> {
    let lacks_reason = |line: &Line<'_>| {
        let reason = line.text.split_once('#').map_or("", |(_, reason)| reason);
        !line.text.contains("path = ") && reason.split_whitespace().count() < 2
    };
    lines(root)
        .filter(|line| line.section == "workspace.dependencies" && lacks_reason(line))
        .map(|line| {
            Violation::new(
                ROOT,
                line.number,
                format!("`{}` lacks its reason: a comment on the same line", line.key),
            )
        })
        .collect()
}

/// A member takes versions and lints from the workspace.
fn member(path: &str, text: &str) -> Vec<Violation> {
    let own_version = |line: &Line<'_>| {
        let inherited = line.text.contains("workspace = true");
        line.section.ends_with("dependencies") && !inherited
    };
    let mut violations: Vec<_> = lines(text)
        .filter(own_version)
        .map(|line| {
            let message = format!(
                "`{}` is declared here; declare it in the root and write `workspace = true`",
                line.key
            );
            Violation::new(path, line.number, message)
        })
        .collect();
    if !lines(text).any(|line| line.section == "lints" && line.text == "workspace = true") {
        violations.push(Violation::new(
            path,
            1,
            "the workspace's lints are not in force: add `[lints] workspace = true`",
        ));
    }
    violations
}

/// A line `key = …` of a manifest.
struct Line<'a> {
    section: &'a str,
    number: usize,
    key: &'a str,
    text: &'a str,
}

fn lines(manifest: &str) -> impl Iterator<Item = Line<'_>> {
    let mut section = "";
    manifest.lines().enumerate().filter_map(move |(index, text)| {
        let text = text.trim();
        if let Some(header) = text.strip_prefix('[') {
            section = header.split(']').next().unwrap_or(header);
            return None;
        }
        let key =
            text.split([' ', '=', '.']).next().filter(|key| !key.is_empty() && !key.starts_with('#'))?;
        text.contains('=').then_some(Line { section, number: index + 1, key, text })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    const GOOD_MEMBER: &str = "[dependencies]\nserde.workspace = true\n[lints]\nworkspace = true\n";

    #[test]
    fn root_dependencies_have_reasons() {
        let check = |line: &str, expected: &[&str]| {
            let root = format!("[workspace.dependencies]\n{line}\n\n[profile.dev]\ndebug = 1\n");
            assert_eq!(shown(&check(&Repository::of(&[("Cargo.toml", &root)]))), expected, "{line}");
        };
        check("serde = \"1\" # JSON in and out", &[]);
        check("# a remark\nk2-chat = { path = \"crates/chat\" }", &[]);
        check("serde = \"1\"", &["Cargo.toml:2: `serde` lacks its reason: a comment on the same line"]);
        check(
            "serde = \"1\" # serde",
            &["Cargo.toml:2: `serde` lacks its reason: a comment on the same line"],
        );
    }

    #[test]
    fn members_inherit() {
        let check = |member: &str, expected: &[&str]| {
            assert_eq!(
                shown(&check(&Repository::of(&[("crates/x/Cargo.toml", member)]))),
                expected,
                "{member}"
            );
        };
        check(GOOD_MEMBER, &[]);
        check(
            &GOOD_MEMBER
                .replace("serde.workspace = true", "serde = { workspace = true, features = [\"rc\"] }"),
            &[],
        );
        check(
            &GOOD_MEMBER.replace("serde.workspace = true", "serde = \"1\""),
            &[
                "crates/x/Cargo.toml:2: `serde` is declared here; declare it in the root and write `workspace = true`",
            ],
        );
        check(
            "[dependencies]\n",
            &[
                "crates/x/Cargo.toml:1: the workspace's lints are not in force: add `[lints] workspace = true`",
            ],
        );
    }
}
