//! Registries in the places of the tests.

use super::place::Mode;

pub(super) use crate::registry::Registry;

impl Registry {
    /// One in the place of `mode`; `more` is added to its configuration.
    pub(super) fn of(mode: &Mode, more: &str) -> Result<Registry, String> {
        Registry::start(&mode.place, "registry", more)
    }

    /// One beside others; all have the same storage.
    pub(super) fn named(mode: &Mode, name: &str, more: &str) -> Result<Registry, String> {
        Registry::start(&mode.place, name, more)
    }
}
