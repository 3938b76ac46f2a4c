//! The value of `RUN --mount`.
//!
//! Keys are read in order, and what some of them may say depends on the type read so far: `type=` had better come
//! first.

use lapstrake_diag::did_you_mean_exactly;
use lapstrake_go::{csv, parse_bool, quoted, size, to_lower};

use crate::syntax::Dialect;
use crate::text::Text;

/// `type=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountType {
    /// Files of a context, stage or image.
    #[default]
    Bind,
    /// A directory that outlives builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// An SSH agent.
    Ssh,
}

impl MountType {
    const ALL: [(MountType, &'static str); 5] = [
        (MountType::Bind, "bind"),
        (MountType::Cache, "cache"),
        (MountType::Tmpfs, "tmpfs"),
        (MountType::Secret, "secret"),
        (MountType::Ssh, "ssh"),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        MountType::ALL[self as usize].1
    }
}

/// `sharing=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Many at once.
    Shared,
    /// A new one if it is in use.
    Private,
    /// One after the other.
    Locked,
}

impl Sharing {
    const ALL: [(Sharing, &'static str); 3] =
        [(Sharing::Shared, "shared"), (Sharing::Private, "private"), (Sharing::Locked, "locked")];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Sharing::ALL[self as usize].1
    }
}

/// A mount, all values expanded. Empty and `None` mean "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`
    pub kind: MountType,
    /// `from`
    pub from: String,
    /// `source`, `src`
    pub source: String,
    /// `target`, `dst`, `destination`
    pub target: String,
    /// Whether it is mounted read-only; the default depends on the type.
    pub readonly: bool,
    /// `size`, in bytes
    pub size: u64,
    /// `id`
    pub id: String,
    /// `sharing`
    pub sharing: Option<Sharing>,
    /// `required`
    pub required: bool,
    /// `env`
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// In the order in which resemblance is looked for.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// The `from` of a mount whose values are not expanded yet: only [`Dialect::Lapstrake`] has variables in it.
pub(crate) fn unexpanded_from(text: &str, dialect: Dialect) -> Result<Option<Text>, String> {
    let mut from = None;
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let key = to_lower(key);
        if key == "from" {
            let variable = value.find('$').is_some_and(|at| at + 1 < value.len());
            if variable && dialect == Dialect::BuildKit {
                return Err(format!(
                    "'{key}' doesn't support variable expansion, define alias stage instead"
                ));
            }
            from = Some(Text::from(value));
        }
    }
    Ok(from.filter(|from| !from.is_empty()))
}

fn fields(text: &str) -> Result<Vec<String>, String> {
    csv::fields(text).map_err(|why| format!("failed to parse csv mounts: {why}"))
}

impl Mount {
    /// Reads the value of the flag; `expand` is called on each key's value. Errors are BuildKit's texts, or those of
    /// `expand`.
    pub fn parse(
        text: &str,
        mut expand: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<Mount, String> {
        let mut mount = Mount::default();
        let mut readonly = None;
        for field in fields(text)? {
            match field.split_once('=') {
                None => mount.bare_field(&field, &mut readonly)?,
                Some((key, value)) => {
                    let key = to_lower(key);
                    mount.pair(&key, expand(value)?, &field, &mut readonly)?;
                }
            }
        }
        let writable = matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
        mount.readonly = readonly.unwrap_or(!writable);
        mount.check()?;
        Ok(mount)
    }

    fn bare_field(&mut self, field: &str, readonly: &mut Option<bool>) -> Result<(), String> {
        let key = to_lower(field);
        match key.as_str() {
            "readonly" | "ro" => *readonly = Some(true),
            "readwrite" | "rw" => *readonly = Some(false),
            "required" => {
                self.only_for(&key, &[MountType::Secret, MountType::Ssh])?;
                self.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn pair(
        &mut self,
        key: &str,
        value: String,
        field: &str,
        readonly: &mut Option<bool>,
    ) -> Result<(), String> {
        let invalid = || format!("invalid value for {key}: {value}");
        match key {
            "type" => self.kind = choose(&MountType::ALL, &value, "unsupported mount type")?,
            "sharing" => self.sharing = Some(choose(&Sharing::ALL, &value, "unsupported sharing value")?),
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *readonly = Some(parse_bool(&value).ok_or_else(invalid)?),
            "readwrite" | "rw" => *readonly = Some(!parse_bool(&value).ok_or_else(invalid)?),
            "required" => {
                self.only_for(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = parse_bool(&value).ok_or_else(invalid)?;
            }
            "size" => {
                self.only_for(key, &[MountType::Tmpfs])?;
                self.size = size::parse(&value).ok_or_else(invalid)?;
            }
            "id" => self.id = value,
            "env" => self.env = Some(value),
            "mode" => self.mode = Some(number(key, &value, 8)?),
            "uid" => self.uid = Some(number(key, &value, 10)?),
            "gid" => self.gid = Some(number(key, &value, 10)?),
            _ => {
                let hint = hint(key, KEYS);
                return Err(format!("unexpected key '{key}' in '{field}'{hint}"));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountType]) -> Result<(), String> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.kind.name()))
    }

    fn check(&self) -> Result<(), String> {
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            for (name, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if value.is_some() {
                    return Err(format!("{name} not allowed for {} type mounts", quoted(self.kind.name())));
                }
            }
        }
        if self.kind == MountType::Secret {
            let wrong = if !self.from.is_empty() {
                "secret mount should not have a from"
            } else if self.sharing.is_some() {
                "secret mount should not define sharing"
            } else if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                "invalid secret mount. one of source, target required"
            } else if !self.source.is_empty() && !self.id.is_empty() {
                "both source and id can't be set"
            } else {
                ""
            };
            if !wrong.is_empty() {
                return Err(wrong.to_owned());
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(format!("invalid cache sharing set for {} mount", self.kind.name()));
        }
        Ok(())
    }
}

fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean_exactly(word, candidates).map_or(String::new(), |found| format!(" (did you mean {found}?)"))
}

fn choose<T: Copy>(all: &[(T, &'static str)], value: &str, what: &str) -> Result<T, String> {
    let lower = to_lower(value);
    all.iter()
        .find(|(_, name)| *name == lower)
        .map(|(choice, _)| *choice)
        .ok_or_else(|| format!("{what} {}{}", quoted(value), hint(value, all.iter().map(|(_, name)| *name))))
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    let digits = !value.is_empty() && value.chars().all(|c| c.is_digit(radix));
    digits
        .then(|| u32::from_str_radix(value, radix).ok())
        .flatten()
        .ok_or_else(|| format!("invalid value {value} for {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, |value| Ok(value.replace("$x", "X")))
    }

    #[test]
    fn good_mounts() {
        let mount = parse("type=cache,target=/c/$x,id=i,sharing=locked,mode=0700,uid=1,gid=2").unwrap();
        assert_eq!(mount.kind, MountType::Cache);
        assert_eq!((mount.target.as_str(), mount.id.as_str()), ("/c/X", "i"));
        assert_eq!((mount.sharing, mount.mode, mount.readonly), (Some(Sharing::Locked), Some(0o700), false));
        let mount = parse("type=bind,source=a,dst=/b,rw").unwrap();
        assert_eq!((mount.source.as_str(), mount.readonly), ("a", false));
        assert!(parse("target=/b").unwrap().readonly);
        assert_eq!(parse("type=tmpfs,target=/t,size=1m").unwrap().size, 1 << 20);
        assert!(parse("type=secret,id=s,required,env=E").unwrap().required);
        assert_eq!(parse("type=bind,env=E,id=x,target=/t").unwrap().env.as_deref(), Some("E"));
    }

    #[test]
    fn bad_mounts() {
        let table = [
            ("typ=tmpfs", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
            ("type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
            ("type=bind,x", "invalid field 'x' must be a key=value pair"),
            ("required,type=secret,id=x", "unexpected key 'required' for mount type 'bind'"),
            ("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
            ("type=bind,mode=1", "mode not allowed for \"bind\" type mounts"),
            ("type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,ro=maybe", "invalid value for ro: maybe"),
            ("type=cache,sharing=lock", "unsupported sharing value \"lock\" (did you mean locked?)"),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn only_from_is_read_before_expansion() {
        assert_eq!(
            unexpanded_from("type=nonsense,from=a,x", Dialect::BuildKit).unwrap().as_deref(),
            Some("a")
        );
        assert_eq!(
            unexpanded_from("from=$x", Dialect::BuildKit).unwrap_err(),
            "'from' doesn't support variable expansion, define alias stage instead"
        );
        assert_eq!(unexpanded_from("from=a$", Dialect::BuildKit).unwrap().as_deref(), Some("a$"));
    }
}
