//! What refers to an image: signatures, attestations, and the like.

use lapstrake_oci::media::{Kind, kind};
use lapstrake_oci::{Digest, Reference};

use crate::client::{Client, Fetched};
use crate::error::RegistryError;

impl Client {
    /// The index of what refers to `digest` in `reference`'s repository: by the registry's API, and where it has none,
    /// by the tag that the distribution spec gives such indexes. `None` if nothing does.
    ///
    /// # Errors
    /// [`RegistryError`]: the registry cannot be reached, or sends something else.
    pub async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Option<Fetched>, RegistryError> {
        let own = self.channel.own(reference).await?;
        let ask = crate::ask::Ask::pull(reference, own.route);
        let found = match self.document(&ask, &format!("referrers/{digest}"), None).await {
            Ok(found) if kind(&found.media_type) == Some(Kind::Index) => Some(found),
            // Registries without the API answer with a page of theirs, or 404.
            Ok(_) | Err(RegistryError::NotFound { .. } | RegistryError::Status { status: 400 | 405, .. }) => {
                None
            }
            Err(error) => return Err(error),
        };
        if found.is_some() {
            return Ok(found);
        }
        let tag = format!("manifests/{}-{}", digest.algorithm().name(), digest.hex());
        match self.document(&ask, &tag, None).await {
            Ok(found) if kind(&found.media_type) == Some(Kind::Index) => Ok(Some(found)),
            Ok(_) | Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
