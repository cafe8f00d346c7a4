//! TLS by option: a certificate chain and its key, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::keys::{KeyError, read_private};

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those that vouch for it.
    pub certificates: PathBuf,
    /// PEM: the key of the first one; out of reach of others.
    pub key: PathBuf,
}

/// Why TLS is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file is unreadable or no PEM.
    #[error("{}: {source}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// There is none in it.
    #[error("{}: no certificate in it; expected PEM with BEGIN CERTIFICATE", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key file cannot be read or others can.
    #[error(transparent)]
    KeyFile(#[from] KeyError),
    /// The key file holds no key.
    #[error("{}: no private key in it: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// They do not belong together, or are of a kind that is not supported.
    #[error("{} and {}: {source}", certificates.display(), key.display())]
    Pair {
        /// The certificate file.
        certificates: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads both, and sees that they fit.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let TlsFiles { certificates, key } = self;
        let pair = |source| TlsError::Pair { certificates: certificates.clone(), key: key.clone(), source };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_no_client_auth()
            .with_single_cert(chain(certificates)?, private_key(key)?)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Certificates { path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read_private(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| TlsError::Key { path: path.to_owned(), source })
}
