//! Sources of images, the mirror of the exporters: OCI layouts, image archives, and the images of the state directory. Images of
//! registries are resolved and fetched by `ops`, with the requests of `registry`.
//!
//! A reader finds documents and the files of layers. [`Source::load`] takes images of an archive or a layout into the state
//! directory. The other functions find, list, select and remove images that are there.

mod archive;
mod error;
mod layout;
mod listed;
mod load;
mod remove;
mod stored;
mod usage;

pub use archive::{Archive, DockerImage, MOST_FILES};
pub use error::ImagesError;
pub use layout::{Layout, Untagged, Wanted, tag_of};
pub use listed::{Filters, Listed, NameRow, inspect_document, name_rows, until};
pub use load::{Destination, LoadedImage, Source};
pub use remove::{
    ImageFilter, PruneResult, PruneScope, Pruned, Removed, Removing, prune, prune_with_layers, remove_named,
};
pub use stored::{
    NoImage, Selected, asked_platform, bundle, config, find_all, find_for, find_image, history,
    registry_name, select, tags_of,
};
pub use usage::{ImageUsage, Usage, image_usage, usage};
