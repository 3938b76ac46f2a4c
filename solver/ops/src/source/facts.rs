//! What is known of a source that is elsewhere before its tree is made.

use std::fs::File;
use std::io::{self, Read as _};

use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_graph::{Git, Http};
use lapstrake_oci::Digest;
use lapstrake_remote::{GitObjects, NamedCommit};

use super::remote::{git_access, git_source};
use crate::error::OpsError;
use crate::job::Job;

/// A commit, and its objects where somebody asked for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitFacts {
    /// The reference as the repository names it, and the commit.
    pub found: NamedCommit,
    /// The objects.
    pub objects: Option<GitObjects>,
}

/// A file of the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// The digest of the file.
    pub digest: Digest,
    /// Its name in a tree.
    pub name: String,
    /// Its `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
}

fn silent() -> Step {
    Progress::none().start(StepId(String::new()), "")
}

impl Job {
    /// The commit that a git source is. `with_objects` says whether its objects are fetched.
    ///
    /// # Errors
    /// The repository cannot be reached, or has no such reference.
    pub async fn git_facts(&self, git: &Git, with_objects: bool) -> Result<GitFacts, OpsError> {
        let access = git_access(&self.0, &git.remote).await?;
        let found = self.find_commit(git, &access).await?;
        if !with_objects {
            return Ok(GitFacts { found, objects: None });
        }
        let (wanted, named) = (git_source(git), found.clone());
        let objects = self.blocking(move |_| Ok(wanted.objects(&named, &access.git)?)).await?;
        Ok(GitFacts { found, objects: Some(objects) })
    }

    /// What a file of the web is. A file with a checksum is not asked for.
    ///
    /// # Errors
    /// The server cannot be reached, or does not give the file.
    pub async fn file_facts(&self, http: &Http) -> Result<FileFacts, OpsError> {
        if let Some(digest) = http.checksum.clone() {
            return Ok(FileFacts { digest, name: http.name.clone(), modified: None });
        }
        let record = self.fetch_file(http, &silent()).await?;
        let name = record.file_name(http).to_owned();
        Ok(FileFacts { modified: record.known().modified_seconds(), name, digest: record.digest })
    }

    /// The checksum of a file of the web with `suffix` behind it, as `ALGORITHM:HEX`.
    ///
    /// # Errors
    /// As [`Job::file_facts`].
    pub async fn file_checksum(
        &self,
        http: &Http,
        algorithm: Algorithm,
        suffix: Vec<u8>,
    ) -> Result<String, OpsError> {
        let digest = self.fetch_file(http, &silent()).await?.digest;
        self.blocking(move |job| {
            let file = job.store.open_blob(&digest)?;
            let sum = match algorithm {
                Algorithm::Sha256 => checksum::<sha2::Sha256>(file, &suffix),
                Algorithm::Sha384 => checksum::<sha2::Sha384>(file, &suffix),
                Algorithm::Sha512 => checksum::<sha2::Sha512>(file, &suffix),
            };
            let sum = sum.map_err(OpsError::io("read", std::path::Path::new("the download")))?;
            Ok(format!("{algorithm}:{sum}"))
        })
        .await
    }
}

/// An algorithm of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The checksum of a file and `suffix`, in hex.
fn checksum<D: sha2::Digest>(mut file: File, suffix: &[u8]) -> io::Result<String> {
    use std::fmt::Write as _;
    let (mut hash, mut piece) = (D::new(), vec![0; 64 << 10]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
    }
    hash.update(suffix);
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // A string takes everything.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    }))
}
