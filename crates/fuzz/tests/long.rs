//! Long inputs of the worst kinds. No time is measured; at this length a step that is quadratic takes minutes in a debug
//! build.

use lapstrake_fuzz::{KINDS, read};

/// In bytes. `cargo xtask bench language` takes 10 MB.
const LENGTH: usize = 500_000;

#[test]
fn nothing_is_quadratic() {
    for kind in KINDS {
        let text = kind.text(LENGTH);
        assert!(text.len() >= LENGTH, "{}", kind.name);
        read(kind.reader, &text);
    }
}
