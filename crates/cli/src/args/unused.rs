//! Flags of `build` that mean nothing to the verbs that build nothing: not in their help, and refused.
//!
//! `build --check` and `build --call` take all of them, as Docker's do: there one word is added to a line that builds.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error};

/// Flags for the result, and for the processes of steps.
const OF_BUILDING: [&str; 40] = [
    "ignore_unsupported",
    "builder",
    "tag",
    "call",
    "check",
    "output",
    "cache_from",
    "cache_to",
    "push",
    "load",
    "annotation",
    "progress",
    "quiet",
    "timeline",
    "iidfile",
    "metadata_file",
    "allow",
    "cdi_spec_dir",
    "memory",
    "memory_swap",
    "cpus",
    "cpu_shares",
    "cpu_period",
    "cpu_quota",
    "cpuset_cpus",
    "cpuset_mems",
    "resource",
    "attest",
    "provenance",
    "sbom",
    "pids_limit",
    "cgroup_parent",
    "device_read_bps",
    "device_write_bps",
    "device_read_iops",
    "device_write_iops",
    "security_opt",
    "hermetic",
    "locked",
    "debug",
];
/// Flags that change a step's cache key but not the checks, and so have no effect on `check`.
const OF_STEPS: [&str; 8] =
    ["label", "no_cache", "no_cache_filter", "checksum", "network", "add_host", "shm_size", "ulimit"];

/// The verbs, each with the flags that it does not take.
fn verbs() -> [(&'static str, Vec<&'static str>); 2] {
    [("check", [OF_BUILDING.as_slice(), &OF_STEPS].concat()), ("graph", OF_BUILDING.to_vec())]
}

/// Takes the flags out of the help.
pub(super) fn hide(command: Command) -> Command {
    verbs().into_iter().fold(command, |command, (verb, flags)| {
        let hide = |verb: Command, flag: &&str| verb.mut_arg(*flag, |arg| arg.hide(true));
        command.mut_subcommand(verb, |verb| flags.iter().fold(verb, hide))
    })
}

/// Refuses the flags.
pub(super) fn refuse(command: &mut Command, matches: &ArgMatches) -> Result<(), Error> {
    let Some((name, given)) = matches.subcommand() else { return Ok(()) };
    let Some((_, flags)) = verbs().into_iter().find(|(verb, _)| *verb == name) else { return Ok(()) };
    let is_given = |flag: &&str| {
        let off = matches!(given.try_get_one::<bool>(flag), Ok(Some(false)));
        given.value_source(flag) == Some(ValueSource::CommandLine) && !off
    };
    match flags.into_iter().find(is_given) {
        Some(flag) => {
            let flag = flag.replace('_', "-");
            let why = format!("`--{flag}` has no effect on `{name}`, which builds nothing: leave it out\n");
            Err(command.error(ErrorKind::UnknownArgument, why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Args;

    fn said(line: &str) -> String {
        let words = std::iter::once("lapstrake").chain(line.split(' '));
        match Args::read(words) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn flags_that_mean_nothing_are_refused() {
        for verb in ["check", "graph"] {
            for flags in ["-t x", "--push", "-q", "-o out", "--debug", "-m 1g", "--locked", "--check"] {
                let told = said(&format!("{verb} {flags} ."));
                assert!(told.contains("has no effect on"), "{verb} {flags}: {told}");
            }
            assert_eq!(said(&format!("{verb} --target a --build-arg b=c --secret id=x --pull .")), "");
            let help = said(&format!("{verb} --help"));
            assert!(help.contains("--build-arg") && !help.contains("--iidfile"), "{help}");
        }
        assert!(said("check --no-cache .").contains("`--no-cache` has no effect on `check`"));
        assert_eq!(said("graph --no-cache --network none ."), "");
        assert_eq!(said("build --check -t x --push ."), "");
        assert_eq!(said("check --push=false --quiet=0 ."), "");
    }
}
