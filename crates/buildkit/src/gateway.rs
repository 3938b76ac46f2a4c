//! What clients ask about results, images and containers while they drive a build.
//!
//! | module | calls |
//! |---|---|
//! | `files` | files of references and of containers |
//! | `images` | configs and digests of images |
//! | `sources` | what sources are: commits, files of the web |
//! | `containers` | making and releasing containers |
//! | `process` | processes in containers |

pub(crate) mod containers;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod meta;
pub(crate) mod process;
pub(crate) mod sources;
