//! What is fuzzed, how, and from what it starts.
//!
//! `cargo xtask fuzz [NAME] [SECONDS]` runs the targets under libFuzzer, guided by coverage; `tests/short.rs` runs them on
//! the same seeds, changed by a generator that gives the same every time. A target is a function that must not panic,
//! whatever bytes it is given, and must keep what it promises. `cargo xtask bench language` measures typical files and the
//! worst kinds of long ones. What once fell out lies in `testdata/fuzz/NAME` for good.

mod images;
mod mutate;
mod seeds;
mod targets;
mod typical;
mod worst;

pub use mutate::Mutator;
pub use seeds::{dictionary, found, seeds};
pub use targets::{TARGETS, Target, read};
pub use typical::{generated, typical};
pub use worst::{KINDS, Kind, Reader};
