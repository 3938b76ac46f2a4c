//! The namespace sandbox: a run spec becomes set-up operations, a process, an exit.
//!
//! Does not know images or stages.
