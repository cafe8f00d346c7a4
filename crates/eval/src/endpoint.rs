//! An OpenAI endpoint over HTTP/1.1, with a key, time-outs and bounds.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderValue, Uri, header};

use crate::error::EndpointError;
use crate::sse::{Event, EventParser};

/// Characters of a body that a message quotes.
const EXCERPT: usize = 200;

/// A place that answers requests, each on a connection of its own: one that the other side has just closed would lose
/// a request, and sending it once more would hide a server's faults.
#[derive(Clone, Debug)]
pub struct Endpoint {
    agent: Agent,
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    max_body: usize,
}

/// How an endpoint is talked to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The key of `Authorization: Bearer KEY`.
    pub api_key: Option<String>,
    /// Longest time for one answer, from connecting to its last byte.
    pub timeout: Duration,
    /// Longest body of an answer, in bytes.
    pub max_body: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { api_key: None, timeout: Duration::from_secs(600), max_body: 256 << 20 }
    }
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Body,
    /// From sending the request to the last byte.
    pub elapsed: Duration,
}

/// The body of a response, by its content type.
#[derive(Clone, Debug)]
pub enum Body {
    /// Anything but a stream of events.
    Whole(String),
    /// `text/event-stream`.
    Events(Vec<Event>),
}

impl Endpoint {
    /// An endpoint by its address: `http://HOST:PORT/v1`, or without a path, which means `/v1`.
    ///
    /// # Errors
    ///
    /// The address is none, or the key cannot be sent.
    pub fn new(url: &str, options: &Options) -> Result<Endpoint, EndpointError> {
        let base = base(url)?;
        let bearer = |key: &String| HeaderValue::from_str(&format!("Bearer {key}"));
        let authorization = options.api_key.as_ref().map(bearer).transpose();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0) // a key goes nowhere else
            .max_redirects_will_error(false)
            .timeout_global(Some(options.timeout))
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .user_agent(concat!("k2/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let authorization = authorization.map_err(|_| EndpointError::Key)?;
        Ok(Endpoint { agent, base, authorization, timeout: options.timeout, max_body: options.max_body })
    }

    /// The address with its path.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Sends a JSON body to a path below the address and reads the whole answer.
    ///
    /// # Errors
    ///
    /// There is no answer, or none within the bounds.
    pub fn post(&self, path: &str, body: &Value) -> Result<Response, EndpointError> {
        let url = format!("{}/{path}", self.base);
        let mut request = self.agent.post(&url).header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let sent = Instant::now();
        let response = request.send(body.to_string());
        self.read(response, &url, sent)
    }

    /// Reads what lies at a path below the address.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::post`].
    pub fn get(&self, path: &str) -> Result<Response, EndpointError> {
        let url = format!("{}/{path}", self.base);
        let mut request = self.agent.get(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let sent = Instant::now();
        self.read(request.call(), &url, sent)
    }

    /// The first model that the endpoint lists.
    ///
    /// # Errors
    ///
    /// There is no answer, or no model in it.
    pub fn first_model(&self) -> Result<String, EndpointError> {
        let response = self.get("models")?;
        let Body::Whole(text) = &response.body else { return Err(self.no_models(response.status, "events")) };
        let list: Value = serde_json::from_str(text).unwrap_or_default();
        match list["data"][0]["id"].as_str() {
            Some(model) if response.status == 200 => Ok(model.to_owned()),
            _ => Err(self.no_models(response.status, text)),
        }
    }

    fn no_models(&self, status: u16, text: &str) -> EndpointError {
        EndpointError::NoModels { url: format!("{}/models", self.base), status, excerpt: excerpt(text) }
    }

    fn read(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        url: &str,
        sent: Instant,
    ) -> Result<Response, EndpointError> {
        let mut response = response.map_err(|error| self.unreachable(url, error))?;
        let text_of = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let retry_after = text_of(header::RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
        let streams = text_of(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/event-stream"));
        let status = response.status().as_u16();
        let body = match streams {
            true => self.events(response.body_mut(), url, sent)?,
            false => self.whole(response.body_mut(), url)?,
        };
        Ok(Response { status, retry_after, body, elapsed: sent.elapsed() })
    }

    fn whole(&self, body: &mut ureq::Body, url: &str) -> Result<Body, EndpointError> {
        let mut bytes = Vec::new();
        self.pieces(body, url, |piece| bytes.extend_from_slice(piece))?;
        let not_text = |error: std::string::FromUtf8Error| EndpointError::NotText {
            url: url.to_owned(),
            bytes: error.utf8_error().valid_up_to(),
        };
        String::from_utf8(bytes).map(Body::Whole).map_err(not_text)
    }

    fn events(&self, body: &mut ureq::Body, url: &str, sent: Instant) -> Result<Body, EndpointError> {
        let mut parser = EventParser::default();
        self.pieces(body, url, |piece| parser.push(piece, sent.elapsed()))?;
        Ok(Body::Events(parser.finish()))
    }

    /// Gives each piece of a body as it comes.
    fn pieces(
        &self,
        body: &mut ureq::Body,
        url: &str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), EndpointError> {
        let mut reader = body.with_config().limit(u64::MAX).reader(); // bounded below
        let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) if bytes + count > self.max_body => {
                    return Err(EndpointError::TooLong { url: url.to_owned(), limit: self.max_body });
                }
                Ok(count) => {
                    bytes += count;
                    take(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken_off(url, bytes, error)),
            }
        }
    }

    fn unreachable(&self, url: &str, error: ureq::Error) -> EndpointError {
        let url = url.to_owned();
        match error {
            ureq::Error::Timeout(_) => EndpointError::TimedOut { url, limit: self.timeout },
            error => EndpointError::Unreachable { url, source: Box::new(error) },
        }
    }

    /// The client wraps its own errors into those of reading.
    fn broken_off(&self, url: &str, bytes: usize, error: std::io::Error) -> EndpointError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
        if error.kind() == ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_))) {
            return EndpointError::TimedOut { url: url.to_owned(), limit: self.timeout };
        }
        EndpointError::BrokenOff { url: url.to_owned(), bytes, source: error }
    }
}

/// The beginning of a text, to be quoted.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn base(url: &str) -> Result<String, EndpointError> {
    let wrong = |why: String| EndpointError::Url { url: url.to_owned(), why };
    let parsed: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
    match parsed.scheme_str() {
        Some("http" | "https") => {}
        Some(scheme) => return Err(wrong(format!("its scheme is {scheme}"))),
        None => return Err(wrong("it has no scheme".into())),
    }
    if parsed.query().is_some() {
        return Err(wrong("it has a query".into()));
    }
    let url = url.trim_end_matches('/');
    Ok(if parsed.path() == "/" { format!("{url}/v1") } else { url.to_owned() })
}
