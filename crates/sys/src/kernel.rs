//! Which kernel this is.

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
