//! A request to the server's routes, without a network. The context has room for almost nothing, so a request
//! that would be taken is refused by the engine instead of computed, after everything else has read it.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use k2_chat::{GrammarCompiler, Template, Tokenizer, Turns};
use k2_engine::{Engine, EngineOptions};
use k2_kernels::Pool;
use k2_model::KimiK2;
use k2_server::{Limits, Params, Served, Server, ServerOptions};
use k2_weights::Checkpoint;
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

static SERVER: LazyLock<(Runtime, axum::Router)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/model/bytes");
    let checkpoint = Checkpoint::open(&folder, &mut |_| ()).expect("the fixture");
    let model = KimiK2::load(&checkpoint, Pool::new(1), &mut |_, _| ()).expect("the fixture");
    let options = EngineOptions { context_tokens: 2, ..EngineOptions::default() };
    let tokenizer = Tokenizer::from_dir(&folder).expect("the fixture");
    let served = Served {
        grammars: GrammarCompiler::new(&tokenizer, &tokenizer.stop_ids(&[])).expect("a compiler"),
        turns: Turns::new(1 << 20),
        params: Params::Open,
        model_name: "k2".to_owned(),
        engine: Engine::start(model, options).expect("an engine"),
        tokenizer,
        template: Template::from_dir(&folder).expect("the fixture"),
        stop_ids: [].into(),
        masked_ids: [].into(),
        temperature: 0.6,
        top_p: 1.0,
        keep_agent_headers: false,
        limits: Limits::default(),
    };
    let server = Server::new(served, ServerOptions::default()).expect("a server");
    (Builder::new_current_thread().enable_all().build().expect("a runtime"), server.router())
});

/// Posts `data`: what comes back is an answer, or a refusal in JSON that blames the client.
pub fn post(path: &str, data: &[u8]) {
    let (runtime, app) = &*SERVER;
    runtime.block_on(async {
        let request = Request::post(path).header("host", "localhost").body(Body::from(data.to_vec())).expect("a request");
        let response = app.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        assert!(status < 500, "{status}");
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        if status != 200 {
            let said: Value = serde_json::from_slice(&body).expect("JSON");
            assert!(said["error"]["message"].is_string(), "{said}");
        }
    });
}
