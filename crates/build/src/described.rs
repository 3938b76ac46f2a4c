//! Images as results describe them.

use lapstrake_graph::{ImageDraft, Target};
use lapstrake_oci::Platform;

/// The image that a result becomes, without its layers.
#[derive(Clone, Debug)]
pub struct Described {
    /// The platform that the result is for.
    pub platform: Platform,
    /// The description of the image.
    pub image: ImageDraft,
}

impl From<Target> for Described {
    fn from(target: Target) -> Described {
        Described { platform: target.platform, image: target.image }
    }
}
