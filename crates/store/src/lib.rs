//! The state directory: content, records, references, pins.
//!
//! Does not know what a blob means.
