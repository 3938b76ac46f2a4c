//! The places of a build's files: the meaning of the context argument and of `--build-context`.

use std::path::Path;

use lapstrake_diag::Usage;
use lapstrake_dockerfile::parse_git_ref;
use lapstrake_graph::Source;
use lapstrake_lower::{git_source, http_context};

/// The main context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a directory.
    Directory,
    /// In a directory of the caller's that comes when a step needs it. The caller has the Dockerfile elsewhere.
    Later,
    /// A source that is fetched.
    Remote(Source),
    /// On standard input: an archive, or a Dockerfile without a context.
    Stdin,
}

/// The context that `text` means. `keep_git_dir` and `commit_times` are for repositories that do not say.
pub(crate) fn place(text: &str, keep_git_dir: bool, commit_times: bool) -> Result<Place, Usage> {
    if text == "-" {
        return Ok(Place::Stdin);
    }
    Ok(remote(text, keep_git_dir, commit_times)?.map_or(Place::Directory, Place::Remote))
}

/// The source that `text` names elsewhere. A directory that exists is never taken for a repository.
pub(crate) fn remote(text: &str, keep_git_dir: bool, commit_times: bool) -> Result<Option<Source>, Usage> {
    match parse_git_ref(text) {
        Some(Ok(found)) if found.like_a_path && Path::new(text).exists() => Ok(None),
        Some(Ok(found)) => Ok(Some(git_source(&found, keep_git_dir, commit_times))),
        Some(Err(why)) => Err(Usage(format!("`{text}`: {why}"))),
        None if text.starts_with("http://") || text.starts_with("https://") => Ok(Some(http_context(text))),
        None => Ok(None),
    }
}

/// Whether `text` names a git repository, or an address of the web, and no directory that is here.
pub fn is_remote(text: &str) -> bool {
    matches!(remote(text, false, false), Ok(Some(_)) | Err(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let kind = |text: &str| match place(text, false, false) {
            Ok(Place::Directory) => "directory",
            Ok(Place::Later) => "later",
            Ok(Place::Stdin) => "stdin",
            Ok(Place::Remote(Source::Git(_))) => "git",
            Ok(Place::Remote(_)) => "http",
            Err(_) => "error",
        };
        for (text, expected) in [
            (".", "directory"),
            ("-", "stdin"),
            ("./-", "directory"),
            ("https://host/x.git", "git"),
            ("https://host/x.git?y=1", "error"),
            ("https://host/x.tar.gz", "http"),
            ("github.com/x/y", "git"),
            ("git@host:x#main:sub", "git"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
