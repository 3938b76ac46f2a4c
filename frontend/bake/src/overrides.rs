//! Overrides of the command line: `--set PATTERN.KEY=VALUE`.

use std::collections::BTreeMap;

use crate::entries::{self, OutputEntry, SecretEntry};
use crate::error::{BakeError, Baked};
use crate::patterns;
use crate::target::{Target, policy};

/// An override of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Override {
    value: String,
    values: Vec<String>,
    append: bool,
}

/// What overrides permit by themselves, since the command line names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Files that may be read.
    pub read: Vec<String>,
    /// Files that may be written.
    pub write: Vec<String>,
    /// Entitlements.
    pub entitlements: Vec<String>,
}

/// The overrides of all targets, by target and key.
#[derive(Clone, Debug, Default)]
pub struct Overrides(BTreeMap<String, BTreeMap<String, Override>>);

/// The keys that may be given more than once.
const LISTS: [&str; 14] = [
    "output",
    "cache-to",
    "cache-from",
    "tags",
    "platform",
    "secrets",
    "ssh",
    "attest",
    "entitlements",
    "network",
    "annotations",
    "policy",
    "no-cache-filter",
    "ulimits",
];

impl Overrides {
    /// Reads `list` for the targets `names`. An argument without a value has the one of the environment.
    ///
    /// # Errors
    /// An override is not `PATTERN.KEY[+]=VALUE`, or its pattern fits no target.
    pub(crate) fn read(
        list: &[String],
        names: &[&str],
        environment: &BTreeMap<String, String>,
    ) -> Baked<Overrides> {
        let mut overrides = Overrides::default();
        for text in list {
            let (left, value) = match text.split_once('=') {
                Some((left, value)) => (left, Some(value)),
                None => (text.as_str(), None),
            };
            let (path, append) = match left.strip_suffix('+') {
                Some(path) => (path, true),
                None => (left, false),
            };
            let Some((pattern, key)) = path.split_once('.') else {
                return Err(BakeError::new(format!("invalid override key {path}, expected target.name")));
            };
            let (kind, name) = key.split_once('.').map_or((key, None), |(kind, name)| (kind, Some(name)));
            let from_environment = || name.and_then(|name| environment.get(name)).map(String::as_str);
            let value = match (value, kind) {
                (Some(value), _) => value,
                (None, "args") => match from_environment() {
                    Some(value) => value,
                    None => continue,
                },
                (None, _) => {
                    return Err(BakeError::new(format!(
                        "invalid override {text}, expected target.name=value"
                    )));
                }
            };
            check_key(left, kind, name, append)?;
            for target in targets(pattern, names)? {
                let entry = overrides.0.entry(target).or_default().entry(key.to_owned()).or_default();
                if LISTS.contains(&kind) {
                    entry.append = append;
                    entry.values.push(value.to_owned());
                }
                value.clone_into(&mut entry.value);
            }
        }
        Ok(overrides)
    }

    /// Applies the overrides of the target `name`.
    pub(crate) fn apply(&self, name: &str, target: &mut Target) -> Baked<()> {
        let all = self.0.get(name).into_iter().flatten();
        // A secret is changed after the list of secrets has been.
        let (later, first): (Vec<_>, Vec<_>) = all.partition(|(key, _)| key.starts_with("secret."));
        for (key, change) in first.into_iter().chain(later) {
            one(target, key, change).map_err(|why| BakeError::new(format!("--set {name}.{key}: {why}")))?;
        }
        Ok(())
    }

    /// What the overrides permit by themselves.
    pub fn granted(&self) -> Baked<Granted> {
        let mut granted = Granted::default();
        for (key, change) in self.0.values().flatten() {
            let values = &change.values;
            match key.as_str() {
                "entitlements" => granted.entitlements.extend(values.iter().cloned()),
                "output" => {
                    let outputs = entries::read_texts::<OutputEntry>(values)?;
                    granted.write.extend(outputs.into_iter().map(|output| output.dest));
                }
                "cache-from" | "cache-to" => {
                    for cache in entries::read_texts::<entries::CacheEntry>(values)? {
                        granted.read.extend(cache.attributes.get("src").cloned());
                        granted.write.extend(cache.attributes.get("dest").cloned());
                    }
                }
                "ssh" => {
                    let agents = entries::read_texts::<entries::SshEntry>(values)?;
                    granted.read.extend(agents.into_iter().flat_map(|agent| agent.paths));
                }
                "secrets" => {
                    let secrets = entries::read_texts::<SecretEntry>(values)?;
                    granted.read.extend(secrets.into_iter().map(|secret| secret.src));
                }
                key if key.starts_with("secret.") => {
                    let secrets = entries::read_texts::<SecretEntry>(std::slice::from_ref(&change.value))?;
                    granted.read.extend(secrets.into_iter().map(|secret| secret.src));
                }
                _ => {}
            }
        }
        Ok(granted)
    }
}

fn check_key(left: &str, kind: &str, name: Option<&str>, append: bool) -> Baked<()> {
    let bad = |why: &str| Err(BakeError::new(format!("invalid key {left}, {kind} {why}")));
    match (kind, name) {
        ("resources" | "secret" | "args" | "contexts" | "labels" | "extra-hosts", None) => {
            bad("requires name")
        }
        ("resources" | "secret", _) if append => bad("does not support append"),
        _ => Ok(()),
    }
}

/// The targets that a pattern fits.
fn targets(pattern: &str, names: &[&str]) -> Baked<Vec<String>> {
    if names.contains(&pattern) {
        return Ok(vec![pattern.to_owned()]);
    }
    let fitting: Vec<String> =
        names.iter().filter(|name| patterns::fits(pattern, name)).map(|name| (*name).to_owned()).collect();
    if fitting.is_empty() {
        let text = format!("could not find any target matching '{pattern}'");
        return Err(BakeError::new(text).hint(format!("the definition has the targets {}", names.join(", "))));
    }
    Ok(fitting)
}

fn one(target: &mut Target, key: &str, change: &Override) -> Result<(), String> {
    let (kind, name) = key.split_once('.').unwrap_or((key, ""));
    let value = || change.value.clone();
    let flag = || {
        lapstrake_go::parse_bool(&change.value)
            .ok_or_else(|| format!("invalid value {} for boolean key {kind}", change.value))
    };
    match kind {
        "context" => target.context = Some(value()),
        "dockerfile" => target.dockerfile = Some(value()),
        "args" => drop(target.args.insert(name.to_owned(), Some(value()))),
        "contexts" => drop(target.contexts.insert(name.to_owned(), value())),
        "labels" => drop(target.labels.insert(name.to_owned(), Some(value()))),
        "extra-hosts" => drop(target.extra_hosts.insert(name.to_owned(), Some(value()))),
        "target" => target.target = Some(value()),
        "call" => target.call = Some(value()),
        "shm-size" => target.shm_size = Some(value()),
        "network" => target.network = Some(value()),
        "no-cache" => target.no_cache = Some(flag()?),
        "pull" => target.pull = Some(flag()?),
        "push" => set_push(target, flag()?),
        "load" => set_load(target, flag()?),
        "resources" => target.resources.get_or_insert_default().set(name, &change.value)?,
        "secret" => change_secret(target, name, &change.value)?,
        _ => lists(target, kind, change)?,
    }
    Ok(())
}

fn lists(target: &mut Target, kind: &str, change: &Override) -> Result<(), String> {
    let Override { values, append, .. } = change;
    match kind {
        "tags" => texts(&mut target.tags, change),
        "platform" => texts(&mut target.platforms, change),
        "no-cache-filter" => texts(&mut target.no_cache_filter, change),
        "ulimits" => texts(&mut target.ulimits, change),
        "entitlements" => target.entitlements.get_or_insert_default().extend(values.iter().cloned()),
        "annotations" => target.annotations.get_or_insert_default().extend(values.iter().cloned()),
        "cache-from" => entered(&mut target.cache_from, values, *append)?,
        "cache-to" => entered(&mut target.cache_to, values, *append)?,
        "secrets" => entered(&mut target.secret, values, *append)?,
        "ssh" => entered(&mut target.ssh, values, *append)?,
        "output" => entered(&mut target.output, values, *append)?,
        // Attestations are always added to those of the target.
        "attest" => entered(&mut target.attest, values, true)?,
        "policy" => {
            let mut all = target.policy.take().filter(|_| *append).unwrap_or_default();
            for text in values {
                all.push(policy(text)?);
            }
            target.policy = Some(all);
        }
        other => return Err(format!("unknown key: {other}")),
    }
    Ok(())
}

fn texts(list: &mut Option<Vec<String>>, change: &Override) {
    if change.append {
        list.get_or_insert_default().extend(change.values.iter().cloned());
    } else {
        *list = Some(change.values.clone());
    }
}

fn entered<E: entries::Entry>(
    list: &mut Option<Vec<E>>,
    values: &[String],
    append: bool,
) -> Result<(), String> {
    let new = Some(entries::read_texts(values)?);
    *list = if append { entries::merged(list, &new) } else { new };
    Ok(())
}

fn change_secret(target: &mut Target, id: &str, text: &str) -> Result<(), String> {
    let secret = target.secret.iter_mut().flatten().find(|secret| secret.id == id);
    let secret =
        secret.ok_or_else(|| format!("secret {id:?} must be declared before it can be overridden"))?;
    let new = entries::read_texts::<SecretEntry>(&[text.to_owned()])?.pop().unwrap_or_default();
    if !new.id.is_empty() && new.id != id {
        return Err(format!("secret override id {:?} does not match declared secret {id:?}", new.id));
    }
    (secret.env, secret.src) = (new.env, new.src);
    Ok(())
}

/// Pushes images, or not. Other kinds of outputs stay as they are.
fn set_push(target: &mut Target, push: bool) {
    let outputs = target.output.get_or_insert_default();
    for output in outputs.iter_mut().filter(|output| output.kind == "image") {
        output.attributes.insert("push".to_owned(), push.to_string());
    }
    if !push {
        outputs.retain(|output| output.kind != "registry");
    } else if outputs.iter().all(|output| output.kind == "docker") {
        let mut output = OutputEntry::of_kind("image");
        output.attributes.insert("push".to_owned(), "true".to_owned());
        outputs.push(output);
    }
}

/// Loads images, where all outputs are images.
fn set_load(target: &mut Target, load: bool) {
    if !load {
        return;
    }
    let outputs = target.output.get_or_insert_default();
    let loads = |output: &OutputEntry| output.kind == "docker" && output.dest.is_empty();
    let is_image =
        |output: &OutputEntry| matches!(output.kind.as_str(), "docker" | "image" | "registry" | "oci");
    if !outputs.iter().any(loads) && outputs.iter().all(is_image) {
        outputs.push(OutputEntry::of_kind("docker"));
    }
}
