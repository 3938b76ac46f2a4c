//! The error of a bake file.

use std::ops::Range;
use std::sync::Arc;

use lapstrake_diag::{Diagnostic, Excerpt, Report, SourceFile, Span};

/// The code of all errors in bake files.
const CODE: &str = "bake";

/// An error of a definition: a sentence, and the place in a file if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BakeError {
    /// The sentence.
    pub message: String,
    /// The way to go on.
    pub hint: Option<String>,
    /// The place.
    pub place: Option<Place>,
}

/// A file of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The text.
    pub(crate) file: Arc<SourceFile>,
    /// Whether places of expressions are places in the text. Those of JSON are places in a string of the text.
    pub(crate) exact: bool,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// The bytes of its text, where they are known.
    pub range: Option<Range<usize>>,
}

impl std::fmt::Display for BakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BakeError {}

impl BakeError {
    /// An error without a place.
    pub fn new(message: impl Into<String>) -> BakeError {
        BakeError { message: message.into(), hint: None, place: None }
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> BakeError {
        self.hint = Some(hint.into());
        self
    }

    /// With a place, if the error has none yet.
    #[must_use]
    pub(crate) fn at(mut self, origin: &Origin, range: Option<Range<usize>>) -> BakeError {
        if self.place.is_none() {
            let range = range.filter(|_| origin.exact);
            self.place = Some(Place { file: origin.file.clone(), range });
        }
        self
    }

    /// The error as it is shown, with the lines around its place.
    pub fn report(self) -> Report {
        let mut report = Report::new(self.message.clone());
        match &self.place {
            Some(Place { file, range: Some(range) }) => {
                let diagnostic = Diagnostic::error(CODE, self.message, Span::new(range.start, range.end));
                report = report.at(file, Excerpt::Findings(vec![diagnostic]));
            }
            Some(Place { file, range: None }) => {
                report = Report::new(format!("{}: {}", file.name(), self.message));
            }
            None => {}
        }
        match self.hint {
            Some(hint) => report.with_hint(hint),
            None => report,
        }
    }
}

impl From<String> for BakeError {
    fn from(message: String) -> BakeError {
        BakeError::new(message)
    }
}

/// The result of work on a definition.
pub type Baked<T> = Result<T, BakeError>;
