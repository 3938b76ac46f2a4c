//! Why a Dockerfile cannot be lowered.

use lapstrake_diag::{Code, Reported};
use lapstrake_diag::{Diagnostic, Span};
use lapstrake_dockerfile::code;
use lapstrake_graph::InvalidGraph;

use crate::resolver::ResolveFailure;

/// Why there is no plan.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum LowerError {
    /// The Dockerfile says something that cannot be.
    #[error("{}", .0.message)]
    Dockerfile(Box<Diagnostic>),
    /// A named context is to be a stage that is not in the Dockerfile.
    #[error(
        "failed to find target {} for context {}{hint}",
        lapstrake_go::quoted(target),
        lapstrake_go::quoted(context)
    )]
    NoContextTarget {
        /// The context's name.
        context: String,
        /// The stage that stands for it.
        target: String,
        /// What may have been meant.
        hint: String,
    },
    /// The wanted stage is not in the Dockerfile.
    #[error("target stage {} could not be found{hint}", lapstrake_go::quoted(target))]
    NoTarget {
        /// What was asked for.
        target: String,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
    },
    /// An image that is needed could not be found.
    #[error("failed to resolve source metadata for {reference}{hint}")]
    Resolve {
        /// The image, in full.
        reference: String,
        /// Where it is named.
        span: Span,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
        /// What the resolver says.
        #[source]
        source: ResolveFailure,
    },
    /// `SOURCE_DATE_EPOCH` is no time.
    #[error("{why}")]
    Epoch {
        /// In BuildKit's words.
        why: String,
    },
    /// The Dockerfile has errors, and a tree with errors is not lowered, or has no stages.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// The steps do not fit together; a bug of ours.
    #[error("the build graph is broken")]
    Graph(#[from] InvalidGraph),
}

impl LowerError {
    /// The place in the Dockerfile that it is about.
    pub fn span(&self) -> Option<Span> {
        match self {
            LowerError::Dockerfile(diagnostic) => diagnostic.span(),
            LowerError::Resolve { span, .. } => Some(*span),
            LowerError::NoTarget { .. }
            | LowerError::NoContextTarget { .. }
            | LowerError::Epoch { .. }
            | LowerError::NoStages
            | LowerError::Graph(_) => None,
        }
    }

    /// As a diagnostic, for those that are about a place.
    pub fn diagnostic(&self) -> Option<Diagnostic> {
        match self {
            LowerError::Dockerfile(diagnostic) => Some((**diagnostic).clone()),
            LowerError::Resolve { span, source, .. } => {
                let mut message = self.to_string();
                let mut cause: Option<&dyn std::error::Error> = Some(&**source);
                while let Some(error) = cause {
                    // Errors that only pass on another one say the same.
                    let text = error.to_string();
                    if !message.ends_with(&text) {
                        message.push_str(&format!(": {text}"));
                    }
                    cause = error.source();
                }
                Some(Diagnostic::error(code::STAGE, message, *span))
            }
            LowerError::NoTarget { .. }
            | LowerError::NoContextTarget { .. }
            | LowerError::Epoch { .. }
            | LowerError::NoStages
            | LowerError::Graph(_) => None,
        }
    }

    /// An instruction at `span` that cannot be carried out.
    pub(crate) fn instruction(message: impl Into<String>, span: Span) -> LowerError {
        LowerError::Dockerfile(Box::new(Diagnostic::error(code::INSTRUCTION, message, span)))
    }

    /// Stages that do not fit together.
    pub(crate) fn stage(message: impl Into<String>, span: Span) -> LowerError {
        LowerError::Dockerfile(Box::new(Diagnostic::error(code::STAGE, message, span)))
    }

    /// With one more place.
    pub(crate) fn also_at(self, span: Span, note: &str) -> LowerError {
        match self {
            LowerError::Dockerfile(diagnostic) => {
                LowerError::Dockerfile(Box::new(diagnostic.with_label(span, note)))
            }
            other => other,
        }
    }

    /// With a hint.
    pub(crate) fn hint(self, hint: impl Into<String>) -> LowerError {
        match self {
            LowerError::Dockerfile(diagnostic) => {
                LowerError::Dockerfile(Box::new(diagnostic.with_hint(hint)))
            }
            other => other,
        }
    }
}

impl Reported for LowerError {
    fn code(&self) -> Code {
        Code::new("dockerfile", self.into())
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        match self {
            LowerError::Resolve { source, .. } => Some(&**source),
            _ => None,
        }
    }
}
