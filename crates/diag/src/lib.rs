//! Source files, spans, diagnostics and hints, and the one renderer for them.
//!
//! Does not know Dockerfiles. A [`Diagnostic`] is a value about the user's text. Errors about the world (a missing file, a
//! registry that is down) are enums of the crates that meet them. All of them implement [`Reported`], and become a
//! [`Report`]: the one form in which errors are shown.
//!
//! Invariant: a [`Span`] counts bytes of [`SourceFile::text`]; lines and columns are computed from it, never stored.

mod diagnostic;
mod render;
mod report;
mod source;
mod suggest;

pub use diagnostic::{Diagnostic, Label, Severity};
pub use render::{Style, excerpt, render};
pub use report::{Code, Context, Excerpt, Fault, Outcome, Place, Report, Reported, Usage, chain, text};
pub use source::{Origin, Piece, Position, SourceFile, Span, Spanned};
pub use suggest::{did_you_mean, did_you_mean_exactly};
