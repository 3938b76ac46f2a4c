//! A build result to config, manifest and index, bit for bit.
//!
//! Writes nothing.
