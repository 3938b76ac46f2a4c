//! Option values: text to data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapstrake_diag::{SourceFile, Usage};
use lapstrake_dockerfile::Dialect;
use lapstrake_go::{duration, parse_bool};
use lapstrake_graph::{NetworkMode, Ulimit};
use lapstrake_ops::Secret;
use lapstrake_runtime::{CpuTime, IoLimit, IoRate, Limits, Preference, Swap};

use crate::args::Build;
use crate::args::limits::Hold;
use crate::env;

/// `KEY=VALUE` pairs; without a value, the environment's, and nothing if that has none.
pub(crate) fn pairs(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .filter_map(|text| match text.split_once('=') {
            Some((key, value)) => Some((key.to_owned(), value.to_owned())),
            None => Some((text.clone(), env::value(text)?)),
        })
        .collect()
}

/// `--build-arg` and `--build-arg-file`.
pub(crate) fn build_args(args: &[String], files: &[PathBuf]) -> Result<BTreeMap<String, String>, Usage> {
    variables("--build-arg-file", files, args)
}

/// Variables of files that `flag` names, and of the command line. A later file wins over an earlier one, and the command
/// line over all files.
pub(crate) fn variables(
    flag: &str,
    files: &[PathBuf],
    args: &[String],
) -> Result<BTreeMap<String, String>, Usage> {
    let mut all = BTreeMap::new();
    for file in files {
        let bad = |why: String| Usage(format!("{flag} {}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
        let lines = argument_lines(&text).map_err(|line| bad(format!("line {line} has no name")))?;
        all.extend(pairs(&lines));
    }
    all.extend(pairs(args));
    Ok(all)
}

/// The arguments in a file: a line each, values as they stand, without empty lines and those that begin with `#`. The
/// error is the number of a line without a name.
fn argument_lines(text: &str) -> Result<Vec<String>, usize> {
    let mut found = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or(line);
        if name.is_empty() || name.trim_end().contains(char::is_whitespace) {
            return Err(number + 1);
        }
        found.push(if name.len() == line.len() { line.trim_end().to_owned() } else { line.to_owned() });
    }
    Ok(found)
}

/// The language of a Dockerfile: the one that the command line, an argument or the file itself names.
pub(crate) fn dialect(file: &SourceFile, syntax: Option<&str>, args: &BTreeMap<String, String>) -> Dialect {
    let asked = syntax.or(args.get("BUILDKIT_SYNTAX").map(String::as_str));
    asked.map_or_else(|| lapstrake_dockerfile::dialect(file), Dialect::of_syntax)
}

/// `a=b,c=d`, in order.
fn fields(text: &str) -> Vec<(&str, &str)> {
    text.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect()
}

/// `--secret`
pub(crate) fn secret(text: &String) -> Result<(String, Secret), Usage> {
    let (mut id, mut file, mut variable) = (None, None, None);
    for (key, value) in fields(text) {
        match key {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(PathBuf::from(value)),
            "env" => variable = Some(value.to_owned()),
            "type" => {}
            _ => return Err(Usage(format!("--secret {text}: unknown key `{key}`"))),
        }
    }
    let id = id.ok_or_else(|| Usage(format!("--secret {text}: no id")))?;
    let from_env = |name: &str| env::value(name).map(|value| Secret::Value(value.into_bytes()));
    let secret = match (file, variable) {
        (Some(file), _) => readable(file, text)?,
        (None, Some(name)) => {
            from_env(&name).ok_or_else(|| Usage(format!("--secret {text}: no variable `{name}`")))?
        }
        (None, None) => match from_env(&id) {
            Some(value) => value,
            None => readable(PathBuf::from(&id), text)?,
        },
    };
    Ok((id, secret))
}

fn readable(file: PathBuf, text: &str) -> Result<Secret, Usage> {
    match std::fs::File::open(&file) {
        Ok(_) => Ok(Secret::File(file)),
        Err(error) => Err(Usage(format!("--secret {text}: cannot read `{}`: {error}", file.display()))),
    }
}

/// `--ssh`
pub(crate) fn ssh(text: &String) -> Result<(String, PathBuf), Usage> {
    let (id, socket) = text.split_once('=').unwrap_or((text, ""));
    if !socket.is_empty() {
        return Ok((id.to_owned(), PathBuf::from(socket)));
    }
    match env::value("SSH_AUTH_SOCK") {
        Some(socket) => Ok((id.to_owned(), PathBuf::from(socket))),
        None => Err(Usage(format!("--ssh {text}: no agent is running (SSH_AUTH_SOCK is not set)"))),
    }
}

/// `--network`, for steps that do not say; also what the default is.
pub(crate) fn network(text: &str) -> Result<(NetworkMode, Preference), Usage> {
    match text {
        "default" | "" => Ok((NetworkMode::Default, default_network()?)),
        "isolated" | "bridge" => Ok((NetworkMode::Default, Preference::Own)),
        "host" => Ok((NetworkMode::Host, Preference::Host)),
        "none" => Ok((NetworkMode::None, Preference::Host)),
        other => Err(Usage(format!("--network {other}: not one of default, isolated, none, host"))),
    }
}

fn default_network() -> Result<Preference, Usage> {
    match env::network().as_deref() {
        None | Some("default") => Ok(Preference::OwnIfPossible),
        Some("host") => Ok(Preference::Host),
        Some("isolated" | "bridge") => Ok(Preference::Own),
        Some(other) => Err(Usage(format!("LAPSTRAKE_NETWORK={other}: not one of host, isolated"))),
    }
}

/// `--allow`
pub(crate) fn entitlement(text: &String) -> Result<String, Usage> {
    match text.as_str() {
        "network.host" | "security.insecure" | "device" => Ok(text.clone()),
        device if device.strip_prefix("device=").is_some_and(|name| !name.is_empty()) => Ok(text.clone()),
        _ => {
            let known = "network.host, security.insecure, device, device=NAME";
            Err(Usage(format!("--allow {text}: not one of {known}")))
        }
    }
}

/// `--add-host NAME:ADDRESS` or `NAME=ADDRESS`
pub(crate) fn host(text: &String) -> Result<(String, String), Usage> {
    let bad = |why: String| Usage(format!("--add-host {text}: {why}"));
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| bad("not NAME:ADDRESS".to_owned()))?;
    if address == "host-gateway" {
        return Err(
            bad("unable to derive the IP value for host-gateway: give the address itself".to_owned()),
        );
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().map_err(|_| bad(format!("failed to parse IP {bare}")))?;
    Ok((name.to_lowercase(), bare.to_owned()))
}

/// Bytes with a unit: `64m`, `1g`, `1048576`.
pub(crate) fn size(text: &str) -> Result<u64, Usage> {
    lapstrake_go::size::parse(text).ok_or_else(|| Usage(format!("`{text}` is not a size: try `64m`")))
}

/// `--memory`, `--cpus`, `--pids-limit`, and those of disks
pub(crate) fn limits(hold: &Hold) -> Result<Limits, Usage> {
    if hold.pids_limit == Some(0) {
        return Err(Usage("--pids-limit 0: nothing could run".to_owned()));
    }
    let memory = hold.memory.as_deref().map(size).transpose()?;
    Ok(Limits {
        memory,
        swap: hold.memory_swap.as_deref().map(|text| swap(text, memory)).transpose()?,
        cpu: cpu_time(hold)?,
        cpu_shares: hold.cpu_shares.as_deref().map(|text| number("--cpu-shares", text)).transpose()?,
        cpus: hold.cpuset_cpus.as_deref().map(|text| list("--cpuset-cpus", text)).transpose()?,
        nodes: hold.cpuset_mems.as_deref().map(|text| list("--cpuset-mems", text)).transpose()?,
        pids: hold.pids_limit,
        io: io_limits(hold)?,
        parent: hold.cgroup_parent.clone().filter(|parent| !parent.as_os_str().is_empty()),
    })
}

/// `--memory-swap`: memory and swap together.
fn swap(text: &str, memory: Option<u64>) -> Result<Swap, Usage> {
    let memory = memory.ok_or_else(|| Usage(format!("--memory-swap {text}: it needs --memory")))?;
    if text == "-1" {
        return Ok(Swap::Unlimited);
    }
    let less =
        || Usage(format!("--memory-swap {text}: it is memory and swap together, so not less than --memory"));
    size(text)?.checked_sub(memory).map(Swap::Bytes).ok_or_else(less)
}

fn number(flag: &str, text: &str) -> Result<u64, Usage> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Usage(format!("{flag} {text}: not a number above 0")))
}

/// Numbers and ranges of them, as the kernel reads them.
fn list(flag: &str, text: &str) -> Result<String, Usage> {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    if text.split(',').all(is_part) {
        return Ok(text.to_owned());
    }
    Err(Usage(format!("{flag} {text}: not a list, as `0-3,5`")))
}

/// `--cpus`, or what it is short for.
fn cpu_time(hold: &Hold) -> Result<Option<CpuTime>, Usage> {
    const PERIOD: u64 = 100_000;
    let Hold { cpus, cpu_period, cpu_quota, .. } = hold;
    let period = cpu_period.as_deref().map(|text| number("--cpu-period", text)).transpose()?;
    let quota = cpu_quota.as_deref().map(|text| number("--cpu-quota", text)).transpose()?;
    match cpus {
        Some(_) if period.is_some() || quota.is_some() => {
            Err(Usage("--cpus says the same as --cpu-quota and --cpu-period: give one of them".to_owned()))
        }
        Some(text) => {
            let cpus = text.parse::<f64>().ok().filter(|number| (0.001..1e6).contains(number));
            let wrong = || Usage(format!("--cpus {text}: not a number of processors, as `1.5`"));
            let quota = (cpus.ok_or_else(wrong)? * PERIOD as f64).round() as u64;
            // The kernel takes no less.
            Ok(Some(CpuTime { quota: Some(quota.max(1000)), period: PERIOD }))
        }
        None if period.is_none() && quota.is_none() => Ok(None),
        None => Ok(Some(CpuTime { quota, period: period.unwrap_or(PERIOD) })),
    }
}

/// `--resource KEY=VALUE`: the flag that has the key's name.
pub(crate) fn resources(hold: &mut Hold, texts: &[String]) -> Result<(), Usage> {
    for text in texts {
        let unknown = |key: &str| Usage(format!("unknown resource {key:?}"));
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Usage(format!("invalid resource {text:?}, expected key=value")))?;
        let place = match key.trim() {
            "memory" => &mut hold.memory,
            "memory-swap" => &mut hold.memory_swap,
            "cpu-shares" => &mut hold.cpu_shares,
            "cpu-period" => &mut hold.cpu_period,
            "cpu-quota" => &mut hold.cpu_quota,
            "cpuset-cpus" => &mut hold.cpuset_cpus,
            "cpuset-mems" => &mut hold.cpuset_mems,
            key => return Err(unknown(key)),
        };
        *place = Some(value.trim().to_owned());
    }
    Ok(())
}

/// What `--attest`, `--provenance` and `--sbom` ask for: none are made yet, so they can only be declined.
pub(crate) fn attestations(args: &Build) -> Option<String> {
    let declined = |text: &&String| {
        let off = |field: &str| {
            field.trim().strip_prefix("disabled=").is_some_and(|value| parse_bool(value) == Some(true))
        };
        parse_bool(text) == Some(false) || text.split(',').any(off)
    };
    let all = args.attest.iter().chain(&args.provenance).chain(&args.sbom);
    let text = all.into_iter().find(|text| !declined(text))?;
    Some(format!(
        "attestations are not built yet (asked for: {text}): leave them away, or decline them with `=false`"
    ))
}

/// `--device-read-bps` and the like.
fn io_limits(hold: &Hold) -> Result<Vec<IoLimit>, Usage> {
    let flags = [
        ("--device-read-bps", IoRate::ReadBytes, &hold.device_read_bps),
        ("--device-write-bps", IoRate::WriteBytes, &hold.device_write_bps),
        ("--device-read-iops", IoRate::Reads, &hold.device_read_iops),
        ("--device-write-iops", IoRate::Writes, &hold.device_write_iops),
    ];
    let all =
        flags.into_iter().flat_map(|(flag, rate, texts)| texts.iter().map(move |text| (flag, rate, text)));
    all.map(|(flag, rate, text)| io_limit(rate, text).map_err(|why| Usage(format!("{flag} {text}: {why}"))))
        .collect()
}

fn io_limit(rate: IoRate, text: &str) -> Result<IoLimit, String> {
    let (path, value) = text.rsplit_once(':').ok_or("not DEVICE:RATE, as `/dev/sda:1mb`")?;
    let value = match rate {
        IoRate::ReadBytes | IoRate::WriteBytes => size(value).map_err(|Usage(why)| why)?,
        IoRate::Reads | IoRate::Writes => value.parse().map_err(|_| format!("`{value}` is not a number"))?,
    };
    // Zero would be no limit in one version of control groups and an error in the other.
    if value == 0 {
        return Err("nothing could be read or written".to_owned());
    }
    let stat = rustix::fs::stat(path).map_err(|errno| format!("{path}: {}", std::io::Error::from(errno)))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::BlockDevice {
        return Err(format!("{path} is not a disk"));
    }
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(IoLimit { device, rate, value })
}

/// `--security-opt`: whether new privileges are ruled out.
pub(crate) fn no_new_privs(hold: &Hold) -> Result<bool, Usage> {
    let mut ruled_out = false;
    for text in &hold.security_opt {
        ruled_out = match text.as_str() {
            "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => true,
            "no-new-privileges=false" | "no-new-privileges:false" => false,
            _ => return Err(Usage(format!("--security-opt {text}: only no-new-privileges is supported"))),
        };
    }
    Ok(ruled_out)
}

/// `--ulimit NAME=SOFT[:HARD]`
pub(crate) fn ulimit(text: &String) -> Result<Ulimit, Usage> {
    let bad = || Usage(format!("--ulimit {text}: not NAME=SOFT[:HARD]"));
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// `path`, from the current directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Usage> {
    std::path::absolute(path).map_err(|error| Usage(format!("`{}`: {error}", path.display())))
}

/// A duration as Go writes it, also with days: `1h30m`, `2d`. In whole seconds.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    // A bare zero is Go's; here a number without a unit is a time.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let nanoseconds = duration::parse_with_days(text).ok().filter(|length| !is_number && *length >= 0)?;
    Some(nanoseconds / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("64m").ok(), Some(64 << 20));
        assert_eq!(size("1GiB").ok(), Some(1 << 30));
        assert!(size("m").is_err() && size("").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("1h30m"), Some(5_400));
        assert_eq!(seconds("2d"), Some(172_800));
        assert!(
            seconds("").is_none()
                && seconds("5").is_none()
                && seconds("h").is_none()
                && seconds("1y").is_none()
        );
    }

    #[test]
    fn a_host_needs_an_address() {
        let told = |text: &str| host(&text.to_owned()).map_err(|error| error.0);
        let pair = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(told("Web:10.0.0.1"), pair("web", "10.0.0.1"));
        assert_eq!(told("web=[::1]"), pair("web", "::1"));
        assert_eq!(told("web:x"), Err("--add-host web:x: failed to parse IP x".to_owned()));
        assert_eq!(told("web"), Err("--add-host web: not NAME:ADDRESS".to_owned()));
        assert!(told("web:host-gateway").is_err_and(|why| why.contains("unable to derive the IP value")));
    }

    #[test]
    fn lines_of_an_argument_file() {
        let text = "\u{feff}# comment\nA=1 # kept \n\n  B=\"x\"=y\r\nPATHLESS \n";
        let lines = argument_lines(text).unwrap();
        assert_eq!(lines, ["A=1 # kept ", "B=\"x\"=y", "PATHLESS"]);
        assert_eq!(argument_lines("A=1\n=x\n"), Err(2));
        assert_eq!(argument_lines("export A=1"), Err(1));
    }
}
