//! How often packed layers were read for some of their files.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lapstrake_store::LayerId;

/// How often a layer is read for some of its files in one build. After that all of it is unpacked: it seems to be wanted.
const MAX_PARTIAL_READS: u32 = 3;

/// How often layers were read.
#[derive(Default)]
pub(crate) struct PartialReadCount(Mutex<HashMap<LayerId, u32>>);

impl PartialReadCount {
    /// Whether the layer is to be read once more.
    pub(crate) fn count_read(&self, layer: &LayerId) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = all.entry(layer.clone()).or_default();
        *passes += 1;
        *passes <= MAX_PARTIAL_READS
    }
}
