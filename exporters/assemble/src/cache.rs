//! A build cache as BuildKit writes it down: a config that says which key has which layers, and a manifest of both.
//!
//! The digests of records are those of our own keys, so only lapstrake finds anything by them; the form is BuildKit's,
//! so that the same tools and registries take it.

use lapstrake_diag::{Code, Reported};
use std::collections::{BTreeMap, BTreeSet};

use lapstrake_go::{to_json, to_json_indented};
use lapstrake_oci::{Descriptor, DiffId, Digest, media, rfc3339, seconds_of};
use serde::{Deserialize, Serialize};

use crate::Document;
use crate::manifest::{Desc, index_of};

/// The media type of the config.
pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where containerd and BuildKit look for the digest of a layer's tar.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Where BuildKit looks for when a layer was made.
const CREATED: &str = "buildkit/createdat";
/// A result of more layers than this is none.
const MOST_LAYERS: usize = 500;

/// A layer's blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// When it was made, seconds since the Unix epoch.
    pub created: i64,
}

/// A step whose result may be taken from the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStep {
    /// The digest of its key.
    pub key: Digest,
    /// The steps it stands on, by their places in the list.
    pub inputs: Vec<usize>,
    /// The blobs of its result, lowest first, by their places; empty if only others stand on it.
    pub layers: Vec<usize>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Layer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Layer {
    blob: Digest,
    /// Go leaves out what is zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<LayerAnnotations>,
}

impl Layer {
    fn told(&self) -> Option<OfferedLayer> {
        let told = self.annotations.as_ref()?;
        Some(OfferedLayer {
            blob: self.blob.clone(),
            size: told.size,
            media_type: told.media_type.clone(),
            diff_id: DiffId(told.diff_id.clone()?),
            created: seconds_of(&told.created_at),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayerAnnotations {
    #[serde(default)]
    media_type: String,
    #[serde(default, rename = "diffID")]
    diff_id: Option<Digest>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    created_at: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<ByTop>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chains: Vec<ByList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Vec<Input>>,
}

#[derive(Serialize, Deserialize)]
struct ByTop {
    layer: usize,
    #[serde(default, rename = "createdAt")]
    created_at: String,
}

#[derive(Serialize, Deserialize)]
struct ByList {
    layers: Vec<usize>,
    #[serde(default, rename = "createdAt")]
    created_at: String,
}

#[derive(Serialize, Deserialize)]
struct Input {
    link: usize,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn records(blobs: &[CacheBlob], steps: &[CacheStep], top: impl Fn(&[usize]) -> Option<usize>) -> Vec<Record> {
    let mut records = Vec::with_capacity(steps.len());
    for step in steps {
        let created_at = step.layers.last().map_or_else(String::new, |last| rfc3339(blobs[*last].created, 0));
        let (mut layers, mut chains) = (Vec::new(), Vec::new());
        match top(&step.layers) {
            _ if step.layers.is_empty() => {}
            Some(layer) => layers.push(ByTop { layer, created_at }),
            None => chains.push(ByList { layers: step.layers.clone(), created_at }),
        }
        let inputs = step.inputs.iter().map(|link| vec![Input { link: *link }]).collect();
        records.push(Record { layers, chains, digest: Some(step.key.clone()), inputs });
    }
    records
}

/// The config of a cache. A result is named by its topmost layer, whose parents are the others; a layer that is on
/// different ones in different results is there once for each.
pub fn cache_config(blobs: &[CacheBlob], steps: &[CacheStep]) -> Document {
    let mut layers: Vec<Layer> = Vec::new();
    let mut known: BTreeMap<(i64, usize), i64> = BTreeMap::new();
    let mut tops: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for step in steps.iter().filter(|step| !step.layers.is_empty()) {
        let mut parent = -1;
        for at in &step.layers {
            let next = i64::try_from(layers.len()).unwrap_or(i64::MAX);
            let place = *known.entry((parent, *at)).or_insert(next);
            if place == next {
                // What they are is said in the manifest.
                layers.push(Layer { blob: blobs[*at].digest.clone(), parent, annotations: None });
            }
            parent = place;
        }
        tops.insert(step.layers.clone(), usize::try_from(parent).unwrap_or(0));
    }
    let records = records(blobs, steps, |layers| tops.get(layers).copied());
    Document::new(to_json(&Config { layers, records }))
}

/// The records of a cache that an image carries in its config: the layers are the image's, `blobs` in their order.
pub fn inline_cache(blobs: &[CacheBlob], steps: &[CacheStep]) -> Vec<u8> {
    let in_order = |layers: &[usize]| {
        let prefix = layers.iter().enumerate().all(|(place, layer)| place == *layer);
        prefix.then(|| layers.len().saturating_sub(1))
    };
    to_json(&records(blobs, steps, in_order))
}

/// The manifest of a cache: an image's whose config is the cache's, or (`as_index`, what registries took before) an index
/// of blobs. With its media type.
pub fn cache_manifest(
    config: &Document,
    blobs: &[CacheBlob],
    as_index: bool,
    docker_types: bool,
) -> (&'static str, Document) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: Desc<'a>,
        layers: Vec<Desc<'a>>,
    }
    let mut seen = BTreeSet::new();
    let mut layers: Vec<Desc<'_>> = blobs
        .iter()
        .filter(|blob| seen.insert(&blob.digest))
        .map(|blob| {
            let said = [(CREATED, rfc3339(blob.created, 0)), (UNCOMPRESSED, blob.diff_id.to_string())];
            Desc::plain(&blob.media_type, &blob.digest, blob.size).saying(said)
        })
        .collect();
    let size = config.bytes.len() as u64;
    let config = Desc::plain(CACHE_CONFIG, &config.digest, size);
    if as_index {
        let media_type = if docker_types { media::DOCKER_INDEX } else { media::OCI_INDEX };
        layers.push(config);
        return (media_type, index_of(media_type, layers, &BTreeMap::new()));
    }
    let media_type = media::OCI_MANIFEST;
    let manifest = Manifest { schema_version: 2, media_type, config, layers };
    (media_type, Document::new(to_json_indented(&manifest)))
}

/// A layer that a cache offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedLayer {
    /// Its blob.
    pub blob: Digest,
    /// The blob's size.
    pub size: u64,
    /// The blob's media type.
    pub media_type: String,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// When it was made, seconds since the Unix epoch, where the cache says so.
    pub created: Option<i64>,
}

/// Results that a cache offers: by the digest of the key, the layers, lowest first.
pub type Offer = BTreeMap<Digest, Vec<OfferedLayer>>;

/// Why a cache cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum BadCache {
    /// No cache config, or one that is not JSON of its form.
    #[error("it is no cache config: {0}")]
    Malformed(String),
    /// A record or layer names one that is not there, or a layer is its own parent.
    #[error("it contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// What the records of an image's config offer; `layers` are the image's, lowest first.
pub fn read_inline(records: &[u8], layers: &[OfferedLayer]) -> Result<Offer, BadCache> {
    let records: Vec<Record> =
        serde_json::from_slice(records).map_err(|error| BadCache::Malformed(error.to_string()))?;
    let chain = |top: usize| -> Result<Vec<OfferedLayer>, BadCache> {
        layers.get(..=top).map(<[_]>::to_vec).ok_or(NO_LAYER)
    };
    offer(&records, layers, chain)
}

const NO_LAYER: BadCache = BadCache::Inconsistent("a record names a layer that is not there");

/// What a layer is, by what its descriptor in the cache's manifest says; `None` if that is not enough.
pub fn described(descriptor: &Descriptor) -> Option<OfferedLayer> {
    let said = descriptor.annotations().as_ref()?;
    Some(OfferedLayer {
        blob: descriptor.digest().as_ref().parse().ok()?,
        size: descriptor.size(),
        media_type: descriptor.media_type().to_string(),
        diff_id: DiffId(said.get(UNCOMPRESSED)?.parse().ok()?),
        created: said.get(CREATED).and_then(|time| seconds_of(time)),
    })
}

/// What a cache config offers. What its layers are is `described` by the manifest, as BuildKit has it in registries and
/// layouts, or else in the config itself.
pub fn read_cache(config: &[u8], described: &[OfferedLayer]) -> Result<Offer, BadCache> {
    let config: Config =
        serde_json::from_slice(config).map_err(|error| BadCache::Malformed(error.to_string()))?;
    let by_digest: BTreeMap<&Digest, &OfferedLayer> =
        described.iter().map(|layer| (&layer.blob, layer)).collect();
    let mut layers = Vec::with_capacity(config.layers.len());
    for layer in &config.layers {
        let told = by_digest.get(&layer.blob).map(|told| (*told).clone()).or_else(|| layer.told());
        layers.push(told.ok_or(BadCache::Inconsistent("a layer does not say what it is"))?);
    }
    let chain = |top: usize| -> Result<Vec<OfferedLayer>, BadCache> {
        let mut chain = Vec::new();
        let mut at = i64::try_from(top).unwrap_or(i64::MAX);
        while at != -1 {
            let place = usize::try_from(at).map_err(|_| NO_LAYER)?;
            chain.push(layers.get(place).ok_or(NO_LAYER)?.clone());
            if chain.len() > MOST_LAYERS {
                return Err(BadCache::Inconsistent("the parents of a layer go round in a circle"));
            }
            at = config.layers[place].parent;
        }
        chain.reverse();
        Ok(chain)
    };
    offer(&config.records, &layers, chain)
}

fn offer(
    records: &[Record],
    layers: &[OfferedLayer],
    chain: impl Fn(usize) -> Result<Vec<OfferedLayer>, BadCache>,
) -> Result<Offer, BadCache> {
    let mut offer = Offer::new();
    for record in records {
        let Some(key) = &record.digest else { continue };
        let found = match (record.layers.first(), record.chains.first()) {
            (Some(top), _) => chain(top.layer)?,
            (None, Some(list)) => {
                let picked = list.layers.iter().take(MOST_LAYERS);
                picked.map(|at| layers.get(*at).cloned().ok_or(NO_LAYER)).collect::<Result<_, _>>()?
            }
            (None, None) => continue,
        };
        offer.insert(key.clone(), found);
    }
    Ok(offer)
}

impl Reported for BadCache {
    fn code(&self) -> Code {
        Code::new("cache", self.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str) -> CacheBlob {
        CacheBlob {
            digest: Digest::sha256(name.as_bytes()),
            size: 7,
            media_type: media::OCI_LAYER_GZIP.to_owned(),
            diff_id: DiffId(Digest::sha256(format!("{name}-tar").as_bytes())),
            created: 1,
        }
    }

    fn key(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn steps() -> Vec<CacheStep> {
        vec![
            CacheStep { key: key("base"), inputs: vec![], layers: vec![0] },
            CacheStep { key: key("one"), inputs: vec![0], layers: vec![0, 1] },
            CacheStep { key: key("two"), inputs: vec![0, 1], layers: vec![0, 2] },
            // The same blob on another one.
            CacheStep { key: key("merged"), inputs: vec![1, 2], layers: vec![0, 2, 1] },
            CacheStep { key: key("nothing"), inputs: vec![], layers: vec![] },
        ]
    }

    fn names(offer: &Offer, name: &str) -> Vec<Digest> {
        offer[&key(name)].iter().map(|layer| layer.blob.clone()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let blobs = [blob("a"), blob("b"), blob("c")];
        let config = cache_config(&blobs, &steps());
        let (_, manifest) = cache_manifest(&config, &blobs, false, false);
        let manifest: lapstrake_oci::ImageManifest = serde_json::from_slice(&manifest.bytes).unwrap();
        let described: Vec<OfferedLayer> = manifest.layers().iter().filter_map(described).collect();
        let offer = read_cache(&config.bytes, &described).unwrap();
        assert_eq!(offer[&key("one")][0].created, Some(1));
        assert!(read_cache(&config.bytes, &described[1..]).is_err());
        assert_eq!(offer.len(), 4);
        let digests =
            |at: &[usize]| -> Vec<Digest> { at.iter().map(|at| blobs[*at].digest.clone()).collect() };
        assert_eq!(names(&offer, "merged"), digests(&[0, 2, 1]));
        assert_eq!(names(&offer, "one"), digests(&[0, 1]));
        assert_eq!(offer[&key("one")][1].diff_id, blobs[1].diff_id);
        let text = String::from_utf8(config.bytes).unwrap();
        // Go has no zero parent.
        assert!(text.contains(r#""parent":-1"#) && !text.contains(r#""parent":0"#), "{text}");
        assert!(text.contains(r#""inputs":[[{"link":0}],[{"link":1}]]"#), "{text}");
    }

    #[test]
    fn an_image_carries_records_of_its_own_layers() {
        let blobs = [blob("a"), blob("b"), blob("c")];
        let layers: Vec<OfferedLayer> = blobs
            .iter()
            .map(|blob| OfferedLayer {
                blob: blob.digest.clone(),
                size: blob.size,
                media_type: blob.media_type.clone(),
                diff_id: blob.diff_id.clone(),
                created: None,
            })
            .collect();
        let offer = read_inline(&inline_cache(&blobs, &steps()), &layers).unwrap();
        assert_eq!(names(&offer, "one"), [blobs[0].digest.clone(), blobs[1].digest.clone()]);
        assert_eq!(names(&offer, "two"), [blobs[0].digest.clone(), blobs[2].digest.clone()]);
        assert_eq!(read_inline(&inline_cache(&blobs, &steps()), &layers[..1]), Err(NO_LAYER));
    }

    #[test]
    fn manifests_of_both_forms() {
        let blobs = [blob("a"), blob("a"), blob("b")];
        let config = cache_config(&blobs, &[]);
        let (media_type, manifest) = cache_manifest(&config, &blobs, false, false);
        let value: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
        assert_eq!((media_type, value["layers"].as_array().unwrap().len()), (media::OCI_MANIFEST, 2));
        assert_eq!(value["config"]["mediaType"], CACHE_CONFIG);
        let (media_type, index) = cache_manifest(&config, &blobs, true, true);
        let value: serde_json::Value = serde_json::from_slice(&index.bytes).unwrap();
        assert_eq!(
            (media_type, &value["manifests"][2]["mediaType"]),
            (media::DOCKER_INDEX, &CACHE_CONFIG.into())
        );
    }

    #[test]
    fn hostile_configs_are_refused() {
        let digest = Digest::sha256(b"x");
        let told = format!(r#""annotations":{{"diffID":"{digest}","size":1,"mediaType":"m"}}"#);
        let layers = |parent: &str| format!(r#"[{{"blob":"{digest}","parent":{parent},{told}}}]"#);
        let whole = |layers: &str, records: &str| format!(r#"{{"layers":{layers},"records":[{records}]}}"#);
        let top = format!(r#"{{"digest":"{digest}","layers":[{{"layer":0}}]}}"#);
        assert!(read_cache(whole(&layers("-1"), &top).as_bytes(), &[]).is_ok());
        for bad in [
            whole(&layers("0"), &top),
            whole(&layers("7"), &top),
            whole(&layers("-9"), &top),
            whole(&layers("-1"), &top.replace(r#""layer":0"#, r#""layer":9"#)),
            whole(&layers("-1"), &format!(r#"{{"digest":"{digest}","chains":[{{"layers":[3]}}]}}"#)),
            whole(&format!(r#"[{{"blob":"{digest}","parent":-1}}]"#), &top),
            "{".to_owned(),
        ] {
            assert!(read_cache(bad.as_bytes(), &[]).is_err(), "{bad}");
        }
    }
}
