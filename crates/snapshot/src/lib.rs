//! Committed trees to a mountable root; an upper directory to a layer; a layer to a tree.
//!
//! Runs no processes.
