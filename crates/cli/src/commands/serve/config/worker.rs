//! The tables `worker.oci`, `dns`, `history` and `cdi` of `buildkitd.toml`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use lapstrake_buildkit::{KeepPolicy, usage_filter};
use lapstrake_go::{duration, size};
use lapstrake_store::{BuildLimits, Limits, Rule, Space};
use toml::{Table, Value};

use super::{Config, list_of, number_of, table_of, text_of};

/// An amount of disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskSpace {
    /// So many bytes.
    Bytes(u64),
    /// Hundredths of the disk.
    Percent(u64),
}

impl DiskSpace {
    /// Reads a number of bytes, a text with a unit (`512MB`) or hundredths of the disk (`10%`). Nothing and 0 are no limit.
    fn read(key: &str, value: &Value) -> Result<Option<DiskSpace>, String> {
        let bad = || format!("`{key}` is no size: there are 512000000, \"512MB\" and \"10%\"");
        let space = match value {
            Value::Integer(bytes) => DiskSpace::Bytes(u64::try_from(*bytes).map_err(|_| bad())?),
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => match text.strip_suffix('%') {
                Some(number) => DiskSpace::Percent(number.parse().map_err(|_| bad())?),
                None => DiskSpace::Bytes(size::parse(text).ok_or_else(bad)?),
            },
            _ => return Err(bad()),
        };
        Ok(Some(space).filter(|space| !matches!(space, DiskSpace::Bytes(0) | DiskSpace::Percent(0))))
    }

    fn bytes(self, disk: Space) -> u64 {
        match self {
            DiskSpace::Bytes(bytes) => bytes,
            DiskSpace::Percent(number) => (disk.total / 100).saturating_mul(number),
        }
    }
}

/// The limits of one rule, or of the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SpaceLimits {
    reserved: Option<DiskSpace>,
    max_used: Option<DiskSpace>,
    min_free: Option<DiskSpace>,
    /// The old name of `reserved`, which counts where there is no other limit.
    old: Option<DiskSpace>,
}

impl SpaceLimits {
    /// Takes the value of `key`, if the key is one of a limit.
    fn take(&mut self, key: &str, value: &Value) -> Result<bool, String> {
        let field = match key {
            "reservedSpace" => &mut self.reserved,
            "maxUsedSpace" => &mut self.max_used,
            "minFreeSpace" => &mut self.min_free,
            "gckeepstorage" | "keepBytes" => &mut self.old,
            _ => return Ok(false),
        };
        *field = DiskSpace::read(key, value)?;
        Ok(true)
    }

    fn limits(self, disk: Space) -> Limits {
        let bytes = |space: Option<DiskSpace>| space.map(|space| space.bytes(disk));
        let others = (self.reserved, self.max_used, self.min_free);
        let reserved = if others == (None, None, None) { self.old } else { self.reserved };
        Limits { reserved: bytes(reserved), max_used: bytes(self.max_used), min_free: bytes(self.min_free) }
    }
}

/// The garbage collection that `worker.oci` asks for.
#[derive(Debug, Default)]
pub(in super::super) struct Collection {
    off: bool,
    limits: SpaceLimits,
    rules: Vec<(SpaceLimits, Rule)>,
}

impl Collection {
    /// The policy on `disk`; `None` where the file says nothing.
    pub(in super::super) fn policy(self, disk: Space) -> Option<KeepPolicy> {
        if self.off {
            return Some(KeepPolicy::All);
        }
        if !self.rules.is_empty() {
            let rules = self.rules.into_iter();
            let rules = rules.map(|(limits, rule)| Rule { limits: limits.limits(disk), ..rule });
            return Some(KeepPolicy::Rules(rules.collect()));
        }
        let limits = self.limits.limits(disk);
        (limits != Limits::default()).then(|| KeepPolicy::Rules(Rule::defaults_with(limits)))
    }
}

impl Config {
    pub(super) fn worker(&mut self, table: &Table) -> Result<(), String> {
        for (kind, value) in table {
            for (key, value) in table_of(kind, value)? {
                match (kind.as_str(), key.as_str()) {
                    // There is one worker, and nothing else that it could be.
                    ("oci", "enabled") if value.as_bool() == Some(true) => {}
                    ("containerd", "enabled") if value.as_bool() == Some(false) => {}
                    ("oci", key) => self.oci(key, value)?,
                    (kind, key) => self.unknown.push(format!("worker.{kind}.{key}")),
                }
            }
        }
        Ok(())
    }

    fn oci(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "labels" => {
                for (label, value) in table_of(key, value)? {
                    self.labels.insert(label.clone(), text_of(label, value)?);
                }
            }
            "gc" => self.collection.off = !value.as_bool().ok_or("`gc` is neither true nor false")?,
            "max-parallelism" => {
                let most =
                    usize::try_from(number_of(key, value)?).map_err(|_| "`max-parallelism` is negative")?;
                self.most_steps = NonZeroUsize::new(most);
            }
            "gcpolicy" => {
                let rules = value.as_array().ok_or("`gcpolicy` is no list of tables")?;
                self.collection.rules =
                    rules.iter().map(|rule| self.rule(table_of(key, rule)?)).collect::<Result<_, _>>()?;
            }
            _ => {
                if !self.collection.limits.take(key, value)? {
                    self.unknown.push(format!("worker.oci.{key}"));
                }
            }
        }
        Ok(())
    }

    fn rule(&self, table: &Table) -> Result<(SpaceLimits, Rule), String> {
        let (mut limits, mut filters, mut unused_for) = (SpaceLimits::default(), Vec::new(), 0);
        for (key, value) in table {
            match key.as_str() {
                "filters" => filters = list_of(key, value)?,
                "keepDuration" => unused_for = seconds(key, value)?,
                // Each rule is about everything that its filters take.
                "all" => {}
                _ if limits.take(key, value)? => {}
                _ => return Err(format!("`gcpolicy` has no `{key}`")),
            }
        }
        let filter = usage_filter(&filters, 0).map_err(|report| report.to_string())?;
        let filter = lapstrake_store::Filter { unused_for, ..filter };
        Ok((limits, Rule { filter, limits: Limits::default() }))
    }

    pub(super) fn dns(&mut self, table: &Table) -> Result<(), String> {
        for (key, value) in table {
            match key.as_str() {
                "nameservers" => {
                    let address = |text: String| {
                        text.parse().map_err(|_| format!("`nameservers`: `{text}` is no IP address"))
                    };
                    self.dns.servers =
                        list_of(key, value)?.into_iter().map(address).collect::<Result<_, _>>()?;
                }
                "options" => self.dns.options = words(key, value)?,
                "searchDomains" => self.dns.search = words(key, value)?,
                _ => self.unknown.push(format!("dns.{key}")),
            }
        }
        Ok(())
    }

    pub(super) fn history(&mut self, table: &Table) -> Result<(), String> {
        let mut limits = BuildLimits::default();
        for (key, value) in table {
            match key.as_str() {
                "maxAge" => limits.age = seconds(key, value)?,
                "maxEntries" => limits.count = number_of(key, value)?,
                _ => self.unknown.push(format!("history.{key}")),
            }
        }
        self.build_limits = Some(limits);
        Ok(())
    }

    pub(super) fn cdi(&mut self, table: &Table) -> Result<(), String> {
        for (key, value) in table {
            match key.as_str() {
                "disabled" => {
                    self.cdi_disabled = value.as_bool().ok_or("`disabled` is neither true nor false")?;
                }
                "specDirs" => {
                    self.cdi_dirs = list_of(key, value)?.into_iter().map(PathBuf::from).collect();
                }
                _ => self.unknown.push(format!("cdi.{key}")),
            }
        }
        Ok(())
    }
}

/// Texts without blanks and line ends, which would be further words or lines of a file.
fn words(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let words = list_of(key, value)?;
    match words
        .iter()
        .find(|word| word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        Some(word) => Err(format!("`{key}`: {word:?} is not one word")),
        None => Ok(words),
    }
}

/// Seconds: a number of them, or a text such as `48h`.
fn seconds(key: &str, value: &Value) -> Result<i64, String> {
    let bad = || format!("`{key}` is no duration: there are 172800 and \"48h\"");
    match value {
        Value::Integer(seconds) => Ok(*seconds),
        Value::String(text) if text.is_empty() => Ok(0),
        Value::String(text) => match duration::parse(text) {
            Ok(nanoseconds) => Ok(nanoseconds / 1_000_000_000),
            Err(_) => text.parse().map_err(|_| bad()),
        },
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Space = Space { total: 1_000, free: 500 };

    fn policy(text: &str) -> Option<KeepPolicy> {
        Config::parse(text).unwrap().collection.policy(DISK)
    }

    #[test]
    fn policies_of_garbage_collection() {
        assert_eq!(policy(""), None);
        assert_eq!(policy("[worker.oci]\ngc = true"), None);
        assert_eq!(policy("[worker.oci]\ngc = false\ngckeepstorage = 7"), Some(KeepPolicy::All));
        let limits = Limits { reserved: Some(300), max_used: Some(1 << 20), min_free: None };
        let text = "[worker.oci]\nreservedSpace = \"30%\"\nmaxUsedSpace = \"1MB\"\nminFreeSpace = 0\ngckeepstorage = 5";
        assert_eq!(policy(text), Some(KeepPolicy::Rules(Rule::defaults_with(limits))));
        let old = Limits { reserved: Some(5), ..Limits::default() };
        assert_eq!(
            policy("[worker.oci]\ngckeepstorage = 5"),
            Some(KeepPolicy::Rules(Rule::defaults_with(old)))
        );
        let Some(KeepPolicy::Rules(rules)) = policy(
            "[[worker.oci.gcpolicy]]\nkeepDuration = \"48h\"\nfilters = [\"type==exec.cachemount\"]\nkeepBytes = 9\n\
             [[worker.oci.gcpolicy]]\nall = true\nkeepDuration = 60\nmaxUsedSpace = \"50%\"",
        ) else {
            panic!("no rules")
        };
        assert_eq!((rules[0].filter.unused_for, rules[0].filter.kinds.len()), (48 * 3_600, 1));
        assert_eq!(rules[0].limits.reserved, Some(9));
        assert_eq!((rules[1].filter.unused_for, rules[1].limits.max_used), (60, Some(500)));
    }

    #[test]
    fn names_history_and_devices() {
        let config = Config::parse(
            "[dns]\nnameservers = [\"192.0.2.1\"]\noptions = [\"edns0\"]\nsearchDomains = [\"a.example\"]\n\
             [history]\nmaxAge = \"1h\"\nmaxEntries = 3\n[cdi]\ndisabled = true\nspecDirs = [\"/x\"]\n\
             [worker.oci]\nmax-parallelism = 4\n",
        );
        let config = config.unwrap();
        assert_eq!(config.dns.servers, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(
            (config.dns.options, config.dns.search),
            (vec!["edns0".to_owned()], vec!["a.example".to_owned()])
        );
        assert_eq!(config.build_limits, Some(BuildLimits { age: 3_600, count: 3 }));
        assert_eq!((config.cdi_disabled, config.cdi_dirs), (true, vec![PathBuf::from("/x")]));
        assert_eq!(config.most_steps, NonZeroUsize::new(4));
    }

    #[test]
    fn wrong_values_have_names() {
        for (text, word) in [
            ("[worker.oci]\nmaxUsedSpace = \"x\"", "`maxUsedSpace` is no size"),
            ("[worker.oci]\nmax-parallelism = -1", "negative"),
            ("[[worker.oci.gcpolicy]]\nnosuch = 1", "no `nosuch`"),
            ("[[worker.oci.gcpolicy]]\nfilters = [\"nosuch\"]", "`nosuch`"),
            ("[dns]\nnameservers = [\"x\"]", "no IP address"),
            ("[dns]\noptions = [\"a\\nnameserver b\"]", "not one word"),
            ("[history]\nmaxAge = \"soon\"", "no duration"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
