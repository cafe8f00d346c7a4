//! Why an endpoint gave no answer at all. What is wrong with an answer is a [`Finding`](crate::Finding).

use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not an address.
    #[error("{url:?} is no address of an endpoint: {why}; expected one like http://127.0.0.1:8000/v1")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key that cannot stand in a header.
    #[error("the key has characters that cannot stand in a header; expected visible ASCII")]
    Key,
    /// No connection, or it broke before a status came.
    #[error("{url} cannot be reached: {source}")]
    Unreachable {
        /// Where the request went.
        url: String,
        /// What the client says.
        source: Box<ureq::Error>,
    },
    /// It took too long.
    #[error("{url} has not answered within {limit:?}")]
    TimedOut {
        /// Where the request went.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke inside the body.
    #[error("the answer of {url} breaks off after {bytes} bytes: {source}")]
    BrokenOff {
        /// Where the request went.
        url: String,
        /// Bytes of the body that came.
        bytes: usize,
        /// What the system says.
        source: std::io::Error,
    },
    /// A body beyond the bound.
    #[error("the answer of {url} is longer than {limit} bytes")]
    TooLong {
        /// Where the request went.
        url: String,
        /// The bound.
        limit: usize,
    },
    /// A body that is no text.
    #[error("the answer of {url} is not UTF-8 after {bytes} bytes")]
    NotText {
        /// Where the request went.
        url: String,
        /// Bytes of the body that are.
        bytes: usize,
    },
    /// `GET /models` without the list that names the model.
    #[error("{url} gives status {status} and no list of models ({excerpt:?}); name the model")]
    NoModels {
        /// Where the request went.
        url: String,
        /// The status.
        status: u16,
        /// The body's beginning.
        excerpt: String,
    },
}
