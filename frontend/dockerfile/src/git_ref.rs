//! Git repositories as ADD and build contexts name them.
//!
//! A fragment (`#ref:dir`) and a query (`?branch=…&subdir=…`) say what of the repository is meant.

use lapstrake_go::{parse_bool, path, quoted};

/// A repository and what of it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// What git is told to fetch from.
    pub remote: String,
    /// A branch, tag or commit; empty is the repository's own default.
    pub reference: String,
    /// A directory in it; empty is all of it.
    pub subdir: String,
    /// What the commit must begin with, in hex; empty is any.
    pub checksum: String,
    /// Whether it looks like a path: `github.com/x/y`. Only contexts are taken for repositories then.
    pub like_a_path: bool,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// Whether files have the time of the commit instead of that of the checkout.
    pub commit_times: Option<bool>,
    /// Whether the commit that the checksum names is fetched without asking for the reference.
    pub fetch_by_commit: bool,
}

/// Reads `text` as a repository; `None` if it is none. Errors are BuildKit's texts.
pub fn parse_git_ref(text: &str) -> Option<Result<GitRef, String>> {
    if text.starts_with("./") || text.starts_with("../") {
        return None;
    }
    let found = if text.starts_with("github.com/") {
        let mut parts = Parts::of_url(&format!("https://{text}"))?;
        parts.remote = parts.remote.strip_prefix("https://")?.to_owned();
        (parts, true)
    } else {
        (Parts::of_transport(text)?, false)
    };
    let (parts, like_a_path) = found;
    let (reference, subdir) = parts.fragment.split_once(':').unwrap_or((&parts.fragment, ""));
    let mut found = GitRef {
        remote: parts.remote,
        reference: reference.to_owned(),
        subdir: clean(subdir),
        like_a_path,
        ..GitRef::default()
    };
    Some(found.add_query(&parts.query).map(|()| found))
}

/// An address cut in pieces.
struct Parts {
    remote: String,
    fragment: String,
    /// Keys with all of their values, sorted by key.
    query: Vec<(String, Vec<String>)>,
}

impl Parts {
    fn of_transport(text: &str) -> Option<Parts> {
        match text.split_once("://") {
            Some((scheme, _)) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                let scheme = scheme.to_ascii_lowercase();
                let parts = match scheme.as_str() {
                    "http" | "https" | "ssh" | "git" => Parts::of_url(text)?,
                    _ => return None,
                };
                let web = matches!(scheme.as_str(), "http" | "https");
                let path = parts.remote.splitn(4, '/').nth(3).unwrap_or_default();
                (!web || unescape(path, false)?.ends_with(".git")).then_some(parts)
            }
            _ => Parts::of_scp(text),
        }
    }

    fn of_url(text: &str) -> Option<Parts> {
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, rest) = remote.split_once("://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let named = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if !good_host(named) {
            return None;
        }
        let path = escaped(path)?;
        Some(Parts {
            remote: format!("{}://{host}{path}", scheme.to_ascii_lowercase()),
            fragment: unescape(fragment, false)?,
            query: pairs(query),
        })
    }

    /// `user@host:path`
    fn of_scp(text: &str) -> Option<Parts> {
        let (user, rest) = text.split_once('@')?;
        let (host, rest) = rest.split_once(':')?;
        let word = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !word(user, "-_") || !word(host, "-.") || rest.contains('\n') {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Some(Parts {
            remote: format!("{user}@{host}:{path}"),
            fragment: fragment.to_owned(),
            query: pairs(query),
        })
    }
}

/// A name, or an address in brackets, and perhaps a port.
fn good_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("", port),
            _ => return false,
        },
        None => host.split_at(host.rfind(':').unwrap_or(host.len())),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-._~:!$&'()*+,;=\"<>".contains(c) || !c.is_ascii();
    let number = port.strip_prefix(':').unwrap_or(port);
    name.chars().all(good)
        && number.bytes().all(|b| b.is_ascii_digit())
        && (port.is_empty() || port != number)
}

/// A path as addresses have it: as written, or, if anything in it has to be escaped, escaped anew.
fn escaped(path: &str) -> Option<String> {
    let plain = unescape_bytes(path, false)?;
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
    if path.bytes().all(|byte| fine(byte) || b"!'()*[]%".contains(&byte)) {
        return Some(path.to_owned());
    }
    let escape = |byte: u8| if fine(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Some(plain.into_iter().map(escape).collect())
}

/// The pairs of a query by key. Those that cannot be read are left out.
fn pairs(query: &str) -> Vec<(String, Vec<String>)> {
    let mut all: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescape(key, true), unescape(value, true)) {
            all.entry(key).or_default().push(value);
        }
    }
    all.into_iter().collect()
}

/// Resolves `%xx`; `None` if a `%` is not followed by two hex digits.
pub fn percent_decoded(text: &str) -> Option<String> {
    unescape(text, false)
}

/// Resolves `%xx`, and `+` in queries.
fn unescape(text: &str, query: bool) -> Option<String> {
    Some(String::from_utf8_lossy(&unescape_bytes(text, query)?).into_owned())
}

fn unescape_bytes(text: &str, query: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    Some(bytes)
}

/// A path without `.`, `..` and a leading slash; `..` stops at the root.
fn clean(path: &str) -> String {
    path::clean_rooted(path).split_off(1)
}

impl GitRef {
    fn add_query(&mut self, query: &[(String, Vec<String>)]) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        for (key, values) in query {
            let [value] = values.as_slice() else {
                return Err(format!("query {} has multiple values", quoted(key)));
            };
            let bare = value.is_empty();
            if bare && !matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit") {
                return Err(format!("query {} has no value", quoted(key)));
            }
            let boolean = || match bare {
                true => Ok(true),
                false => parse_bool(value).ok_or_else(|| format!("invalid {key} value: {}", quoted(value))),
            };
            match key.as_str() {
                "ref" => set("ref", &mut self.reference, value)?,
                "subdir" => set("subdir", &mut self.subdir, value)?,
                "tag" => tag = Some(prefixed("refs/tags/", value)),
                "branch" => branch = Some(prefixed("refs/heads/", value)),
                "checksum" | "commit" => self.checksum.clone_from(value),
                "keep-git-dir" => self.keep_git_dir = Some(boolean()?),
                "submodules" => self.submodules = Some(boolean()?),
                "fetch-by-commit" => self.fetch_by_commit = boolean()?,
                "mtime" if value == "checkout" => self.commit_times = Some(false),
                "mtime" if value == "commit" => self.commit_times = Some(true),
                "mtime" => {
                    let values = "(must be \"checkout\" or \"commit\")";
                    return Err(format!("invalid mtime value: {} {values}", quoted(value)));
                }
                _ => return Err(format!("unexpected query {}", quoted(key))),
            }
        }
        if let Some(tag) = &tag {
            set("ref", &mut self.reference, tag)?;
        }
        match branch {
            Some(_) if tag.is_some() => Err("branch conflicts with tag".to_owned()),
            Some(branch) => set("ref", &mut self.reference, &branch),
            None => Ok(()),
        }
    }
}

/// Sets what is not set yet, or is the same already.
fn set(name: &str, place: &mut String, value: &str) -> Result<(), String> {
    if !place.is_empty() && place != value {
        return Err(format!("{name} conflicts: {} vs {}", quoted(place), quoted(value)));
    }
    value.clone_into(place);
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}
