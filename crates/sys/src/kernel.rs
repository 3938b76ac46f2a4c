//! Which kernel this is, and whether its null device can be used.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// The null device: every program started with nothing to read needs it.
const NULL: &str = "/dev/null";

/// Why the machine's `/dev/null` is of no use; `None` if it is as it should be.
pub fn null_device_fault() -> Option<String> {
    let found = match fs::symlink_metadata(NULL).and_then(|_| fs::metadata(NULL)) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    if !found.file_type().is_char_device() || number != (1, 3) {
        let kind = match found.file_type() {
            kind if kind.is_file() => "a regular file",
            kind if kind.is_dir() => "a directory",
            kind if kind.is_char_device() => "another device",
            _ => "something else",
        };
        return Some(format!("it is {kind} and not the null device"));
    }
    let opened = File::options().read(true).write(true).open(Path::new(NULL));
    opened.err().map(|error| error.to_string())
}

/// How [`null_device_fault`] is mended.
pub const NULL_DEVICE_HINT: &str = "as root: rm -rf /dev/null && mknod -m 666 /dev/null c 1 3";

/// Its release as it names itself, such as `5.14.0-427.el9`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether it is from before a version; no for one that does not say. Of use only where asking for the thing itself does
/// harm: distributions bring single things into older kernels.
pub fn is_before(version: (u32, u32)) -> bool {
    precedes(&release(), version)
}

fn precedes(release: &str, version: (u32, u32)) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < version,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, old) in [
            ("6.1.0-56-amd64", true),
            ("5.14.0-427.el9.x86_64", true),
            ("6.4", true),
            ("6.5.0", false),
            ("6.18.1", false),
            ("7.0-rc1", false),
            ("10.0", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(precedes(release, (6, 5)), old, "{release}");
        }
    }
}
