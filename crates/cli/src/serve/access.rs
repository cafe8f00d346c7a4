//! The options of who may reach the server, and how long things may take.

use std::error::Error;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use k2_server::{Keys, ServerOptions, Timeouts, TlsFiles};

#[derive(Debug, Args)]
#[command(next_help_heading = "Who may reach it")]
pub(super) struct AccessArgs {
    /// IP address to listen on; one that other machines can reach needs a key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// File of keys, one a line, `NAME: KEY`; requests must bring one (`Authorization: Bearer KEY` or `x-api-key: KEY`).
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// One key, named "default"; others on this machine can read command lines, so better a file or K2_API_KEY.
    #[arg(long, value_name = "KEY", env = "K2_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Let other machines in without a key.
    #[arg(long)]
    insecure: bool,
    /// A name of this server beside localhost and addresses in numbers; may be given several times.
    #[arg(long = "allowed-host", value_name = "NAME")]
    allowed_host: Vec<String>,
    /// An origin whose web pages may use the server, like https://chat.example; `*` is all. May be given several times.
    #[arg(long = "allowed-origin", value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
    /// Let other machines read /metrics without a key.
    #[arg(long)]
    open_metrics: bool,
    /// Speak TLS with this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Requests of one key at the same time; more are refused with status 429 [default: as many as there are places].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    max_requests_per_key: Option<u32>,
    /// Connections at the same time, silent ones included.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = 1024)]
    max_connections: u32,
    /// Seconds for the head of a request; a connection may be silent for as long between two.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), default_value_t = Timeouts::default().header.as_secs())]
    header_timeout: u64,
    /// Seconds for the body of a request.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), default_value_t = Timeouts::default().body.as_secs())]
    body_timeout: u64,
    /// Seconds after which a client that does not read its answer is cut off.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), default_value_t = Timeouts::default().write.as_secs())]
    write_timeout: u64,
    /// Seconds for a request and its whole answer.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), default_value_t = Timeouts::default().request.as_secs())]
    request_timeout: u64,
    /// Seconds that running answers have when the server is told to stop (SIGTERM).
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), default_value_t = Timeouts::default().drain.as_secs())]
    drain_timeout: u64,
}

impl AccessArgs {
    /// Reads the keys. `max_requests` are as many as the engine has places for.
    pub(super) fn server_options(&self, max_requests: usize) -> Result<ServerOptions, Box<dyn Error>> {
        let keys = self.api_key_file.as_deref().map(Keys::open).transpose()?.unwrap_or_default();
        let keys = match &self.api_key {
            Some(key) => keys.with_single(key)?,
            None => keys,
        };
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let time = Duration::from_secs;
        Ok(ServerOptions {
            address: SocketAddr::new(self.host, self.port),
            keys,
            insecure: self.insecure,
            allowed_hosts: self.allowed_host.clone(),
            allowed_origins: self.allowed_origin.clone(),
            open_metrics: self.open_metrics,
            max_requests,
            max_requests_per_key: self.max_requests_per_key.map_or(0, |requests| requests as usize),
            max_connections: self.max_connections as usize,
            timeouts: Timeouts {
                header: time(self.header_timeout),
                body: time(self.body_timeout),
                write: time(self.write_timeout),
                request: time(self.request_timeout),
                drain: time(self.drain_timeout),
            },
            tls: files.map(|(certificates, key)| TlsFiles { certificates, key }),
        })
    }
}

/// At least one, and no more than a year.
fn seconds() -> clap::builder::RangedU64ValueParser {
    value_parser!(u64).range(1..=366 * 24 * 3600)
}

/// An IP address, or the usual name of this machine.
fn host(text: &str) -> Result<IpAddr, AddrParseError> {
    if text == "localhost" { Ok(Ipv4Addr::LOCALHOST.into()) } else { text.parse() }
}
