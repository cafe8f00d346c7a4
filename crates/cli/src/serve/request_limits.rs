//! The options of how much one request may ask for.

use clap::Args;
use k2_server::Limits;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of a request")]
pub(super) struct LimitArgs {
    /// Largest body.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body_bytes)]
    max_body: usize,
    /// Most messages.
    #[arg(long, value_name = "N", default_value_t = Limits::default().messages)]
    max_messages: usize,
    /// Most tools.
    #[arg(long, value_name = "N", default_value_t = Limits::default().tools)]
    max_tools: usize,
    /// Largest JSON schema.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().schema_bytes)]
    max_schema_bytes: usize,
    /// Most stop strings.
    #[arg(long, value_name = "N", default_value_t = Limits::default().stops)]
    max_stops: usize,
    /// Most answers to one prompt.
    #[arg(long, value_name = "N", default_value_t = Limits::default().n)]
    max_n: usize,
    /// Most alternatives listed beside each token.
    #[arg(long, value_name = "N", default_value_t = Limits::default().top_logprobs)]
    max_top_logprobs: usize,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.max_body,
            messages: self.max_messages,
            tools: self.max_tools,
            schema_bytes: self.max_schema_bytes,
            stops: self.max_stops,
            n: self.max_n,
            top_logprobs: self.max_top_logprobs,
        }
    }
}
