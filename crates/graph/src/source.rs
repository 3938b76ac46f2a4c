//! Where trees come from.

use lapstrake_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

/// Which place holds an image's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStore {
    /// The local store or, failing that, the registry of the reference.
    Registry,
    /// As [`ImageStore::Registry`]; only so many layers are used, from the lowest.
    LowestLayers(usize),
    /// An OCI image layout in this directory of the host.
    Layout {
        /// The directory, absolute.
        path: String,
    },
}

/// An op without inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An empty tree.
    Scratch,
    /// An image, already resolved to one manifest.
    Image {
        /// The full reference, for messages and for finding the registry.
        reference: String,
        /// The digest of the (single-platform) manifest.
        manifest: Digest,
        /// The platform that was asked for.
        platform: Platform,
        /// Where it is.
        store: ImageStore,
    },
    /// A directory that the client named (`context`, or a `--build-context` name). Its path stays outside of the
    /// digest, so that the same input in another directory is the same build; consumers go by content.
    Local {
        /// The name of the context.
        name: String,
    },
    /// A file of the web, or what is in it.
    Http(Http),
    /// The files of a commit.
    Git(Git),
    /// What is in an archive, a blob of the store.
    Archive {
        /// Its digest.
        blob: Digest,
    },
    /// The result of an earlier build.
    Solved {
        /// The result, as the executor writes it.
        result: String,
    },
    /// A directory of the host used in place as a read-only base (`rootfs://`). `/` is the host's own system.
    Rootfs {
        /// The directory, absolute.
        path: String,
    },
}

/// A file of the web.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Http {
    /// Where it is.
    pub url: String,
    /// The file's name in the tree.
    pub name: String,
    /// The digest that it must have.
    pub checksum: Option<Digest>,
    /// Whether the tree is what an archive has in it, where the file is one.
    pub unpack: bool,
    /// Options that only clients of BuildKit's API have.
    #[serde(default, skip_serializing_if = "HttpOptions::is_default")]
    pub options: Box<HttpOptions>,
}

/// Options of a file of the web that `ADD` does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpOptions {
    /// The permission bits of the file; `None` for 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Further headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The secret that has the value of the `Authorization` header, for any host; empty for the ones that name the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authorization_secret: String,
    /// The user and the group of the file; `None` for 0:0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// Whether the server's own name of the file counts, where it gives one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named_by_server: bool,
}

impl HttpOptions {
    /// Whether the file is as `ADD` makes it.
    pub fn is_default(&self) -> bool {
        *self == HttpOptions::default()
    }
}

/// A commit of a git repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Git {
    /// Where the repository is.
    pub remote: String,
    /// A branch, a tag or a commit; empty is what the repository itself shows first.
    pub reference: String,
    /// The directory that is the tree's root; empty is all of it.
    pub subdir: String,
    /// What the commit must begin with, in hex; empty is any.
    pub checksum: String,
    /// Whether the checksum is the commit, and the reference is not asked for.
    pub fetch_by_commit: bool,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are brought too.
    pub submodules: bool,
    /// Whether files have the time of the commit.
    pub commit_times: bool,
}
