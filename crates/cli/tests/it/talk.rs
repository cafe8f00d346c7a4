//! `k2 chat` from a pipe.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

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

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_not_the_program() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_k2"))
        .args([
            "chat",
            own("bytes").to_str().unwrap(),
            "--greedy",
            "--max-tokens",
            "4",
            "--context",
            "131072",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut errors) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    // The first answer says that the program is ready; the second has a prompt that takes long to read, and is
    // forgotten with its question: the third is there at once.
    input.write_all(b"Hi\n").unwrap();
    output.read_until(b'\n', &mut Vec::new()).unwrap();
    input.write_all(format!("{}\nHi\n", "a".repeat(100_000)).as_bytes()).unwrap();
    let answered = std::thread::spawn(move || output.read_until(b'\n', &mut Vec::new()).map(|_| output));
    while !answered.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    }
    drop(input);
    let (mut said, mut rest) = (String::new(), String::new());
    answered.join().unwrap().unwrap().read_to_string(&mut rest).unwrap();
    errors.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("[stopped]"), "{said}");
}

/// Lines of a conversation with the model inside the program, and what must come in order.
fn shipped(args: &[&str], lines: &str, wanted: &[&str]) {
    let ran = k2(&[&["chat", "--greedy"], args].concat(), lines);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut rest = ran.stdout.as_str();
    for wanted in wanted {
        let found =
            rest.find(wanted).unwrap_or_else(|| panic!("{wanted:?} does not come in {:?}", ran.stdout));
        rest = &rest[found + wanted.len()..];
    }
}

#[test]
fn the_model_inside_calls_the_tools_inside() {
    let sum = [r#"→ calculate({"expression": "12*(3+4)"})"#, r#"← {"value":84}"#, "84"];
    shipped(&["-p", "How much is 12*(3+4)?"], "", &sum);
    let lines = "How much is 12*(3+4)?\nHow many kilometers are 5 miles?\n";
    shipped(&[], lines, &[&sum[..], &["→ convert_units(", r#"← {"value":8.04672}"#, "8.04672"]].concat());
    let ran = k2(&["chat", "--greedy", "--no-tools", "-p", "How much is 12*(3+4)?"], "");
    assert!(ran.code == 0 && !ran.stdout.contains('→') && ran.stdout.len() > 2, "{}", ran.stdout);
}

#[test]
fn what_is_cut_off_is_not_called_and_what_cannot_be_asked_fails() {
    let cut = k2(&["chat", "--greedy", "--max-tokens", "6", "-p", "How much is 12*(3+4)?"], "");
    assert!(cut.code == 1 && !cut.stdout.contains('→'), "{}", cut.stdout);
    assert!(cut.stderr.contains("the answer was cut off before it said anything"), "{}", cut.stderr);
    // A dash before a number is no option.
    assert_ne!(k2(&["chat", "--greedy", "-p", "-5+3"], "").code, 2);
    let long = k2(&["chat", "--context", "400", "-p", &"long ".repeat(400)], "");
    assert!(long.code == 1 && long.stderr.starts_with("error: "), "{}", long.stderr);
}

#[test]
fn results_of_tools_from_a_file_are_typed_in() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools.json");
    let tools = r#"[{"type": "function", "function": {"name": "get_weather", "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]"#;
    std::fs::write(&file, tools).unwrap();
    let args = ["--tools", file.to_str().unwrap()];
    let lines = "What is the weather in Oslo?\n{\"weather\": \"71 degrees\"}\n";
    shipped(&args, lines, &[r#"→ get_weather({"city": "Oslo"})"#, "← {", "71 degrees"]);
    // The input ends before the result: nothing is made up.
    shipped(&args, "What is the weather in Oslo?\n", &["→ get_weather("]);
    let ended = k2(&[&["chat", "--greedy", "-p", "What is the weather in Oslo?"], &args[..]].concat(), "");
    assert!(ended.code == 1 && ended.stderr.contains("the input ended before a result"), "{}", ended.stderr);
}
