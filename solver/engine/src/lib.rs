//! Scheduling, cache keys, single flight, events and reasons.
//!
//! Pure: no file system, no containers.
