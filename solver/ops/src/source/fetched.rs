//! What was brought from elsewhere for one build, so that nothing is asked for twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_graph::Http;
use lapstrake_oci::Digest;
use lapstrake_remote::{Known, NamedCommit, Web};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::stack::Stack;

/// What is remembered of a file of the web.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) etag: String,
    pub(crate) modified: String,
    pub(crate) digest: Digest,
    /// The name that the server gave.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
}

impl Record {
    pub(crate) fn known(&self) -> Known {
        Known { etag: self.etag.clone(), modified: self.modified.clone(), name: self.name.clone() }
    }

    /// The name of the file in a tree: the server's own one where the client left that to the server.
    pub(crate) fn file_name<'n>(&'n self, http: &'n Http) -> &'n str {
        let own = self.name.rsplit('/').next().unwrap_or_default().trim();
        let is_name = !matches!(own, "" | "." | "..") && !own.contains(char::is_control);
        if http.options.named_by_server && is_name { own } else { &http.name }
    }
}

/// Values that are made once, by what was asked for.
pub(crate) type Cells<T> = Mutex<HashMap<Vec<u8>, Arc<OnceCell<T>>>>;

/// What was brought for one build.
#[derive(Default)]
pub(crate) struct FetchCache {
    pub(crate) web: OnceCell<Web>,
    pub(crate) trees: Cells<Stack>,
    files: Cells<Record>,
    commits: Cells<NamedCommit>,
}

impl FetchCache {
    /// The cell of the file that was asked for with `asked`.
    pub(crate) fn file(&self, asked: Vec<u8>) -> Arc<OnceCell<Record>> {
        cell(&self.files, asked)
    }

    /// The cell of the commit that was asked for with `asked`.
    pub(crate) fn commit(&self, asked: Vec<u8>) -> Arc<OnceCell<NamedCommit>> {
        cell(&self.commits, asked)
    }
}

fn cell<T>(cells: &Cells<T>, asked: Vec<u8>) -> Arc<OnceCell<T>> {
    cells.lock().unwrap_or_else(PoisonError::into_inner).entry(asked).or_default().clone()
}
