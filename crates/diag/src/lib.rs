//! Source files, spans, diagnostics and hints, and the one renderer for them.
//!
//! Does not know Dockerfiles. A [`Diagnostic`] is a value about the user's text; errors about the world (a missing
//! file, a registry that is down) are not diagnostics and live in the crates that meet them.
//!
//! Invariant: a [`Span`] counts bytes of [`SourceFile::text`]; lines and columns are computed from it, never stored.

mod diagnostic;
mod render;
mod source;
mod suggest;

pub use diagnostic::{Diagnostic, Label, Severity};
pub use render::{Style, excerpt, render};
pub use source::{Origin, Piece, Position, SourceFile, Span, Spanned};
pub use suggest::{did_you_mean, did_you_mean_exactly};
