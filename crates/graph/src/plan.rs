//! A graph with what is wanted of it.

use lapstrake_oci::{History, ImageConfig, Platform};

use crate::{Edge, Graph, VertexId};

/// What a frontend makes: the graph and its targets, one for each platform.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps.
    pub graph: Graph,
    /// The wanted results; never empty.
    pub targets: Vec<Target>,
}

/// A wanted result.
#[derive(Clone, Debug)]
pub struct Target {
    /// The image's root file system.
    pub edge: Edge,
    /// The platform it is for.
    pub platform: Platform,
    /// The description of the image.
    pub image: ImageDraft,
}

/// An image config before its new layers are known.
#[derive(Clone, Debug)]
pub struct ImageDraft {
    /// The config; its `history` and `rootfs` are the base image's, and `created` is empty.
    pub config: ImageConfig,
    /// Whether the history of the config is that of the result, and not of the base. Then [`ImageDraft::history`] is empty.
    pub is_complete: bool,
    /// The rows that come behind the base's.
    pub history: Vec<HistoryDraft>,
    /// `SOURCE_DATE_EPOCH`: seconds since the Unix epoch that no new time may exceed.
    pub epoch: Option<i64>,
}

impl ImageDraft {
    /// The config with all rows of history. New rows have no time yet.
    pub fn complete(&self) -> ImageConfig {
        let mut config = self.config.clone();
        config.history.extend(self.history.iter().map(|row| History {
            created_by: row.created_by.clone(),
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer: row.layer.is_none(),
            ..History::default()
        }));
        config
    }
}

/// A row of history before its time is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryDraft {
    /// The instruction, as BuildKit writes it.
    pub created_by: String,
    /// The step whose layer this row stands for; `None` for rows without a layer. The layers that the result has on
    /// top of the base's are those of these steps, in this order.
    pub layer: Option<VertexId>,
}
