//! A file of a definition.

/// A file of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The name, whose ending tells the language.
    pub name: String,
    /// The text.
    pub text: String,
}
