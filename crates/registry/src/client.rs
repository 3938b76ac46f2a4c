//! Requests to registries: retries, tokens, checked bodies.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapstrake_oci::{Digest, Reference, Sha256, media};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};

use crate::challenge::{Bearer, bearer};
use crate::error::RegistryError;

/// Manifests and configs are small; more than this is an attack or a mistake.
const DOCUMENT_LIMIT: u64 = 8 << 20;
const ATTEMPTS: u32 = 4;

/// A document with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its media type.
    pub media_type: String,
    /// Its digest, computed from the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Talks to registries. Making one reads the system's certificates (some ms): make it once, and late.
pub struct Client {
    http: reqwest::Client,
    /// Tokens by registry and repository.
    tokens: Mutex<HashMap<(String, String), String>>,
}

impl Client {
    /// A client without credentials.
    pub fn new() -> Result<Client, RegistryError> {
        // Fails only if somebody else installed one before, which is as good.
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let redirects = reqwest::redirect::Policy::custom(|attempt| {
            let downgrade = attempt.previous().last().is_some_and(|from| from.scheme() == "https")
                && attempt.url().scheme() != "https";
            if downgrade || attempt.previous().len() > 10 { attempt.stop() } else { attempt.follow() }
        });
        let http = reqwest::Client::builder()
            .user_agent(concat!("lapstrake/", env!("CARGO_PKG_VERSION")))
            .redirect(redirects)
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_secs(60))
            .build()
            .map_err(|source| RegistryError::Setup { source })?;
        Ok(Client { http, tokens: Mutex::default() })
    }

    /// The manifest (or index) that `reference` names. A digest in the reference is checked.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let wanted = reference.digest().map(ToString::to_string);
        let name = wanted.as_deref().or(reference.tag()).unwrap_or("latest");
        let accept =
            [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST].join(", ");
        let response = self.get(reference, &format!("manifests/{name}"), &accept).await?;
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or(value).trim().to_owned())
            .unwrap_or_default();
        let mut bytes = Vec::new();
        let digest = read_body(reference, "the manifest", response, DOCUMENT_LIMIT, &mut bytes).await?.0;
        if let Some(expected) = reference.digest() {
            same("the manifest", reference, expected, &digest)?;
        }
        Ok(Fetched { media_type, digest, bytes })
    }

    /// Writes the blob `digest` of `reference`'s repository to `sink`, and fails if its bytes are not those, or not
    /// `size` many.
    pub async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        sink: &mut (impl io::Write + Send),
    ) -> Result<(), RegistryError> {
        let response = self.get(reference, &format!("blobs/{digest}"), "*/*").await?;
        let (found, length) = read_body(reference, "a blob", response, size, sink).await?;
        if length != size {
            let expected = format!("{size} bytes");
            return Err(corrupt("a blob", reference, expected, format!("{length} bytes")));
        }
        same("a blob", reference, digest, &found)
    }

    async fn get(&self, reference: &Reference, path: &str, accept: &str) -> Result<Response, RegistryError> {
        let url = format!("{}/v2/{}/{path}", base_url(reference.registry()), reference.repository());
        let mut attempt = 0;
        let mut asked = false;
        loop {
            attempt += 1;
            let mut request = self.http.get(&url).header(ACCEPT, accept);
            if let Some(token) = self.token(reference) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(source) if attempt < ATTEMPTS && !source.is_builder() => {
                    pause(attempt, None).await;
                    continue;
                }
                Err(source) => {
                    let registry = reference.registry().to_owned();
                    return Err(RegistryError::Unreachable { registry, source });
                }
            };
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let retryable = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if retryable && attempt < ATTEMPTS {
                let after = response
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|v| v.to_str().ok())
                    .and_then(|v| v.parse().ok());
                pause(attempt, after).await;
            } else if status == StatusCode::UNAUTHORIZED && !asked {
                asked = true;
                self.fetch_token(reference, &response).await?;
            } else {
                return Err(refused(reference, status));
            }
        }
    }

    fn token(&self, reference: &Reference) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&(reference.registry().to_owned(), reference.repository().to_owned())).cloned()
    }

    /// Gets an anonymous token from where the registry's challenge says.
    async fn fetch_token(&self, reference: &Reference, response: &Response) -> Result<(), RegistryError> {
        let challenge =
            response.headers().get_all(WWW_AUTHENTICATE).iter().find_map(|v| bearer(v.to_str().ok()?));
        let challenge = challenge.ok_or_else(|| refused(reference, response.status()))?;
        let url = token_url(reference, &challenge)?;
        let unreachable =
            |source| RegistryError::Unreachable { registry: reference.registry().to_owned(), source };
        let response = self.http.get(url).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(refused(reference, response.status()));
        }
        let mut bytes = Vec::new();
        read_body(reference, "a token", response, DOCUMENT_LIMIT, &mut bytes).await?;
        let answer: Token = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Malformed {
            what: "a token",
            name: reference.familiar(),
            source,
        })?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        let place = (reference.registry().to_owned(), reference.repository().to_owned());
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(place, token);
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Plain HTTP is for loopback only.
fn base_url(registry: &str) -> String {
    match registry {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        host if is_loopback(host) => format!("http://{host}"),
        host => format!("https://{host}"),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A token may come from any https address, or from loopback if the registry is there itself.
fn token_url(reference: &Reference, challenge: &Bearer) -> Result<Url, RegistryError> {
    let bad = || RegistryError::UnsafeRealm {
        registry: reference.registry().to_owned(),
        realm: challenge.realm.clone(),
    };
    let mut url = Url::parse(&challenge.realm).map_err(|_| bad())?;
    let local = is_loopback(reference.registry()) && url.host_str().is_some_and(is_loopback);
    if url.scheme() != "https" && !local {
        return Err(bad());
    }
    let scope =
        challenge.scope.clone().unwrap_or_else(|| format!("repository:{}:pull", reference.repository()));
    let mut query = url.query_pairs_mut();
    if let Some(service) = &challenge.service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", &scope);
    drop(query);
    Ok(url)
}

async fn pause(attempt: u32, after_seconds: Option<u64>) {
    let wait =
        after_seconds.map_or(Duration::from_millis(200 << attempt), |s| Duration::from_secs(s.min(30)));
    tokio::time::sleep(wait).await;
}

fn refused(reference: &Reference, status: StatusCode) -> RegistryError {
    let (registry, name) = (reference.registry().to_owned(), reference.familiar());
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { name },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied { registry, name },
        status => RegistryError::Status { registry, name, status: status.as_u16() },
    }
}

fn corrupt(what: &'static str, reference: &Reference, expected: String, found: String) -> RegistryError {
    RegistryError::Corrupt { what, name: reference.familiar(), expected, found }
}

fn same(
    what: &'static str,
    reference: &Reference,
    expected: &Digest,
    found: &Digest,
) -> Result<(), RegistryError> {
    if expected == found {
        return Ok(());
    }
    Err(corrupt(what, reference, expected.to_string(), found.to_string()))
}

/// Reads a body to `sink`, at most `limit` bytes of it.
async fn read_body(
    reference: &Reference,
    what: &'static str,
    response: Response,
    limit: u64,
    sink: &mut (impl io::Write + Send),
) -> Result<(Digest, u64), RegistryError> {
    let mut hash = Sha256::new();
    let mut length = 0u64;
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|source| RegistryError::Unreachable {
            registry: reference.registry().to_owned(),
            source,
        })?;
        length += piece.len() as u64;
        if length > limit {
            let expected = format!("at most {limit} bytes");
            return Err(corrupt(what, reference, expected, "more".to_owned()));
        }
        hash.update(&piece);
        sink.write_all(&piece).map_err(|source| RegistryError::Sink {
            what,
            name: reference.familiar(),
            source,
        })?;
    }
    Ok((hash.finish(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_loopback() {
        for (host, url) in [
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("example.com", "https://example.com"),
            ("localhost.example.com", "https://localhost.example.com"),
            ("docker.io", "https://registry-1.docker.io"),
        ] {
            assert_eq!(base_url(host), url);
        }
    }

    #[test]
    fn tokens_come_from_safe_places() {
        let challenge = |realm: &str| Bearer { realm: realm.into(), service: Some("s".into()), scope: None };
        let remote: Reference = "example.com/a/b".parse().unwrap();
        let local: Reference = "localhost:5000/a/b".parse().unwrap();
        assert!(token_url(&remote, &challenge("http://169.254.169.254/latest")).is_err());
        assert!(token_url(&remote, &challenge("http://localhost/token")).is_err());
        assert!(token_url(&remote, &challenge("file:///etc/passwd")).is_err());
        assert!(token_url(&local, &challenge("http://localhost:5001/token")).is_ok());
        let url = token_url(&remote, &challenge("https://auth.example/token?x=1")).unwrap();
        assert_eq!(url.as_str(), "https://auth.example/token?x=1&service=s&scope=repository%3Aa%2Fb%3Apull");
    }
}
