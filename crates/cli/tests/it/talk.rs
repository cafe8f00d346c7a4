//! `k2 chat` from a pipe.

use crate::fixtures::own;
use crate::k2::k2;

#[test]
fn turns_depend_on_their_history_and_on_nothing_else() {
    let folder = own("bytes");
    let chat = |lines: &str| {
        let args =
            ["chat", folder.to_str().unwrap(), "--greedy", "--max-tokens", "12", "--system", "Be brief."];
        let ran = k2(&args, lines);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    let one = chat("Hello\n");
    assert!(one.len() > 1);
    assert_eq!(chat("Hello\n/clear\n\nHello\n"), format!("{one}{one}"));
    let two = chat("Hello\nHello\n/exit\nnever read\n");
    assert!(two.starts_with(&one) && two != format!("{one}{one}"), "{two:?}");
}

#[test]
fn what_does_not_fit_is_refused_and_forgotten() {
    let folder = own("bytes");
    let args = ["chat", folder.to_str().unwrap(), "--greedy", "--max-tokens", "4", "--context", "400"];
    let ran = k2(&args, &format!("{}\nHi\n", "long ".repeat(100)));
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("tokens; a context of 400 has room for 399"), "{}", ran.stderr);
    let alone = k2(&args, "Hi\n");
    assert_eq!(ran.stdout, alone.stdout);
}
