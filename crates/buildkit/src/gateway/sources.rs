//! What a client asks about git, HTTP and local sources before it builds on them.

use std::sync::Arc;

use lapstrake_diag::{Fault, Report};
use lapstrake_graph::{Git, Http};
use lapstrake_llb::{RemoteSource, remote_source};
use lapstrake_ops::{Algorithm, FileFacts, GitFacts, Job as Work};
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::pb;
use prost_types::Timestamp;
use tonic::Status;

use super::images;
use crate::jobs::{Definitions, Job};
use crate::shared::Shared;
use crate::thread::on_thread;

/// The largest suffix of a checksum, in bytes.
const LARGEST_SUFFIX: usize = 4096;

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
    let Some((scheme, _)) = source.identifier.split_once("://") else {
        let text = format!("failed to parse identifier: {}", source.identifier);
        return Err(Status::invalid_argument(text));
    };
    match scheme {
        "docker-image" | "oci-layout" => images::source(shared, job, request, source).await,
        // Only the client knows more of its directories.
        "local" => Ok(api::ResolveSourceMetaResponse { source: Some(source), ..Default::default() }),
        "git" | "http" | "https" => elsewhere(shared, job, request, source).await,
        other => {
            let text = format!("facts about sources of type `{other}` are not supported yet");
            Err(Status::unimplemented(text))
        }
    }
}

/// Facts about a source of git or the web.
async fn elsewhere(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    request: api::ResolveSourceMetaRequest,
    source: pb::SourceOp,
) -> Result<api::ResolveSourceMetaResponse, Status> {
    let usage =
        |error: lapstrake_llb::LlbError| job.status(&Report::new(error.to_string()).with_fault(Fault::Usage));
    let wanted = remote_source(&source).map_err(usage)?;
    let wanted = wanted.ok_or_else(|| Status::invalid_argument("the source has no known scheme"))?;
    let definitions = Definitions::of(shared, job, &[]).await.map_err(|report| job.status(&report))?;
    let with_objects = request.git.is_some_and(|git| git.return_object);
    let checksum = request.http.and_then(|http| http.checksum_request).map(Checksum::of).transpose()?;
    let job = job.clone();
    on_thread(move || async move {
        let work = &definitions.tools.job;
        let answer = api::ResolveSourceMetaResponse { source: Some(source), ..Default::default() };
        let finding = async {
            match &wanted {
                RemoteSource::Git(git) => {
                    let git = Some(of_git(work, git, with_objects).await?);
                    Ok(api::ResolveSourceMetaResponse { git, ..answer })
                }
                RemoteSource::Http(http) => {
                    let http = Some(of_file(work, http, checksum).await?);
                    Ok(api::ResolveSourceMetaResponse { http, ..answer })
                }
            }
        };
        tokio::select! {
            found = finding => found.map_err(|error: lapstrake_ops::OpsError| job.status(&error.into())),
            () = job.canceled.cancelled() => Err(Status::cancelled("the build is over")),
        }
    })
    .await
}

async fn of_git(
    work: &Work,
    git: &Git,
    with_objects: bool,
) -> Result<api::ResolveSourceGitResponse, lapstrake_ops::OpsError> {
    let GitFacts { found, objects } = work.git_facts(git, with_objects).await?;
    // Without a git directory the tag itself leaves no trace.
    let is_tag = found.tag.is_some() && (with_objects || !git.keep_git_dir);
    let mut answer = api::ResolveSourceGitResponse {
        r#ref: found.reference,
        commit_checksum: if is_tag { found.commit.clone() } else { String::new() },
        checksum: found.tag.unwrap_or(found.commit),
        ..Default::default()
    };
    if let Some(objects) = objects {
        answer.commit_object = objects.commit;
        if let Some((tag, object)) = objects.tag {
            (answer.checksum, answer.commit_checksum) = (tag, objects.commit_id);
            answer.tag_object = object;
        }
    }
    Ok(answer)
}

/// A checksum that a client wants of a file with something behind it.
struct Checksum {
    algorithm: Algorithm,
    suffix: Vec<u8>,
}

impl Checksum {
    fn of(asked: api::ChecksumRequest) -> Result<Checksum, Status> {
        let api::ChecksumRequest { algo, suffix } = asked;
        if suffix.len() > LARGEST_SUFFIX {
            let text = format!("http checksum request suffix exceeds max size {LARGEST_SUFFIX}");
            return Err(Status::invalid_argument(text));
        }
        let algorithm = match algo {
            0 => Algorithm::Sha256,
            1 => Algorithm::Sha384,
            2 => Algorithm::Sha512,
            other => {
                return Err(Status::invalid_argument(format!("unsupported checksum algorithm {other}")));
            }
        };
        Ok(Checksum { algorithm, suffix })
    }
}

async fn of_file(
    work: &Work,
    http: &Http,
    checksum: Option<Checksum>,
) -> Result<api::ResolveSourceHttpResponse, lapstrake_ops::OpsError> {
    let FileFacts { digest, name, modified } = work.file_facts(http).await?;
    let checksum_response = match checksum {
        Some(Checksum { algorithm, suffix }) => {
            let digest = work.file_checksum(http, algorithm, suffix.clone()).await?;
            Some(api::ChecksumResponse { digest, suffix })
        }
        None => None,
    };
    Ok(api::ResolveSourceHttpResponse {
        checksum: digest.to_string(),
        filename: name,
        last_modified: modified.map(|seconds| Timestamp { seconds, nanos: 0 }),
        checksum_response,
    })
}
