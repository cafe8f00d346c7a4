//! Which names and which web pages reach the server.
//!
//! A page that somebody looks at can point a name of its own at 127.0.0.1 and talk to a server there (DNS
//! rebinding); its requests carry that name in `Host`. A name is therefore let in only if it is known; an address
//! written in numbers has no name that could be pointed elsewhere. Pages of other origins are let in by `Origin`
//! (CORS, WHATWG Fetch, section 3.3), and only those that are listed.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;

/// Seconds that a browser may remember what it was told about an origin.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Names and origins that are let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    /// Beside `localhost` and addresses in numbers.
    pub(crate) names: Vec<String>,
    /// As browsers write them, such as `https://chat.example`; `*` is all.
    pub(crate) origins: Vec<String>,
}

impl Hosts {
    /// Refuses names that are not known, in the header and in the address line.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = host else {
            return Err(ApiError::invalid("the header `Host` is missing or not ASCII"));
        };
        let in_line = uri.authority().map(Authority::as_str);
        match [Some(host), in_line].into_iter().flatten().find(|name| !self.is_known(name)) {
            None => Ok(()),
            Some(name) => Err(ApiError::forbidden(format!(
                "the name {name:?} is not known here; --allowed-host adds it"
            ))),
        }
    }

    fn is_known(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_end_matches('.');
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let is_listed = || self.names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let named_user = authority.as_str().contains('@');
        !named_user
            && (name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok() || is_listed())
    }

    /// Refuses pages of other origins that are not listed.
    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match headers.get(header::ORIGIN) {
            Some(origin) if !self.is_listed(origin) && !is_own(origin, headers) => {
                Err(ApiError::forbidden("pages of this origin are not let in; --allowed-origin adds it"))
            }
            _ => Ok(()),
        }
    }

    /// The answer to a browser that asks before it sends, for an origin that [`check_origin`](Self::check_origin)
    /// has let in.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || !headers.contains_key(header::ORIGIN) {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page of a listed origin read an answer.
    pub(crate) fn allow(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let Some(origin) = origin.filter(|origin| self.is_listed(origin)) else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after, x-request-id"),
        );
        answer.append(header::VARY, HeaderValue::from_static("origin"));
    }

    fn is_listed(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|listed| listed == "*" || listed.as_bytes() == origin.as_bytes())
    }
}

/// A page that came from here.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host)
}
