//! Getting documents and blobs.

use std::io;

use lapstrake_oci::{Digest, Reference, media};
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Response, StatusCode};

use crate::ask::Ask;
use crate::body::{Body, corrupt, read_small, same};
use crate::error::RegistryError;
use crate::send::Channel;
use crate::settings::Registries;
use lapstrake_http::retry::{ATTEMPTS, pause};

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

/// Talks to registries. Making one reads the settings, and the first registry with TLS the system's certificates (some
/// ms): make it once, and late.
pub struct Client {
    pub(crate) channel: Channel,
}

impl Client {
    /// A client that says who it is where a registry asks and there is a login.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] if the settings cannot be read.
    pub fn new(registries: Registries) -> Result<Client, RegistryError> {
        Ok(Client { channel: Channel::new(registries)? })
    }

    /// The manifest (or index) that `reference` names. A digest in the reference is checked.
    ///
    /// # Errors
    /// [`RegistryError`]: it cannot be reached, does not have it, or sends something else.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let wanted = reference.digest().map(ToString::to_string);
        let name = wanted.as_deref().or(reference.tag()).unwrap_or("latest");
        let places = self.channel.places(reference).await?;
        let mut last = None;
        for ask in &places {
            match self.document(ask, &format!("manifests/{name}"), reference.digest()).await {
                Ok(found) => return Ok(found),
                // The registry itself comes last, and its answer counts.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NotFound { name: reference.familiar() }))
    }

    pub(crate) async fn document(
        &self,
        ask: &Ask<'_>,
        path: &str,
        expected: Option<&Digest>,
    ) -> Result<Fetched, RegistryError> {
        let accept =
            [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST].join(", ");
        let get = |http: &reqwest::Client, url: &str| http.get(url).header(ACCEPT, &accept);
        let mut attempt = 1;
        let (media_type, digest, bytes) = loop {
            let response = ask.success(self.channel.send(ask, &ask.url(path), get).await?)?;
            let media_type = content_type(&response);
            match read_small(ask.reference, "the manifest", response).await {
                Ok((digest, bytes)) => break (media_type, digest, bytes),
                Err(error) if error.is_interruption() && attempt < ATTEMPTS && !ask.replaceable => {
                    pause(attempt, None).await;
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
        };
        if let Some(expected) = expected {
            same("the manifest", ask.reference, expected, &digest)?;
        }
        Ok(Fetched { media_type, digest, bytes })
    }

    /// Asks whether the login is good for the registry of `reference`.
    ///
    /// # Errors
    /// [`RegistryError::LoginRefused`] if it is not, and what can go wrong on the way.
    pub async fn check_login(&self, reference: &Reference) -> Result<(), RegistryError> {
        let ask = self.channel.own(reference).await?;
        let url = format!("{}/v2/", ask.route.base);
        let response = self.channel.send(&ask, &url, |http, url| http.get(url)).await?;
        // Registries answer 404 at times where nothing but the login counts.
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        ask.success(response).map(drop).map_err(|error| match error {
            RegistryError::Denied { registry, .. } => RegistryError::LoginRefused { registry },
            other => other,
        })
    }

    /// Writes the blob `digest` of `reference`'s repository to `sink`, and fails if its bytes are not those, or not
    /// `size` many. What breaks off is continued where it ended, be it at another mirror.
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
        let places = self.channel.places(reference).await?;
        let mut body = Body::new(reference, "a blob", size);
        for ask in &places {
            match self.blob_from(ask, digest, size, (&mut body, sink)).await {
                Ok(()) => break,
                // What went to the sink cannot be taken back: a mirror that sent too much ends it.
                Err(error) if ask.replaceable && !error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        if body.length != size {
            let expected = format!("{size} bytes");
            return Err(corrupt("a blob", reference, expected, format!("{} bytes", body.length)));
        }
        same("a blob", reference, digest, &body.digest())
    }

    async fn blob_from(
        &self,
        ask: &Ask<'_>,
        digest: &Digest,
        size: u64,
        (body, sink): (&mut Body<'_>, &mut (impl io::Write + Send)),
    ) -> Result<(), RegistryError> {
        let url = ask.url(&format!("blobs/{digest}"));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let from = body.length;
            let get = |http: &reqwest::Client, url: &str| match from {
                0 => http.get(url),
                from => http.get(url).header(RANGE, format!("bytes={from}-")),
            };
            let response = ask.success(self.channel.send(ask, &url, get).await?)?;
            // Who does not know ranges sends it all again.
            let skip = match response.status() {
                StatusCode::PARTIAL_CONTENT => skip(ask, &response, from)?,
                _ => from,
            };
            match body.read(response, skip, sink).await {
                Err(error) if error.is_interruption() && attempt < ATTEMPTS => {
                    // Progress is no reason to lose patience.
                    attempt = if body.length > from { 0 } else { attempt };
                    pause(attempt, None).await;
                }
                Ok(()) if body.length < size && attempt < ATTEMPTS => pause(attempt, None).await,
                other => return other,
            }
        }
    }
}

/// How much of a part that begins before `from` is known already. One that begins behind it is of no use.
fn skip(ask: &Ask<'_>, response: &Response, from: u64) -> Result<u64, RegistryError> {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    match first.map_or(Some(0), |first: u64| from.checked_sub(first)) {
        Some(skip) => Ok(skip),
        None => {
            let found = range.unwrap_or_default().to_owned();
            Err(corrupt("a blob", ask.reference, format!("bytes from {from} on"), found))
        }
    }
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.map(|value| value.split(';').next().unwrap_or(value).trim().to_owned()).unwrap_or_default()
}
