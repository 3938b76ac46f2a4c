//! Option values as Docker's users write them: text to data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapstrake_diag::{SourceFile, Usage};
use lapstrake_dockerfile::Dialect;
use lapstrake_go::{duration, parse_bool};
use lapstrake_graph::{NetworkMode, Ulimit};
use lapstrake_request::LimitRequest;
use lapstrake_runtime::{CpuTime, IoLimit, IoRate, Limits, NetworkPreference, Swap};
use lapstrake_store::{Filter, ItemKind};

/// The language of a Dockerfile: the one that the command line, an argument or the file itself names.
pub fn dialect(file: &SourceFile, syntax: Option<&str>, args: &BTreeMap<String, String>) -> Dialect {
    let asked = syntax.or(args.get("BUILDKIT_SYNTAX").map(String::as_str));
    asked.map_or_else(|| lapstrake_dockerfile::dialect(file), Dialect::of_syntax)
}

/// `--network`, for steps that do not say; also what the default is.
pub fn network(text: &str, default: Option<&str>) -> Result<(NetworkMode, NetworkPreference), Usage> {
    match text {
        "default" | "" => Ok((NetworkMode::Default, default_network(default)?)),
        "isolated" | "bridge" => Ok((NetworkMode::Default, NetworkPreference::Own)),
        "host" => Ok((NetworkMode::Host, NetworkPreference::Host)),
        "none" => Ok((NetworkMode::None, NetworkPreference::Host)),
        other => Err(Usage(format!("--network {other}: not one of default, isolated, none, host"))),
    }
}

fn default_network(default: Option<&str>) -> Result<NetworkPreference, Usage> {
    match default {
        None | Some("default") => Ok(NetworkPreference::OwnIfPossible),
        Some("host") => Ok(NetworkPreference::Host),
        Some("isolated" | "bridge") => Ok(NetworkPreference::Own),
        Some(other) => Err(Usage(format!("LAPSTRAKE_NETWORK={other}: not one of host, isolated"))),
    }
}

/// `--allow`
pub fn entitlement(text: &String) -> Result<String, Usage> {
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
pub fn host(text: &String) -> Result<(String, String), Usage> {
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
pub fn size(text: &str) -> Result<u64, Usage> {
    lapstrake_go::size::parse(text).ok_or_else(|| Usage(format!("`{text}` is not a size: try `64m`")))
}

/// `--memory`, `--cpus`, `--pids-limit`, and those of disks
pub fn limits(limits: &LimitRequest) -> Result<Limits, Usage> {
    if limits.pids_limit == Some(0) {
        return Err(Usage("--pids-limit 0: nothing could run".to_owned()));
    }
    let memory = limits.memory.as_deref().map(size).transpose()?;
    Ok(Limits {
        memory,
        swap: limits.memory_swap.as_deref().map(|text| swap(text, memory)).transpose()?,
        cpu: cpu_time(limits)?,
        cpu_shares: limits.cpu_shares.as_deref().map(|text| number("--cpu-shares", text)).transpose()?,
        cpus: limits.cpuset_cpus.as_deref().map(|text| list("--cpuset-cpus", text)).transpose()?,
        nodes: limits.cpuset_mems.as_deref().map(|text| list("--cpuset-mems", text)).transpose()?,
        pids: limits.pids_limit,
        io: io_limits(limits)?,
        parent: limits.cgroup_parent.clone().filter(|parent| !parent.as_os_str().is_empty()),
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
fn cpu_time(limits: &LimitRequest) -> Result<Option<CpuTime>, Usage> {
    const PERIOD: u64 = 100_000;
    let LimitRequest { cpus, cpu_period, cpu_quota, .. } = limits;
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
pub fn resources(limits: &mut LimitRequest, texts: &[String]) -> Result<(), Usage> {
    for text in texts {
        let unknown = |key: &str| Usage(format!("unknown resource {key:?}"));
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Usage(format!("invalid resource {text:?}, expected key=value")))?;
        let place = match key.trim() {
            "memory" => &mut limits.memory,
            "memory-swap" => &mut limits.memory_swap,
            "cpu-shares" => &mut limits.cpu_shares,
            "cpu-period" => &mut limits.cpu_period,
            "cpu-quota" => &mut limits.cpu_quota,
            "cpuset-cpus" => &mut limits.cpuset_cpus,
            "cpuset-mems" => &mut limits.cpuset_mems,
            key => return Err(unknown(key)),
        };
        *place = Some(value.trim().to_owned());
    }
    Ok(())
}

/// The refusal of attestations that `--attest`, `--provenance` or `--sbom` ask for: none are made yet, so they can only be
/// declined.
pub fn attestations(texts: &[String]) -> Option<String> {
    let declined = |text: &&String| {
        let off = |field: &str| {
            field.trim().strip_prefix("disabled=").is_some_and(|value| parse_bool(value) == Some(true))
        };
        parse_bool(text) == Some(false) || text.split(',').any(off)
    };
    let text = texts.iter().find(|text| !declined(text))?;
    Some(format!(
        "attestations are not supported yet ({text}): leave them out, or decline them with `=false`"
    ))
}

/// `--device-read-bps` and the like.
fn io_limits(limits: &LimitRequest) -> Result<Vec<IoLimit>, Usage> {
    let flags = [
        ("--device-read-bps", IoRate::ReadBytes, &limits.device_read_bps),
        ("--device-write-bps", IoRate::WriteBytes, &limits.device_write_bps),
        ("--device-read-iops", IoRate::Reads, &limits.device_read_iops),
        ("--device-write-iops", IoRate::Writes, &limits.device_write_iops),
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
pub fn no_new_privs(limits: &LimitRequest) -> Result<bool, Usage> {
    let mut ruled_out = false;
    for text in &limits.security_opt {
        ruled_out = match text.as_str() {
            "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => true,
            "no-new-privileges=false" | "no-new-privileges:false" => false,
            _ => return Err(Usage(format!("--security-opt {text}: only no-new-privileges is supported"))),
        };
    }
    Ok(ruled_out)
}

/// `--ulimit NAME=SOFT[:HARD]`
pub fn ulimit(text: &String) -> Result<Ulimit, Usage> {
    let bad = || Usage(format!("--ulimit {text}: not NAME=SOFT[:HARD]"));
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// `path`, from the current directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Usage> {
    std::path::absolute(path).map_err(|error| Usage(format!("`{}`: {error}", path.display())))
}

/// The part of the build cache that the values of `--filter` choose.
///
/// # Errors
/// A filter that is not known, or its value.
pub fn cache_filter(texts: &[String]) -> Result<Filter, Usage> {
    let mut filter = Filter::default();
    texts.iter().try_for_each(|text| add_filter(&mut filter, text))?;
    Ok(filter)
}

fn add_filter(filter: &mut Filter, text: &str) -> Result<(), Usage> {
    let unknown = || {
        Usage(format!(
            "--filter {text}: unknown filter: use `until=24h`, `type=TYPE`, `id=ID` or `description~=TEXT`"
        ))
    };
    let (key, value) = text.split_once('=').ok_or_else(unknown)?;
    match key {
        "until" => {
            filter.unused_for = duration::seconds(value)
                .ok_or_else(|| Usage(format!("--filter {text}: not a duration: try `24h` or `30m`")))?;
        }
        "type" => {
            let kind = ItemKind::ALL.into_iter().find(|kind| kind.name() == value);
            let names = ItemKind::ALL.map(ItemKind::name).join("`, `");
            filter.kinds.push(kind.ok_or_else(|| Usage(format!("--filter {text}: there are `{names}`")))?);
        }
        "id" => filter.ids.push(value.to_owned()),
        "description~" => filter.descriptions.push(value.to_owned()),
        _ => return Err(unknown()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lapstrake_go::duration::seconds;

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
}
