//! The images of frontends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_graph::ImageStore;
use lapstrake_oci::{Digest, ImageConfig, Platform, Reference};
use lapstrake_ops::SharedStack;
use lapstrake_proto::pb;
use prost::Message as _;
use tonic::Status;

use super::Options;
use crate::driver::Inputs;
use crate::inputs;
use crate::jobs::{Definitions, Job};
use crate::policy::Judge;
use crate::shared::Shared;

/// The scheme of images in registries.
const IMAGE: &str = "docker-image://";
/// The label with the capabilities of a frontend.
const CAPS: &str = "moby.buildkit.frontend.caps";
/// The label of a frontend that wants no network.
const NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// The capability of frontends that take definitions as inputs.
const INPUTS: &str = "moby.buildkit.frontend.inputs";
/// The beginning of the program where an image names none.
const PROGRAM: &str = "/run";

/// The image of a frontend, with its tree.
pub(super) struct FrontendImage {
    /// The name that it was asked for by.
    pub(super) name: String,
    /// Its files.
    pub(super) tree: SharedStack,
    /// The definition of the tree.
    pub(super) definition: pb::Definition,
    config: ImageConfig,
}

/// Finds and unpacks the image `source`, or what the options put in its place.
///
/// # Errors
/// There is no such image, or it cannot be unpacked.
pub(super) async fn find(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    source: &str,
    (opt, given): (&Options, &Inputs),
) -> Result<FrontendImage, Status> {
    let found = locate(shared, job, source, (opt, given)).await;
    let named = |report: Report| {
        job.status(&Report::new(format!("frontend {source}: {report}")).with_fault(report.fault()))
    };
    let (definition, config) = found.map_err(named)?;
    let tree = inputs::solved(shared, job, &definition).await.map_err(named)?;
    Ok(FrontendImage { name: source.to_owned(), tree, definition, config })
}

async fn locate(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    source: &str,
    (opt, given): (&Options, &Inputs),
) -> Outcome<(pb::Definition, ImageConfig)> {
    let replaced = replacement(source, opt);
    if let Some(input) = replaced.and_then(|value| value.strip_prefix("input:")) {
        let missing = || Report::new(format!("invalid frontend input {input}")).with_fault(Fault::Usage);
        let definition = given.get(input).cloned().ok_or_else(missing)?;
        let metadata = opt.get(&format!("input-metadata:{input}"));
        let config = metadata.map(|text| inputs::config(text)).transpose()?.flatten();
        return Ok((definition, config.unwrap_or_default()));
    }
    let name = match replaced {
        None => source,
        Some(value) => value.strip_prefix(IMAGE).ok_or_else(|| {
            Report::new(format!("a frontend cannot come from `{value}`: give an image or an input"))
                .with_fault(Fault::Usage)
        })?,
    };
    let bad = |error| Report::new(format!("invalid reference `{name}`: {error}")).with_fault(Fault::Usage);
    let mut reference: Reference = name.parse().map_err(bad)?;
    if let Some(judge) = Judge::of(shared, job, &[]).map_err(|status| job.refused(&status))? {
        reference = judge.image(&reference, &Platform::host()).await.map_err(Report::new)?;
    }
    let definitions = Definitions::of(shared, job, &[]).await?;
    let images = &definitions.tools.images;
    let found = images.resolve(&reference, &ImageStore::Registry, &Platform::host()).await?;
    let pinned = reference.with_digest(found.digest().clone());
    Ok((of_image(&pinned), found.config))
}

/// The value that a named context puts in the place of the image `source`.
fn replacement<'o>(source: &str, opt: &'o Options) -> Option<&'o String> {
    let reference: Reference = source.parse().ok()?;
    let name = reference.familiar();
    let name = name.strip_suffix(":latest").unwrap_or(&name);
    let platform = Platform::host();
    opt.get(&format!("context:{name}::{platform}")).or_else(|| opt.get(&format!("context:{name}")))
}

/// The definition of an image's tree.
fn of_image(reference: &Reference) -> pb::Definition {
    let attrs = [("image.recordtype".to_owned(), "frontend".to_owned())].into();
    let source = pb::SourceOp { identifier: format!("{IMAGE}{reference}"), attrs };
    let platform = Platform::host();
    let platform = pb::Platform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..pb::Platform::default()
    };
    let op = pb::Op { op: Some(pb::op::Op::Source(source)), platform: Some(platform), ..pb::Op::default() };
    let op = op.encode_to_vec();
    let input = pb::Input { digest: Digest::sha256(&op).to_string(), index: 0 };
    let last = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
    pb::Definition { def: vec![op, last], ..pb::Definition::default() }
}

/// The capabilities in a comma-separated list, without what each may say after a plus.
fn caps(text: &str) -> BTreeSet<&str> {
    let names = text.split(',').map(|cap| cap.split('+').next().unwrap_or(cap));
    names.filter(|name| !name.is_empty()).collect()
}

impl FrontendImage {
    /// Whether the frontend can do what `opt` asks for.
    ///
    /// # Errors
    /// [`tonic::Code::Unimplemented`] for a capability that it does not have.
    pub(super) fn check_caps(&self, opt: &Options, inputs: &Inputs) -> Result<(), Status> {
        let own = caps(self.label(CAPS));
        let mut asked = caps(opt.get("frontend.caps").map_or("", String::as_str));
        if !inputs.is_empty() {
            asked.insert(INPUTS);
        }
        match asked.difference(&own).next() {
            Some(cap) => Err(Status::unimplemented(format!("unsupported frontend capability {cap}"))),
            None => Ok(()),
        }
    }

    fn label(&self, name: &str) -> &str {
        self.config.config.labels.get(name).map_or("", String::as_str)
    }

    /// Whether the frontend runs without a network.
    pub(super) fn has_no_network(&self) -> bool {
        matches!(self.label(NO_NETWORK), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    /// The program with its arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        self.config.config.entrypoint.clone().unwrap_or_else(|| vec![PROGRAM.to_owned()])
    }

    /// The environment that the image names.
    pub(super) fn environment(&self) -> Vec<String> {
        self.config.config.env.clone()
    }

    /// The directory that the program begins in.
    pub(super) fn directory(&self) -> String {
        let dir = &self.config.config.working_dir;
        if dir.is_empty() { "/".to_owned() } else { dir.clone() }
    }
}

/// Options as the environment variables that a frontend reads them from.
pub(super) fn variables(opt: &BTreeMap<String, String>) -> impl Iterator<Item = String> + '_ {
    opt.iter()
        .enumerate()
        .map(|(number, (key, value))| format!("BUILDKIT_FRONTEND_OPT_{number}={key}={value}"))
}
