//! Sources that are elsewhere: addresses of ADD and of contexts.

use lapstrake_dockerfile::{GitRef, parse_git_ref};
use lapstrake_go::quoted;
use lapstrake_graph::{Git, Http, Source};
use lapstrake_oci::Digest;

/// The name of a file whose address has none.
const UNNAMED: &str = "__unnamed__";

/// What an address means.
pub(crate) enum Remote {
    /// A repository.
    Git(GitRef),
    /// A file.
    Http(String),
}

/// What a source of ADD means; `None` is a path. Errors are BuildKit's texts.
pub(crate) fn remote(text: &str) -> Result<Option<Remote>, String> {
    match parse_git_ref(text) {
        Some(Ok(found)) if found.like_a_path => Ok(None),
        Some(Ok(found)) => Ok(Some(Remote::Git(found))),
        Some(Err(why)) => Err(why),
        None if is_http(text) => Ok(Some(Remote::Http(text.to_owned()))),
        None => Ok(None),
    }
}

/// Whether it begins like an address of the web, as far as BuildKit looks.
pub(crate) fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A file of the web under the last name of its address.
pub(crate) fn file(url: &str, checksum: Option<Digest>) -> Http {
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    let path = bare.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = lapstrake_dockerfile::percent_decoded(path).unwrap_or_default();
    let name = match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => UNNAMED.to_owned(),
        Some(name) => name.replace('\0', "_"),
    };
    Http { url: url.to_owned(), name, checksum, ..Http::default() }
}

/// A repository as a source.
pub fn git_source(found: &GitRef, keep_git_dir: bool, commit_times: bool) -> Source {
    Source::Git(Git {
        remote: match found.like_a_path {
            true => format!("https://{}", found.remote),
            false => found.remote.clone(),
        },
        reference: found.reference.clone(),
        subdir: found.subdir.clone(),
        checksum: found.checksum.clone(),
        fetch_by_commit: found.fetch_by_commit,
        keep_git_dir: keep_git_dir || found.keep_git_dir == Some(true),
        submodules: found.submodules != Some(false),
        commit_times: found.commit_times.unwrap_or(commit_times),
    })
}

/// A repository with what the flags say of it.
pub(crate) fn with_flags(
    mut git: GitRef,
    keep_git_dir: Option<bool>,
    checksum: &str,
) -> Result<GitRef, String> {
    if let (Some(flag), Some(query)) = (keep_git_dir, git.keep_git_dir)
        && flag != query
    {
        return Err("inconsistent keep-git-dir configuration".to_owned());
    }
    if !checksum.is_empty() {
        if !git.checksum.is_empty() && git.checksum != checksum {
            let (flag, query) = (quoted(checksum), quoted(&git.checksum));
            return Err(format!("checksum mismatch {flag} != {query}"));
        }
        checksum.clone_into(&mut git.checksum);
    }
    if git.checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(git);
    }
    Err(format!("invalid checksum {} for Git URL, expected hex commit hash", git.checksum))
}

/// The value of `--checksum` for a file. Errors are BuildKit's texts.
pub(crate) fn checksum_digest(text: &str) -> Result<Digest, String> {
    let algorithm = text.split_once(':').map(|(algorithm, _)| algorithm);
    match (algorithm, text.parse()) {
        (Some("sha256"), Ok(digest)) => Ok(digest),
        (None, _) => Err("invalid checksum digest format".to_owned()),
        (Some("sha256"), Err(_)) => Err("invalid checksum digest length".to_owned()),
        (Some(_), _) => Err("unsupported digest algorithm".to_owned()),
    }
}

/// A context at an address: what is in an archive, or else the one file.
pub fn http_context(url: &str) -> Source {
    Source::Http(Http { url: url.to_owned(), name: "context".to_owned(), unpack: true, ..Http::default() })
}

/// What the step is called that brings a source.
pub fn title(source: &Source) -> String {
    match source {
        Source::Git(git) if git.reference.is_empty() => format!("[internal] load git source {}", git.remote),
        Source::Git(git) => format!("[internal] load git source {}#{}", git.remote, git.reference),
        Source::Http(http) => format!("[internal] load remote build context {}", http.url),
        _ => "[internal] load build context".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (url, name) in [
            ("https://host/a/b.tar.gz", "b.tar.gz"),
            ("https://host/a/?x=y/z", "a"),
            ("https://host/a%20b", "a b"),
            ("https://host/", UNNAMED),
            ("https://host", UNNAMED),
            ("https://host?x", UNNAMED),
            ("https://host/..", UNNAMED),
            ("https://host/a%2fb", "b"),
        ] {
            assert_eq!(file(url, None).name, name, "{url}");
        }
    }

    #[test]
    fn addresses_of_add() {
        let kind = |text: &str| match remote(text) {
            Ok(None) => "path",
            Ok(Some(Remote::Git(_))) => "git",
            Ok(Some(Remote::Http(_))) => "http",
            Err(_) => "error",
        };
        for (text, expected) in [
            ("https://host/x.tar.gz", "http"),
            ("https://host/x.git#main:dir", "git"),
            ("https://host/x.git?nonsense=1", "error"),
            ("git://host/x", "git"),
            ("git@host:x/y", "git"),
            ("github.com/x/y", "path"),
            ("a:b", "path"),
            ("dir/file", "path"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
