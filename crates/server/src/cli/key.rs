//! `saker key list|check`, against a running database over HTTP.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::http::{Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{Failed, Outcome, output};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The database
    #[arg(long, default_value = "http://127.0.0.1:19530", env = "SAKER_URL")]
    url: Uri,
    /// user:password, if the database asks for one
    #[arg(long, env = "SAKER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM certificates to trust for an https address
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Longest answer that is read, in bytes: 4,096 databases' keys fit.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest an answer may take; a check asks key services, which may be slow.
const ANSWER_MAX: Duration = Duration::from_secs(60);

pub(super) async fn list(options: Options) -> Result<Outcome, Failed> {
    show(&options, Method::GET, "/v2/cmek/keys").await
}

pub(super) async fn check(options: Options) -> Result<Outcome, Failed> {
    show(&options, Method::POST, "/v2/cmek/keys/check").await
}

async fn show(options: &Options, method: Method, path: &str) -> Result<Outcome, Failed> {
    let answer = tokio::time::timeout(ANSWER_MAX, ask(options, method, path))
        .await
        .map_err(|_| format!("{} did not answer in time", options.url))??;
    let keys = match (&answer["code"], answer["data"].as_array()) {
        (code, Some(keys)) if code == 0 => keys.clone(),
        _ => {
            return Err(answer["message"]
                .as_str()
                .unwrap_or("the answer was not understood")
                .to_owned()
                .into());
        }
    };
    if options.json {
        output::line(Value::Array(keys.clone()));
    } else {
        for key in &keys {
            let text = |name: &str| key[name].as_str().unwrap_or_default();
            let databases: Vec<&str> = key["databases"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            output::line(format_args!(
                "{:<8} {}  databases: {}{}{}",
                text("state"),
                text("key"),
                if databases.is_empty() {
                    "-".to_owned()
                } else {
                    databases.join(", ")
                },
                if text("reason").is_empty() { "" } else { "  reason: " },
                text("reason")
            ));
        }
    }
    let locked = keys.iter().any(|key| key["state"] == "locked");
    Ok(if locked { Outcome::Bad } else { Outcome::Done })
}

async fn ask(options: &Options, method: Method, path: &str) -> Result<Value, Failed> {
    let host = options.url.host().ok_or("--url: no host in it")?.to_owned();
    let secure = match options.url.scheme_str() {
        Some("http") | None => false,
        Some("https") => true,
        Some(other) => return Err(format!("--url: {other} is neither http nor https").into()),
    };
    let port = options.url.port_u16().unwrap_or(19_530);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|error| format!("cannot reach {}: {error}", options.url))?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, format!("{host}:{port}"));
    if let Some(token) = &options.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    if secure {
        let name = ServerName::try_from(host)?;
        let stream = connector(options)?.connect(name, stream).await?;
        exchange(stream, request).await
    } else {
        exchange(stream, request).await
    }
}

fn connector(options: &Options) -> Result<TlsConnector, Failed> {
    let path = options
        .ca
        .as_ref()
        .ok_or("--ca: name the certificates to trust for an https address")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Value, Failed> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await?
        .to_bytes();
    driver.abort();
    let answer: Value = serde_json::from_slice(&body).map_err(|_| format!("unexpected answer with HTTP {status}"))?;
    if status == StatusCode::UNAUTHORIZED {
        return Err("user or password are not right: give --token user:password".into());
    }
    Ok(answer)
}
