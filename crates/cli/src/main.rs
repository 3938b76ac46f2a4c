//! The `lapstrake` binary: arguments, settings, progress, wiring.

fn main() {}
