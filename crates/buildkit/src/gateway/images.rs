//! What a client asks about images before it builds on them.

use std::sync::Arc;

use lapstrake_build::Tools;
use lapstrake_graph::ImageStore;
use lapstrake_llb::ClientLayout;
use lapstrake_oci::{Platform, Reference};
use lapstrake_ops::LocatedImage;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::pb;
use tonic::Status;

use crate::jobs::{Definitions, Job};
use crate::layouts::layout_of;
use crate::shared::Shared;
use crate::thread::on_thread;

/// An image that was found.
pub(super) struct Found {
    pub(super) reference: Reference,
    pub(super) digest: String,
    pub(super) config: Vec<u8>,
}

/// Facts about an image in a registry or in a layout of the client: its digest and its config.
///
/// # Errors
/// There is no such image, or the client asks for more than is built.
pub(super) async fn source(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    request: api::ResolveSourceMetaRequest,
    source: pb::SourceOp,
) -> Result<api::ResolveSourceMetaResponse, Status> {
    let (scheme, name) = source.identifier.split_once("://").unwrap_or_default();
    let layout = (scheme == "oci-layout").then(|| ClientLayout::of(&source, name));
    let image = request.image.unwrap_or_default();
    if image.attestation_chain || !image.resolve_attestations.is_empty() {
        return Err(Status::unimplemented("attestations of images are not supported yet"));
    }
    let mode = source.attrs.get("image.resolvemode").filter(|_| request.resolve_mode.is_empty());
    let mode = mode.map_or(request.resolve_mode.as_str(), String::as_str);
    let Found { reference, digest, config } =
        find(shared, job, Asked { name, mode, layout }, request.platform.as_ref()).await?;
    // The client knows a layout by its own name.
    let identifier = match scheme {
        "docker-image" => format!("{scheme}://{reference}"),
        _ => source.identifier,
    };
    let config = if image.no_config { Vec::new() } else { config };
    Ok(api::ResolveSourceMetaResponse {
        source: Some(pb::SourceOp { identifier, attrs: source.attrs }),
        image: Some(api::ResolveSourceImageResponse { digest, config }),
        ..api::ResolveSourceMetaResponse::default()
    })
}

/// An image that a client asks about.
pub(super) struct Asked<'a> {
    /// Its reference.
    pub(super) name: &'a str,
    /// How far the registry is asked.
    pub(super) mode: &'a str,
    /// The layout that has it; `None` for one in a registry.
    pub(super) layout: Option<ClientLayout>,
}

/// Finds an image with the client's logins.
///
/// # Errors
/// There is no such image, or the reference or the mode is none.
pub(super) async fn find(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    Asked { name, mode, layout }: Asked<'_>,
    platform: Option<&pb::Platform>,
) -> Result<Found, Status> {
    let bad = |error| Status::invalid_argument(format!("could not parse reference {name:?}: {error}"));
    let reference: Reference = name.parse().map_err(bad)?;
    let always = match mode {
        "" | "default" | "local" => false,
        "pull" => true,
        other => return Err(Status::invalid_argument(format!("invalid resolvemode: {other}"))),
    };
    let platform = platform.filter(|platform| !platform.os.is_empty()).map_or_else(Platform::host, read);
    let definitions = Definitions::of(shared, job, &[]).await.map_err(|report| job.status(&report))?;
    let place = match &layout {
        Some(layout) => {
            let found = layout_of(&definitions, layout, &reference).await;
            Some(found.map_err(|report| job.status(&report))?)
        }
        None => None,
    };
    let job = job.clone();
    on_thread(move || async move {
        let tools = &definitions.tools;
        let finding = async {
            let image = match &place {
                Some(place) => tools.images.resolve(&reference, place, &platform).await?,
                None => locate(tools, &reference, &platform, always).await?,
            };
            Ok((image.digest().to_string(), tools.images.config_bytes(&image)?))
        };
        let found: Result<(String, Vec<u8>), lapstrake_ops::OpsError> = tokio::select! {
            found = finding => found,
            () = job.canceled.cancelled() => return Err(Status::cancelled("the build is over")),
        };
        let (digest, config) = found.map_err(|error| job.status(&error.into()))?;
        Ok(Found { reference, digest, config })
    })
    .await
}

async fn locate(
    tools: &Tools,
    reference: &Reference,
    platform: &Platform,
    always: bool,
) -> Result<LocatedImage, lapstrake_ops::OpsError> {
    if always && let Ok(found) = tools.images.resolve_in_registry(reference, platform).await {
        return Ok(found);
    }
    tools.images.resolve(reference, &ImageStore::Registry, platform).await
}

/// The platform that a client names.
fn read(platform: &pb::Platform) -> Platform {
    let os_version = platform.os_version.clone();
    Platform { os_version, ..Platform::new(&platform.os, &platform.architecture, &platform.variant) }
}
