//! A server in this process, for tests.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use lapstrake_buildkit::{Address, Devices, Host, KeepPolicy, Server};
use lapstrake_ops::Worker;
use lapstrake_store::Store;
use lapstrake_testkit::buildkit::connect;
use tonic::transport::Channel;

/// A server over an empty state.
pub(super) struct Place {
    pub(super) top: tempfile::TempDir,
    pub(super) store: Arc<Store>,
    pub(super) stop: Option<tokio::sync::oneshot::Sender<()>>,
    pub(super) channel: Channel,
}

impl Place {
    pub(super) async fn new() -> Place {
        let top = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&top.path().join("state")).unwrap());
        let worker = Arc::new(Worker::new(store.clone(), !rustix::process::geteuid().is_root()));
        let host = Host {
            state: top.path().to_owned(),
            registries: lapstrake_registry::Registries::default(),
            git_environment: Vec::new(),
            platforms: vec![lapstrake_oci::Platform::host()],
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            entitlements: Vec::new(),
            dockerfile_images: false,
            frontend_images: None,
            warn: Box::new(|_| {}),
            devices: Devices::Usual,
            keep: KeepPolicy::All,
        };
        let socket = top.path().join("socket");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let addresses = [Address::Unix(socket.clone())];
        tokio::spawn(async move {
            let stop = async move { stopped.await.unwrap_or_default() };
            let ready = || ready.send(()).unwrap();
            Server::new(host, worker)
                .run(&addresses, None, ready, (stop, std::future::pending()))
                .await
                .unwrap();
        });
        is_ready.await.unwrap();
        let channel = connect(&socket).await;
        Place { top, store, stop: Some(stop), channel }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.top.path().join("socket")
    }
}

/// The paths and texts of an archive.
pub(super) fn files(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap_or_default();
        (entry.path().unwrap().display().to_string(), text)
    };
    archive.entries().unwrap().map(read).collect()
}
