//! How long records of builds stay.

/// The records of builds that stay. A record goes when it is too old and there are enough newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Records that are younger than this, in seconds, stay however many there are.
    pub age: i64,
    /// So many records stay however old they are.
    pub count: i64,
}

impl Default for BuildLimits {
    /// Two days, and fifty records.
    fn default() -> BuildLimits {
        BuildLimits { age: 48 * 3_600, count: 50 }
    }
}
