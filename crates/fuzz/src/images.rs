//! What comes from registries: layers, manifests, indexes, configs, and the headers that ask for a login.

use lapstrake_go::to_json;
use lapstrake_oci::{Digest, ImageConfig, ImageIndex, Platform, Reference, read_index, read_manifest};
use lapstrake_registry::{Challenge, Looked, Search, challenge};
use lapstrake_tree::Tree;
use lapstrake_tree::unpack::{UnpackOptions, read_layer};

const BLOCK: usize = 512;

/// A layer is refused or read, the same every time, and its tree is one that can be written down.
pub(crate) fn layers(bytes: &[u8]) {
    let mut tar = bytes.to_vec();
    mend(&mut tar);
    let options = UnpackOptions { max_entries: 1000, max_bytes: 1 << 20, ..UnpackOptions::default() };
    let first = read_layer(&tar[..], &options);
    let again = read_layer(&tar[..], &options);
    match (first, again) {
        (Ok(first), Ok(again)) => {
            assert_eq!(first.tree.l_digest(), again.tree.l_digest());
            assert_eq!((first.diff_id, first.size), (again.diff_id, again.size));
            let decoded = Tree::decode(&first.tree.encode());
            assert_eq!(decoded.map(|tree| tree.l_digest()).ok(), Some(first.tree.l_digest()));
            for entry in first.tree.entries() {
                assert!(entry.path.components().all(|name| !matches!(name, b".." | b"." | b"")));
            }
        }
        (Err(first), Err(again)) => assert_eq!(first.to_string(), again.to_string()),
        (first, again) => panic!("not the same: {first:?} {again:?}"),
    }
}

/// Gives blocks that look like headers the right checksum: otherwise nothing behind the first change is ever read.
fn mend(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

/// Documents are refused or read; a config reads the same once it was written; what is chosen of an index is in it.
pub(crate) fn documents(bytes: &[u8]) {
    if let Ok(config) = ImageConfig::read(bytes) {
        let written = to_json(&config);
        assert_eq!(ImageConfig::read(&written).ok(), Some(config));
    }
    if let Ok(manifest) = read_manifest(bytes) {
        for layer in manifest.layers() {
            // May be none of ours; it must not be one that is written in another way.
            if let Ok(digest) = layer.digest().to_string().parse::<Digest>() {
                assert_eq!(digest.to_string(), layer.digest().to_string());
            }
        }
    }
    if let Ok(index) = read_index(bytes) {
        let name: Reference = "fuzzed".parse().unwrap_or_else(|error| panic!("{error}"));
        for platform in ["linux/amd64", "linux/arm/v7", "windows(10.0)/amd64"] {
            let platform: Platform = platform.parse().unwrap_or_else(|error| panic!("{error}"));
            search(&name, &index, &platform, bytes);
        }
    }
}

/// A search ends, and looks at nothing that no index names. Each candidate is an index again: the worst that can be.
fn search(name: &Reference, index: &ImageIndex, platform: &Platform, bytes: &[u8]) {
    let Ok(mut search) = Search::of(name, index, platform) else { return };
    while let Ok(candidate) = search.next_candidate() {
        let listed =
            |entry: &lapstrake_oci::Descriptor| entry.digest().to_string() == candidate.digest.to_string();
        assert!(index.manifests().iter().any(listed), "{}", candidate.digest);
        if !matches!(search.look(&candidate, bytes), Ok(Looked::No)) {
            return;
        }
    }
}

/// A header asks for something that can be met, or for nothing.
pub(crate) fn challenges(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(Challenge::Bearer(bearer)) = challenge([&*text]) {
        assert!(!bearer.realm.is_empty(), "{text:?}");
    }
}

/// Small tars: each kind of entry under names of each kind.
pub(crate) fn tars() -> Vec<Vec<u8>> {
    use tar::EntryType as Kind;
    let kinds = [Kind::Regular, Kind::Directory, Kind::Symlink, Kind::Link, Kind::Char, Kind::Fifo];
    let names = ["a", "d/b", ".wh.a", "d/.wh..wh..opq", "d/../c", "/etc/passwd", "d/d/d/d"];
    let mut all = Vec::new();
    for kind in kinds {
        for name in names {
            let mut tar = tar::Builder::new(Vec::new());
            for (kind, name) in [(Kind::Directory, "d"), (Kind::Regular, "d/f"), (kind, name)] {
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(kind);
                let content: &[u8] = if kind == Kind::Regular { b"content" } else { b"" };
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(1);
                // Names that the library would not write are wanted most.
                header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
                header.as_mut_bytes()[157..160].copy_from_slice(b"d/f");
                header.set_cksum();
                tar.append(&header, content).unwrap_or_else(|error| panic!("{error}"));
            }
            let records = [("SCHILY.xattr.user.a", &b"v"[..]), ("path", b"long/name")];
            tar.append_pax_extensions(records).unwrap_or_else(|error| panic!("{error}"));
            all.push(tar.into_inner().unwrap_or_else(|error| panic!("{error}")));
        }
    }
    all
}

/// Manifests, indexes and configs, each with one field and another.
pub(crate) fn examples() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let descriptor = serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 7});
    let mut listed = descriptor.clone();
    listed["platform"] =
        serde_json::json!({"architecture": "arm", "os": "linux", "variant": "v7", "os.version": "10.0"});
    let manifest =
        serde_json::json!({"schemaVersion": 2, "config": descriptor, "layers": [descriptor, descriptor]});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [listed, descriptor]});
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]},
        "config": {"Env": ["A=b"]}, "history": [{"created_by": "x", "empty_layer": true}]});
    let fields = [
        ("annotations", serde_json::json!({"a": "b"})),
        ("mediaType", serde_json::json!("application/vnd.oci.image.index.v1+json")),
        ("layers", serde_json::json!([])),
        ("manifests", serde_json::json!([descriptor])),
        ("subject", descriptor.clone()),
        ("config", serde_json::json!({"Cmd": null, "Volumes": {"/v": {}}, "Healthcheck": {"Interval": 5}})),
        ("created", serde_json::json!("2024-05-06T07:08:09Z")),
        ("variant", serde_json::json!("v8")),
        ("unknown", serde_json::json!([1, {"a": -1.5e300}])),
        ("history", serde_json::json!(null)),
    ];
    let mut all = Vec::new();
    for document in [&manifest, &index, &config] {
        all.push(document.to_string().into_bytes());
        for (name, value) in &fields {
            let mut more = document.clone();
            more[name] = value.clone();
            all.push(more.to_string().into_bytes());
        }
    }
    all
}

/// Headers of registries, good and bad.
pub(crate) fn headers() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for scheme in ["Basic", "Bearer", "bearer", "Digest", "", "Bearer,Basic"] {
        for rest in [
            "",
            "realm=\"https://auth.example/token\",service=\"reg\",scope=\"repository:a/b:pull,push\"",
            "realm=https://x , service=\"a\\\"b\"",
            "service=x",
            "realm=\"",
            "realm=\"\\",
            ",,, realm = \"x\" , = , error=\"insufficient_scope\"",
        ] {
            all.push(format!("{scheme} {rest}").into_bytes());
        }
    }
    all
}
