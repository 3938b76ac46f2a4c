//! Switches as Go's flag package reads them: `--push`, `--push=true`, `--push=0`. Of a flag that is given twice, the last
//! one counts.

use clap::builder::{TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Error};

/// Lets all switches of `command` and of its verbs take a value.
pub(super) fn with_values(command: Command) -> Command {
    command.args_override_self(true).mut_args(with_value).mut_subcommands(with_values)
}

fn with_value(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .value_parser(ValueParser::new(Boolean))
}

/// Reads a value of a switch.
#[derive(Clone)]
struct Boolean;

impl TypedValueParser for Boolean {
    type Value = bool;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, Error> {
        value.to_str().and_then(lapstrake_go::parse_bool).ok_or_else(|| {
            let name = arg.and_then(Arg::get_long).unwrap_or("switch");
            let value = value.to_string_lossy();
            let why = format!("invalid argument \"{value}\" for `--{name}`: neither `true` nor `false`\n");
            Error::raw(ErrorKind::ValueValidation, why).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Args, Build, Command as Verb, Run};

    fn read(line: &str) -> Result<Args, clap::Error> {
        Args::read(std::iter::once("lapstrake").chain(line.split_whitespace()))
    }

    fn build(line: &str) -> Build {
        match read(&format!("build {line} .")).unwrap().command {
            Verb::Build(build) => *build,
            other => panic!("{other:?}"),
        }
    }

    fn run(line: &str) -> Run {
        match read(&format!("run {line} image")).unwrap().command {
            Verb::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn switches_take_values_in_gos_spelling() {
        for word in ["1", "t", "T", "true", "TRUE", "True"] {
            assert!(build(&format!("--push={word}")).push, "{word}");
            assert!(build(&format!("-q={word}")).quiet, "{word}");
        }
        for word in ["0", "f", "F", "false", "FALSE", "False"] {
            assert!(!build(&format!("--no-cache={word}")).no_cache, "{word}");
        }
        assert!(build("--push").push && !build("").push);
        assert!(build("--load=false --load").load && !build("--load --load=false").load);
        assert_eq!(build("--target a --target b").target.as_deref(), Some("b"));
        for bad in ["--push=maybe", "--push=", "--push=yes", "--push=tRUE", "-q=2"] {
            let error = read(&format!("build {bad} .")).unwrap_err().to_string();
            assert!(
                error.contains("neither `true` nor `false`") || error.contains("value"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn short_switches_stand_together() {
        let both = run("-it");
        assert!(both.interactive && both.tty);
        let one = run("-it=false");
        assert!(one.interactive && !one.tty);
        assert!(run("--rm=true").rm);
    }

    #[test]
    fn every_verbs_switches_take_values() {
        use clap::CommandFactory as _;
        fn look(command: &clap::Command, path: &str) {
            for arg in command.get_arguments() {
                let is_switch = matches!(arg.get_action(), clap::ArgAction::SetTrue);
                assert!(!is_switch, "{path} --{}", arg.get_id());
            }
            for verb in command.get_subcommands() {
                look(verb, &format!("{path} {}", verb.get_name()));
            }
        }
        look(&super::with_values(Args::command()), "lapstrake");
    }

    #[test]
    fn help_shows_a_switch_without_its_value() {
        let help = read("build --help").unwrap_err().to_string();
        assert!(help.contains("--push\n") && !help.contains("--push["), "{help}");
    }
}
