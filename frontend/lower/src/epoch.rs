//! What `SOURCE_DATE_EPOCH` means: seconds, or the source whose time counts.

use std::borrow::Cow;

use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Add, Arg, Dockerfile, Instruction, Stage};
use lapstrake_graph::Source;
use lapstrake_oci::Reference;

use crate::env::Env;
use crate::error::LowerError;
use crate::inputs::{BuildInputs, NamedContext};
use crate::remote::{Remote, checksum_digest, file, git_source, remote, with_flags};

/// The name of the epoch's argument.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What the epoch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Epoch {
    /// There is none.
    Off,
    /// Seconds since 1970.
    Seconds(i64),
    /// The time of a source that is elsewhere.
    Of(Source),
}

/// The value of the build argument or else of the global ARG: a number of seconds, `context`, a named context or a
/// stage. What lies on this machine, and images, have no time.
pub(crate) fn of(dockerfile: &Dockerfile, inputs: &BuildInputs, args: &Env) -> Result<Epoch, LowerError> {
    let value = inputs.build_args.get(EPOCH).map(String::as_str);
    let Some(value) = value.or_else(|| args.get(EPOCH)).filter(|value| !value.is_empty()) else {
        return Ok(Epoch::Off);
    };
    if let Ok(seconds) = value.parse() {
        return Ok(Epoch::Seconds(seconds));
    }
    if value == "context" {
        return Ok(inputs.main.clone().map_or(Epoch::Off, elsewhere));
    }
    if let Err(error) = value.parse::<Reference>() {
        return Err(LowerError::Epoch { why: format!("invalid context name {value}: {error}") });
    }
    let value = match inputs.context(value, &inputs.build_platform) {
        Some((_, NamedContext::Remote(source))) => return Ok(elsewhere(source.clone())),
        Some((_, NamedContext::Target(stage))) => stage.as_str(),
        Some(_) => return Ok(Epoch::Off),
        None => value,
    };
    let named = |stage: &&Stage| stage.from.name().is_some_and(|name| name.eq_ignore_ascii_case(value));
    match dockerfile.stages.iter().find(named) {
        Some(stage) => StageSource { stage, inputs, escape: dockerfile.escape }.find(args).map(Epoch::Of),
        None => Err(LowerError::Epoch { why: format!("invalid SOURCE_DATE_EPOCH: {value}") }),
    }
}

fn elsewhere(source: Source) -> Epoch {
    match source {
        Source::Http(_) | Source::Git(_) | Source::Archive { .. } => Epoch::Of(source),
        _ => Epoch::Off,
    }
}

/// A stage that may hold nothing but one source. Errors are about its FROM, in BuildKit's words.
struct StageSource<'d> {
    stage: &'d Stage,
    inputs: &'d BuildInputs,
    escape: char,
}

impl StageSource<'_> {
    fn find(&self, args: &Env) -> Result<Source, LowerError> {
        let mut env = args.clone();
        env.remove(EPOCH);
        if self.expand(&self.stage.from.base.node, &env)? != "scratch" {
            return Err(self.bad("SOURCE_DATE_EPOCH stage must use FROM scratch"));
        }
        let mut found = None;
        for command in &self.stage.instructions {
            match &command.instruction {
                Instruction::Arg(args) => {
                    args.iter().try_for_each(|arg| self.declare(arg, &mut env))?;
                }
                Instruction::Add(_) if found.is_some() => return Err(self.bad(ONE_ADD)),
                Instruction::Add(add) => found = Some(self.source(add, &env)?),
                _ => {
                    let why = "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported";
                    return Err(self.bad(format!("{why} {} instruction", command.keyword())));
                }
            }
        }
        found.ok_or_else(|| self.bad(ONE_ADD))
    }

    fn declare(&self, arg: &Arg, env: &mut Env) -> Result<(), LowerError> {
        let value = match (self.inputs.build_args.get(arg.name.as_str()), &arg.value) {
            (Some(given), _) => given.clone(),
            (None, Some(default)) => self.expand(default, env)?,
            (None, None) => return Ok(()),
        };
        env.set(&arg.name, &value);
        Ok(())
    }

    fn source(&self, add: &Add, env: &Env) -> Result<Source, LowerError> {
        let [source] = add.transfer.sources.as_slice() else {
            return Err(self.bad(ONE_SOURCE));
        };
        if !add.transfer.inline.is_empty() {
            return Err(self.bad(ONE_SOURCE));
        }
        let text = self.expand(&source.node, env)?;
        let checksum = add.checksum.as_ref().map(|word| self.expand(&word.node, env)).transpose()?;
        let checksum = checksum.unwrap_or_default();
        let bad = |why: String| self.bad(why);
        Ok(match remote(&text).map_err(bad)? {
            Some(Remote::Http(url)) => {
                let digest = (!checksum.is_empty()).then(|| checksum_digest(&checksum)).transpose();
                Source::Http(file(&url, digest.map_err(bad)?))
            }
            Some(Remote::Git(git)) => {
                let git = with_flags(git, add.keep_git_dir, &checksum).map_err(bad)?;
                git_source(&git, add.keep_git_dir == Some(true), false)
            }
            None => {
                return Err(self.bad("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"));
            }
        })
    }

    fn expand(&self, text: &str, env: &Env) -> Result<String, LowerError> {
        let known = |name: &str| env.get(name).map(str::to_owned);
        words::expand(text, &known, Mode::plain(self.escape))
            .map(|expanded| expanded.text)
            .map_err(|error| self.bad(error.to_string()))
    }

    fn bad(&self, why: impl Into<Cow<'static, str>>) -> LowerError {
        LowerError::stage(why.into(), self.stage.span)
            .hint("the time can also be given as seconds since 1970")
    }
}

/// Why a stage has not one source.
const ONE_ADD: &str = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";
/// Why an ADD has not one source.
const ONE_SOURCE: &str = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source";

#[cfg(test)]
mod tests {
    use lapstrake_diag::SourceFile;
    use lapstrake_dockerfile::parse;
    use lapstrake_graph::{Git, Http};

    use super::*;
    use crate::epoch_source;

    fn asked(text: &str, inputs: &BuildInputs) -> Option<Source> {
        let parsed = parse(&SourceFile::new("Dockerfile", text));
        epoch_source(&parsed.dockerfile, inputs).unwrap()
    }

    fn of(value: &str) -> BuildInputs {
        BuildInputs { build_args: [(EPOCH.into(), value.into())].into(), ..BuildInputs::new() }
    }

    fn http(url: &str, name: &str) -> Source {
        Source::Http(Http {
            url: url.into(),
            name: name.into(),
            unpack: name == "context",
            ..Http::default()
        })
    }

    #[test]
    fn contexts() {
        let page = http("https://host/x.tgz", "context");
        let main = BuildInputs { main: Some(page.clone()), ..of("context") };
        assert_eq!(asked("FROM a", &main), Some(page.clone()));
        assert_eq!(asked("FROM a", &of("context")), None);
        let mut named = of("src");
        named.contexts.insert("src".into(), NamedContext::Remote(page.clone()));
        assert_eq!(asked("FROM a", &named), Some(page));
        named.contexts.insert("src".into(), NamedContext::Local);
        assert_eq!(asked("FROM a", &named), None);
    }

    #[test]
    fn stages() {
        let stage = "ARG SOURCE_DATE_EPOCH=src\nARG v=9\nFROM scratch AS SRC\nARG v\nARG w=$v\n\
                     ADD https://host/$v-$w /\nFROM a\n";
        let given = BuildInputs { build_args: [("v".into(), "7".into())].into(), ..BuildInputs::new() };
        assert_eq!(asked(stage, &given), Some(http("https://host/7-7", "7-7")));
        let git = "FROM scratch AS src\nADD --checksum=abc --keep-git-dir https://host/x.git#v1:d /\nFROM a";
        let Some(Source::Git(Git { reference, subdir, checksum, keep_git_dir, .. })) = asked(git, &of("src"))
        else {
            panic!()
        };
        assert_eq!((&*reference, &*subdir, &*checksum, keep_git_dir), ("v1", "d", "abc", true));
    }
}
