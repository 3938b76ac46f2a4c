//! Calls of the API as requests for builds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lapstrake_diag::{Fault, Report};
use lapstrake_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, Exporter, SolveRequest, frontend,
};
use lapstrake_request::{BuildRequest, CacheRequest, StepRequest};
use tonic::{Code, Status};

use crate::caller::Names;
use crate::caller::stores::{CACHE, IMAGES, StoreName};
use crate::uploads::{HOST, UPLOAD};

/// The attribute with the config of an image.
const CONFIG: &str = "containerimage.config";

/// A request for a build with the names of the client's directories.
#[derive(Debug)]
pub(crate) struct Translated {
    /// The request.
    pub(crate) request: BuildRequest,
    /// The names of its directories.
    pub(crate) names: Names,
    /// The upload that is the main context, as host and path of its address.
    pub(crate) upload: Option<(String, String)>,
}

/// Puts the deprecated fields of `request` where newer clients put them.
pub(crate) fn modernise(request: &mut SolveRequest) {
    let kind = std::mem::take(&mut request.exporter_deprecated);
    let attrs = std::mem::take(&mut request.exporter_attrs_deprecated);
    if request.exporters.is_empty() && !kind.is_empty() {
        request.exporters.push(Exporter { r#type: kind, attrs });
    }
    let cache = request.cache.get_or_insert_default();
    let reference = std::mem::take(&mut cache.export_ref_deprecated);
    let mut attrs = std::mem::take(&mut cache.export_attrs_deprecated);
    if !reference.is_empty() {
        attrs.insert("ref".to_owned(), reference);
        cache.exports.push(CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
    }
    let imports = std::mem::take(&mut cache.import_refs_deprecated).into_iter();
    cache.imports.extend(imports.map(|reference| CacheOptionsEntry {
        r#type: "registry".to_owned(),
        attrs: [("ref".to_owned(), reference)].into(),
    }));
}

/// The request that the Dockerfile frontend's options `opt` make, with the outputs, caches and entitlements of `solve`.
///
/// # Errors
/// [`tonic::Code::InvalidArgument`] for options with values that cannot be, [`tonic::Code::Unimplemented`] for those that are
/// not supported.
pub(crate) fn dockerfile(
    solve: &SolveRequest,
    opt: &BTreeMap<String, String>,
    imports: &[frontend::CacheOptionsEntry],
) -> Result<Translated, Status> {
    let text = |key: &str| opt.get(key).filter(|value| !value.is_empty()).cloned();
    let names = Names {
        dockerfile: text("dockerfilekey").unwrap_or_else(|| "dockerfile".to_owned()),
        file: text("filename").unwrap_or_else(|| "Dockerfile".to_owned()),
        sessions: prefixed(opt, "local-sessionid:"),
    };
    let context_key = text("contextkey").unwrap_or_else(|| "context".to_owned());
    let mut request = BuildRequest {
        syntax: text("cmdline").or_else(|| text("build-arg:BUILDKIT_SYNTAX")),
        target: text("target"),
        build_args: prefixed(opt, "build-arg:"),
        labels: prefixed(opt, "label:"),
        platforms: text("platform"),
        contexts: contexts(opt)?,
        cache: cache(solve.cache.as_ref(), opt, imports)?,
        pull: text("image-resolve-mode").is_some_and(|mode| mode == "pull"),
        steps: steps(solve, opt)?,
        outputs: outputs(&solve.exporters)?,
        ..BuildRequest::default()
    };
    if let Some(value) = text("multi-platform") {
        request.build_args.entry("BUILDKIT_MULTI_PLATFORM".to_owned()).or_insert(value);
    }
    let mut upload = None;
    let of_client = PathBuf::from(&names.dockerfile).join(&names.file);
    let address = text(&context_key).or_else(|| text("context"));
    match address {
        Some(address) if address.contains("://") || address.starts_with("git@") || remote(&address) => {
            request.context_subdir = text("contextsubdir");
            request.local_dockerfile = opt.contains_key("dockerfilekey");
            request.dockerfile =
                if request.local_dockerfile { Some(of_client) } else { text("filename").map(PathBuf::from) };
            request.context = PathBuf::from(&address);
            if let Some(path) = address.strip_prefix(UPLOAD) {
                upload = Some((HOST.to_owned(), format!("/{path}")));
                request.context = PathBuf::from("-");
            }
        }
        local => {
            request.context = PathBuf::from(local.unwrap_or(context_key));
            request.dockerfile = Some(of_client);
        }
    }
    refuse(opt)?;
    Ok(Translated { request, names, upload })
}

/// The request of a build whose graph the client has made, with the outputs, caches and entitlements of `solve`.
///
/// # Errors
/// As [`dockerfile`].
pub(crate) fn definition(
    solve: &SolveRequest,
    imports: &[frontend::CacheOptionsEntry],
) -> Result<BuildRequest, Status> {
    let none = BTreeMap::new();
    Ok(BuildRequest {
        cache: cache(solve.cache.as_ref(), &none, imports)?,
        steps: steps(solve, &none)?,
        outputs: outputs(&with_epoch(solve))?,
        ..BuildRequest::default()
    })
}

/// The config of the image, where a client without a frontend gives it to an exporter.
pub(crate) fn config_of(exporters: &[Exporter]) -> Option<&[u8]> {
    exporters.iter().find_map(|exporter| exporter.attrs.get(CONFIG)).map(String::as_bytes)
}

/// The exporters with the annotations that a result asks for, where they have none of their own, and with the epoch of the call.
pub(crate) fn with_annotations(
    solve: &SolveRequest,
    more: &[Exporter],
    metadata: &BTreeMap<String, Vec<u8>>,
) -> Vec<Exporter> {
    let mut exporters = with_epoch(solve);
    exporters.extend(more.iter().cloned());
    for Exporter { attrs, .. } in
        exporters.iter_mut().filter(|one| matches!(one.r#type.as_str(), "image" | "oci" | "docker"))
    {
        for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("annotation")) {
            let value = String::from_utf8_lossy(value).into_owned();
            attrs.entry(key.clone()).or_insert(value);
        }
    }
    exporters
}

/// The exporters with the epoch that the options of the frontend name, where they have none of their own.
fn with_epoch(solve: &SolveRequest) -> Vec<Exporter> {
    let mut exporters = solve.exporters.clone();
    let epoch = solve.frontend_attrs.get("build-arg:SOURCE_DATE_EPOCH");
    // Values that are no number name a source, which only the frontend knows.
    if let Some(epoch) = epoch.filter(|value| value.parse::<i64>().is_ok()) {
        for Exporter { attrs, .. } in &mut exporters {
            attrs.entry("source-date-epoch".to_owned()).or_insert_with(|| epoch.clone());
        }
    }
    exporters
}

/// A refusal of this module as a report.
pub(crate) fn report(status: &Status) -> Report {
    let fault = if status.code() == Code::InvalidArgument { Fault::Usage } else { Fault::Build };
    Report::new(status.message().to_owned()).with_fault(fault)
}

/// Whether `address` is that of a repository without a scheme.
fn remote(address: &str) -> bool {
    address.starts_with("github.com/") || address.split('#').next().is_some_and(|path| path.ends_with(".git"))
}

/// Refuses what changes a result and is not built yet.
fn refuse(opt: &BTreeMap<String, String>) -> Result<(), Status> {
    for key in opt.keys() {
        if key.starts_with("attest:") {
            return Err(Status::unimplemented(format!("`{key}`: attestations are not supported yet")));
        }
    }
    Ok(())
}

fn prefixed(opt: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let with =
        opt.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
    with.collect()
}

/// Named contexts, each as `NAME=VALUE`.
fn contexts(opt: &BTreeMap<String, String>) -> Result<Vec<String>, Status> {
    let mut all = Vec::new();
    for (name, value) in prefixed(opt, "context:") {
        // Of this machine's own files, a client gets none: what is not known to be elsewhere is refused.
        let value = match value.split_once(':') {
            Some(("local", directory)) => directory.to_owned(),
            // Solved before the frontend begins: see `inputs`.
            Some(("input", _)) => continue,
            // The slashes are optional.
            Some(("docker-image", image)) => {
                format!("docker-image://{}", image.strip_prefix("//").unwrap_or(image))
            }
            Some(("http" | "https" | "git" | "ssh", _)) => value,
            Some(("oci-layout", place)) => layout(place).ok_or_else(|| {
                Status::invalid_argument(format!("context {name}: could not get digest for {place}"))
            })?,
            _ if value.starts_with("git@") => value,
            Some((kind, _)) => {
                let text = format!("context {name}: contexts of type `{kind}` are not supported yet");
                return Err(Status::unimplemented(text));
            }
            None => return Err(Status::invalid_argument(format!("context {name}: `{value}` has no type"))),
        };
        all.push(format!("{name}={value}"));
    }
    Ok(all)
}

/// The address of an image in a layout of the client, `[//]STORE[:TAG]@DIGEST`, with the store's path in place of its name.
fn layout(place: &str) -> Option<String> {
    let (name, digest) = place.strip_prefix("//").unwrap_or(place).split_once('@')?;
    let store = match name.rsplit_once(':') {
        Some((store, tag)) if !tag.contains('/') => store,
        _ => name,
    };
    let store = StoreName { session: String::new(), id: format!("{IMAGES}{store}") };
    Some(format!("oci-layout://{}@{digest}", store.to_path().display()))
}

/// The options of a cache. A local cache is a content store of the client, named by `key`.
fn of_client<'a>(kind: &str, attrs: impl Iterator<Item = (&'a String, &'a String)>, key: &str) -> String {
    if kind != "local" {
        return described(kind, attrs);
    }
    let mut own: BTreeMap<String, String> = attrs.map(|(key, value)| (key.clone(), value.clone())).collect();
    // The client removes what is left over from its store itself.
    own.remove("reset");
    if let Some(place) = own.get_mut(key) {
        let store = StoreName { session: String::new(), id: format!("{CACHE}{place}") };
        *place = store.to_path().to_string_lossy().into_owned();
    }
    described(kind, own.iter())
}

fn cache(
    options: Option<&CacheOptions>,
    opt: &BTreeMap<String, String>,
    imports: &[frontend::CacheOptionsEntry],
) -> Result<CacheRequest, Status> {
    let stages = opt.get("no-cache");
    let disabled_stages =
        stages.iter().flat_map(|stages| stages.split(',')).filter(|stage| !stage.is_empty());
    let mut from: Vec<String> = options
        .iter()
        .flat_map(|cache| &cache.imports)
        .map(|from| of_client(&from.r#type, from.attrs.iter(), "src"))
        .collect();
    from.extend(imports.iter().map(|import| of_client(&import.r#type, import.attrs.iter(), "src")));
    if let Some(text) = opt.get("cache-imports").filter(|text| !text.is_empty()) {
        let bad = |error: serde_json::Error| Status::invalid_argument(format!("cache-imports: {error}"));
        let imports: Vec<Import> = serde_json::from_str(text).map_err(bad)?;
        from.extend(imports.iter().map(|import| of_client(&import.kind, import.attrs.iter(), "src")));
    }
    let old =
        opt.get("cache-from").into_iter().flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    from.extend(old.map(|name| described("registry", [(&"ref".to_owned(), &name.to_owned())].into_iter())));
    let mut unique = Vec::new();
    for text in from {
        if !unique.contains(&text) {
            unique.push(text);
        }
    }
    Ok(CacheRequest {
        disabled: stages.is_some_and(String::is_empty),
        disabled_stages: disabled_stages.map(str::to_owned).collect(),
        read_all_files: false,
        from: unique,
        to: options
            .iter()
            .flat_map(|cache| &cache.exports)
            .map(|to| of_client(&to.r#type, to.attrs.iter(), "dest"))
            .collect(),
    })
}

/// A cache to import: an element of the option `cache-imports`.
#[derive(serde::Deserialize)]
struct Import {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attrs: BTreeMap<String, String>,
}

fn steps(solve: &SolveRequest, opt: &BTreeMap<String, String>) -> Result<StepRequest, Status> {
    let text = |key: &str| opt.get(key).filter(|value| !value.is_empty()).cloned();
    let list = |key: &str| -> Result<Vec<String>, Status> {
        let Some(text) = text(key) else { return Ok(Vec::new()) };
        let bad = |error| Status::invalid_argument(format!("{key}: {error}"));
        lapstrake_go::csv::fields(&text).map_err(bad)
    };
    let hosts = list("add-hosts")?.into_iter().map(|host| host.replacen('=', ":", 1)).collect();
    let network = match text("force-network-mode").as_deref() {
        None | Some("sandbox" | "default") => String::new(),
        Some(other) => other.to_owned(),
    };
    let mut steps = StepRequest {
        network,
        allowed: solve.entitlements.clone(),
        hosts,
        hostname: text("hostname"),
        shm_size: text("shm-size"),
        ulimits: list("ulimit")?,
        ..StepRequest::default()
    };
    let limits = &mut steps.limits;
    limits.cgroup_parent = text("cgroup-parent").map(PathBuf::from);
    limits.memory = text("memory");
    limits.memory_swap = text("memory-swap");
    limits.cpu_shares = text("cpu-shares");
    limits.cpu_period = text("cpu-period");
    limits.cpu_quota = text("cpu-quota");
    limits.cpuset_cpus = text("cpuset-cpus");
    limits.cpuset_mems = text("cpuset-mems");
    Ok(steps)
}

/// The outputs in the syntax of `--output`. Those that go to the client have their number for a destination.
///
/// # Errors
/// An exporter that does not exist.
pub(crate) fn outputs(exporters: &[Exporter]) -> Result<Vec<String>, Status> {
    if exporters.is_empty() {
        return Ok(vec!["type=cacheonly".to_owned()]);
    }
    let mut all = Vec::new();
    for (number, Exporter { r#type, attrs }) in exporters.iter().enumerate() {
        let mut attrs = attrs.clone();
        // Not for the exporter: see `config_of`.
        attrs.remove(CONFIG);
        match r#type.as_str() {
            "image" => {}
            "local" | "tar" => {
                attrs.insert("dest".to_owned(), number.to_string());
            }
            "oci" | "docker" => {
                let dest = match attrs.get("tar").map(String::as_str) {
                    // A client has one store for what it gets.
                    Some("false" | "0") => {
                        let store = StoreName { session: String::new(), id: "export".to_owned() };
                        store.to_path().to_string_lossy().into_owned()
                    }
                    _ => number.to_string(),
                };
                attrs.insert("dest".to_owned(), dest);
            }
            other => return Err(Status::not_found(format!("exporter {other:?} could not be found"))),
        }
        all.push(described(r#type, attrs.iter()));
    }
    Ok(all)
}

/// `type=KIND,KEY=VALUE,…` with quotes where a value needs them.
fn described<'a>(kind: &str, attrs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let field = |text: String| {
        let quoted = text.contains([',', '"', '\n', '\r']);
        if quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    let mut fields = vec![field(format!("type={kind}"))];
    fields
        .extend(attrs.filter(|(key, _)| *key != "type").map(|(key, value)| field(format!("{key}={value}"))));
    fields.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opt(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn request(pairs: &[(&str, &str)]) -> BuildRequest {
        dockerfile(&SolveRequest::default(), &opt(pairs), &[]).unwrap().request
    }

    #[test]
    fn local_directories() {
        let plain = request(&[]);
        assert_eq!(plain.context, PathBuf::from("context"));
        assert_eq!(plain.dockerfile, Some(PathBuf::from("dockerfile/Dockerfile")));
        assert_eq!(plain.outputs, ["type=cacheonly"]);
        let named =
            request(&[("filename", "a/b"), ("context:x", "local:x1"), ("context:y", "docker-image://z")]);
        assert_eq!(named.dockerfile, Some(PathBuf::from("dockerfile/a/b")));
        assert_eq!(named.contexts, ["x=x1", "y=docker-image://z"]);
    }

    #[test]
    fn remote_contexts() {
        let git = request(&[("context", "https://host/x.git#main"), ("filename", "F")]);
        assert_eq!(git.context, PathBuf::from("https://host/x.git#main"));
        assert_eq!(git.dockerfile, Some(PathBuf::from("F")));
        let uploaded =
            dockerfile(&SolveRequest::default(), &opt(&[("context", "http://buildkit-session/abc")]), &[]);
        let uploaded = uploaded.unwrap();
        assert_eq!(uploaded.upload, Some(("buildkit-session".to_owned(), "/abc".to_owned())));
        assert_eq!(uploaded.request.context, PathBuf::from("-"));
        assert_eq!(uploaded.request.dockerfile, None);
    }

    #[test]
    fn values() {
        let built = request(&[
            ("build-arg:A", "1"),
            ("label:l", "2"),
            ("no-cache", "a,b"),
            ("add-hosts", "h=1.2.3.4,i=::1"),
            ("force-network-mode", "none"),
            ("ulimit", "nofile=1:2"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"r"}}]"#),
            ("cache-from", "r"),
        ]);
        assert_eq!(built.build_args, opt(&[("A", "1")]));
        assert_eq!(built.labels, opt(&[("l", "2")]));
        assert_eq!(built.cache.disabled_stages, ["a", "b"]);
        assert!(!built.cache.disabled && request(&[("no-cache", "")]).cache.disabled);
        assert_eq!(built.steps.hosts, ["h:1.2.3.4", "i:::1"]);
        assert_eq!((built.steps.network.as_str(), built.steps.ulimits.len()), ("none", 1));
        assert_eq!(built.cache.from, ["type=registry,ref=r"]);
    }

    #[test]
    fn outputs_are_numbered() {
        let exporter =
            |kind: &str, pairs: &[(&str, &str)]| Exporter { r#type: kind.to_owned(), attrs: opt(pairs) };
        let made = outputs(&[exporter("image", &[("name", "a,b"), ("push", "true")]), exporter("tar", &[])]);
        assert_eq!(made.unwrap(), ["type=image,\"name=a,b\",push=true", "type=tar,dest=1"]);
        assert!(outputs(&[exporter("nosuch", &[])]).is_err());
    }

    #[test]
    fn deprecated_fields() {
        let mut solve = SolveRequest { exporter_deprecated: "tar".to_owned(), ..SolveRequest::default() };
        solve.cache.get_or_insert_default().import_refs_deprecated = vec!["r".to_owned()];
        modernise(&mut solve);
        assert_eq!(solve.exporters[0].r#type, "tar");
        assert_eq!(solve.cache.unwrap().imports[0].attrs["ref"], "r");
    }

    #[test]
    fn layouts_and_caches_are_stores_of_the_client() {
        let path = |id: &str| StoreName { session: String::new(), id: id.to_owned() }.to_path();
        let import = r#"[{"Type":"local","Attrs":{"src":"/etc","digest":"d"}}]"#;
        let named = opt(&[("context:a", "oci-layout://x/y:1@sha256:d"), ("cache-imports", import)]);
        let mut solve = SolveRequest::default();
        let attrs = opt(&[("dest", "/etc"), ("reset", "true")]);
        let export = CacheOptionsEntry { r#type: "local".to_owned(), attrs };
        solve.cache.get_or_insert_default().exports.push(export);
        let request = dockerfile(&solve, &named, &[]).unwrap().request;
        assert_eq!(request.contexts, [format!("a=oci-layout://{}@sha256:d", path("oci:x/y").display())]);
        let cache = path("local:/etc");
        assert_eq!(request.cache.from, [format!("type=local,digest=d,src={}", cache.display())]);
        assert_eq!(request.cache.to, [format!("type=local,dest={}", cache.display())]);
        let without = dockerfile(&SolveRequest::default(), &opt(&[("context:a", "oci-layout:///etc")]), &[]);
        assert_eq!(without.unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn what_is_not_built_is_refused() {
        for pairs in [
            [("attest:sbom", "")],
            [("context:a", "rootfs:///etc")],
            [("context:a", "target:x")],
            [("context:a", "docker-archive:///x")],
        ] {
            let refused = dockerfile(&SolveRequest::default(), &opt(&pairs), &[]).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unimplemented, "{pairs:?}");
        }
    }
}
