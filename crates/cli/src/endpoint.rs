//! The URL of a command line: which endpoint it is, and which of its models.

use std::error::Error;
use std::time::Duration;

use clap::{Args, value_parser};
use k2_eval::Options;

/// An OpenAI endpoint.
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    /// Address of an OpenAI endpoint, like http://127.0.0.1:8000/v1 (without a path, /v1 is meant).
    #[arg(value_name = "URL")]
    url: String,
    /// Key to send along.
    #[arg(long, value_name = "KEY", env = "K2_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Model to ask for [default: the first that the endpoint lists].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Longest time for one answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// An endpoint and a model of it.
pub(crate) struct Endpoint {
    pub(crate) endpoint: k2_eval::Endpoint,
    pub(crate) model: String,
}

impl EndpointArgs {
    /// Reaches the endpoint if it has to say which models it has.
    pub(crate) fn open(&self) -> Result<Endpoint, Box<dyn Error>> {
        let timeout = Duration::from_secs(self.timeout);
        let options = Options { api_key: self.api_key.clone(), timeout, ..Options::default() };
        let endpoint = k2_eval::Endpoint::new(&self.url, &options)?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => endpoint.first_model()?,
        };
        Ok(Endpoint { endpoint, model })
    }
}
