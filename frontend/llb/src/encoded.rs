//! What the writers of ops share.

use lapstrake_proto::pb;

/// A part of a graph that no definition can say.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be part of a definition")]
pub struct NotDefinable(pub(crate) String);

/// The inputs of an op while it is written.
#[derive(Default)]
pub(crate) struct Inputs(pub(crate) Vec<pb::Input>);

impl Inputs {
    /// The number of an input; −1 for the empty tree.
    pub(crate) fn add(&mut self, input: Option<pb::Input>) -> i64 {
        let Some(input) = input else { return -1 };
        self.0.push(input);
        i64::try_from(self.0.len()).unwrap_or(i64::MAX) - 1
    }
}
