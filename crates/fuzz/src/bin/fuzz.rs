//! libFuzzer on the target that `LAPSTRAKE_FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use lapstrake_fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("LAPSTRAKE_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target `{name}`"))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.get_or_init(chosen).run)(bytes));
