//! Sockets: HTTP/2 (gRPC) and HTTP/1.1 on one port, in the clear or over TLS.
//!
//! Connections are spread over [`ConnectionThreads`], and move between them. Searches are answered on their connection's
//! thread; every other request is handed to the runtime that the port was opened on. What it deliberately does not do: it
//! answers nothing; [`crate::rest::router`] and [`Searches`] do.
//!
//! Start reading at [`serve`], then `conversation`.

mod at_once;
mod conversation;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    carried::Connections,
    rest::Searches,
    threads::{ConnectionThreads, Socket},
};
use conversation::{About, Conversation, OfConnection};

/// Most connections at a time; each holds a few tens of KiB of buffers.
pub const CONNECTIONS_MAX: usize = 8_192;
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
    serve_known(listener, tls, router, None, &Connections::default(), stop).await;
}

/// Like [`serve`], with connections that others may know and close; each request carries its connection's [`Carried`].
pub(crate) async fn serve_known(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    searches: Option<Searches>,
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
        let seat = ConnectionThreads::of_this_process().and_then(ConnectionThreads::seat);
        let thread = seat
            .as_ref()
            .map_or_else(Handle::current, |seat| seat.runtime().clone());
        // Registered anew with its thread's reactor.
        let Ok(stream) = stream.into_std() else { continue };
        let carried = connections.open();
        let requests = OfConnection {
            router: TowerToHyperService::new(router.clone()),
            searches: searches.clone(),
            carried: carried.clone(),
            seat: seat.clone(),
            runtime: Handle::current(),
        };
        let about = About {
            carried,
            seat,
            stop: stop.clone(),
            conversations: conversations.clone(),
            _room: permit,
        };
        let tls = tls.clone();
        let begin = async move {
            let Ok(stream) = Socket::new(stream) else { return };
            match tls {
                None => Conversation::new(stream, requests, about).go_on().await,
                Some(acceptor) => {
                    if let Some(stream) = handshake(&acceptor, stream).await {
                        Conversation::new(stream, requests, about).go_on().await;
                    }
                }
            }
        };
        conversations.spawn_on(begin, &thread);
    }
    drop(listener);
    conversations.close();
    // A little longer than the conversations take to cut themselves off.
    let end = DRAIN_MAX + Duration::from_secs(1);
    if tokio::time::timeout(end, conversations.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: Socket) -> Option<tokio_rustls::server::TlsStream<Socket>> {
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "tls handshake failed");
            None
        }
        Err(_) => None,
    }
}
