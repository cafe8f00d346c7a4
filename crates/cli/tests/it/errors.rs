//! What goes wrong is said in one message that names the file, the field or the option, with the right exit code.

use crate::fixtures::own;
use crate::k2::k2;

/// 1: the command could not be done.
fn fails(args: &[&str], stdin: &str, expected: &str) {
    check(args, stdin, 1, expected);
}

/// 2: the command line is wrong.
fn misused(args: &[&str], expected: &str) {
    check(args, "", 2, expected);
}

fn check(args: &[&str], stdin: &str, code: i32, expected: &str) {
    let ran = k2(args, stdin);
    assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
}

#[test]
fn models() {
    fails(&["run", "no/such/model", "-p", "x"], "", "no/such/model: No such file");
    fails(&["run", "xtask", "-p", "x"], "", "error: xtask: ");
    fails(&["run", "README.md", "-p", "x"], "", "error: README.md: ");
    fails(&["chat", "crates"], "", "error: crates: ");
    fails(&["chat", "--tools", "no/such"], "", "no/such: No such file");
    fails(&["chat", "--tools", "README.md"], "", "README.md: not a JSON array of tools in OpenAI's form");
    fails(&["inspect", "README.md"], "", "README.md: not valid JSON");
    fails(&["inspect", "xtask"], "", "error: xtask: ");
    fails(&["run", "fixtures/model/bf16", "-p", "x"], "", "fixtures/model/bf16/tiktoken.model: No such file");
}

#[test]
fn configs() {
    let folder = std::env::temp_dir().join(format!("k2-cli-configs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = std::fs::read_to_string(own("bf16").join("config.json")).unwrap();
    let changed = |from: &str, to: &str, expected: &str| {
        assert!(config.contains(from), "{from}");
        let path = folder.join("config.json");
        std::fs::write(&path, config.replace(from, to)).unwrap();
        fails(&["inspect", path.to_str().unwrap()], "", expected);
        std::fs::copy(own("bf16").join("model.safetensors"), folder.join("model.safetensors")).unwrap();
        fails(&["run", folder.to_str().unwrap(), "--prompt-ids", "1"], "", expected);
    };
    changed("\"kimi_k2\"", "\"llama\"", "`model_type` is llama; supported: kimi_k2, deepseek_v3");
    changed("\"kv_lora_rank\"", "\"kv_lora\"", "field `kv_lora_rank` is missing");
    changed("\"beta_fast\"", "\"beta\"", "field `rope_scaling.beta_fast` is missing");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn endpoints() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    for command in [&["verify"][..], &["bench", "serve"]] {
        let ask = |more: &[&str], expected: &str| fails(&[command, more].concat(), "", expected);
        ask(&[&url], "/v1/models cannot be reached");
        ask(&["localhost:8000"], "expected one like http://127.0.0.1:8000/v1");
        ask(&[&url, "--tokenizer", "no/such/folder"], "no/such/folder: No such file");
        misused(&[command, &["--model", "x"]].concat(), "<URL>");
    }
    fails(&["verify", &url, "--model", "x", "--only", "raw-completions"], "", "2 of 3 checks failed");
    fails(&["verify", &url, "--requests", "no/such/file"], "", "no/such/file: No such file");
    misused(&["verify", &url, "--only", "speed"], "possible values: parameters, prompt-tokens,");
    misused(&["verify", &url, "--reference", "x"], "--requests <FILE>");
    fails(&["bench", "serve", &url, "--model", "x", "--clients", "0"], "", "the number of clients is 0");
    misused(&["bench", "serve", &url, "--answer-tokens", "many"], "\"many\": invalid digit");
    misused(&["bench", "serve", &url, "--requests", "1", "--duration", "1"], "cannot be used with");
    misused(&["bench", "serve", &url, "--duration", "0"], "0 is not in 1..");
    fails(&["verify", &url, "--model", "x", "--only", "requests"], "", "every check was skipped");
}

#[test]
fn requests() {
    let bytes = ["run", "fixtures/model/bytes"];
    let run = |more: &[&str], expected: &str| fails(&[&bytes[..], more].concat(), "", expected);
    run(&["-p", ""], "the prompt has no tokens");
    run(&["--prompt-ids", "1,512"], "prompt token 1 is 512; the vocabulary has ids 0 to 511");
    run(&["-p", "x", "--temperature", "3"], "temperature is 3; it must be from 0 to 2");
    run(&["-p", "x", "--temperature", "-1"], "temperature is -1; it must be from 0 to 2");
    run(&["-p", "x", "--top-p", "0"], "top_p is 0; it must be above 0 and at most 1");
    run(&["-p", "too long", "--context", "8"], "the prompt has 8 tokens; a context of 8 has room for 7");
    run(&["-p", "x", "--context", "1"], "a context of 1 tokens is too small");
    run(&["-p", "x", "--stop", ""], "stop[0] is empty");
    run(&["-p", "x", "--tokenizer", "no/such/folder"], "no/such/folder: No such file");
    run(&["--prompt-ids", "1", "--logits", "no/such/folder/l.safetensors"], "no/such/folder/l.safetensors");
}

#[test]
fn options() {
    let bytes = "fixtures/model/bytes";
    misused(&["run", bytes], "<--prompt <TEXT>|--prompt-ids <ID,ID,...>>");
    misused(&["run", bytes, "-p", "x", "--tempature", "1"], "unexpected argument '--tempature'");
    misused(&["run", bytes, "-p", "x", "--threads", "0"], "0 is not in 1..=1024");
    misused(&["run", bytes, "-p", "x", "--max-tokens", "-3"], "unexpected argument '-3'");
    misused(&["run", bytes, "-p", "x", "--prompt-ids", "1"], "cannot be used with");
    misused(&["run", bytes, "--prompt-ids", "1,x"], "invalid value 'x' for '--prompt-ids");
    misused(&["run", bytes, "--prompt-ids", "1", "--stop", "x"], "cannot be used with");
    misused(&["run", bytes, "-p", "x", "--template", "k2-thinking"], "unexpected argument '--template'");
    misused(
        &["chat", bytes, "--template", "chatml"],
        "no template is called \"chatml\"; there are k2-instruct,",
    );
    misused(&["render"], "<DIR>");
    misused(&["render", "--normalize", bytes], "cannot be used with");
    misused(&["bench", bytes, "--format", "q8_0"], "cannot be used with");
    misused(&["bench", bytes, "--experts", "9"], "cannot be used with");
    misused(&["train", "evaluate", "--cases", "0"], "expected a number from 1 on");
    misused(&["frobnicate"], "unrecognized subcommand 'frobnicate'");
    fails(
        &["chat", bytes, "--no-thinking"],
        "",
        "--no-thinking: the turn format k2-instruct has no such choice",
    );
}

#[test]
fn environment() {
    let check = |name: &str, value: &str, expected: &str| {
        let ran = std::process::Command::new(env!("CARGO_BIN_EXE_k2"))
            .args(["parse", "fixtures/model/bytes"])
            .env(name, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && said.contains(expected), "{said}");
    };
    check("K2_ISA", "sse9", "K2_ISA=sse9 is not available here");
    check("K2_NODES", "0", "K2_NODES=0 is no number of nodes; 1 to 64 can be pretended");
}

#[test]
fn lines() {
    let bytes = "fixtures/model/bytes";
    fails(&["tokenize", "xtask"], "", "xtask/tiktoken.model: No such file");
    fails(&["tokenize", bytes], "{\"text\": \"a\"}\n\n{\"txet\": \"a\"}\n", "line 3: missing field `text`");
    fails(&["tokenize", bytes], "{\"text\": ", "line 1: EOF while parsing");
    fails(
        &["tokenize", bytes, "--decode"],
        "{\"ids\": [512]}",
        "line 1: token id 512 is not in the vocabulary",
    );
    fails(&["tokenize", bytes, "--decode"], "{\"ids\": [-1]}", "line 1: invalid value: integer `-1`");
    fails(&["render", bytes], "{\"messages\": [], \"template\": \"x\"}", "no template is called \"x\"");
    fails(&["parse", bytes], "{}", "line 1: there is neither a field `model_output` nor `ids`");
    fails(&["parse", bytes], "{\"model_output\": \"\", \"markers\": \"ids\"}", "there is no field `ids`");
    fails(&["parse", bytes], "{\"ids\": [], \"stop_reason\": \"x\"}", "line 1: unknown variant `x`");
}
