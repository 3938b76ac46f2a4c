//! What a repository says of a reference: its whole name, its commit, and the objects themselves.

use std::path::Path;

use super::{Git, GitAccess, bad, choose, is_commit};
use crate::error::RemoteError;

/// A reference as its repository names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedCommit {
    /// The whole name, such as `refs/heads/main`; the commit itself where a commit was asked for.
    pub reference: String,
    /// The commit.
    pub commit: String,
    /// The annotated tag around the commit.
    pub tag: Option<String>,
}

/// The bytes of objects, as git stores them without their header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitObjects {
    /// The commit.
    pub commit: Vec<u8>,
    /// The annotated tag around the commit, with its digest.
    pub tag: Option<(String, Vec<u8>)>,
    /// The digest of the commit.
    pub commit_id: String,
}

impl Git {
    /// The commit that is meant and its name, without fetching it.
    ///
    /// # Errors
    /// [`RemoteError`]: git cannot be run or fails, or there is no such reference.
    pub fn lookup(&self, access: &GitAccess) -> Result<NamedCommit, RemoteError> {
        self.check()?;
        let plain = |reference: &str, commit: &str| NamedCommit {
            reference: reference.to_owned(),
            commit: commit.to_lowercase(),
            tag: None,
        };
        if is_commit(&self.reference) {
            return self.expected(plain(&self.reference, &self.reference));
        }
        if self.fetch_by_commit {
            return match self.checksum.as_str() {
                "" => Err(bad("fetch-by-commit requires a checksum or a commit SHA ref".to_owned())),
                sum if is_commit(sum) => Ok(plain(&self.qualified(sum), sum)),
                sum => Err(bad(format!("fetch-by-commit requires a full commit SHA checksum, got {sum:?}"))),
            };
        }
        let home = self.home(access)?;
        let wanted = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        let peeled = format!("{wanted}^{{}}");
        let asked = ["ls-remote", "--symref", "--", &self.remote, wanted, &peeled];
        let out = self.git_text((home.path(), None), access, "ls-remote", &asked)?;
        let found = choose(&out, wanted)
            .ok_or_else(|| RemoteError::NoReference { reference: wanted.to_owned(), said: out.clone() })?;
        let branch = out.lines().find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
        let reference = branch.filter(|_| found.name == "HEAD").map_or(found.name, str::to_owned);
        self.expected(NamedCommit { reference, commit: found.commit, tag: found.tag })
    }

    /// The name of a reference that nobody is asked about: one without a prefix is a branch.
    fn qualified(&self, checksum: &str) -> String {
        match self.reference.as_str() {
            "" => checksum.to_owned(),
            name if name.starts_with("refs/") => name.to_owned(),
            name => format!("refs/heads/{name}"),
        }
    }

    /// `found`, if it is as the checksum says; that may be an annotated tag's own one.
    fn expected(&self, found: NamedCommit) -> Result<NamedCommit, RemoteError> {
        let wanted = self.checksum.to_lowercase();
        let commit = &found.commit;
        if commit.starts_with(&wanted) || found.tag.as_ref().is_some_and(|tag| tag.starts_with(&wanted)) {
            return Ok(found);
        }
        Err(bad(format!("expected checksum to match {}, got {commit}", self.checksum)))
    }

    /// The objects of a reference, which [`Git::lookup`] gave.
    ///
    /// # Errors
    /// [`RemoteError`]: git cannot be run or fails, or the object is none of a commit.
    pub fn objects(&self, found: &NamedCommit, access: &GitAccess) -> Result<GitObjects, RemoteError> {
        self.check()?;
        let (home, dir) = (self.home(access)?, self.home(access)?);
        let place: (&Path, Option<&Path>) = (home.path(), Some(dir.path()));
        let run = |action, args: &[&str]| self.git_text(place, access, action, args);
        let read =
            |kind: &str, id: &str| self.git_in(place.0, place.1, access, "cat-file", &["cat-file", kind, id]);
        let id = found.tag.as_ref().unwrap_or(&found.commit);
        self.fetch(id, &run)?;
        let kind = run("cat-file", &["cat-file", "-t", id])?;
        match kind.trim() {
            "commit" => Ok(GitObjects { commit: read("commit", id)?, tag: None, commit_id: id.clone() }),
            "tag" => {
                let peeled = run("rev-parse", &["rev-parse", &format!("{id}^{{commit}}")])?;
                let commit_id = peeled.trim().to_owned();
                let tag = Some((id.clone(), read("tag", id)?));
                Ok(GitObjects { commit: read("commit", &commit_id)?, tag, commit_id })
            }
            other => Err(bad(format!("expected commit or tag object, got {other}"))),
        }
    }
}
