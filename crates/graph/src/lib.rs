//! The build graph: ops, vertices, edges, digests and the source map.
//!
//! Runs and caches nothing.
