//! Servers of Kimi K2 seen from outside: what a deployment must get right, and what it takes under load.
//!
//! Everything here talks HTTP to an OpenAI endpoint and links no server, so that any vendor's deployment can stand
//! where ours does. Of the project only [`k2_chat`] is used: its tokenizer and turn format say how many tokens a
//! prompt should have.
//!
//! - [`Endpoint`] is the client: requests with a key, answers whole or as [`sse`] events with their times.
//! - [`Answer`] reads both forms of an answer and says what is wrong with one.
//! - [`verify`] is `k2 verify`: groups of checks, each a table where it can be.
//! - [`load`] is `k2 bench serve`: clients that ask, and the times that they see.

pub mod answer;
pub mod endpoint;
pub mod error;
pub mod load;
pub mod schema;
pub mod sse;
pub mod verify;
pub mod walle;

pub use answer::{Answer, Finding};
pub use endpoint::{Body, Endpoint, Options, Response};
pub use error::EndpointError;
