//! Syntax tree and build inputs to the build graph.
//!
//! Fetches nothing: it asks one question, what a base image is.
