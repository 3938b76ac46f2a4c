//! Source files, spans, diagnostics and hints, and the one renderer for them.
//!
//! Does not know Dockerfiles.
