//! File ops: `COPY`, `ADD`, and the directories and files that a build makes itself.

pub(crate) mod base_view;
pub(crate) mod context_reads;
pub(crate) mod copy;
pub(crate) mod copy_reuse;
pub(crate) mod copy_source;
pub(crate) mod partial_extract;
pub(crate) mod partial_read_count;
