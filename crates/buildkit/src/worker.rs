//! The one worker as clients see it, and what it can do.

use lapstrake_oci::{Digest, Platform};
use lapstrake_ops::KnownDevice;
use lapstrake_proto::moby::buildkit::v1::apicaps::ApiCap;
use lapstrake_proto::moby::buildkit::v1::types::{BuildkitVersion, CdiDevice, WorkerRecord};
use lapstrake_proto::pb;
use serde_json::json;

use crate::host::Host;

/// What clients may do through the bridge.
const FRONTEND: &[&str] = &[
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "importcaches",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "readfile",
    "readdir",
    "statfile",
    "resolveimage",
    "resolveimage.resolvemode",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
    "source.metaresolver",
    "source.metaresolver.http.checksumrequest",
];

/// The capabilities of definitions and exporters. One id is misspelt in the protocol.
const GRAPH: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.image.checksum",
    "source.image.layerlimit",
    "source.http.auth",
    "source.http.header",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "source.buildop.llbfilename",
    "source.policy",
    "source.policy.session",
    "source.http",
    "source.http.checksum",
    "source.ocilayout",
    "source.http.perm",
    "soruce.http.uidgid",
    "exec.meta.base",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.cdi",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.mount.cache.content",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "passthroughop",
    "exporter.image.annotations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "exporter.session",
];

/// The capabilities of the bridge, and of graphs and exporters.
pub(crate) fn capabilities() -> (Vec<ApiCap>, Vec<ApiCap>) {
    let cap = |id: &&str| ApiCap { id: (*id).to_owned(), enabled: true, ..ApiCap::default() };
    (FRONTEND.iter().map(cap).collect(), GRAPH.iter().map(cap).collect())
}

/// The version of this program. Clients show it, and compare it only with that of other servers.
pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "lapstrake".to_owned(),
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: String::new(),
        dockerfile_version: String::new(),
    }
}

/// The worker of `host`.
pub(crate) fn record(host: &Host) -> WorkerRecord {
    let platforms = host.platforms.iter().map(platform).collect();
    WorkerRecord {
        id: id(host),
        labels: host.labels.clone(),
        platforms,
        buildkit_version: Some(version()),
        cdi_devices: host.known_devices().into_iter().map(device).collect(),
        ..WorkerRecord::default()
    }
}

fn device(known: KnownDevice) -> CdiDevice {
    let KnownDevice { name, is_free, annotations } = known;
    CdiDevice { name, auto_allow: is_free, annotations, on_demand: false }
}

/// The worker's id: the same for each server over one state directory.
fn id(host: &Host) -> String {
    Digest::sha256(host.state.as_os_str().as_encoded_bytes()).hex()[..25].to_owned()
}

/// The worker as the frontends in images read it.
pub(crate) fn as_json(host: &Host) -> String {
    let record = record(host);
    let worker = json!({ "id": record.id, "labels": record.labels, "platforms": host.platforms });
    json!([worker]).to_string()
}

fn platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..pb::Platform::default()
    }
}
