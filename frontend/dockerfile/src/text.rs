//! What the tree's texts are.

use ecow::EcoString;
use lapstrake_diag::Spanned;

/// A text of the tree. Most are short and need no memory of their own; where one stands in two places it is there once.
pub type Text = EcoString;

/// A word of the text.
pub type Word = Spanned<Text>;
