//! `unsafe` has its places, and each use says why it is sound.

use super::Violation;
use crate::{
    repository::Repository,
    rust_source::{code_only, has_word},
};

/// Folders and files that may contain `unsafe`.
const PLACES: [&str; 3] = ["crates/kernels/", "crates/weights/src/mmap.rs", "crates/train/src/gemm.rs"];
/// The comment stands at most so many lines above.
const NEAR: usize = 8;

/// Every `unsafe` is in one of the [`PLACES`] and near below its justification.
pub(super) fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in repository.rust_files() {
        let allowed_here = PLACES.iter().any(|place| path.starts_with(place));
        for (index, line) in code_only(text).lines().enumerate() {
            let message = match line {
                _ if has_word(line, "unsafe") && !allowed_here => {
                    format!("`unsafe` outside {}", PLACES.join(", "))
                }
                _ if line.contains("allow(unsafe_code)") && !allowed_here => {
                    format!("`unsafe` allowed outside {}", PLACES.join(", "))
                }
                _ if has_word(line, "unsafe") && !justified(text, index) => {
                    "`unsafe` without a `// SAFETY:` comment (`# Safety` for a function) just above".into()
                }
                _ => continue,
            };
            violations.push(Violation::new(path, index + 1, message));
        }
    }
    violations
}

/// Whether the line with this index, or a comment among the lines just above, says SAFETY. A blank
/// line ends the search.
fn justified(text: &str, index: usize) -> bool {
    let lines: Vec<&str> = text.lines().take(index + 1).collect();
    let says = |line: &&str| line.contains("// SAFETY:") || line.contains("/// # Safety");
    lines.iter().rev().take(NEAR + 1).take_while(|line| !line.trim().is_empty()).any(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    #[test]
    fn unsafe_has_places_and_reasons() {
        let check = |path: &str, text: &str, expected: &[&str]| {
            assert_eq!(shown(&check(&Repository::of(&[(path, text)]))), expected, "{path}: {text}");
        };
        let kernel = "crates/kernels/src/x.rs";
        check(kernel, "// SAFETY: sound\nunsafe { f() }", &[]);
        check(kernel, "/// # Safety\n/// Care.\n#[inline]\nunsafe fn f() {}", &[]);
        check(kernel, "// all unsafe here\nlet x = \"unsafe\";", &[]);
        let bare = "`unsafe` without a `// SAFETY:` comment (`# Safety` for a function) just above";
        check(kernel, "unsafe { f() }", &[&format!("{kernel}:1: {bare}")]);
        check(kernel, "// SAFETY: of another\n\nunsafe { f() }", &[&format!("{kernel}:3: {bare}")]);
        let outside = "crates/chat/src/x.rs";
        let places = "outside crates/kernels/, crates/weights/src/mmap.rs, crates/train/src/gemm.rs";
        check(outside, "// SAFETY: sound\nunsafe { f() }", &[&format!("{outside}:2: `unsafe` {places}")]);
        check(outside, "#![allow(unsafe_code)]", &[&format!("{outside}:1: `unsafe` allowed {places}")]);
        check("crates/weights/src/mmap.rs", "// SAFETY: sound\nunsafe { f() }", &[]);
    }
}
