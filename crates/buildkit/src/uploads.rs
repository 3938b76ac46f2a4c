//! Uploads of the client as files of the web: addresses that begin with [`UPLOAD`].
//!
//! A client gives an upload once. So each upload becomes a blob of the store when a definition first names it.

use std::collections::{BTreeMap, HashMap};

use lapstrake_diag::{Outcome, Report};
use lapstrake_graph::{Edge, Graph, Http, Op, Source};
use lapstrake_oci::Digest;
use lapstrake_store::Store;
use tokio::sync::Mutex;

use crate::caller::SessionCaller;

/// The beginning of addresses that stand for uploads of the session.
pub(crate) const UPLOAD: &str = "http://buildkit-session/";
/// The host of these addresses.
pub(crate) const HOST: &str = "buildkit-session";
/// The mode of a file, unless the client gives another one.
const MODE: u32 = 0o600;

/// The uploads of one build.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The bytes, by the address.
    blobs: HashMap<String, Digest>,
    /// Archives with the file in them.
    archives: HashMap<Http, Digest>,
}

impl Uploads {
    /// `graph` and an edge of it, with an archive in the place of each upload. The archive has the file in it.
    ///
    /// # Errors
    /// The client has no such upload or another one, or the store cannot be written.
    pub(crate) async fn put_into(
        &self,
        (graph, edge): (Graph, Edge),
        store: &Store,
        caller: &SessionCaller,
    ) -> Outcome<(Graph, Edge)> {
        let mut others = BTreeMap::new();
        for id in graph.topological() {
            if let Op::Source(Source::Http(http)) = &graph[id].op
                && let Some(path) = http.url.strip_prefix(UPLOAD)
            {
                let blob = self.archive(http, path, (store, caller)).await?;
                others.insert(id, Source::Archive { blob });
            }
        }
        if others.is_empty() {
            return Ok((graph, edge));
        }
        let (graph, made) = graph.with_sources(&others).map_err(|error| Report::of(&error))?;
        let vertex = made.get(&edge.vertex).copied().unwrap_or(edge.vertex);
        Ok((graph, Edge { vertex, ..edge }))
    }

    async fn archive(
        &self,
        http: &Http,
        path: &str,
        (store, caller): (&Store, &SessionCaller),
    ) -> Outcome<Digest> {
        let mut known = self.0.lock().await;
        if let Some(archive) = known.archives.get(http) {
            return Ok(archive.clone());
        }
        let blob = match known.blobs.get(&http.url) {
            Some(blob) => blob.clone(),
            None => {
                let upload = caller.upload(HOST, &format!("/{path}"));
                let (blob, _) = tokio::task::block_in_place(|| store.copy_blob(upload, None))?;
                known.blobs.insert(http.url.clone(), blob.clone());
                blob
            }
        };
        if let Some(wanted) = http.checksum.as_ref().filter(|wanted| **wanted != blob) {
            return Err(Report::new(format!("digest mismatch {blob}: {wanted}")));
        }
        let archive = tokio::task::block_in_place(|| packed(store, http, &blob))?;
        known.archives.insert(http.clone(), archive.clone());
        Ok(archive)
    }
}

/// An archive with the file `http`, whose bytes are `blob`. Equal files make equal archives.
fn packed(store: &Store, http: &Http, blob: &Digest) -> Outcome<Digest> {
    let file = store.open_blob(blob)?;
    let (owner, group) = http.options.owner.unwrap_or((0, 0));
    let mut header = tar::Header::new_gnu();
    header.set_size(file.metadata()?.len());
    header.set_mode(http.options.mode.unwrap_or(MODE));
    header.set_uid(owner.into());
    header.set_gid(group.into());
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    let mut archive = tar::Builder::new(store.blob_writer()?);
    archive.append_data(&mut header, &http.name, file)?;
    Ok(archive.into_inner()?.finish(None)?.0)
}
