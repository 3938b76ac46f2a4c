//! Frontends: the built-in one for Dockerfiles, and those that are programs in images.
//!
//! A frontend in an image runs in the sandbox as a step does. Its standard input and output are a connection on which the
//! bridge is served. It ends with the call that began it.

mod image;
mod process;
mod stdio;

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_build::{Loaded, Subject, without_secrets};
use lapstrake_diag::{Fault, Outcome, Report, SourceFile};
use lapstrake_dockerfile::detect_syntax;
use lapstrake_oci::Reference;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use tonic::Status;

use crate::driven::Driven;
use crate::driver::Inputs;
use crate::error;
use crate::host::Host;
use crate::shared::Shared;

/// The options of a frontend.
pub(crate) type Options = BTreeMap<String, String>;

/// The option that names the image of a frontend.
const SOURCE: &str = "source";
/// The option with the line that named the frontend. A frontend that has it forwards to no other one.
const CMDLINE: &str = "cmdline";
/// The option that names the frontend of a Dockerfile.
const SYNTAX: &str = "build-arg:BUILDKIT_SYNTAX";
/// The names of images that the built-in frontend stands for, without registry and tag.
const BUILT_IN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];
/// The names that no image has.
const NO_IMAGE: [&str; 3] = ["dockerfile.v0", "dockerfile", "lapstrake"];

/// A frontend that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    /// The built-in one for Dockerfiles.
    Dockerfile,
    /// The program in this image.
    Image(String),
}

/// The frontend that a Dockerfile asks for.
pub(crate) struct Named {
    source: String,
    cmdline: String,
    /// The text with the line that names the frontend; `None` for an argument.
    place: Option<(Arc<SourceFile>, u32)>,
}

/// The frontend called `name` with the options `opt`.
///
/// # Errors
/// There is no such frontend, or the server does not allow it.
pub(crate) fn find(host: &Host, name: &str, opt: &Options) -> Outcome<Frontend> {
    let refused = |text: String| Err(Report::new(text).with_fault(Fault::Usage));
    match name {
        "dockerfile.v0" => Ok(Frontend::Dockerfile),
        "gateway.v0" if opt.contains_key("gateway-devel") => {
            refused("development gateway is no longer supported".to_owned())
        }
        "gateway.v0" => match opt.get(SOURCE).filter(|source| !source.is_empty()) {
            None => refused("no source specified for gateway".to_owned()),
            Some(source) if is_built_in(host, source) => Ok(Frontend::Dockerfile),
            Some(source) => {
                host.allow_frontend(source)?;
                Ok(Frontend::Image(source.clone()))
            }
        },
        other => refused(format!("frontend {other} not found: there are `dockerfile.v0` and `gateway.v0`")),
    }
}

/// Whether the built-in frontend stands for `source`.
fn is_built_in(host: &Host, source: &str) -> bool {
    if NO_IMAGE.contains(&source.split([':', '@']).next().unwrap_or(source)) {
        return true;
    }
    let reference: Result<Reference, _> = source.parse();
    !host.dockerfile_images
        && reference
            .is_ok_and(|known| known.registry() == "docker.io" && BUILT_IN.contains(&known.repository()))
}

impl Named {
    /// The frontend that a Dockerfile or the options ask for, where that is not the built-in one.
    ///
    /// # Errors
    /// The server does not allow it.
    pub(crate) fn of(host: &Host, opt: &Options, loaded: &Loaded) -> Outcome<Option<Named>> {
        if opt.contains_key(CMDLINE) {
            return Ok(None);
        }
        let named = match opt.get(SYNTAX).map(|line| line.trim()).filter(|line| !line.is_empty()) {
            Some(line) => {
                let source = line.split(' ').next().unwrap_or(line).to_owned();
                Named { source, cmdline: line.to_owned(), place: None }
            }
            None => match detect_syntax(loaded.file().text()) {
                Some((source, cmdline)) => {
                    let lines = loaded.file().text().lines();
                    let line = lines.take_while(|line| !line.contains(&source)).count() + 1;
                    let line = u32::try_from(line).unwrap_or(1);
                    Named { source, cmdline, place: Some((loaded.file().clone(), line)) }
                }
                None => return Ok(None),
            },
        };
        if is_built_in(host, &named.source) {
            return Ok(None);
        }
        host.allow_frontend(&named.source)?;
        Ok(Some(named))
    }
}

/// Lets the frontend that a Dockerfile names do the work of the built-in one.
///
/// # Errors
/// As [`call`]. An error without a place is at the line that names the frontend.
pub(crate) async fn forward(
    shared: &Arc<Shared>,
    driven: &Driven,
    named: Named,
    (mut opt, inputs): (Options, Inputs),
) -> Result<api::Result, Status> {
    let Named { source, cmdline, place } = named;
    opt.insert(CMDLINE.to_owned(), cmdline.clone());
    opt.insert(SOURCE.to_owned(), source.clone());
    call(shared, driven, &source, (opt, inputs)).await.map_err(|status| match place {
        _ if error::has_source(&status) => status,
        Some((file, line)) => driven.job.at_line(&status, &file, line),
        None => error::prefixed(&status, &format!("failed with {SYNTAX} = {cmdline}")),
    })
}

/// Runs the frontend in the image `source`, and gives what it returns. References are those of the build.
///
/// # Errors
/// The image cannot be had or lacks a capability, the program fails, or it returns an error.
pub(crate) async fn call(
    shared: &Arc<Shared>,
    driven: &Driven,
    source: &str,
    (opt, inputs): (Options, Inputs),
) -> Result<api::Result, Status> {
    let job = &driven.job;
    job.told.get_or_init(|| subject(&opt));
    let image = image::find(shared, job, source, (&opt, &inputs)).await?;
    image.check_caps(&opt, &inputs)?;
    let (called, answer) = driven.call(inputs)?;
    let answer = process::run(shared, &called, (image, &opt), answer).await;
    called.end().await;
    let answer = answer?;
    match (answer.error, answer.result) {
        (Some(error), _) => Err(error::of_rpc(&error)),
        (None, Some(result)) => complete(driven, result),
        (None, None) => {
            Err(Status::unknown(format!("frontend {source}: gateway return must be either result or err")))
        }
    }
}

/// The result of a frontend as its caller sees it: with the definitions of its references.
fn complete(driven: &Driven, result: api::Result) -> Result<api::Result, Status> {
    use api::result::Result as Value;
    let job = &driven.job;
    let reference = |id: String| {
        let mut def = None;
        if !id.is_empty() {
            let (result, target) = job.split(&id);
            def = job.result(result)?.definitions.get().and_then(|all| all.get(target).cloned());
        }
        Ok::<_, Status>(api::Ref { id, def })
    };
    let value = match result.result {
        None => None,
        Some(Value::Ref(one)) => Some(Value::Ref(reference(one.id)?)),
        Some(Value::RefDeprecated(id)) => Some(Value::Ref(reference(id)?)),
        Some(Value::Refs(all)) => {
            let refs = all.refs.into_iter().map(|(name, one)| Ok((name, reference(one.id)?)));
            Some(Value::Refs(api::RefMap { refs: refs.collect::<Result<_, Status>>()? }))
        }
        Some(Value::RefsDeprecated(all)) => {
            let refs = all.refs.into_iter().map(|(name, id)| Ok((name, reference(id)?)));
            Some(Value::Refs(api::RefMap { refs: refs.collect::<Result<_, Status>>()? }))
        }
    };
    Ok(api::Result { result: value, ..result })
}

/// What a build with these options is about.
fn subject(opt: &Options) -> Subject {
    let text = |key: &str| opt.get(key).filter(|value| !value.is_empty());
    let context = text("vcs:localdir:context").or_else(|| text("context"));
    Subject {
        context: without_secrets(context.map_or("context", String::as_str)),
        dockerfile: without_secrets(text("filename").map_or("Dockerfile", String::as_str)),
        target: text("target").cloned(),
        platform: text("platform").cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_by_their_names() {
        let mut host = Host::of_nothing();
        let find = |host: &Host, name: &str, opt: &[(&str, &str)]| {
            let opt = opt.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            super::find(host, name, &opt).map_err(|report| report.message().to_owned())
        };
        for source in
            ["docker/dockerfile", "docker.io/docker/dockerfile:1@sha256:00", "dockerfile.v0", "dockerfile:1"]
        {
            let source = source.replace(":00", &format!(":{}", "0".repeat(64)));
            assert_eq!(
                find(&host, "gateway.v0", &[("source", &source)]),
                Ok(Frontend::Dockerfile),
                "{source}"
            );
        }
        for source in ["other/dockerfile:1", "host:5000/docker/dockerfile", "docker/dockerfilex"] {
            let image = Frontend::Image(source.to_owned());
            assert_eq!(find(&host, "gateway.v0", &[("source", source)]), Ok(image));
        }
        assert!(find(&host, "gateway.v0", &[]).unwrap_err().contains("no source"));
        assert!(find(&host, "other", &[]).unwrap_err().contains("not found"));
        assert!(find(&host, "gateway.v0", &[("source", "a"), ("gateway-devel", "")]).is_err());
        host.frontend_images = Some(vec!["docker.io/a/b".to_owned()]);
        assert!(find(&host, "gateway.v0", &[("source", "a/b:2")]).is_ok());
        assert!(find(&host, "gateway.v0", &[("source", "a/c")]).unwrap_err().contains("not an allowed"));
        host.dockerfile_images = true;
        assert!(find(&host, "gateway.v0", &[("source", "docker/dockerfile")]).is_err());
    }
}
