//! OpenAI's and Anthropic's APIs over HTTP.
//!
//! The wire's words live here and nowhere else: a request is read field by field (`guard` stands in front), becomes
//! messages of `chat` and ids for `engine`, and the engine's events become one JSON object or server-sent
//! events. What can be refused is refused before an answer begins.

mod admission;
mod agent_header;
mod answer;
mod anthropic;
mod app;
mod blocking;
mod body;
mod chat;
mod completions;
mod config_file;
mod error;
mod grammar;
mod guard;
mod hosts;
mod keys;
mod limits;
mod log;
mod metrics;
mod options;
mod params;
mod record;
mod responses;
mod serve;
mod served;
mod stream;
mod tls;
mod watch;

pub use config_file::{ConfigError, ConfigOption, Takes, open_config, parse_config};
pub use grammar::Followed;
pub use keys::{KeyError, Keys};
pub use limits::Limits;
pub use log::{Log, LogFormat, LogLevel};
pub use params::Params;
pub use serve::{ServeError, Server, ServerOptions, Timeouts, serve};
pub use served::Served;
pub use tls::{TlsError, TlsFiles};
