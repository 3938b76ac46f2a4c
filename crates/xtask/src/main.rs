//! The tasks of this workspace: `cargo xtask tidy|test|bench`.

fn main() {}
