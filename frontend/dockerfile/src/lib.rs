//! Dockerfile text to a spanned syntax tree and diagnostics.
//!
//! Pure: never touches the file system, never fails as a whole.
