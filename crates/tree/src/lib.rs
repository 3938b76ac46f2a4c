//! File trees: walking, stat index, digests, copying, ignore patterns, the tar codec, confined paths.
//!
//! Does not know in which order layers lie.
