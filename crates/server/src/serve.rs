//! Listening: who may reach the server, how long a connection may be silent, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::app::app;
use crate::blocking;
use crate::guard::Guard;
use crate::keys::Keys;
use crate::served::Served;
use crate::tls::{TlsError, TlsFiles};

/// How long connections may take to close once nothing runs on them.
const CLOSING: Duration = Duration::from_secs(1);

/// Where to listen, and who is let in.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// The keys that requests must bring one of; none lets everybody in.
    pub keys: Keys,
    /// Whether other machines may reach a server without keys.
    pub insecure: bool,
    /// Names of this server beside `localhost` and addresses in numbers.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may use it; `*` is all.
    pub allowed_origins: Vec<String>,
    /// Whether other machines may read `/metrics` without a key.
    pub open_metrics: bool,
    /// Requests served at the same time, the waiting ones included.
    pub max_requests: usize,
    /// The same for one key; 0 is no limit of its own.
    pub max_requests_per_key: usize,
    /// Connections, those that are silent included.
    pub max_connections: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// TLS instead of plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The head of a request, from the end of the one before: a silent connection is closed after it.
    pub header: Duration,
    /// The body of a request.
    pub body: Duration,
    /// A client that does not read its answer.
    pub write: Duration,
    /// A request, its whole answer included.
    pub request: Duration,
    /// Answers that run when the server is told to stop.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
            keys: Keys::default(),
            insecure: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            open_metrics: false,
            max_requests: 96,
            max_requests_per_key: 0,
            max_connections: 1024,
            timeouts: Timeouts::default(),
            tls: None,
        }
    }
}

impl ServerOptions {
    /// Whether others could reach the server with nothing to hold them off.
    pub fn check(&self) -> Result<(), ServeError> {
        match self.keys.is_empty() && !self.address.ip().is_loopback() && !self.insecure {
            true => Err(ServeError::Open(self.address)),
            false => Ok(()),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            header: Duration::from_secs(30),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            request: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
        }
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach the server, and nothing would hold them off.
    #[error(
        "{0} is reachable from other machines, and no key is set; set one (--api-key-file), use an address like 127.0.0.1, or say --insecure"
    )]
    Open(SocketAddr),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
}

/// Serves until SIGINT or SIGTERM, then finishes what is running.
pub fn serve(served: Served, options: ServerOptions) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(blocking::THREADS)
        .enable_all()
        .build()
        .map_err(ServeError::Start)?;
    let result = runtime.block_on(async {
        let (address, name) = (options.address, served.model_name.clone());
        let server = Server::new(served, options)?;
        let listen = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        tracing::info!("serving {name} on {scheme}://{address}/v1");
        server.run(&listener, stop_signal()).await;
        Ok(())
    });
    runtime.shutdown_timeout(CLOSING);
    result
}

/// A server that does not listen yet.
pub struct Server {
    router: Router,
    guard: Arc<Guard>,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    timeouts: Timeouts,
}

impl Server {
    /// Checks the options, and reads the TLS files.
    pub fn new(served: Served, options: ServerOptions) -> Result<Server, ServeError> {
        options.check()?;
        let tls = options.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let guard = Arc::new(Guard::new(&served, &options));
        Ok(Server {
            router: app(served, Arc::clone(&guard)),
            guard,
            tls,
            places: Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            timeouts: options.timeouts,
        })
    }

    /// All routes, without a socket.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Serves until `stop`. Then new requests are refused, and running ones have their time to end.
    pub async fn run(self, listener: &TcpListener, stop: impl Future<Output = ()>) {
        let connections = GracefulShutdown::new();
        tokio::select! {
            () = self.accept(listener, &connections) => {}
            () = stop => {}
        }
        self.guard.draining.store(true, Relaxed);
        let running = self.guard.admission.in_flight();
        tracing::info!(running, "stopping");
        tokio::select! {
            () = self.accept(listener, &connections) => {}
            () = self.guard.admission.idle() => {}
            () = sleep(self.timeouts.drain) => {
                tracing::warn!(running = self.guard.admission.in_flight(), "requests are cut off");
            }
        }
        // What is left are silent connections, and those whose last bytes are on their way.
        let _ = timeout(CLOSING, connections.shutdown()).await;
    }

    /// Takes connections while there are places; never returns.
    async fn accept(&self, listener: &TcpListener, connections: &GracefulShutdown) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(stream, place, connections.watcher()),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(Duration::from_millis(100)).await; // out of files: others must close first
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, place: OwnedSemaphorePermit, watcher: Watcher) {
        let (router, tls, timeouts) = (self.router.clone(), self.tls.clone(), self.timeouts);
        tokio::spawn(async move {
            let _place = place;
            // Without it small events wait for each other; a socket that has no such option does as well.
            let _ = stream.set_nodelay(true);
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(timeouts.write));
            let stream = Box::pin(stream);
            match tls {
                None => connection(stream, router, timeouts, watcher).await,
                Some(tls) => match timeout(timeouts.header, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router, timeouts, watcher).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS on a connection"),
                    Err(_) => tracing::debug!("no TLS on a connection in time"),
                },
            }
        });
    }
}

async fn connection<S>(stream: S, router: Router, timeouts: Timeouts, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.header)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Waits for a signal to stop. A second one ends the process at once.
async fn stop_signal() {
    terminated().await;
    tokio::spawn(async {
        terminated().await;
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
