//! The application on the repository's `bytes` model, without a network.

use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use k2_chat::{Template, Tokenizer};
use k2_engine::{Engine, EngineOptions};
use k2_kernels::Pool;
use k2_model::KimiK2;
use k2_server::{Guard, Limits, Served, app};
use k2_weights::Checkpoint;
use tower::ServiceExt as _;

/// Everything that a test asks of the application.
pub(crate) struct Server {
    app: Router,
}

/// An answer: its status and body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

impl Server {
    pub(crate) fn start(api_key: Option<&str>) -> Server {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model/bytes");
        let checkpoint = Checkpoint::open(&folder, &mut |_| ()).unwrap();
        let model = KimiK2::load(&checkpoint, Pool::new(1), &mut |_, _| ()).unwrap();
        let engine = Engine::start(model, EngineOptions::default()).unwrap();
        let tokenizer = Tokenizer::from_dir(&folder).unwrap();
        let served = Served {
            model_name: "bytes".to_owned(),
            stop_ids: tokenizer.stop_ids(&[checkpoint.config()]).into(),
            masked_ids: (0..engine.vocab_size() as u32).filter(|id| !tokenizer.is_named(*id)).collect(),
            temperature: 0.6,
            top_p: 1.0,
            keep_agent_headers: false,
            limits: Limits::default(),
            template: Template::from_dir(&folder).unwrap(),
            engine,
            tokenizer,
        };
        let guard = Guard { api_key: api_key.map(str::to_owned) };
        Server { app: app(served, guard) }
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        Answer { status, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}
