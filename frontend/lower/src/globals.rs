//! What holds for all stages: platform arguments, ARGs before the first FROM, proxies, the epoch as a number.

use std::collections::BTreeMap;

use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Arg, Dockerfile, Instruction};
use lapstrake_graph::Source;
use lapstrake_oci::Platform;

use crate::env::Env;
use crate::epoch::{self, EPOCH, Epoch};
use crate::error::LowerError;
use crate::inputs::BuildInputs;

/// What holds for all stages of one platform.
pub(crate) struct Globals {
    /// Platform arguments and global ARGs.
    pub(crate) args: Env,
    /// `--build-arg`, the epoch as a number.
    pub(crate) build_args: BTreeMap<String, String>,
    /// The epoch in seconds.
    pub(crate) epoch: Option<i64>,
    /// `KEY=value` for processes, both cases.
    pub(crate) proxy: Vec<String>,
}

impl Globals {
    pub(crate) fn new(
        dockerfile: &Dockerfile,
        inputs: &BuildInputs,
        target: &Platform,
    ) -> Result<Globals, LowerError> {
        let mut build_args = inputs.build_args.clone();
        let mut args = declared(dockerfile, inputs, target, &build_args)?;
        let epoch = match epoch::of(dockerfile, inputs, &args)? {
            Epoch::Off => None,
            Epoch::Seconds(seconds) => Some(seconds),
            Epoch::Of(_) => inputs.source_epoch,
        };
        let text = epoch.map(|seconds| seconds.to_string());
        if build_args.contains_key(EPOCH) {
            match &text {
                Some(text) => build_args.insert(EPOCH.to_owned(), text.clone()),
                None => build_args.remove(EPOCH),
            };
        }
        if args.get(EPOCH).is_some() {
            match &text {
                Some(text) => args.set(EPOCH, text),
                None => args.remove(EPOCH),
            }
        }
        let proxy = proxy(&build_args);
        Ok(Globals { args, build_args, epoch, proxy })
    }

    /// The arguments as if none had been given.
    pub(crate) fn defaults(
        dockerfile: &Dockerfile,
        inputs: &BuildInputs,
        target: &Platform,
    ) -> Result<Env, LowerError> {
        declared(dockerfile, inputs, target, &BTreeMap::new())
    }
}

/// The source whose time `SOURCE_DATE_EPOCH` asks for, if it asks for one. Its time belongs into
/// [`BuildInputs::source_epoch`] before anything is lowered.
///
/// # Errors
/// The value means nothing, or names a stage that is more than one source.
pub fn epoch_source(dockerfile: &Dockerfile, inputs: &BuildInputs) -> Result<Option<Source>, LowerError> {
    let target = inputs.platforms.first().unwrap_or(&inputs.build_platform);
    let args = declared(dockerfile, inputs, target, &inputs.build_args)?;
    Ok(match epoch::of(dockerfile, inputs, &args)? {
        Epoch::Of(source) => Some(source),
        Epoch::Off | Epoch::Seconds(_) => None,
    })
}

/// Platform arguments and the global ARGs with the values they have.
fn declared(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
    target: &Platform,
    build_args: &BTreeMap<String, String>,
) -> Result<Env, LowerError> {
    let mut args = platform_args(dockerfile, inputs, target);
    for command in &dockerfile.global_args {
        let Instruction::Arg(declared) = &command.instruction else { continue };
        for arg in declared {
            if let Some(value) = global_value(arg, &args, build_args, dockerfile.escape)? {
                args.set(&arg.name, &value);
            }
        }
    }
    Ok(args)
}

fn global_value(
    arg: &Arg,
    args: &Env,
    build_args: &BTreeMap<String, String>,
    escape: char,
) -> Result<Option<String>, LowerError> {
    if let Some(value) = build_args.get(arg.name.as_str()) {
        return Ok(Some(value.clone()));
    }
    let Some(default) = &arg.value else { return Ok(None) };
    words::expand(default, &|name| args.get(name).map(str::to_owned), Mode::plain(escape))
        .map(|expanded| Some(expanded.text))
        .map_err(|error| LowerError::instruction(error.to_string(), arg.span))
}

/// Whether the platforms give `name` a value before anybody declares it.
pub(crate) fn is_platform_arg(name: &str) -> bool {
    let part = name.strip_prefix("BUILD").or_else(|| name.strip_prefix("TARGET"));
    let parts = ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"];
    part.is_some_and(|part| parts.contains(&part)) || name == "TARGETSTAGE"
}

fn platform_args(dockerfile: &Dockerfile, inputs: &BuildInputs, target: &Platform) -> Env {
    let build = &inputs.build_platform;
    let last = || dockerfile.stages.last().and_then(|stage| stage.from.name());
    let stage = inputs.target.clone().filter(|name| !name.is_empty()).or_else(last);
    let values = [
        ("BUILDPLATFORM", build.short()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", target.os_version.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage.unwrap_or_else(|| "default".to_owned())),
    ];
    let mut args = Env::default();
    for (name, value) in values {
        args.set(name, inputs.build_args.get(name).unwrap_or(&value));
    }
    args
}

/// The proxy variables that processes see. Names are matched in whatever case, and of several the last one in the
/// order of the alphabet counts, which is the one in lower case.
fn proxy(build_args: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"] {
        let value =
            build_args.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            lines.push(format!("{name}={value}"));
            lines.push(format!("{}={value}", name.to_lowercase()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_in_both_cases() {
        let args = BTreeMap::from([
            ("HTTP_PROXY".to_owned(), "upper".to_owned()),
            ("http_proxy".to_owned(), "lower".to_owned()),
            ("No_Proxy".to_owned(), "x".to_owned()),
            ("FTP_PROXY".to_owned(), String::new()),
        ]);
        assert_eq!(proxy(&args), ["HTTP_PROXY=lower", "http_proxy=lower", "NO_PROXY=x", "no_proxy=x"]);
    }
}
