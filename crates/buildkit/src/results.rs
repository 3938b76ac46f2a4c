//! Results that a client has put together: references of several solves, and what it says of the images.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use lapstrake_build::{Build, Delivered, Described, Trace, export};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_graph::ImageDraft;
use lapstrake_oci::{ImageConfig, Platform};
use lapstrake_ops::SharedStack;
use lapstrake_proto::moby::buildkit::v1::Exporter;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_proto::moby::exporter::v1::exporter_client::ExporterClient;
use lapstrake_proto::moby::exporter::v1::{FinalizeExportRequest, FindExportersRequest};
use serde::Deserialize;
use tonic::{Code, Status};

use crate::definitions::{empty_image, image_config};
use crate::jobs::{Definitions, Job, Prepared};
use crate::reference;
use crate::requested;
use crate::shared::Shared;
use crate::translate;

/// The metadata with the config of an image.
const CONFIG: &str = "containerimage.config";
/// The metadata with the platforms of references.
const PLATFORMS: &str = "refs.platforms";
/// The metadata with the name of the image.
const NAME: &str = "image.name";
/// The beginning of metadata that the client gets back.
const ANSWER: &str = "frontend.";
/// The metadata with the latest time of new files, in seconds since 1970.
const EPOCH: &str = "source.date.epoch";

/// The result that a client returns.
pub(crate) struct Results {
    /// The references by the names that the client gives them; one with the name `""` stands alone.
    references: BTreeMap<String, String>,
    /// Whether the client gave the references names: then the result is an index.
    named: bool,
    metadata: BTreeMap<String, Vec<u8>>,
}

/// The value of [`PLATFORMS`].
#[derive(Default, Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms", default)]
    all: Vec<NamedPlatform>,
}

/// The platform of a reference.
#[derive(Deserialize)]
struct NamedPlatform {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Platform", default)]
    platform: GoPlatform,
}

/// A platform as Go's decoder takes it: missing fields are empty.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GoPlatform {
    architecture: String,
    os: String,
    #[serde(rename = "os.version")]
    os_version: String,
    #[serde(rename = "os.features")]
    os_features: Vec<String>,
    variant: String,
}

impl From<GoPlatform> for Platform {
    fn from(platform: GoPlatform) -> Platform {
        let GoPlatform { architecture, os, os_version, os_features, variant } = platform;
        Platform { os_version, os_features, ..Platform::new(&os, &architecture, &variant) }
    }
}

impl Results {
    /// Reads the result that a client returns.
    ///
    /// # Errors
    /// The result has attestations, which are not built yet.
    pub(crate) fn of(result: api::Result) -> Outcome<Results> {
        if result.attestations.values().any(|all| !all.attestation.is_empty()) {
            let text = "attestations of a frontend are not supported by `lapstrake serve` yet";
            return Err(Report::new(text).with_fault(Fault::Usage));
        }
        let one = |id: String| BTreeMap::from([(String::new(), id)]);
        let (references, named) = match result.result {
            None => (BTreeMap::new(), false),
            Some(Value::Ref(reference)) => (one(reference.id), false),
            Some(Value::RefDeprecated(id)) => (one(id), false),
            Some(Value::Refs(all)) => {
                (all.refs.into_iter().map(|(name, reference)| (name, reference.id)).collect(), true)
            }
            Some(Value::RefsDeprecated(all)) => (all.refs.into_iter().collect(), true),
        };
        Ok(Results { references, named, metadata: result.metadata.into_iter().collect() })
    }

    /// The part of the metadata that the client of the build gets back.
    pub(crate) fn answer(&self) -> BTreeMap<String, String> {
        let own = self.metadata.iter().filter(|(key, _)| key.starts_with(ANSWER));
        own.map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned())).collect()
    }

    /// Whether the client returns no tree, not even the empty one: then there is nothing to export.
    pub(crate) fn is_empty(&self) -> bool {
        self.references.is_empty()
    }

    /// The result of this server that the client returns just as it was given.
    ///
    /// # Errors
    /// A reference that does not exist.
    pub(crate) fn one_result(&self, job: &Job) -> Outcome<Option<Arc<Prepared>>> {
        let mut found: Option<Arc<Prepared>> = None;
        for id in self.references.values() {
            if id.is_empty() {
                return Ok(None);
            }
            let prepared = find(job, id)?.0;
            if found.as_ref().is_some_and(|found| !Arc::ptr_eq(found, &prepared)) {
                return Ok(None);
            }
            found = Some(prepared);
        }
        let asks = job.request.enable_session_exporter;
        let same = |prepared: &Arc<Prepared>| !asks && prepared.described.get() == Some(&self.metadata);
        Ok(found.filter(same))
    }

    /// Solves all references, and brings the results to the outputs of the build.
    ///
    /// # Errors
    /// A step fails, what the client says of the images cannot be read, or an output cannot be written.
    pub(crate) async fn deliver(&self, shared: &Arc<Shared>, job: &Arc<Job>) -> Outcome<Delivered> {
        let definitions = Definitions::of(shared, job, &[]).await?;
        let name = self.metadata.get(NAME).map(|name| String::from_utf8_lossy(name).into_owned());
        let found = self.exporters_of_session(job).await?;
        let exporters = translate::with_annotations(&job.request, &found, &self.metadata);
        let (tools, mut resolved) = definitions.for_export(&exporters, (self.named, name.as_deref()))?;
        resolved.more_secrets = job.secrets();
        let platforms = self.platforms()?;
        // The empty tree, of which nobody has said a platform, is the answer to a question, say.
        let has_platforms =
            self.metadata.contains_key(PLATFORMS) || self.references.values().any(|id| !id.is_empty());
        if has_platforms
            && let Some(text) =
                requested::mismatch(job, self.named, platforms.iter().map(|(_, platform)| platform))
        {
            job.warn(text);
        }
        let names = self.names(&platforms)?;
        let solving = names.iter().map(|name| self.solved(shared, job, name));
        let solved = try_join_all(solving).await?;
        let described = |(name, stack)| Ok::<_, Report>((self.described(name, &platforms)?, stack));
        let results = names.iter().copied().zip(solved).map(described).collect::<Outcome<Vec<_>>>()?;
        let mut trace = Trace { build: job.id.clone(), steps: job.steps().await, ..Trace::default() };
        let caller = definitions.caller();
        let this = Build { worker: &shared.worker, client: &*caller, progress: job.progress() };
        let delivered = export(&this, (tools, resolved), results, &mut trace).await;
        job.answer(caller.take_answers());
        delivered
    }

    /// The exporters that the client's session names for the results.
    async fn exporters_of_session(&self, job: &Job) -> Outcome<Vec<Exporter>> {
        let Some(session) = job.session.as_ref().filter(|_| job.request.enable_session_exporter) else {
            return Ok(Vec::new());
        };
        let asked = FindExportersRequest {
            metadata: self.metadata.clone(),
            refs: self.references.values().filter(|id| !id.is_empty()).cloned().collect(),
        };
        let answer = ExporterClient::new(session.channel()).find_exporters(asked).await;
        let found = match answer {
            Ok(answer) => answer.into_inner().exporters,
            Err(status) if is_left_out(&status) => Vec::new(),
            Err(status) => return Err(report(&status)),
        };
        Ok(found.into_iter().map(|one| Exporter { r#type: one.r#type, attrs: one.attrs }).collect())
    }

    /// Solves the reference `name`. The record of the build gets the reports of the steps, however the steps end.
    async fn solved(&self, shared: &Arc<Shared>, job: &Arc<Job>, name: &str) -> Outcome<SharedStack> {
        let id = self.references.get(name).map_or("", String::as_str);
        if id.is_empty() {
            return Ok(SharedStack::default());
        }
        let (prepared, target) = find(job, id)?;
        let planned = prepared.planned.lock().await;
        let planned = planned.as_ref().ok_or_else(|| Report::new("the result was returned already"))?;
        let number = reference::number(planned, target).map_err(|status| report(&status))?;
        let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
        let mut steps = Vec::new();
        let solved = planned.solve_target(&this, number, &mut steps).await;
        job.add_steps(steps).await;
        solved
    }

    /// The names of the references, in the order of the platforms, which is that of the index.
    fn names<'r>(&'r self, platforms: &'r [(String, Platform)]) -> Outcome<Vec<&'r str>> {
        if !self.named {
            return Ok(self.references.keys().map(String::as_str).collect());
        }
        if platforms.is_empty() {
            return Err(Report::new("unable to export multiple refs, missing platforms mapping"));
        }
        if platforms.len() != self.references.len() {
            let (told, given) = (platforms.len(), self.references.len());
            return Err(Report::new(format!("number of platforms does not match references {told} {given}")));
        }
        let known = |name: &'r str| match self.references.contains_key(name) {
            true => Ok(name),
            false => Err(Report::new(format!("failed to find ref for ID {name}"))),
        };
        platforms.iter().map(|(name, _)| known(name)).collect()
    }

    /// The platforms of the references by their names, in the client's order.
    fn platforms(&self) -> Outcome<Vec<(String, Platform)>> {
        let Some(bytes) = self.metadata.get(PLATFORMS) else { return Ok(Vec::new()) };
        let read: Option<Platforms> = serde_json::from_slice(bytes)
            .map_err(|error| Report::new(format!("failed to parse platforms passed to exporter: {error}")))?;
        let read = read.filter(|read| !read.all.is_empty());
        let read = read.ok_or_else(|| Report::new("invalid empty platforms index for exporter"))?;
        for NamedPlatform { id, platform } in &read.all {
            if id.is_empty() {
                return Err(Report::new("invalid empty platform key for exporter"));
            }
            if platform.os.is_empty() || platform.architecture.is_empty() {
                let text = format!("{}/{}", platform.os, platform.architecture);
                return Err(Report::new(format!("invalid platform value {text} for exporter")));
            }
        }
        Ok(read.all.into_iter().map(|one| (one.id, one.platform.into())).collect())
    }

    /// The image of the reference `name`, as the client describes it.
    fn described(&self, name: &str, platforms: &[(String, Platform)]) -> Outcome<Described> {
        let config = match name {
            "" => None,
            name => self.metadata.get(&format!("{CONFIG}/{name}")),
        };
        let config = config.or_else(|| self.metadata.get(CONFIG)).filter(|bytes| !bytes.is_empty());
        let config = config.map(|bytes| image_config(bytes)).transpose()?;
        // The platform of a reference without a name is the only one.
        let told =
            platforms.iter().find(|(id, _)| name.is_empty() || id == name).map(|(_, platform)| platform);
        let own = config.as_ref().filter(|config| !config.os.is_empty()).map(ImageConfig::platform);
        let platform = told.cloned().or(own).unwrap_or_else(Platform::host);
        let mut image = empty_image(&platform);
        if let Some(config) = config {
            image = ImageDraft { config, ..image };
            image.config.rootfs.diff_ids.clear();
        }
        image.epoch = self.epoch(name)?;
        Ok(Described { platform, image })
    }

    fn epoch(&self, name: &str) -> Outcome<Option<i64>> {
        let own = self.metadata.get(&format!("{EPOCH}/{name}"));
        let Some(bytes) = own.or_else(|| self.metadata.get(EPOCH)) else { return Ok(None) };
        let text = String::from_utf8_lossy(bytes);
        let seconds = text.trim().parse();
        seconds.map(Some).map_err(|_| Report::new(format!("invalid SOURCE_DATE_EPOCH value `{text}`")))
    }
}

/// The result that a reference names, and the name of its target.
fn find<'i>(job: &Job, id: &'i str) -> Outcome<(Arc<Prepared>, &'i str)> {
    let (result, target) = job.split(id);
    Ok((job.result(result).map_err(|status| report(&status))?, target))
}

fn report(status: &Status) -> Report {
    Report::new(status.message().to_owned())
}

/// Tells the client's session what the exporters have answered, if it wants to know.
///
/// # Errors
/// The client does not agree.
pub(crate) async fn finalize_export(job: &Job, answer: &BTreeMap<String, String>) -> Result<(), Status> {
    let Some(session) = job.session.as_ref().filter(|_| job.request.enable_session_exporter) else {
        return Ok(());
    };
    let request = FinalizeExportRequest { exporter_response: answer.clone() };
    match ExporterClient::new(session.channel()).finalize_export(request).await {
        Err(status) if !is_left_out(&status) => Err(status),
        _ => Ok(()),
    }
}

/// Whether a client has no such method, or does not serve it now.
fn is_left_out(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(names: &[&str], platforms: &str) -> Results {
        let reference = |name: &&str| ((*name).to_owned(), api::Ref { id: "x".to_owned(), def: None });
        let refs = names.iter().map(reference).collect();
        let metadata = [(PLATFORMS.to_owned(), platforms.as_bytes().to_vec())].into();
        let result = Some(Value::Refs(api::RefMap { refs }));
        Results::of(api::Result { result, metadata, ..api::Result::default() }).unwrap()
    }

    /// An index has the client's order, and each reference a platform.
    #[test]
    fn references_have_the_order_of_their_platforms() {
        let platform =
            |id: &str| format!(r#"{{"ID":"{id}","Platform":{{"os":"linux","architecture":"{id}"}}}}"#);
        let list = |ids: &[&str]| {
            let all: Vec<String> = ids.iter().map(|id| platform(id)).collect();
            format!(r#"{{"Platforms":[{}]}}"#, all.join(","))
        };
        let two = results(&["a", "b"], &list(&["b", "a"]));
        let platforms = two.platforms().unwrap();
        assert_eq!(two.names(&platforms).unwrap(), ["b", "a"]);
        assert_eq!(two.described("a", &platforms).unwrap().platform.architecture, "a");
        for (names, told, error) in [
            (&["a", "b"][..], list(&["a"]), "number of platforms"),
            (&["a"], list(&["b"]), "failed to find ref"),
        ] {
            let results = results(names, &told);
            let refused = results.names(&results.platforms().unwrap()).unwrap_err();
            assert!(refused.to_string().contains(error), "{refused}");
        }
        let refused = two.names(&[]).unwrap_err();
        assert!(refused.to_string().contains("missing platforms"), "{refused}");
    }
}
