//! What stands below a stage that is based on no other.

use lapstrake_graph::Source;
use lapstrake_oci::{ContainerConfig, ImageConfig, Platform, RootFs};

/// The search path of images that have none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A base, known.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) source: Source,
    /// What its step is called, without number.
    pub(crate) title: String,
    /// Whether its step is numbered.
    pub(crate) numbered: bool,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    /// Whether the config is only a guess.
    pub(crate) guessed: bool,
}

/// The config of an image without a base.
pub(crate) fn empty_image(platform: &Platform) -> ImageConfig {
    let env = if platform.os == "windows" { Vec::new() } else { vec![format!("PATH={DEFAULT_PATH}")] };
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        config: ContainerConfig { working_dir: "/".to_owned(), env, ..ContainerConfig::default() },
        rootfs: RootFs::default(),
        ..ImageConfig::default()
    }
}
