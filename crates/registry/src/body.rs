//! What registries send, checked while it passes.

use std::io;

use futures_util::StreamExt as _;
use lapstrake_oci::{Digest, Reference, Sha256};
use reqwest::Response;

use crate::error::RegistryError;

/// Manifests and configs are small; more than this is an attack or a mistake. Registries refuse manifests over 4 MiB.
const DOCUMENT_LIMIT: u64 = 8 << 20;

pub(crate) fn corrupt(
    what: &'static str,
    reference: &Reference,
    expected: String,
    found: String,
) -> RegistryError {
    RegistryError::Corrupt { what, name: reference.familiar(), expected, found }
}

pub(crate) fn same(
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

/// What has come of a body so far.
pub(crate) struct Body<'a> {
    reference: &'a Reference,
    what: &'static str,
    hash: Sha256,
    pub(crate) length: u64,
    limit: u64,
}

impl<'a> Body<'a> {
    /// Nothing yet; more than `limit` bytes are refused.
    pub(crate) fn new(reference: &'a Reference, what: &'static str, limit: u64) -> Body<'a> {
        Body { reference, what, hash: Sha256::new(), length: 0, limit }
    }

    /// The digest of all of it.
    pub(crate) fn digest(self) -> Digest {
        self.hash.finish()
    }

    /// Reads on; the first `skip` bytes are known already.
    pub(crate) async fn read(
        &mut self,
        response: Response,
        mut skip: u64,
        sink: &mut (impl io::Write + Send),
    ) -> Result<(), RegistryError> {
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|source| RegistryError::Unreachable {
                registry: self.reference.registry().to_owned(),
                absent: false,
                source: source.without_url(),
            })?;
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= known as u64;
            let piece = &piece[known..];
            self.length += piece.len() as u64;
            if self.length > self.limit {
                let expected = format!("at most {} bytes", self.limit);
                return Err(corrupt(self.what, self.reference, expected, "more".to_owned()));
            }
            self.hash.update(piece);
            sink.write_all(piece).map_err(|source| RegistryError::Sink {
                what: self.what,
                name: self.reference.familiar(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Reads a small body whole.
pub(crate) async fn read_small(
    reference: &Reference,
    what: &'static str,
    response: Response,
) -> Result<(Digest, Vec<u8>), RegistryError> {
    let mut body = Body::new(reference, what, DOCUMENT_LIMIT);
    let mut bytes = Vec::new();
    body.read(response, 0, &mut bytes).await?;
    Ok((body.digest(), bytes))
}
