//! Findings about a text, as values.

use crate::{SourceFile, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The text cannot be used.
    Error,
    /// The text can be used and most likely does not mean what was meant.
    Warning,
}

/// A place in the text with what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The text at the place; may be empty.
    pub note: String,
}

/// One finding. The first label is the main place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable name for the kind of finding; BuildKit's rule name where it has one.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The fault, in a sentence without a final period.
    pub message: String,
    /// The places; empty for findings about the file as a whole.
    pub labels: Vec<Label>,
    /// The remedies.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic::at(code, Severity::Error, message.into(), span)
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic::at(code, Severity::Warning, message.into(), span)
    }

    fn at(code: &'static str, severity: Severity, message: String, span: Span) -> Diagnostic {
        let labels = vec![Label { span, note: String::new() }];
        Diagnostic { code, severity, message, labels, hint: None }
    }

    /// With a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// With one more place.
    #[must_use]
    pub fn with_label(mut self, span: Span, note: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span, note: note.into() });
        self
    }

    /// The main place.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }

    /// First and last line of the main place.
    pub fn lines(&self, file: &SourceFile) -> Option<(u32, u32)> {
        self.span().map(|span| file.lines(span))
    }

    /// Whether the text cannot be used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
