//! OpenAI's and Anthropic's APIs over HTTP.
//!
//! The wire's words live here and nowhere else: a request is read field by field ([`Guard`] in front), becomes
//! messages of `chat` and ids for `engine`, and the engine's events become one JSON object or server-sent
//! events. What can be refused is refused before an answer begins.

mod agent_header;
mod answer;
mod anthropic;
mod app;
mod body;
mod chat;
mod completions;
mod error;
mod limits;
mod options;
mod responses;
mod serve;
mod served;
mod stream;

pub use app::{Guard, app};
pub use limits::Limits;
pub use serve::{ServeError, serve};
pub use served::Served;
