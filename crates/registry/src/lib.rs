//! The distribution protocol: resolve, pull, push, authentication.
//!
//! Streams bytes; the caller stores them.
