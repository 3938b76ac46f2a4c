//! Reasons for which a definition is refused.

use lapstrake_graph::InvalidGraph;

/// A definition that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum LlbError {
    /// Bytes that are no op.
    #[error("failed to parse llb proto op: {0}")]
    Bytes(#[from] prost::DecodeError),
    /// A definition without an op, or without a result.
    #[error("invalid LLB definition: {0}")]
    Definition(String),
    /// An op that names an input which the definition does not have.
    #[error("invalid missing input digest {0}")]
    MissingInput(String),
    /// An op with values that cannot be.
    #[error("invalid op {digest}: {why}")]
    Op {
        /// The digest of the op.
        digest: String,
        /// The reason.
        why: String,
    },
    /// An op, or a part of one, that is not built yet.
    #[error("{what} is not supported by `lapstrake serve` yet (op {digest})")]
    Unsupported {
        /// The digest of the op.
        digest: String,
        /// The part.
        what: String,
    },
    /// An op whose inputs do not fit.
    #[error(transparent)]
    Graph(#[from] InvalidGraph),
}
