//! One request and its answer.

use std::{sync::Arc, time::Duration};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_TYPE, USER_AGENT},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use saker_keyring::Outage;
use serde::Deserialize;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer, pki_types::pem::PemObject,
};
use zeroize::Zeroizing;

use super::{
    config::{VaultKmsConfig, wrong},
    login::Token,
};
use crate::services::KmsConfigError;

/// The connection to the server.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: Uri,
    headers: HeaderMap,
}

/// What the server said.
pub(super) struct Answer {
    pub(super) status: u16,
    body: Zeroizing<Vec<u8>>,
    /// What we called the request.
    correlation_id: String,
}

impl Transport {
    pub(super) fn new(config: &VaultKmsConfig, address: Uri) -> Result<Self, KmsConfigError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The server's guard against requests that a browser was made to send.
        headers.insert(
            HeaderName::from_static("x-vault-request"),
            HeaderValue::from_static("true"),
        );
        let agent = format!("saker/{} node/{}", env!("CARGO_PKG_VERSION"), config.node);
        for (name, value) in [
            (USER_AGENT, Some(agent.as_str())),
            (
                HeaderName::from_static("x-vault-namespace"),
                config.namespace.as_deref(),
            ),
        ] {
            let Some(value) = value else { continue };
            let Ok(value) = HeaderValue::from_str(value) else {
                return wrong("namespace", "it cannot stand in a header".to_owned());
            };
            headers.insert(name, value);
        }
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config, address.scheme_str() == Some("https"))?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(CONNECTIONS_IDLE_MAX)
            .build(connector);
        Ok(Self {
            client,
            address,
            headers,
        })
    }

    /// Posts `body` to `path` under `/v1/`. The caller bounds the time.
    pub(super) async fn post(&self, path: &str, token: Option<&Token>, body: Vec<u8>) -> Result<Answer, Outage> {
        self.ask(Method::POST, path, token, body).await
    }

    /// Reads `path` under `/v1/`. The caller bounds the time.
    pub(super) async fn get(&self, path: &str, token: &Token) -> Result<Answer, Outage> {
        self.ask(Method::GET, path, Some(token), Vec::new()).await
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&Token>, body: Vec<u8>) -> Result<Answer, Outage> {
        let correlation_id = format!("saker-{}", uuid::Uuid::new_v4());
        let request = self
            .request(method, path, token, &correlation_id, body)
            .ok_or(Outage::BadAnswer)?;
        let answer = self.client.request(request).await.map_err(|error| {
            tracing::debug!(%error, "no connection to the Vault server");
            Outage::Unreachable
        })?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Outage::BadAnswer)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
        let mut rest = body.aggregate();
        while bytes::Buf::has_remaining(&rest) {
            let chunk = bytes::Buf::chunk(&rest);
            let length = chunk.len();
            bytes.extend_from_slice(chunk);
            bytes::Buf::advance(&mut rest, length);
        }
        Ok(Answer {
            status,
            body: bytes,
            correlation_id,
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&Token>,
        correlation_id: &str,
        body: Vec<u8>,
    ) -> Option<Request<Full<Bytes>>> {
        let uri = Uri::builder()
            .scheme(self.address.scheme()?.clone())
            .authority(self.address.authority()?.clone())
            .path_and_query(format!("/v1/{path}"))
            .build()
            .ok()?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        *request.headers_mut() = self.headers.clone();
        let correlation_id = HeaderValue::from_str(correlation_id).ok()?;
        request
            .headers_mut()
            .insert(HeaderName::from_static("x-correlation-id"), correlation_id);
        if let Some(token) = token {
            // Marked as sensitive, so that no debug output of the library shows it.
            let mut value = HeaderValue::from_str(token.expose()).ok()?;
            value.set_sensitive(true);
            request
                .headers_mut()
                .insert(HeaderName::from_static("x-vault-token"), value);
        }
        Some(request)
    }
}

impl Answer {
    /// The body as JSON, `None` if it is not what was expected.
    pub(super) fn json<T: for<'de> Deserialize<'de>>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The server's error texts, empty if there are none. For the verdict only: never shown.
    pub(super) fn errors(&self) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<String>,
        }
        if self.status == 200 {
            return String::new();
        }
        self.json::<Errors>()
            .map(|errors| errors.errors.join("\n"))
            .unwrap_or_default()
    }

    /// The name that the server gave the request. It tells it only in answers that give something; of others there is
    /// ours, which the server's audit log shows if it was told to keep the header.
    pub(super) fn request_id(&self) -> String {
        #[derive(Deserialize)]
        struct Named {
            request_id: String,
        }
        match self.json::<Named>() {
            Some(named) if !named.request_id.is_empty() && named.request_id.len() <= REQUEST_ID_BYTES_MAX => {
                named.request_id
            }
            _ => self.correlation_id.clone(),
        }
    }
}

fn tls(config: &VaultKmsConfig, https: bool) -> Result<ClientConfig, KmsConfigError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        let refused = |reason: String| KmsConfigError::Vault {
            setting: "ca_file",
            reason: format!("{}: {reason}", path.display()),
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("it holds no certificate".to_owned()));
        }
    } else if https {
        // What the system cannot read is left out; none at all shows when the server's certificate is refused.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| KmsConfigError::Vault {
            setting: "ca_file",
            reason: error.to_string(),
        })
}

/// An answer holds a key and its ciphertext, or a token's properties.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The server's have 36.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longer than a probe interval, so that a probe finds its connection open.
const IDLE: Duration = Duration::from_secs(30);
/// Connections that are kept between calls.
const CONNECTIONS_IDLE_MAX: usize = 8;
