//! Sockets: HTTP/2 (gRPC) and HTTP/1.1 on one port, in the clear or over TLS.
//!
//! What it deliberately does not do: it looks at no request; [`crate::rest::router`] does.
//!
//! Start reading at [`serve`].

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::carried::{Carried, Connections, PARTING_MAX};

/// Most connections at a time; each holds a few tens of KiB of buffers.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Most requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1_024;
/// HTTP/2 flow control windows: a 64 MiB insert should not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How often an idle HTTP/2 client is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A TLS handshake or HTTP/1.1 header that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long running requests may take after a stop was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Why a port cannot be served.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A TLS file cannot be used.
    #[error("tls.{setting} ({}): {reason}", .path.display())]
    Tls {
        /// Which setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; another program has this port: stop it, or choose another one (0 for any free one)"
    } else {
        ""
    }
}

/// Takes an address.
///
/// # Errors
/// [`ListenError::Bind`] that says so if the port is taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError::Bind { address, source })
}

/// Files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM certificate chain of the server.
    pub certificate: PathBuf,
    /// PEM private key of the server.
    pub key: PathBuf,
    /// PEM certificates that a client's certificate has to come from; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// Reads the files for TLS.
///
/// # Errors
/// [`ListenError::Tls`] that names the setting and the file.
pub fn tls(files: &TlsFiles) -> Result<TlsAcceptor, ListenError> {
    let chain = certificates("certificate", &files.certificate)?;
    let fail = |setting, path: &Path, reason: String| ListenError::Tls {
        setting,
        path: path.to_owned(),
        reason,
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| fail("key", &files.key, error.to_string()))?;
    let builder = ServerConfig::builder();
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client_ca", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| fail("client_ca", path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .map_err(|error| fail("client_ca", path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| fail("certificate", &files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let fail = |reason: String| ListenError::Tls {
        setting,
        path: path.to_owned(),
        reason,
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| fail(error.to_string()))?
        .collect();
    let certificates = read.map_err(|error| fail(error.to_string()))?;
    if certificates.is_empty() {
        Err(fail("no certificate in it".to_owned()))
    } else {
        Ok(certificates)
    }
}

/// Serves until `stop`, then lets running requests finish for a while.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    serve_known(listener, tls, router, &Connections::default(), stop).await;
}

/// Like [`serve`], with connections that others may know and close; each request carries its connection's [`Carried`].
pub(crate) async fn serve_known(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    connections: &Connections,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let conversations = TaskTracker::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a connection that is gone again: go on after a breath.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Small answers should not wait for more bytes.
        let _ = stream.set_nodelay(true);
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        let carried = connections.open();
        conversations.spawn(async move {
            let _permit = permit;
            match tls {
                None => converse(stream, router, carried, stop).await,
                Some(acceptor) => {
                    if let Some(stream) = handshake(&acceptor, stream).await {
                        converse(stream, router, carried, stop).await;
                    }
                }
            }
        });
    }
    drop(listener);
    conversations.close();
    // A little longer than the conversations take to cut themselves off.
    let end = DRAIN_MAX + Duration::from_secs(1);
    if tokio::time::timeout(end, conversations.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "tls handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    carried: Carried,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE);
    let requests = OfConnection {
        router: TowerToHyperService::new(router),
        carried: carried.clone(),
    };
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), requests));
    let time_left = tokio::select! {
        ended = connection.as_mut() => return note_end(ended),
        () = stop.cancelled() => DRAIN_MAX,
        () = carried.parting() => PARTING_MAX,
    };
    connection.as_mut().graceful_shutdown();
    // Dropping the connection after that frees its buffers, whatever the client does.
    match tokio::time::timeout(time_left, connection).await {
        Ok(ended) => note_end(ended),
        Err(_) => tracing::warn!("requests of a connection did not end in time and were cut off"),
    }
}

fn note_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}

/// Gives each request what its connection carried.
struct OfConnection {
    router: TowerToHyperService<Router>,
    carried: Carried,
}

impl Service<Request<Incoming>> for OfConnection {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.carried.clone());
        self.router.call(request)
    }
}
