//! Repository chores: `cargo run -p xtask -- tidy` checks what ARCHITECTURE.md promises.
//!
//! Written as a program of the workspace, so that a check needs nothing but Rust and git.

mod repository;
mod rust_source;
mod tidy;

use std::process::ExitCode;

use repository::Repository;

const USAGE: &str = "\
usage: cargo run -p xtask -- tidy          check the repository
       cargo run -p xtask -- tidy --list   say what is checked";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => match Repository::here() {
            Ok(repository) => report(&repository),
            Err(message) => failed(&message),
        },
        ["tidy", "--list"] => {
            tidy::CHECKS.iter().for_each(|check| println!("{:18} {}", check.name, check.promise));
            ExitCode::SUCCESS
        }
        _ => failed(USAGE),
    }
}

/// Prints each violation and then one line that sums up.
fn report(repository: &Repository) -> ExitCode {
    let violations = tidy::run(repository);
    for (check, violation) in &violations {
        eprintln!("{}:{}: {} [{check}]", violation.path, violation.line, violation.message);
    }
    let (files, checks, found) = (repository.files.len(), tidy::CHECKS.len(), violations.len());
    println!("tidy: {checks} checks over {files} files, {found} violations");
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(2)
}
