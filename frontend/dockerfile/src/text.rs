//! What the tree's texts are.

use ecow::EcoString;
use lapstrake_diag::Spanned;

/// A text of the tree. Most are short and need no memory of their own; where one stands in two places it is there once.
pub type Text = EcoString;

/// A word of the text.
pub type Word = Spanned<Text>;

/// Whether no white space begins or ends with this byte. What a line of a million has at its edges is mostly such a one.
fn solid(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// [`str::trim_start`], at once where there is nothing to trim.
pub(crate) fn trim_start(text: &str) -> &str {
    if text.bytes().next().is_some_and(solid) { text } else { text.trim_start() }
}

/// [`str::trim_end`], at once where there is nothing to trim.
pub(crate) fn trim_end(text: &str) -> &str {
    if text.bytes().next_back().is_some_and(solid) { text } else { text.trim_end() }
}
