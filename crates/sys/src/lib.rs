//! The only `unsafe` of the workspace: what rustix does not offer safely.
//!
//! Decides no policy.
