//! Source policies: rules of the client that forbid sources, or put others in their place.

mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_graph::{Git, Graph, Http, Op, Source, VertexId};
use lapstrake_llb::{Definition, Replacement};
use lapstrake_oci::{Platform, Reference};
use lapstrake_ops::ImageRules;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::check_policy_response::Result as Verdict;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::policy_verifier_client::PolicyVerifierClient;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::{
    CheckPolicyRequest, DecisionResponse,
};
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::{Policy, PolicyAction};
use lapstrake_proto::pb;
use tonic::Status;

use crate::error;
use crate::gateway::sources;
use crate::jobs::Job;
use crate::shared::Shared;
use rules::Policies;

/// The scheme of images in registries.
const IMAGE: &str = "docker-image://";
/// The attribute with the digest of a file of the web.
const CHECKSUM: &str = "http.checksum";
/// The questions to a client about one source, after which its policy is taken for one without an end.
const MOST_QUESTIONS: usize = 10;
/// The sources of one graph that are judged at the same time.
const AT_ONCE: usize = 16;
/// The name of the detail that has the reasons for which a client forbids a source. Its value is JSON.
const DENIED: &str = "github.com/moby/buildkit/policysession.DecisionResponse+json";

/// The rules for the sources of one call: those of the build, those of the call, and the judgement of a client.
pub(crate) struct Judge {
    policies: Policies,
    shared: Arc<Shared>,
    job: Arc<Job>,
    /// The session that judges each source; empty for none.
    session: String,
}

impl Judge {
    /// The judge for a call of `job` with the policies `more`; `None` if there are no rules.
    ///
    /// # Errors
    /// A rule cannot be followed.
    pub(crate) fn of(shared: &Arc<Shared>, job: &Arc<Job>, more: &[Policy]) -> Result<Option<Judge>, Status> {
        let policies = Policies::new(job.request.source_policy.iter().chain(more));
        let policies = policies.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let session = job.request.source_policy_session.clone();
        if policies.is_empty() && session.is_empty() {
            return Ok(None);
        }
        Ok(Some(Judge { policies, shared: shared.clone(), job: job.clone(), session }))
    }

    /// Changes `source` as the rules say; whether something was changed.
    ///
    /// # Errors
    /// The source is forbidden, or its changes have no end.
    pub(crate) async fn judge(
        &self,
        source: &mut pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<bool, Status> {
        let mut changed = false;
        let mut questions = MOST_QUESTIONS;
        loop {
            source.identifier = normal(&source.identifier);
            let by_rules = self.policies.evaluate(source);
            changed |= by_rules.map_err(|error| Status::unknown(error.to_string()))?;
            if self.session.is_empty() {
                return Ok(changed);
            }
            match self.ask(source, platform, &mut questions).await? {
                None => return Ok(changed),
                Some(other) => (*source, changed) = (other, true),
            }
        }
    }

    /// Asks the client about `source`; the source that the client puts in its place.
    async fn ask(
        &self,
        source: &pb::SourceOp,
        platform: Option<&pb::Platform>,
        questions: &mut usize,
    ) -> Result<Option<pb::SourceOp>, Status> {
        let session = self.shared.sessions.get(&self.session).await?;
        let mut client = PolicyVerifierClient::new(session.channel());
        let facts = api::ResolveSourceMetaResponse { source: Some(source.clone()), ..Default::default() };
        let mut request =
            CheckPolicyRequest { platform: platform.cloned(), source: Some(facts), ..Default::default() };
        loop {
            *questions =
                questions.checked_sub(1).ok_or_else(|| Status::unknown("too many policy requests"))?;
            let verdict = client.check_policy(request.clone()).await?.into_inner().result;
            match verdict {
                None => return Err(Status::unknown("no decision in policy response")),
                Some(Verdict::Decision(decision)) => return decided(source, decision),
                Some(Verdict::Request(wanted)) => {
                    let same = wanted.source.as_ref() == Some(source);
                    if !same {
                        return Err(Status::unknown("policy requested different source identifier"));
                    }
                    let facts = sources::source(&self.shared, &self.job, wanted).await;
                    let facts = facts.map_err(|status| {
                        error::prefixed(&status, "error resolving source metadata from policy request")
                    })?;
                    request.source = Some(facts);
                }
            }
        }
    }

    /// `definition` with the sources that the rules put into it.
    ///
    /// # Errors
    /// As [`Judge::judge`].
    pub(crate) async fn change(&self, definition: Definition) -> Result<Definition, Status> {
        let sources = definition.sources().filter_map(|(digest, op)| match &op.op {
            Some(pb::op::Op::Source(source)) => Some((digest.clone(), source.clone(), op.platform.clone())),
            _ => None,
        });
        let judge = |(digest, mut source, platform): (_, pb::SourceOp, Option<pb::Platform>)| async move {
            let changed = self.judge(&mut source, platform.as_ref()).await.map_err(|status| {
                error::prefixed(&status, "failed to load LLB: error evaluating the source policy")
            })?;
            Ok::<_, Status>(changed.then_some((digest, Replacement::Source(source))))
        };
        let sources: Vec<_> = sources.collect();
        let judged: Vec<_> = stream::iter(sources).map(judge).buffered(AT_ONCE).try_collect().await?;
        let others: BTreeMap<_, _> = judged.into_iter().flatten().collect();
        definition.replaced(&others).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Changes the files of the web in `graph`, and looks at its repositories. Images are looked up by the rules before.
    ///
    /// # Errors
    /// As [`Judge::judge`], and for a change that a Dockerfile's source cannot have.
    pub(crate) async fn change_graph(&self, graph: &Graph) -> Outcome<BTreeMap<VertexId, Source>> {
        let sources = graph.topological().into_iter().filter_map(|id| match &graph[id].op {
            Op::Source(source) => Some((id, source.clone())),
            _ => None,
        });
        let judge = |(id, source): (VertexId, Source)| async move {
            Ok::<_, Report>(self.other(&source).await?.map(|other| (id, other)))
        };
        let sources: Vec<_> = sources.collect();
        let judged: Vec<_> = stream::iter(sources).map(judge).buffered(AT_ONCE).try_collect().await?;
        Ok(judged.into_iter().flatten().collect())
    }

    /// What the rules put in the place of a source of a Dockerfile; `None` for the source itself.
    ///
    /// # Errors
    /// As [`Judge::change_graph`].
    pub(crate) async fn other(&self, source: &Source) -> Outcome<Option<Source>> {
        let mut op = match source {
            Source::Http(http) => of_http(http),
            Source::Git(git) => of_git(git),
            _ => return Ok(None),
        };
        let before = pb::SourceOp { identifier: normal(&op.identifier), ..op.clone() };
        let changed = self.judge(&mut op, None).await.map_err(|status| self.job.refused(&status))?;
        if !changed {
            return Ok(None);
        }
        let mut attrs = op.attrs.clone();
        match source {
            Source::Http(http) if op.identifier.starts_with("http") => {
                let checksum = attrs.remove(CHECKSUM).filter(|text| !text.is_empty());
                if let Some(key) = attrs.keys().next() {
                    return Err(unsupported(&before.identifier, &format!("sets the attribute `{key}`")));
                }
                let checksum = checksum.map(|text| text.parse()).transpose();
                let bad = |_| unsupported(&before.identifier, "gives a checksum that is none");
                Ok(Some(Source::Http(Http {
                    url: op.identifier,
                    checksum: checksum.map_err(bad)?,
                    ..http.clone()
                })))
            }
            _ => Err(unsupported(&before.identifier, &format!("puts `{}` in its place", op.identifier))),
        }
    }

    /// The rules as those that the images of a Dockerfile are looked up by.
    pub(crate) fn for_images(self: Arc<Judge>) -> ImageRules {
        ImageRules::new(move |reference: Reference, platform: Platform| {
            let judge = self.clone();
            async move { judge.image(&reference, &platform).await }.boxed()
        })
    }

    /// The image that the rules put in the place of `reference`.
    ///
    /// # Errors
    /// The reason for which there is none.
    pub(crate) async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Reference, String> {
        let mut source =
            pb::SourceOp { identifier: format!("{IMAGE}{reference}"), ..pb::SourceOp::default() };
        let platform = pb::Platform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
        };
        let judged = self.judge(&mut source, Some(&platform)).await;
        let told = |status: Status| self.job.refused(&error::prefixed(&status, POLICY)).message().to_owned();
        judged.map_err(told)?;
        let to = &source.identifier;
        let name = to.strip_prefix(IMAGE).ok_or_else(|| {
            format!("the source policy puts {to} in the place of the image {reference}, which is not supported for Dockerfiles yet")
        })?;
        name.parse().map_err(|error| format!("{POLICY}: invalid reference `{name}`: {error}"))
    }
}

/// The beginning of errors about images that a policy forbids.
pub(crate) const POLICY: &str = "could not resolve image due to policy";

fn decided(source: &pb::SourceOp, decision: DecisionResponse) -> Result<Option<pb::SourceOp>, Status> {
    let action = PolicyAction::try_from(decision.action);
    match action {
        Ok(PolicyAction::Allow) => Ok(None),
        Ok(PolicyAction::Convert) => match decision.update {
            Some(update) => Ok(Some(update)),
            None => Err(Status::unknown("convert action requires updated source")),
        },
        _ => {
            let name =
                action.map_or_else(|_| decision.action.to_string(), |action| action.as_str_name().to_owned());
            let text = format!("source {:?} not allowed by policy: action {name}", source.identifier);
            let messages: Vec<serde_json::Value> = decision
                .deny_messages
                .iter()
                .map(|message| serde_json::json!({ "message": message.message }))
                .collect();
            let value = serde_json::json!({ "action": PolicyAction::Deny as i32, "denyMessages": messages });
            let detail =
                prost_types::Any { type_url: DENIED.to_owned(), value: value.to_string().into_bytes() };
            let details = if messages.is_empty() { Vec::new() } else { vec![detail] };
            Err(error::of_rpc(&lapstrake_proto::google::rpc::Status {
                code: tonic::Code::Unknown.into(),
                message: text,
                details,
            }))
        }
    }
}

/// The error for a change that only definitions can have.
fn unsupported(source: &str, what: &str) -> Report {
    let text = format!("the source policy for {source} {what}, which is not supported for Dockerfiles yet");
    Report::new(text).with_fault(Fault::Usage)
}

/// The name of a source as rules have it: images with registry and tag, and directories of repositories without `..`.
fn normal(identifier: &str) -> String {
    if let Some(name) = identifier.strip_prefix(IMAGE) {
        let reference: Option<Reference> = name.parse().ok();
        return reference.map_or_else(|| identifier.to_owned(), |known| format!("{IMAGE}{known}"));
    }
    let Some((repository, (reference, directory))) = identifier
        .strip_prefix("git://")
        .and_then(|_| identifier.split_once('#'))
        .and_then(|(repository, fragment)| Some((repository, fragment.split_once(':')?)))
    else {
        return identifier.to_owned();
    };
    let mut parts = Vec::new();
    for part in directory.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => format!("{repository}#{reference}"),
        false => format!("{repository}#{reference}:{}", parts.join("/")),
    }
}

fn of_http(http: &Http) -> pb::SourceOp {
    let checksum = http.checksum.as_ref().map(|digest| (CHECKSUM.to_owned(), digest.to_string()));
    pb::SourceOp { identifier: http.url.clone(), attrs: checksum.into_iter().collect() }
}

/// A repository as BuildKit names it: without its own scheme, which is an attribute.
fn of_git(git: &Git) -> pb::SourceOp {
    let place = git.remote.split_once("://").map_or(git.remote.as_str(), |(_, place)| place);
    let mut identifier = format!("git://{place}");
    if !git.reference.is_empty() || !git.subdir.is_empty() {
        identifier = format!("{identifier}#{}", git.reference);
    }
    if !git.subdir.is_empty() {
        identifier = format!("{identifier}:{}", git.subdir);
    }
    let attrs = [("git.fullurl".to_owned(), git.remote.clone())].into();
    pb::SourceOp { identifier, attrs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_one_name() {
        for (name, normal_name) in [
            ("docker-image://alpine", "docker-image://docker.io/library/alpine:latest"),
            ("docker-image://A", "docker-image://A"),
            ("git://host/r.git#main:../absolute/path", "git://host/r.git#main:absolute/path"),
            ("git://host/r.git#main:", "git://host/r.git#main"),
            ("git://host/r.git#main", "git://host/r.git#main"),
            ("https://host/a/../b#x:y", "https://host/a/../b#x:y"),
        ] {
            assert_eq!(normal(name), normal_name);
        }
    }
}
