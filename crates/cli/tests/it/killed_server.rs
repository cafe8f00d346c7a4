//! `k2 serve --prefix-store`, killed (`kill -9`) at random moments while it answers several requests: it starts again on the
//! same store, finds what it had, and answers as a server that never had a store. `K2_KILLS` says how often (default: 2).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixtures::own;
use crate::prefix_store::check_files;

/// Of the files in the store, a few of this test's prompts.
const BUDGET: u64 = 2_000_000;

/// Requests at the same time.
const CLIENTS: u64 = 5;

#[test]
fn a_killed_server_leaves_a_store_that_works() {
    let kills: u64 = std::env::var("K2_KILLS").map_or(2, |kills| kills.parse().unwrap());
    let store = std::env::temp_dir().join(format!("k2-cli-killed-server-{}", std::process::id()));
    let never = Server::start(None);
    let repeated = prompt(u64::MAX, 0);
    let wanted_again = ask(never.port, &repeated).unwrap();
    let first = Server::start(Some(&store));
    assert_eq!(choices(&ask(first.port, &repeated).unwrap()), choices(&wanted_again));
    first.stop();
    for kill in 0..kills {
        let prompts: Vec<String> = (0..CLIENTS).map(|client| prompt(kill, client)).collect();
        let wanted: Vec<Value> = prompts.iter().map(|prompt| ask(never.port, prompt).unwrap()).collect();
        Server::start(Some(&store)).killed_under_load(&prompts, &wanted, moment(kill));
        let server = Server::start(Some(&store));
        let again = ask(server.port, &repeated).unwrap();
        assert_eq!(choices(&again), choices(&wanted_again), "after kill {kill}");
        assert!(cached_tokens(&again) > 0, "after kill {kill}: {}", again["usage"]);
        for (prompt, wanted) in prompts.iter().zip(&wanted) {
            let found = ask(server.port, prompt).unwrap();
            assert_eq!(choices(&found), choices(wanted), "after kill {kill}: {prompt}");
        }
        server.stop();
        check_files(&store, BUDGET);
    }
    never.stop();
    fs::remove_dir_all(store).unwrap();
}

/// New to the store with each kill; those of one kill share a beginning.
fn prompt(kill: u64, client: u64) -> String {
    format!("{kill:020} {} {client} says: ", "The tide is high and the moon is full. ".repeat(8))
}

/// Some way into the load.
fn moment(kill: u64) -> Duration {
    Duration::from_millis((kill + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55)
}

/// A running `k2 serve`; killed if it is not stopped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Waits until it listens.
    fn start(store: Option<&Path>) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2"));
        command.arg("serve").arg(own("bytes")).args(["--port", "0", "--threads", "1"]);
        if let Some(store) = store {
            command.args(["--prefix-store-bytes", &BUDGET.to_string(), "--prefix-store"]).arg(store);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut server = Server { child, port: 0 };
        let lines = BufReader::new(server.child.stderr.take().unwrap()).lines();
        let mut said = lines.map(|line| line.unwrap());
        let address =
            said.find_map(|line| line.split_once("http://127.0.0.1:").map(|(_, rest)| rest.to_owned()));
        server.port = address.unwrap().trim_end_matches("/v1").parse().unwrap();
        server
    }

    /// Every client asks its request again and again until there is no server.
    fn killed_under_load(mut self, prompts: &[String], wanted: &[Value], after: Duration) {
        let port = self.port;
        thread::scope(|scope| {
            for (prompt, wanted) in prompts.iter().zip(wanted) {
                scope.spawn(move || {
                    while let Some(found) = ask(port, prompt) {
                        assert_eq!(choices(&found), choices(wanted), "{prompt}");
                    }
                });
            }
            thread::sleep(after);
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        });
    }

    /// As an operator does; the store is complete then.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a request; none if the server goes away.
fn ask(port: u16, prompt: &str) -> Option<Value> {
    let body = json!({ "model": "bytes", "prompt": prompt, "max_tokens": 70, "temperature": 0.8, "seed": 5,
        "ignore_eos": true, "logprobs": 3 });
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let head = format!("host: localhost\r\nconnection: close\r\ncontent-length: {}", body.len());
    stream.write_all(format!("POST /v1/completions HTTP/1.1\r\n{head}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).ok()
}

/// Texts and log-probabilities.
fn choices(answer: &Value) -> &Value {
    assert!(answer["choices"][0]["logprobs"]["token_logprobs"].is_array(), "{answer}");
    &answer["choices"]
}

fn cached_tokens(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}
