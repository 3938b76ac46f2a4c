//! What a client asks about sources, which the source policies change or forbid.

use std::sync::Arc;

use lapstrake_llb::ClientLayout;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::Policy;
use lapstrake_proto::pb;
use tonic::Status;

use super::images::{Asked, Found, find};
use super::sources;
use crate::error;
use crate::jobs::Job;
use crate::policy::{Judge, POLICY};
use crate::shared::Shared;

/// The config of an image.
///
/// # Errors
/// There is no such image, or the client asks for more than is built.
pub(crate) async fn config(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    request: api::ResolveImageConfigRequest,
) -> Result<api::ResolveImageConfigResponse, Status> {
    let (scheme, layout) = match request.resolver_type {
        0 => ("docker-image://", None),
        1 => {
            let (session, store) = (request.session_id.clone(), request.store_id.clone());
            ("oci-layout://", Some(ClientLayout { session, store }))
        }
        other => return Err(Status::invalid_argument(format!("unknown resolver type {other}"))),
    };
    let source = pb::SourceOp { identifier: format!("{scheme}{}", request.r#ref), ..pb::SourceOp::default() };
    let rules = (request.source_policies.as_slice(), request.platform.as_ref());
    let source = allowed(shared, job, source, rules).await?;
    let name = source.identifier.strip_prefix(scheme).ok_or_else(|| {
        let text = format!("the source policy puts {} in the place of the image", source.identifier);
        Status::invalid_argument(text)
    })?;
    let asked = Asked { name, mode: &request.resolve_mode, layout };
    let found = find(shared, job, asked, request.platform.as_ref());
    let found = found.await.map_err(|status| {
        let text = format!("failed to resolve source metadata for {name}: {}", status.message());
        Status::new(status.code(), text)
    })?;
    let Found { reference, digest, config } = found;
    Ok(api::ResolveImageConfigResponse { digest, config, r#ref: reference.to_string() })
}

/// Facts about a source: what it is, and what it would be pinned to.
///
/// # Errors
/// There is no such source, or the client asks for more than is built.
pub(crate) async fn source(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    request: api::ResolveSourceMetaRequest,
) -> Result<api::ResolveSourceMetaResponse, Status> {
    let source = request.source.clone().ok_or_else(|| Status::invalid_argument("source is required"))?;
    let rules = (request.source_policies.as_slice(), request.platform.as_ref());
    let source = allowed(shared, job, source, rules).await?;
    sources::source(shared, job, api::ResolveSourceMetaRequest { source: Some(source), ..request }).await
}

/// `source` as the policies of the build and of the call say.
async fn allowed(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    mut source: pb::SourceOp,
    (policies, platform): (&[Policy], Option<&pb::Platform>),
) -> Result<pb::SourceOp, Status> {
    if let Some(judge) = Judge::of(shared, job, policies)? {
        let judged = judge.judge(&mut source, platform).await;
        judged.map_err(|status| error::prefixed(&status, POLICY))?;
    }
    Ok(source)
}
