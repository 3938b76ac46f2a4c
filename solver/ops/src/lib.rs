//! What each op does: source, exec, file.
//!
//! Parses no text.
