//! Copies between roots, as COPY and ADD mean them, and the digest of what such a copy would bring.
//!
//! Both walk the same way: sources are matched component by component, a directory stands for its contents, a named
//! link is followed within its root and one found below stays a link. Every step is from one directory's descriptor to
//! the next.

mod digest;
mod mode;
mod select;
mod transfer;

pub use digest::content_key;
pub use mode::change_mode;
pub use select::{Filter, Picked, select};
pub use transfer::{CopyTo, Target, copy, make_dir, make_file};
