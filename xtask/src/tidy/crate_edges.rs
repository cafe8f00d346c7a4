//! Which crate may use which: the arrows of ARCHITECTURE.md as a table.

use serde_json::Value;

use super::Violation;
use crate::repository::Repository;

/// Each crate of the project and the others it may use, in tests too.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("k2-kernels", &[]),
    ("k2-weights", &["k2-kernels"]),
    ("k2-model", &["k2-kernels", "k2-weights"]),
    ("k2-chat", &[]),
    ("k2-engine", &["k2-kernels", "k2-weights", "k2-model"]),
    // The lower ones in tests, which start an engine on a fixture.
    ("k2-server", &["k2-kernels", "k2-weights", "k2-model", "k2-chat", "k2-engine"]),
    ("k2-train", &["k2-kernels", "k2-weights", "k2-model", "k2-chat"]),
    ("k2-eval", &["k2-chat"]), // talks HTTP, so that any server can be under test; never links ours
    (
        "k2",
        &["k2-kernels", "k2-weights", "k2-model", "k2-chat", "k2-engine", "k2-server", "k2-train", "k2-eval"],
    ),
    ("xtask", &[]),
];

/// Libraries that give a crate its matter, and who may use them: only checks of other servers talk to the network
/// as a client, and nobody runs programs from a model folder.
const OWNED: [(&str, &[&str]); 13] = [
    ("axum", &["k2-server"]),
    ("clap", &["k2"]),
    ("hf-hub", &[]),
    ("hyper", &["k2-server"]),
    ("libloading", &[]),
    ("memmap2", &["k2-weights"]),
    ("minijinja", &[]),
    ("native-tls", &[]),
    ("pyo3", &[]),
    ("reqwest", &[]),
    ("rustls", &[]),
    ("tokio-rustls", &["k2-server"]),
    ("ureq", &["k2-eval"]),
];

/// Crates of the project depend on each other as [`MAY_USE`] says.
pub(super) fn between_crates(repository: &Repository) -> Vec<Violation> {
    let own = |name: &str| name == "k2" || name.starts_with("k2-") || name == "xtask";
    violations(repository, |user, dependency| {
        let used = dependency["name"].as_str().unwrap_or_default();
        let row = MAY_USE.iter().find(|(name, _)| *name == user);
        match row {
            None => Some(format!("the crate {user} is not in tidy's table of arrows (MAY_USE)")),
            Some((_, allowed)) if own(used) && !allowed.contains(&used) => {
                let allowed =
                    if allowed.is_empty() { "no crate of the project".into() } else { allowed.join(", ") };
                Some(format!("{user} uses {used}; it may use {allowed}"))
            }
            Some(_) => None,
        }
    })
}

/// Nobody but its owner uses a library of [`OWNED`]; tests may use any.
pub(super) fn owned_libraries(repository: &Repository) -> Vec<Violation> {
    violations(repository, |user, dependency| {
        let (used, owners) = OWNED.iter().find(|(library, _)| dependency["name"] == *library)?;
        let in_tests = dependency["kind"] == "dev";
        let owners_are =
            if owners.is_empty() { "no crate".into() } else { format!("only {}", owners.join(", ")) };
        (!in_tests && !owners.contains(&user)).then(|| format!("{user} uses {used}; {owners_are} may"))
    })
}

/// Asks `judge` about each user among the workspace's packages and each of its direct dependencies.
fn violations(repository: &Repository, judge: impl Fn(&str, &Value) -> Option<String>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages(&repository.metadata).filter(|package| package["source"].is_null()) {
        let user = package["name"].as_str().unwrap_or_default();
        let path = manifest_path(package);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let line = line_of(repository, &path, used);
            violations.extend(judge(user, dependency).map(|message| Violation::new(&path, line, message)));
        }
    }
    violations
}

/// The packages of `cargo metadata`.
pub(super) fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

/// The manifest's path from the root of the workspace: the last folders of the absolute one.
fn manifest_path(package: &Value) -> String {
    let absolute = package["manifest_path"].as_str().unwrap_or_default();
    let from_root = |marker: &str| absolute.rfind(marker).map(|at| absolute[at + 1..].to_owned());
    from_root("/crates/").or_else(|| from_root("/xtask/")).unwrap_or_else(|| absolute.to_owned())
}

/// The first line of a manifest that begins with the dependency's name, or 1.
fn line_of(repository: &Repository, manifest: &str, dependency: &str) -> usize {
    let text = repository.files.get(manifest).map_or("", String::as_str);
    let is_it =
        |line: &str| line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with([' ', '.', '=']));
    text.lines().position(is_it).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tidy::shown;

    fn repository(user: &str, used: &str) -> Repository {
        let manifest = format!("[package]\n\n[dependencies]\n{used}.workspace = true\n");
        let metadata = json!({"packages": [
            {"name": user, "source": null, "manifest_path": "/somewhere/crates/x/Cargo.toml", "dependencies": [{"name": used}]},
            {"name": "hyper", "source": "registry", "dependencies": [{"name": "k2-server"}]},
        ]});
        Repository { metadata, ..Repository::of(&[("crates/x/Cargo.toml", &manifest)]) }
    }

    #[test]
    fn arrows_go_one_way() {
        let check = |user: &str, used: &str, expected: &[&str]| {
            assert_eq!(shown(&between_crates(&repository(user, used))), expected, "{user} -> {used}");
        };
        check("k2-model", "k2-weights", &[]);
        check("k2-model", "serde", &[]);
        let at = "crates/x/Cargo.toml:4:";
        check("k2-weights", "k2-model", &[&format!("{at} k2-weights uses k2-model; it may use k2-kernels")]);
        check(
            "k2-chat",
            "k2-engine",
            &[&format!("{at} k2-chat uses k2-engine; it may use no crate of the project")],
        );
        check(
            "k2-new",
            "serde",
            &[&format!("{at} the crate k2-new is not in tidy's table of arrows (MAY_USE)")],
        );
    }

    #[test]
    fn libraries_have_owners() {
        let check = |user: &str, used: &str, expected: &[&str]| {
            assert_eq!(shown(&owned_libraries(&repository(user, used))), expected, "{user} -> {used}");
        };
        check("k2-weights", "memmap2", &[]);
        check("k2-chat", "ureq", &["crates/x/Cargo.toml:4: k2-chat uses ureq; only k2-eval may"]);
        check("k2-eval", "reqwest", &["crates/x/Cargo.toml:4: k2-eval uses reqwest; no crate may"]);
        check("k2-chat", "axum", &["crates/x/Cargo.toml:4: k2-chat uses axum; only k2-server may"]);
    }
}
