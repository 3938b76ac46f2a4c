//! The build graph: ops, vertices, edges, digests and the source map.
//!
//! Runs and caches nothing. A graph is built bottom-up (a vertex's inputs exist before it), so it cannot have cycles,
//! and every vertex has its digest from the moment it is added.
//!
//! What is in a [`VertexDigest`], and what is not:
//!
//! | value | in the digest |
//! |---|---|
//! | the op with all its fields | yes |
//! | the digests and output numbers of the inputs, in order | yes |
//! | names, source lines, `ignore_cache`, which stage it is of | no |

mod dump;
mod exec;
mod file;
mod graph;
mod plan;
mod source;

pub use dump::dump;
pub use exec::{
    Bind, CacheMount, Device, Exec, Mount, MountKind, NetworkMode, SecretEnv, SecretMount, SecurityMode,
    Sharing, SshMount, Ulimit,
};
pub use file::{Copy, CopyVariant, File, FileAction, MakeDir, MakeFile, Owner, OwnerPart, Remove, Symlink};
pub use graph::{Edge, Graph, InvalidGraph, Lines, Op, Vertex, VertexDigest, VertexId, VertexMeta};
pub use plan::{HistoryDraft, ImageDraft, Plan, Target};
pub use source::{Git, Http, HttpOptions, ImageStore, Source};
