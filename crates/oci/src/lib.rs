//! The OCI value types: digests, references, platforms, media types, image configs, canonical JSON.
//!
//! Does no IO.
