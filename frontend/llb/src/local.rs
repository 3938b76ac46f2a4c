//! Directories of clients.

use lapstrake_oci::Digest;
use lapstrake_proto::pb;
use serde::{Deserialize, Serialize};

/// A directory of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSource {
    /// The name that the client has for the directory.
    pub name: String,
    /// The session of the client, where another than the one that builds.
    pub session: String,
    /// Patterns of the paths that are sent; empty for all.
    pub include: Vec<String>,
    /// Patterns of the paths that are not sent.
    pub exclude: Vec<String>,
    /// Paths that are sent together with the targets of their links; empty for all.
    pub follow: Vec<String>,
    /// A name under which copies of several builds share files; empty for the name itself.
    pub shared_key: String,
    /// Whether all files are sent again.
    pub all_again: bool,
}

impl LocalSource {
    /// The name of the directory in the graph: the client's name, and a digest of the options that change the content.
    pub(crate) fn key(&self) -> String {
        let plain = LocalSource {
            name: self.name.clone(),
            shared_key: self.shared_key.clone(),
            ..LocalSource::default()
        };
        if *self == plain {
            return self.name.clone();
        }
        let parts = (&self.session, &self.include, &self.exclude, &self.follow, self.all_again);
        format!("{}#{}", self.name, Digest::sha256(&lapstrake_go::to_json(&parts)).short())
    }

    /// The source as an op.
    pub(crate) fn op(&self) -> pb::SourceOp {
        let list = |list: &[String]| String::from_utf8_lossy(&lapstrake_go::to_json(&list)).into_owned();
        let mut attrs: Vec<(&str, String)> = Vec::new();
        for (key, values) in [
            ("local.includepattern", &self.include),
            ("local.excludepatterns", &self.exclude),
            ("local.followpaths", &self.follow),
        ] {
            if !values.is_empty() {
                attrs.push((key, list(values)));
            }
        }
        for (key, value) in [("local.session", &self.session), ("local.sharedkeyhint", &self.shared_key)] {
            if !value.is_empty() {
                attrs.push((key, value.clone()));
            }
        }
        if self.all_again {
            attrs.push(("local.differ", "none".to_owned()));
        }
        let attrs = attrs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        pb::SourceOp { identifier: format!("local://{}", self.name), attrs }
    }
}
