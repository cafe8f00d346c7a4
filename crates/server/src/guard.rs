//! What every request passes before a route sees it: who asks, from where, whether there is room, and how long it may
//! take.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep, timeout};

use crate::admission::Admission;
use crate::error::ApiError;
use crate::hosts::Hosts;
use crate::keys::{Keys, sent};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::serve::ServerOptions;
use crate::served::Served;

/// The name of everybody where there are no keys.
const NOBODY: &str = "-";

/// How long after its time a stream may take to say so before it is cut off.
const LAST_EVENT: Duration = Duration::from_secs(5);

/// What is checked, and what is counted.
#[derive(Debug)]
pub(crate) struct Guard {
    keys: Keys,
    hosts: Hosts,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether `/metrics` needs a key.
    metrics_guarded: bool,
    /// Whether the server is about to end.
    pub(crate) draining: AtomicBool,
    body_bytes: usize,
    body_time: Duration,
    request_time: Duration,
}

impl Guard {
    pub(crate) fn new(served: &Served, options: &ServerOptions) -> Guard {
        let ServerOptions { keys, timeouts, .. } = options;
        Guard {
            keys: keys.clone(),
            hosts: Hosts { names: options.allowed_hosts.clone(), origins: options.allowed_origins.clone() },
            admission: Admission::new(keys, options.max_requests, options.max_requests_per_key),
            metrics: Arc::new(Metrics::new(served.engine.clone(), &served.model_name)),
            metrics_guarded: !options.open_metrics && !options.address.ip().is_loopback(),
            draining: AtomicBool::new(false),
            body_bytes: served.limits.body_bytes,
            body_time: timeouts.body,
            request_time: timeouts.request,
        }
    }

    async fn answer(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        self.hosts.check(&parts.uri, &parts.headers)?;
        self.hosts.check_origin(&parts.headers)?;
        if let Some(response) = self.hosts.preflight(&parts.method, &parts.headers) {
            return Ok(response);
        }
        if self.is_open(parts.uri.path()) {
            return Ok(next.run(Request::from_parts(parts, Body::empty())).await);
        }
        let record = parts.extensions.get::<Arc<Record>>().cloned();
        let record = record.ok_or_else(|| ApiError::failed("a request without a record"))?;
        let key = self.check_key(&parts.headers, &record)?;
        if self.draining.load(Relaxed) {
            return Err(ApiError::stopping());
        }
        let body = if parts.method == Method::POST {
            record.hold(self.admission.admit(&key)?);
            Body::from(self.read(&parts.headers, body).await?)
        } else {
            Body::empty() // no place, no body: there is no route that would read it
        };
        let handler = next.run(Request::from_parts(parts, body));
        timeout(record.time_left(), Arc::clone(&record).scope(handler))
            .await
            .map_err(|_| record.took_too_long())
    }

    /// Whether a route is for everybody.
    fn is_open(&self, path: &str) -> bool {
        match path {
            "/health" | "/ready" => true,
            "/metrics" => !self.metrics_guarded,
            _ => false,
        }
    }

    fn check_key(&self, headers: &HeaderMap, record: &Record) -> Result<Arc<str>, ApiError> {
        if self.keys.is_empty() {
            return Ok(NOBODY.into());
        }
        let name = sent(headers).find_map(|key| self.keys.name_of(key)).ok_or_else(ApiError::unauthorized)?;
        record.set_key(name);
        Ok(Arc::clone(name))
    }

    /// The body, if it is not too long and comes in time.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > self.body_bytes) {
            return Err(ApiError::too_large(self.body_bytes));
        }
        match timeout(self.body_time, to_bytes(body, self.body_bytes)).await {
            Ok(Ok(body)) => Ok(body),
            // Either it is too long or it broke off, and then nobody reads the answer.
            Ok(Err(_)) => Err(ApiError::too_large(self.body_bytes)),
            Err(_) => Err(ApiError::slow_body(self.body_time.as_secs())),
        }
    }
}

/// The inner layer: lets requests through, or says why not.
pub(crate) async fn guarded(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    guard.answer(request, next).await
}

/// The outer layer: follows a request to the last byte of its answer.
pub(crate) async fn recorded(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let (method, origin) = (request.method().clone(), request.headers().get(header::ORIGIN).cloned());
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let record = Arc::new(Record::new(method.clone(), route, guard.request_time, Arc::clone(&guard.metrics)));
    request.extensions_mut().insert(Arc::clone(&record));
    let mut response = next.run(request).await;
    guard.hosts.allow(origin.as_ref(), response.headers_mut());
    if let Ok(id) = HeaderValue::from_str(&record.id) {
        response.headers_mut().insert("x-request-id", id);
    }
    record.set_status(response.status());
    let deadline = Box::pin(sleep(record.time_left().saturating_add(LAST_EVENT)));
    response.map(|body| {
        if body.is_end_stream() || method == Method::HEAD {
            record.completed();
        }
        Body::new(Tracked { body, record, deadline })
    })
}

/// An answer's body, followed to its end.
struct Tracked {
    body: Body,
    record: Arc<Record>,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let tracked = self.get_mut();
        if tracked.deadline.as_mut().poll(context).is_ready() {
            tracked.record.timed_out();
            return Poll::Ready(Some(Err(axum::Error::new("the answer took too long"))));
        }
        let polled = Pin::new(&mut tracked.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || tracked.body.is_end_stream() {
            tracked.record.completed();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
