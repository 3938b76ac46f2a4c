//! Getting documents and blobs.

use std::io;
use std::time::Duration;

use lapstrake_oci::{Digest, Reference, media};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RANGE};

use crate::ask::{Ask, base_url};
use crate::body::{Body, corrupt, read_small, same};
use crate::credentials::Credentials;
use crate::error::RegistryError;
use crate::send::{ATTEMPTS, Channel, pause};

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
    pub(crate) channel: Channel,
}

impl Client {
    /// A client that says who it is where a registry asks and `credentials` know.
    ///
    /// # Errors
    /// [`RegistryError::Setup`] if there are no certificates, say.
    pub fn new(credentials: Credentials) -> Result<Client, RegistryError> {
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
        Ok(Client { channel: Channel::new(http, credentials) })
    }

    /// The manifest (or index) that `reference` names. A digest in the reference is checked.
    ///
    /// # Errors
    /// [`RegistryError`]: it cannot be reached, does not have it, or sends something else.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let wanted = reference.digest().map(ToString::to_string);
        let name = wanted.as_deref().or(reference.tag()).unwrap_or("latest");
        let accept =
            [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST].join(", ");
        let ask = Ask::pull(reference);
        let url = ask.url(&format!("manifests/{name}"));
        let response =
            self.channel.send(&ask, &url, |url| self.channel.http.get(url).header(ACCEPT, &accept)).await?;
        let response = ask.success(response)?;
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or(value).trim().to_owned())
            .unwrap_or_default();
        let (digest, bytes) = read_small(reference, "the manifest", response).await?;
        if let Some(expected) = reference.digest() {
            same("the manifest", reference, expected, &digest)?;
        }
        Ok(Fetched { media_type, digest, bytes })
    }

    /// Asks whether `login` is good for `registry`.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] if it is not, and what can go wrong on the way.
    pub async fn check_login(&self, reference: &Reference) -> Result<(), RegistryError> {
        let ask = Ask { reference, scopes: Vec::new() };
        let url = format!("{}/v2/", base_url(reference.registry()));
        let response = self.channel.send(&ask, &url, |url| self.channel.http.get(url)).await?;
        // Registries answer 404 at times where nothing but the login counts.
        if response.status() == StatusCode::NOT_FOUND { Ok(()) } else { ask.success(response).map(drop) }
    }

    /// Writes the blob `digest` of `reference`'s repository to `sink`, and fails if its bytes are not those, or not
    /// `size` many. What breaks off is continued where it ended.
    ///
    /// # Errors
    /// [`RegistryError`]: it cannot be reached, does not have it, or sends something else.
    pub async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        sink: &mut (impl io::Write + Send),
    ) -> Result<(), RegistryError> {
        let ask = Ask::pull(reference);
        let url = ask.url(&format!("blobs/{digest}"));
        let mut body = Body::new(reference, "a blob", size);
        for attempt in 1.. {
            let from = body.length;
            let get = |url: &str| match from {
                0 => self.channel.http.get(url),
                from => self.channel.http.get(url).header(RANGE, format!("bytes={from}-")),
            };
            let response = ask.success(self.channel.send(&ask, &url, get).await?)?;
            let continues = response.status() == StatusCode::PARTIAL_CONTENT;
            // Who does not know ranges sends it all again.
            let skip = if continues { 0 } else { from };
            match body.read(response, skip, sink).await {
                Err(error) if error.is_interruption() && attempt < ATTEMPTS => pause(attempt, None).await,
                Ok(()) if body.length < size && attempt < ATTEMPTS => pause(attempt, None).await,
                other => {
                    other?;
                    break;
                }
            }
        }
        if body.length != size {
            let expected = format!("{size} bytes");
            return Err(corrupt("a blob", reference, expected, format!("{} bytes", body.length)));
        }
        same("a blob", reference, digest, &body.digest())
    }
}
