//! Where trees come from.

use lapstrake_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

/// Which place holds an image's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStore {
    /// The local store or, failing that, the registry of the reference.
    Registry,
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
    /// A directory of the host used in place as a read-only base (`rootfs://`). `/` is the host's own system.
    Rootfs {
        /// The directory, absolute.
        path: String,
    },
}
