//! What was brought from elsewhere for one build, so that nothing is asked for twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lapstrake_remote::Web;
use tokio::sync::OnceCell;

use crate::stack::Stack;

/// What was brought for one build.
#[derive(Default)]
pub(crate) struct FetchCache {
    pub(crate) web: OnceCell<Web>,
    pub(crate) trees: Mutex<HashMap<Vec<u8>, Arc<OnceCell<Stack>>>>,
}
