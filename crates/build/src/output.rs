//! `-o`: where a result goes, and in which form. A key that a type does not have is refused by its name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lapstrake_diag::Usage;
use lapstrake_go::{csv, parse_bool};
use lapstrake_oci::{Platform, Reference};
use lapstrake_outputs::{Encoding, IndexNotes, LayerForm};

/// How an image is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOutput {
    /// Further names.
    pub names: Vec<Reference>,
    /// Whether the result says a further name: `name=*`.
    pub named_by_result: bool,
    /// Whether no time in new layers is later than the epoch.
    pub rewrite: bool,
    /// The epoch in place of the build's own; `Some(None)` is none.
    pub epoch: Option<Option<i64>>,
    /// Blobs and manifest.
    pub encoding: Encoding,
    /// Annotations of manifests, which may be for one platform only.
    pub annotations: Vec<Annotation>,
    /// Annotations of an index.
    pub index: IndexNotes,
    /// Whether the local store keeps it.
    pub store: bool,
    /// Whether the files of its layers are unpacked there before any step needs them.
    pub unpack: bool,
    /// Whether it is also named by its digest.
    pub canonical: bool,
    /// Whether its manifest is made even where nothing else needs it, so that the caller learns the digest.
    pub needs_manifest: bool,
    /// A name that it has with its digest, without a tag.
    pub dangling: Option<Reference>,
    /// Only if there is no other name.
    pub dangling_alone: bool,
    /// Whether registries may be without TLS.
    pub insecure: bool,
}

impl Default for ImageOutput {
    fn default() -> ImageOutput {
        ImageOutput {
            names: Vec::new(),
            named_by_result: false,
            rewrite: false,
            epoch: None,
            encoding: Encoding::default(),
            annotations: Vec::new(),
            index: IndexNotes::default(),
            store: true,
            unpack: false,
            canonical: false,
            needs_manifest: false,
            dangling: None,
            dangling_alone: false,
            insecure: false,
        }
    }
}

/// An annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// For images of this platform.
    pub platform: Option<Platform>,
    /// Of what.
    pub of: Of,
    pub key: String,
    pub value: String,
}

/// The target of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The manifest.
    Manifest,
    /// The manifest where it is listed.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The index where it is listed.
    IndexDescriptor,
}

/// How an image is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushTo {
    /// Under its tags.
    Tags,
    /// Without a tag.
    Digest,
}

/// A destination of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The local store, under further names, and the registries that the names say.
    Image { image: ImageOutput, push: Option<PushTo> },
    /// An archive; without a file, to standard output.
    Archive { docker: bool, dest: Option<PathBuf>, image: ImageOutput },
    /// A layout in a directory.
    Layout { docker: bool, dest: PathBuf, image: ImageOutput },
    /// A running Docker.
    Engine { image: ImageOutput },
    /// The root as a tar; without a file, to standard output.
    Tar { dest: Option<PathBuf>, root: RootOutput },
    /// The root's files in a directory; what else is there goes, where `delete`.
    Local { dest: PathBuf, root: RootOutput, delete: bool },
    /// Nowhere: only the cache has it.
    Cache,
}

/// A root that leaves as files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootOutput {
    /// Whether it is in a directory with the platform's name; unsaid where there are several platforms.
    pub split: Option<bool>,
    /// The epoch in place of the build's own; `Some(None)` is none.
    pub epoch: Option<Option<i64>>,
}

impl Output {
    /// Whether the result's files are needed, not only its layers.
    pub fn takes_files(&self) -> bool {
        match self {
            Output::Tar { .. } | Output::Local { .. } => true,
            Output::Image { image, .. } => image.unpack,
            Output::Archive { .. } | Output::Layout { .. } | Output::Engine { .. } | Output::Cache => false,
        }
    }

    /// The image that the result becomes, if it becomes one.
    pub(crate) fn image_mut(&mut self) -> Option<&mut ImageOutput> {
        match self {
            Output::Image { image, .. }
            | Output::Archive { image, .. }
            | Output::Layout { image, .. }
            | Output::Engine { image } => Some(image),
            Output::Tar { .. } | Output::Local { .. } | Output::Cache => None,
        }
    }

    /// Whether it is pushed and names no place itself.
    pub fn needs_name(&self) -> bool {
        match self {
            Output::Image { image, push: Some(_) } => image.names.is_empty() && image.dangling.is_none(),
            _ => false,
        }
    }
}

/// `-o`
pub(crate) fn output(text: &String, warnings: &mut Vec<String>) -> Result<Output, Usage> {
    if !text.contains([',', '=']) {
        return Ok(if text == "-" {
            Output::Tar { dest: None, root: RootOutput::default() }
        } else {
            Output::Local { dest: PathBuf::from(text), root: RootOutput::default(), delete: false }
        });
    }
    let bad = |why: String| Usage(format!("-o {text}: {why}"));
    let (output, told) = Keys::parse(text).and_then(of_type).map_err(bad)?;
    warnings.extend(told);
    Ok(output)
}

/// The output, and warnings about its keys.
fn of_type(mut keys: Keys) -> Result<(Output, Vec<String>), String> {
    let kind = keys.take("type").ok_or("type is required for output")?;
    let dest = keys.take("dest").map(PathBuf::from);
    let file = dest.clone().filter(|dest| dest.as_os_str() != "-");
    let output = match kind.as_str() {
        "image" | "registry" => {
            let push = keys.flag("push")?.unwrap_or(kind == "registry");
            let by_digest = keys.flag("push-by-digest")?.unwrap_or(false);
            let image = stored(&mut keys)?;
            let push = push.then_some(if by_digest { PushTo::Digest } else { PushTo::Tags });
            Output::Image { image, push }
        }
        "oci" | "docker" => {
            let docker = kind == "docker";
            let image = image(&mut keys)?;
            match (keys.flag("tar")?.unwrap_or(true), file) {
                (true, dest) => Output::Archive { docker, dest, image },
                (false, Some(dest)) => Output::Layout { docker, dest, image },
                (false, None) => return Err("a directory needs `dest=DIR`".to_owned()),
            }
        }
        "tar" => Output::Tar { dest: file, root: root(&mut keys)? },
        "local" => {
            let delete = match keys.take("mode").as_deref() {
                None | Some("copy") => false,
                Some("delete") => true,
                Some(other) => return Err(format!("mode `{other}` is neither copy nor delete")),
            };
            Output::Local { dest: dest.clone().ok_or("no dest")?, root: root(&mut keys)?, delete }
        }
        "cacheonly" => Output::Cache,
        other => return Err(format!("type `{other}` is not supported")),
    };
    if matches!(output, Output::Image { .. } | Output::Cache) && dest.is_some() {
        return Err(format!("type={kind} has no `dest`"));
    }
    Ok((output, keys.end(&kind)?))
}

/// Keys of what leaves as files.
fn root(keys: &mut Keys) -> Result<RootOutput, String> {
    Ok(RootOutput { split: keys.flag("platform-split")?, epoch: epoch(keys)? })
}

fn epoch(keys: &mut Keys) -> Result<Option<Option<i64>>, String> {
    keys.take("source-date-epoch").map(|value| seconds(&value)).transpose()
}

/// Keys of images that have a name somewhere.
fn stored(keys: &mut Keys) -> Result<ImageOutput, String> {
    let mut image = image(keys)?;
    image.store = keys.flag("store")?.unwrap_or(true);
    image.canonical = keys.flag("name-canonical")?.unwrap_or(false);
    image.insecure = keys.flag("registry.insecure")?.unwrap_or(false);
    // The letter that is missing is missing in BuildKit.
    image.dangling_alone = keys.flag("danging-name-empty-only")?.unwrap_or(false);
    if let Some(prefix) = keys.take("dangling-name-prefix") {
        let parsed = Reference::new_name(&prefix)
            .map_err(|error| format!("dangling-name-prefix `{prefix}`: {error}"))?;
        image.dangling = Some(parsed);
    }
    image.unpack = keys.flag("unpack")?.unwrap_or(false);
    if image.unpack && image.rewrite {
        return Err("`rewrite-timestamp` conflicts with `unpack`: unpacked files keep their times".to_owned());
    }
    Ok(image)
}

/// Keys of all images.
fn image(keys: &mut Keys) -> Result<ImageOutput, String> {
    let mut image = ImageOutput::default();
    for name in keys.take("name").iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty()) {
        if name == "*" {
            image.named_by_result = true;
            continue;
        }
        image
            .names
            .push(Reference::new_name(name).map_err(|error| format!("invalid name `{name}`: {error}"))?);
    }
    image.rewrite = keys.flag("rewrite-timestamp")?.unwrap_or(false);
    image.epoch = epoch(keys)?;
    encoding(keys, &mut image.encoding)?;
    let annotations = keys.annotations().into_iter().map(|(key, value)| annotation(&key, value));
    image.annotate(&annotations.collect::<Result<Vec<_>, _>>()?);
    let listed = |annotation: &Annotation| annotation.of != Of::Manifest;
    if image.encoding.docker_types
        && (image.index != IndexNotes::default() || image.annotations.iter().any(listed))
    {
        return Err("cannot export annotations with \"oci-mediatypes=false\"".to_owned());
    }
    Ok(image)
}

/// Seconds since 1970; nothing means none.
fn seconds(value: &str) -> Result<Option<i64>, String> {
    let parsed = || value.parse().map_err(|_| format!("invalid SOURCE_DATE_EPOCH: {value}"));
    if value.is_empty() { Ok(None) } else { parsed().map(Some) }
}

/// Keys about blobs and manifests.
pub(crate) fn encoding(keys: &mut Keys, encoding: &mut Encoding) -> Result<(), String> {
    if let Some(value) = keys.take("compression") {
        encoding.form = match value.as_str() {
            "gzip" => LayerForm::Gzip,
            "zstd" => LayerForm::Zstd,
            "uncompressed" => LayerForm::Plain,
            "estargz" => LayerForm::Estargz,
            other => {
                return Err(format!("compression `{other}` is not one of uncompressed, gzip, zstd, estargz"));
            }
        };
    }
    if let Some(value) = keys.take("compression-level") {
        let most = if encoding.form == LayerForm::Zstd { 22 } else { 9 };
        let level = value.parse().ok().filter(|level| *level <= most);
        encoding.level =
            Some(level.ok_or_else(|| format!("compression-level `{value}` is not 0 to {most}"))?);
    }
    encoding.force = keys.flag("force-compression")?.unwrap_or(false);
    encoding.docker_types = !keys.flag("oci-mediatypes")?.unwrap_or(true);
    if encoding.docker_types && encoding.form == LayerForm::Estargz {
        keys.warnings.push(
            "warning: compression=estargz needs the OCI's media types: oci-mediatypes=false is not followed"
                .to_owned(),
        );
        encoding.docker_types = false;
    }
    encoding.nondistributable = keys.flag("prefer-nondist-layers")?.unwrap_or(false);
    Ok(())
}

/// `annotation[-TYPE][[PLATFORM]].KEY`; as buildx's `--annotation` has it, `[TYPE[[PLATFORM]]:]KEY` comes here too.
fn annotation(key: &str, value: String) -> Result<Annotation, String> {
    let bad = |why: &str| format!("`{key}`: {why}");
    // A platform has no dot, a key may have any number of them.
    let (place, name) = key.split_once('.').ok_or_else(|| bad("an annotation has no name"))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad("an annotation has no name"));
    }
    let (kind, platform) = match place.split_once('[') {
        Some((kind, platform)) => {
            let platform = platform.strip_suffix(']').ok_or_else(|| bad("`[` has no `]`"))?;
            (kind, Some(platform.parse::<Platform>().map_err(|error| bad(&error.to_string()))?))
        }
        None => (place, None),
    };
    let of = match kind.strip_prefix("annotation").unwrap_or(kind) {
        "" | "-manifest" => Of::Manifest,
        "-manifest-descriptor" => Of::ManifestDescriptor,
        "-index" => Of::Index,
        "-index-descriptor" => Of::IndexDescriptor,
        _ => return Err(bad("unrecognized annotation type")),
    };
    Ok(Annotation { platform, of, key: name.to_owned(), value })
}

/// `--annotation [TYPE[[PLATFORM]][,TYPE]:]KEY=VALUE`, for outputs that are images.
pub(crate) fn annotations(texts: &[String]) -> Result<Vec<Annotation>, Usage> {
    let mut all = Vec::new();
    for text in texts {
        let bad = |why: String| Usage(format!("--annotation {text}: {why}"));
        let (name, value) = text.split_once('=').ok_or_else(|| bad("expected key=value".to_owned()))?;
        let (types, name) = name.split_once(':').unwrap_or(("manifest", name));
        for kind in types.split(',') {
            all.push(annotation(&format!("annotation-{kind}.{name}"), value.to_owned()).map_err(bad)?);
        }
    }
    Ok(all)
}

impl ImageOutput {
    /// Whether it can leave without the layers that the place it goes to has already.
    pub fn needs_no_layers(&self) -> bool {
        let Self { store, unpack, canonical, dangling, encoding, .. } = self;
        // A whole eStargz image may need other layers than its base has, a manifest without a push all of them.
        !store && !unpack && !canonical && dangling.is_none() && encoding.form != LayerForm::Estargz
    }

    /// Adds annotations.
    pub fn annotate(&mut self, all: &[Annotation]) {
        for annotation in all {
            let index = match annotation.of {
                Of::Manifest | Of::ManifestDescriptor => {
                    self.annotations.push(annotation.clone());
                    continue;
                }
                Of::Index => &mut self.index.annotations,
                Of::IndexDescriptor => &mut self.index.descriptor_annotations,
            };
            index.insert(annotation.key.clone(), annotation.value.clone());
        }
    }

    /// How an image for `platform`, one of `all`, is written down.
    pub fn encoding_for(&self, platform: &Platform, all: &[Platform]) -> Result<Encoding, Usage> {
        let mut encoding = self.encoding.clone();
        // What is said of one platform stands before what is said of all.
        for narrow in [false, true] {
            for annotation in self.annotations.iter().filter(|own| own.platform.is_some() == narrow) {
                if let Some(other) = annotation.platform.as_ref().filter(|other| !all.contains(other)) {
                    return Err(Usage(format!("invalid annotation: no platform {other} found in source")));
                }
                if annotation.platform.as_ref().is_some_and(|own| own != platform) {
                    continue;
                }
                let said = match annotation.of {
                    Of::ManifestDescriptor => &mut encoding.descriptor_annotations,
                    _ => &mut encoding.annotations,
                };
                said.insert(annotation.key.clone(), annotation.value.clone());
            }
        }
        Ok(encoding)
    }
}

/// The keys of an output that were not read yet.
pub(crate) struct Keys {
    left: BTreeMap<String, String>,
    /// Warnings about the keys that were read.
    warnings: Vec<String>,
}

impl Keys {
    pub(crate) fn parse(text: &str) -> Result<Keys, String> {
        let mut keys = BTreeMap::new();
        let fields = csv::fields(text).map_err(|error| error.to_string())?;
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            keys.insert(key.trim().to_lowercase(), value.to_owned());
        }
        // The names of annotations have capital letters.
        for field in &fields {
            if let Some((key, value)) =
                field.split_once('=').filter(|(key, _)| key.trim().starts_with("annotation"))
            {
                keys.remove(&key.trim().to_lowercase());
                keys.insert(key.trim().to_owned(), value.to_owned());
            }
        }
        Ok(Keys { left: keys, warnings: Vec::new() })
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        self.left.remove(key)
    }

    /// A boolean; nothing means `true`.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("") => Ok(Some(true)),
            Some(value) => parse_bool(value)
                .map(Some)
                .ok_or_else(|| format!("`{key}={value}` is neither true nor false")),
        }
    }

    fn annotations(&mut self) -> Vec<(String, String)> {
        let is_one =
            |key: &str| key.strip_prefix("annotation").is_some_and(|rest| rest.starts_with(['.', '-', '[']));
        self.left.extract_if(.., |key, _| is_one(key)).collect()
    }

    /// Refuses keys that were not read, and gives the warnings about the others.
    pub(crate) fn end(self, kind: &str) -> Result<Vec<String>, String> {
        match self.left.keys().next().map(String::as_str) {
            None => Ok(self.warnings),
            Some(key @ ("oci-artifact" | "attestation-inline" | "attestation-prefix")) => {
                Err(format!("`{key}` is not supported: attestations are not supported yet"))
            }
            Some(key @ "unsafe-internal-store-allow-incomplete") => Err(format!(
                "`{key}` is not supported: the store keeps whole images; with a push, `store=false` keeps nothing here"
            )),
            Some(key) => Err(format!("type={kind} has no key `{key}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Output, String> {
        output(&text.to_owned(), &mut Vec::new()).map_err(|error| error.to_string())
    }

    fn image_of(text: &str) -> ImageOutput {
        match read(text).unwrap() {
            Output::Image { image, .. } | Output::Archive { image, .. } | Output::Layout { image, .. } => {
                image
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn outputs() {
        let local =
            |dest: &str| Output::Local { dest: dest.into(), root: RootOutput::default(), delete: false };
        assert_eq!(read("out"), Ok(local("out")));
        assert_eq!(read("-"), Ok(Output::Tar { dest: None, root: RootOutput::default() }));
        assert_eq!(read("type=local,dest=out"), Ok(local("out")));
        assert_eq!(
            read("type=local,dest=out,mode=delete,platform-split=true"),
            Ok(Output::Local {
                dest: "out".into(),
                root: RootOutput { split: Some(true), ..RootOutput::default() },
                delete: true
            })
        );
        assert_eq!(
            read("type=tar,source-date-epoch=7"),
            Ok(Output::Tar { dest: None, root: RootOutput { split: None, epoch: Some(Some(7)) } })
        );
        assert_eq!(read("type=cacheonly"), Ok(Output::Cache));
        assert!(matches!(read("type=registry"), Ok(Output::Image { push: Some(PushTo::Tags), .. })));
        assert!(matches!(
            read("type=image,push=true,push-by-digest=true"),
            Ok(Output::Image { push: Some(PushTo::Digest), .. })
        ));
        assert!(matches!(read("type=oci,tar=false,dest=d"), Ok(Output::Layout { docker: false, .. })));
        let tuned = image_of(
            "type=oci,dest=x,compression=zstd,compression-level=19,force-compression=true,prefer-nondist-layers=1",
        );
        assert_eq!((tuned.encoding.form, tuned.encoding.level), (LayerForm::Zstd, Some(19)));
        let estargz = image_of("type=oci,dest=x,compression=estargz,oci-mediatypes=false").encoding;
        assert!(estargz.form == LayerForm::Estargz && !estargz.docker_types);
        assert!(tuned.encoding.force && tuned.encoding.nondistributable);
        let named =
            image_of(r#"type=image,"name=a:1,b:2",name-canonical=,store=false,registry.insecure=true"#);
        assert_eq!(named.names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert!(named.canonical && named.insecure && !named.store);
        let dangling = image_of("type=image,dangling-name-prefix=dangling,danging-name-empty-only=true");
        assert!(dangling.dangling.is_some() && dangling.dangling_alone);
        let epoch = |text: &str| image_of(&format!("type=image,source-date-epoch={text}")).epoch;
        assert_eq!((epoch("5"), epoch("")), (Some(Some(5)), Some(None)));
    }

    #[test]
    fn annotations_for_platforms() {
        let image = image_of(
            "type=oci,annotation.org.A=1,annotation-manifest.b=2,annotation[linux/amd64].c=3,annotation-manifest-descriptor.d=4",
        );
        let amd64: Platform = "linux/amd64".parse().unwrap();
        let here = image.encoding_for(&amd64, std::slice::from_ref(&amd64)).unwrap();
        let pairs = |all: &BTreeMap<String, String>| {
            all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(pairs(&here.annotations), "b=2 c=3 org.A=1");
        assert_eq!(pairs(&here.descriptor_annotations), "d=4");
        let arm64: Platform = "linux/arm64".parse().unwrap();
        let elsewhere = image.encoding_for(&arm64, std::slice::from_ref(&arm64)).unwrap_err().to_string();
        assert_eq!(elsewhere, "invalid annotation: no platform linux/amd64 found in source");
        let both = image.encoding_for(&arm64, &[amd64, arm64.clone()]).unwrap();
        assert_eq!(pairs(&both.annotations), "b=2 org.A=1");
        let narrow =
            image_of("type=oci,annotation[linux/arm64].a=narrow,annotation.a=wide,annotation-index.i=1");
        assert_eq!(
            pairs(&narrow.encoding_for(&arm64, std::slice::from_ref(&arm64)).unwrap().annotations),
            "a=narrow"
        );
        assert_eq!(pairs(&narrow.index.annotations), "i=1");
        let given =
            annotations(&["a=b".to_owned(), "manifest,manifest-descriptor[linux/amd64]:c.d=e".to_owned()])
                .unwrap();
        assert_eq!(given.len(), 3);
        assert!(
            given[2].of == Of::ManifestDescriptor && given[2].platform.is_some() && given[2].key == "c.d"
        );
    }

    #[test]
    fn what_a_type_does_not_have_is_refused_by_name() {
        for (text, word) in [
            ("dest=x", "type is required"),
            ("type=image,dest=x", "type=image has no `dest`"),
            ("type=image,colour=red", "type=image has no key `colour`"),
            ("type=local", "no dest"),
            ("type=local,dest=x,compression=gzip", "type=local has no key `compression`"),
            ("type=tar,dest=x,mode=delete", "type=tar has no key `mode`"),
            ("type=local,dest=x,mode=move", "neither copy nor delete"),
            ("type=oci,push=true", "type=oci has no key `push`"),
            ("type=oci,tar=false", "needs `dest=DIR`"),
            ("type=image,push=maybe", "neither true nor false"),
            ("type=image,push", "invalid value push"),
            ("type=image,compression=lzma", "not one of uncompressed"),
            ("type=image,compression-level=10", "not 0 to 9"),
            ("type=image,compression=zstd,compression-level=23", "not 0 to 22"),
            ("type=image,source-date-epoch=x", "invalid SOURCE_DATE_EPOCH"),
            ("type=image,annotation.=x", "has no name"),
            ("type=image,annotation-layer.a=x", "unrecognized annotation type"),
            (
                "type=image,oci-mediatypes=false,annotation-manifest-descriptor.a=x",
                "cannot export annotations",
            ),
            ("type=image,oci-mediatypes=false,annotation-index.a=x", "cannot export annotations"),
            ("type=image,oci-artifact=true", "attestations are not supported yet"),
            ("type=image,unpack=true,rewrite-timestamp=true", "conflicts with `unpack`"),
            ("type=image,name=A B", "invalid name"),
            ("type=moby", "type `moby` is not supported"),
            ("type=image,\"name=a", "column 13: extraneous or missing \" in quoted-field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
