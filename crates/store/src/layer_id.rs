//! How layers are named.

use std::fmt;
use std::str::FromStr;

use lapstrake_oci::DiffId;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// The identity of a layer: the digest of its tree with times, 64 hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(String);

impl LayerId {
    /// As hex digits: also the directory's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LayerId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<LayerId, StoreError> {
        let hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex {
            Ok(LayerId(text.to_owned()))
        } else {
            Err(StoreError::Missing { what: "layer", name: text.to_owned() })
        }
    }
}

impl TryFrom<String> for LayerId {
    type Error = StoreError;

    fn try_from(text: String) -> Result<LayerId, StoreError> {
        text.parse()
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> String {
        id.0
    }
}

/// A layer of a result or of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StackLayer {
    /// Its files.
    pub id: LayerId,
    /// The tar that it came from, for layers of other people's images: it must leave as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// The second that no time in that tar is behind, where times were rewritten when the image was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp: Option<i64>,
}
