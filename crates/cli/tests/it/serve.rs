//! The options of `k2 serve` from a file and from the command line; what is refused before a model is loaded.

use std::path::PathBuf;

use crate::k2::{k2, output};

const MODEL: &str = "fixtures/model/bytes";

/// A file for one test, out of reach of others.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("k2-serve-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}

#[test]
fn flags_override_the_file_which_overrides_defaults() {
    let check = |name: &str, text: &str, flags: &[&str], expected: &[&str]| {
        let path = file(name, text);
        let args = [&["serve", "--config", path.to_str().unwrap(), "--print-config"], flags].concat();
        let printed = output(&args, "");
        for line in expected {
            assert!(
                printed.lines().any(|printed| printed == *line),
                "{text} {flags:?}: {line} in\n{printed}"
            );
        }
        // What is printed is a file that says the same.
        let again = file(&format!("{name}-again"), &printed.replace("api-key = \"***\"\n", ""));
        let printed_again = output(&["serve", "--config", again.to_str().unwrap(), "--print-config"], "");
        assert_eq!(printed_again, printed.replace("api-key = \"***\"\n", ""), "{text} {flags:?}");
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(again).unwrap();
    };
    check(
        "defaults",
        "",
        &[MODEL],
        &[
            "model = \"fixtures/model/bytes\"",
            "port = 8000",
            "host = \"127.0.0.1\"",
            "insecure = false",
            "allowed-host = []",
            "log-format = \"text\"",
            "log-level = \"info\"",
        ],
    );
    check(
        "excluded",
        "repack = true\nlog-format = \"json\"\n",
        &[MODEL, "--no-repack"],
        &["repack = false", "no-repack = true", "log-format = \"json\""],
    );
    check("excluding", "no-repack = true\n", &[MODEL, "--repack"], &["repack = true", "no-repack = false"]);
    let text =
        "model = \"here\"\nport = 1\ninsecure = true\nallowed-host = [\"a\", \"b\"]\nlog-format = \"json\"\n";
    check(
        "file",
        text,
        &[],
        &[
            "model = \"here\"",
            "port = 1",
            "insecure = true",
            "allowed-host = [\"a\", \"b\"]",
            "log-format = \"json\"",
        ],
    );
    check(
        "flags",
        text,
        &["there", "--port=2", "--allowed-host", "c"],
        &["model = \"there\"", "port = 2", "insecure = true", "allowed-host = [\"c\"]"],
    );
    check("name", "model = \"here\"\nserved-model-name = \"007\"\n", &[], &["served-model-name = \"007\""]);
    check("secret", "model = \"here\"\napi-key = \"12345678\"\n", &[], &["api-key = \"***\""]);
}

#[test]
fn wrong_options() {
    let check = |args: &[&str], code: i32, expected: &str| {
        let ran = k2(&[&["serve", MODEL], args].concat(), "");
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with("error: ") && ran.stderr.contains(expected),
            "{args:?}: {}",
            ran.stderr
        );
    };
    let with = |text: &str, code: i32, expected: &str| {
        let path = file(&format!("wrong-{}", text.len()), text);
        check(&["--config", path.to_str().unwrap()], code, expected);
        std::fs::remove_file(path).unwrap();
    };
    with("max_body = 1", 1, "there is no option `max_body`; perhaps `max-body`");
    with("config = \"x\"", 1, "there is no option `config`");
    with("port = \"http\"", 2, "invalid value 'http' for '--port <PORT>'");
    with("port = [1]", 1, "`port` is a list, expected text or a number");
    with("port = ", 1, "not valid TOML");
    check(&["--config", "no/such/file.toml"], 1, "no/such/file.toml: No such file");
    check(&["--host", "0.0.0.0"], 1, "0.0.0.0:8000 is reachable from other machines, and no key is set");
    check(&["--api-key", "short"], 1, "a key has 8 to 512 visible ASCII characters; this one has 5 bytes");
    check(&["--api-key-file", "no/such/keys"], 1, "no/such/keys: No such file");
    check(&["--tls-cert", "cert.pem"], 2, "--tls-key <FILE>");
    check(&["--log-format", "xml"], 2, "\"xml\" is neither text nor json");
    check(&["--log-level", "loud"], 2, "\"loud\" is none of off, error, warn, info, debug, trace");
    check(&["--header-timeout", "0"], 2, "0 is not in 1..=");
    let keys = file("keys", "ann: 12345678\nann: 87654321\n");
    check(&["--api-key-file", keys.to_str().unwrap()], 1, "line 2: the name \"ann\" is there already");
    std::fs::remove_file(keys).unwrap();
}
