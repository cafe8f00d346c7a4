//! Connections: those that say nothing, those that read nothing, TLS, and an orderly end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::http::StatusCode;
use k2_server::{KeyError, Limits, ServeError, Server, ServerOptions, Timeouts, TlsError, TlsFiles};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::fixtures::{completion, endless, served};

/// Nothing here takes so long, unless it hangs.
const HANGS: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(50);

/// A server that listens, on a thread of its own.
struct Listening {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

fn listen(options: ServerOptions) -> Listening {
    let server = Server::new(served(Limits::default()), options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        server.run(&listener, async { drop(stopped.await) }).await;
    };
    Listening { address, stop: Some(stop), ended: thread::spawn(move || runtime.block_on(run)) }
}

impl Listening {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        stream.set_write_timeout(Some(HANGS)).unwrap();
        stream
    }

    fn asked(&self, sent: &str) -> String {
        exchange(self.connect(), sent)
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    fn ends(self) {
        for _ in 0..HANGS.as_millis() / 10 {
            if self.ended.is_finished() {
                return self.ended.join().unwrap();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end");
    }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// Sends, and reads until the server closes the connection.
fn exchange(mut stream: impl Read + Write, sent: &str) -> String {
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // Whether it is closed or reset is the system's affair.
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server keeps the connection");
    }
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> StatusCode {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap()
}

#[test]
fn silent_connections_are_closed() {
    let timeouts = Timeouts { header: SHORT, body: SHORT, ..Timeouts::default() };
    let server = listen(ServerOptions { timeouts, ..ServerOptions::default() });
    assert_eq!(server.asked(""), "", "nothing at all");
    assert_eq!(server.asked("GET /health HTTP/1.1\r\nhost: local"), "", "half a head");
    let answer = server.asked("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(status(&answer), 200, "a whole request; then silence");
    let half = post(&completion(1).to_string());
    assert_eq!(status(&server.asked(&half[..half.len() - 1])), 408, "half a body");
}

#[test]
fn who_reads_nothing_is_cut_off() {
    let timeouts = Timeouts { write: SHORT, ..Timeouts::default() };
    let server = listen(ServerOptions { timeouts, ..ServerOptions::default() });
    let mut stream = server.connect();
    let asks = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let cut_off = loop {
        if let Err(error) = stream.write_all(asks.as_bytes()) {
            break error;
        }
    };
    assert_ne!(cut_off.kind(), ErrorKind::WouldBlock, "the server waits for ever");
}

#[test]
fn running_answers_end_before_the_server() {
    let mut server = listen(ServerOptions::default());
    let mut endless_one = server.connect();
    endless_one.write_all(post(&endless()).as_bytes()).unwrap();
    endless_one.read_exact(&mut [0; 200]).unwrap();
    let mut short_one = server.connect();
    let closing = |max_tokens: usize| {
        post(&completion(max_tokens).to_string())
            .replace("content-length", "connection: close\r\ncontent-length")
    };
    short_one.write_all(closing(50).as_bytes()).unwrap();
    // The server has it when it has taken a connection that came later.
    assert_eq!(status(&server.asked(&get("/ready"))), 200);
    server.stop();
    while status(&server.asked(&get("/ready"))) == 200 {}
    assert_eq!(status(&server.asked(&get("/health"))), 200);
    let refused = server.asked(&closing(1));
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(refused.contains("the server is stopping") && refused.contains("retry-after: 1"), "{refused}");
    let answer = exchange(short_one, "");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 50, "{answer}");
    assert!(!server.ended.is_finished(), "one answer still runs");
    drop(endless_one);
    let address = server.address;
    server.ends();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let timeouts = Timeouts { drain: SHORT, ..Timeouts::default() };
    let mut server = listen(ServerOptions { timeouts, ..ServerOptions::default() });
    let mut endless_one = server.connect();
    endless_one.write_all(post(&endless()).as_bytes()).unwrap();
    endless_one.read_exact(&mut [0; 200]).unwrap();
    server.stop();
    server.ends();
}

#[test]
fn connections_are_bounded() {
    let timeouts = Timeouts { header: SHORT, ..Timeouts::default() };
    let server = listen(ServerOptions { max_connections: 1, timeouts, ..ServerOptions::default() });
    let silent = server.connect();
    // Its turn comes when the silent one is closed.
    assert_eq!(status(&server.asked(&get("/health"))), 200);
    assert_eq!(exchange(silent, ""), "");
}

/// A copy that nobody else can read.
fn private(name: &str, mode: u32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let copy = std::env::temp_dir().join(format!("k2-tls-{}-{mode:o}-{name}", std::process::id()));
    std::fs::copy(data, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
    copy
}

#[test]
fn tls() {
    let (certificates, key) = (private("cert.pem", 0o644), private("key.pem", 0o600));
    let files = TlsFiles { certificates: certificates.clone(), key: key.clone() };
    let timeouts = Timeouts { header: SHORT, ..Timeouts::default() };
    let server = listen(ServerOptions { tls: Some(files), timeouts, ..ServerOptions::default() });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificates).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    assert_eq!(status(&exchange(StreamOwned::new(client, server.connect()), &get("/health"))), 200);
    assert!(!server.asked(&get("/health")).contains("200"), "plain HTTP is not spoken");
    assert_eq!(server.asked(""), "", "nor is silence waited for");
    std::fs::remove_file(certificates).unwrap();
    std::fs::remove_file(key).unwrap();
}

#[test]
fn tls_files() {
    let check = |certificates: &Path, key: &Path, expected: fn(&TlsError) -> bool| {
        let tls = Some(TlsFiles { certificates: certificates.into(), key: key.into() });
        let options = ServerOptions { tls, ..ServerOptions::default() };
        match Server::new(served(Limits::default()), options) {
            Err(ServeError::Tls(error)) => assert!(expected(&error), "{error}"),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{} and {} are taken", certificates.display(), key.display()),
        }
    };
    let (certificates, key) = (private("cert.pem", 0o640), private("key.pem", 0o400));
    let nowhere = Path::new("no/such/file.pem");
    check(nowhere, &key, |error| matches!(error, TlsError::Certificates { .. }));
    check(&key, &key, |error| matches!(error, TlsError::NoCertificate { .. }));
    check(&certificates, nowhere, |error| matches!(error, TlsError::KeyFile(KeyError::Read { .. })));
    check(&certificates, &private("key.pem", 0o644), |error| {
        matches!(error, TlsError::KeyFile(KeyError::Mode { .. }))
    });
    check(&certificates, &certificates, |error| matches!(error, TlsError::Key { .. }));
    check(&certificates, &private("other-key.pem", 0o600), |error| matches!(error, TlsError::Pair { .. }));
}
