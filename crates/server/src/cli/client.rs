//! One request to a running server over HTTP, for the commands that need one.
//!
//! Answers come as the server's JSON: `{"code": 0, "data": ...}`, or a code and a message, which becomes the command's
//! failure.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::http::{Method, Request, Response, Uri, header};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
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

use super::Failed;

/// Where the server is, and who asks.
#[derive(Clone, Debug, Args)]
pub(super) struct Client {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:19530", env = "SAKER_URL")]
    url: Uri,
    /// An API key (sk-...), if the server asks who you are
    #[arg(long, env = "SAKER_API_KEY", hide_env_values = true, conflicts_with = "token")]
    api_key: Option<String>,
    /// user:password, instead of an API key
    #[arg(long, env = "SAKER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM certificates to trust for an https address
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// Longest answer that is read, in bytes: 4,096 databases' keys fit.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest an answer may take; a check asks key services, which may be slow.
const ANSWER_MAX: Duration = Duration::from_secs(60);

impl Client {
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::GET, path, None).await
    }
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.ask(Method::POST, path, Some(body)).await
    }
    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::DELETE, path, None).await
    }

    /// The `data` of the answer.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let mut answer = tokio::time::timeout(ANSWER_MAX, self.send(method, path, body))
            .await
            .map_err(|_| format!("{} did not answer in time", self.url))??;
        if answer["code"] == 0 {
            return Ok(answer["data"].take());
        }
        let message = answer["message"].as_str().unwrap_or("the answer was not understood");
        Err(message.to_owned().into())
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let (response, driver) = self.open(method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await?
            .to_bytes();
        driver.abort();
        let answer = serde_json::from_slice(&body).map_err(|_| format!("unexpected answer with HTTP {status}"))?;
        Ok(answer)
    }

    /// Hands the bytes of an answer on as they come: for what may be long.
    pub(super) async fn download(
        &self,
        path: &str,
        take: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
    ) -> Result<(), Failed> {
        let (response, driver) = tokio::time::timeout(ANSWER_MAX, self.open(Method::GET, path, None))
            .await
            .map_err(|_| format!("{} did not answer in time", self.url))??;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let message = answer["message"].as_str().map(str::to_owned);
            return Err(message
                .unwrap_or_else(|| format!("unexpected answer with HTTP {status}"))
                .into());
        }
        // An answer that breaks off is an error here, not a short file.
        while let Some(frame) = tokio::time::timeout(ANSWER_MAX, body.frame())
            .await
            .map_err(|_| format!("{} stopped answering", self.url))?
        {
            if let Some(bytes) = frame?.data_ref() {
                take(bytes)?;
            }
        }
        driver.abort();
        Ok(())
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Driver), Failed> {
        let host = self.url.host().ok_or("--url: no host in it")?.to_owned();
        let secure = match self.url.scheme_str() {
            Some("http") | None => false,
            Some("https") => true,
            Some(other) => return Err(format!("--url: {other} is neither http nor https").into()),
        };
        let port = self.url.port_u16().unwrap_or(19_530);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|error| format!("cannot reach {}: {error}", self.url))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{host}:{port}"));
        if let Some(secret) = self.api_key.as_ref().or(self.token.as_ref()) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes))?;
        if secure {
            let name = ServerName::try_from(host)?;
            let stream = self.connector()?.connect(name, stream).await?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    }

    fn connector(&self) -> Result<TlsConnector, Failed> {
        let path = self
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
}

/// The task that moves the bytes of a connection.
type Driver = tokio::task::JoinHandle<Result<(), hyper::Error>>;

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Driver), Failed> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    Ok((sender.send_request(request).await?, driver))
}

/// A text as one part of a path: everything but RFC 3986's unreserved characters percent-encoded.
pub(super) fn path_part(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_name_is_one_part_of_a_path() {
        assert_eq!(
            path_part("arn:aws:kms:r:1:key/a-b"),
            "arn%3Aaws%3Akms%3Ar%3A1%3Akey%2Fa-b"
        );
        assert_eq!(
            path_part("pkcs11:token=a;object=%20"),
            "pkcs11%3Atoken%3Da%3Bobject%3D%2520"
        );
    }
}
