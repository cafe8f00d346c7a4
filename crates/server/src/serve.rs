//! Listening: the address, who may be let in, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::app::{Guard, app};
use crate::served::Served;

/// How long answers may still take after a signal to stop.
const GRACE: Duration = Duration::from_secs(30);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach the server, and nothing would hold them off.
    #[error(
        "{0} is reachable from other machines, and no key is set; use an address like 127.0.0.1 or set a key"
    )]
    Open(SocketAddr),
    /// A key that everybody has.
    #[error("the key is empty")]
    EmptyKey,
    /// No async runtime.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The listener broke.
    #[error("the server stopped: {0}")]
    Serve(#[source] io::Error),
}

/// Serves until SIGINT or SIGTERM, then finishes what is running. `listening` hears the address in force, which
/// matters for port 0.
pub fn serve(
    served: Served,
    address: SocketAddr,
    guard: Guard,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    if guard.api_key.as_deref() == Some("") {
        return Err(ServeError::EmptyKey);
    }
    if guard.api_key.is_none() && !address.ip().is_loopback() {
        return Err(ServeError::Open(address));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
    let result = runtime.block_on(async {
        let listener =
            TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        listening(listener.local_addr().map_err(ServeError::Serve)?);
        let server = axum::serve(listener, app(served, guard)).with_graceful_shutdown(signal());
        server.await.map_err(ServeError::Serve)
    });
    runtime.shutdown_timeout(GRACE);
    result
}

/// Waits for a signal to stop. A second one ends the process at once.
async fn signal() {
    terminated().await;
    tokio::spawn(async {
        tokio::select! {
            () = terminated() => {}
            () = tokio::time::sleep(GRACE) => {}
        }
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

#[cfg(not(unix))]
async fn terminated() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
