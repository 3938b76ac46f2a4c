//! Source ops: the trees that a build begins with.

pub(crate) mod facts;
pub(crate) mod fetched;
pub(crate) mod image;
pub(crate) mod progress_writer;
pub(crate) mod remote;
pub(crate) mod rootfs;
pub(crate) mod streaming_blob;

use lapstrake_graph::Source;

use crate::error::OpsError;
use crate::job::context::BuildContext;
use crate::stack::Stack;

/// The stack of a source on this machine. `None` for sources that have to be fetched or unpacked.
pub(crate) fn local_stack(job: &BuildContext, source: &Source) -> Result<Option<Stack>, OpsError> {
    match source {
        Source::Scratch => Ok(Some(Stack::default())),
        Source::Local { name } => {
            job.copy_sources.bring(name)?;
            Ok(Some(Stack { local: Some(name.clone()), ..Stack::default() }))
        }
        Source::Solved { result } => {
            let stack: Stack = serde_json::from_str(result).map_err(|_| OpsError::Worker)?;
            if !stack.is_whole(&job.store) {
                return Err(OpsError::ResultGone);
            }
            Ok(Some(stack))
        }
        Source::Rootfs { path } => rootfs::stack(&job.store, path).map(Some),
        Source::Image { .. } | Source::Http(_) | Source::Git(_) | Source::Archive { .. } => Ok(None),
    }
}
