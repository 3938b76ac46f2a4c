//! Which run of the machine this is: what an earlier one had not synced may be lost.

use std::fs;

/// Which boot of the machine this is; nothing where the kernel does not say.
pub(crate) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
