//! The server under test: `fixtures/model/bytes`, one token for each byte, numbers of no meaning, without a network.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use k2_chat::{GrammarCompiler, Template, Tokenizer, Turns};
use k2_engine::{Engine, EngineOptions, PrefixStoreOptions};
use k2_kernels::Pool;
use k2_model::KimiK2;
use k2_server::{Keys, Limits, Params, Served, Server, ServerOptions};
use k2_weights::Checkpoint;
use serde_json::{Value, json};
use tower::ServiceExt;

/// What the server calls its model.
pub(crate) const MODEL: &str = "bytes";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model/bytes")
}

/// A small engine with its tokenizer and turn format.
pub(crate) fn served(limits: Limits) -> Served {
    let options =
        EngineOptions { context_tokens: 4096, max_sequences: 4, max_waiting: 4, ..Default::default() };
    // Noise ends anywhere; without ends an answer is as long as it is asked to be.
    Served { stop_ids: [].into(), limits, ..on_engine(options) }
}

/// The same with a prefix store, of so many bytes.
pub(crate) fn served_with_store(directory: &Path, bytes: u64) -> Served {
    let store = PrefixStoreOptions { directory: directory.to_owned(), bytes, weights: [7; 32] };
    Served { stop_ids: [].into(), ..on(EngineOptions::default(), Some(&store)) }
}

fn on_engine(options: EngineOptions) -> Served {
    on(options, None)
}

fn on(options: EngineOptions, store: Option<&PrefixStoreOptions>) -> Served {
    let folder = folder();
    let checkpoint = Checkpoint::open(&folder, &mut |_| ()).unwrap();
    let model = KimiK2::load(&checkpoint, Pool::new(1), &mut |_, _| ()).unwrap();
    let engine = Engine::start_with(model, options, store).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder).unwrap();
    let stop_ids = tokenizer.stop_ids(&[checkpoint.config()]);
    Served {
        model_name: MODEL.into(),
        grammars: GrammarCompiler::new(&tokenizer, &stop_ids).unwrap(),
        turns: Turns::new(1 << 20),
        params: Params::Open,
        stop_ids: stop_ids.into(),
        masked_ids: (0..engine.vocab_size() as u32).filter(|id| !tokenizer.is_named(*id)).collect(),
        temperature: 0.6,
        top_p: 1.0,
        keep_agent_headers: false,
        limits: Limits::default(),
        template: Template::from_dir(&folder).unwrap(),
        engine,
        tokenizer,
    }
}

/// The routes with these options.
pub(crate) fn routes(options: ServerOptions) -> Router {
    Server::new(served(Limits::default()), options).unwrap().router()
}

/// A short raw completion.
pub(crate) fn completion(max_tokens: usize) -> Value {
    json!({ "model": MODEL, "prompt": "The tide", "max_tokens": max_tokens, "seed": 1, "stream": false })
}

/// A streamed one that no test sees the end of.
pub(crate) fn endless() -> String {
    let mut body = completion(4000);
    body["stream"] = json!(true);
    body.to_string()
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// `GET /path` or `POST /path`, with headers one after the other; `host` is localhost if none is given.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8000");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// Sends a request to a router.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let text = to_bytes(body, 1 << 24).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(text.to_vec()).unwrap() }
}

/// The routes as `k2 serve` has them, with an engine of the usual sizes.
pub(crate) struct Usual(Router);

impl Usual {
    pub(crate) fn start(api_key: Option<&str>) -> Usual {
        let keys = api_key.map_or_else(Keys::default, |key| Keys::default().with_single(key).unwrap());
        let options = ServerOptions { keys, ..ServerOptions::default() };
        Usual(Server::new(on_engine(EngineOptions::default()), options).unwrap().router())
    }

    /// With something else served.
    pub(crate) fn with(change: impl FnOnce(&mut Served)) -> Usual {
        let mut served = on_engine(EngineOptions::default());
        change(&mut served);
        Usual(Server::new(served, ServerOptions::default()).unwrap().router())
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(request(&format!("POST {path}"), &[("content-type", "application/json")], body.to_owned()))
            .await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.0, request).await
    }
}
