//! The `build` of a service as a target.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{Variables, env_files};
use crate::entries::{
    AttestEntry, Entry, OutputEntry, SecretEntry, SshEntry, attestation, merged, read_texts,
};
use crate::target::{Pairs, Target, without_repeats};

/// A service and what is around it.
pub(super) struct Service<'s> {
    pub(super) service: &'s Map<String, Json>,
    /// The secrets of the whole file.
    pub(super) secrets: &'s Map<String, Json>,
    pub(super) variables: &'s Variables<'s>,
}

/// A scalar as a text; nothing for `null`.
fn scalar(value: &Json) -> Result<Option<String>, String> {
    match value {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text.clone())),
        Json::Bool(flag) => Ok(Some(flag.to_string())),
        Json::Number(number) => Ok(Some(number.to_string())),
        Json::Array(_) | Json::Object(_) => Err("a text is required".to_owned()),
    }
}

/// A list of texts, or one text with spaces where `fields` says so.
fn texts(value: Option<&Json>, fields: bool) -> Result<Vec<String>, String> {
    match value {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) => {
            let items = items.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
            Ok(items.into_iter().flatten().collect())
        }
        Some(Json::String(text)) if fields => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Some(_) => Err("a list is required".to_owned()),
    }
}

/// A mapping, or a list of `NAME=VALUE`.
fn pairs(value: Option<&Json>) -> Result<Pairs, String> {
    match value {
        None | Some(Json::Null) => Ok(Pairs::new()),
        Some(Json::Object(fields)) => {
            fields.iter().map(|(name, value)| Ok((name.clone(), scalar(value)?))).collect()
        }
        Some(Json::Array(_)) => {
            let pair = |text: String| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            Ok(texts(value, false)?.into_iter().map(pair).collect())
        }
        Some(_) => Err("a mapping is required".to_owned()),
    }
}

fn flag(value: Option<&Json>) -> Result<Option<bool>, String> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Bool(flag)) => Ok(Some(*flag)),
        Some(Json::String(text)) => lapstrake_go::parse_bool(text)
            .map(Some)
            .ok_or_else(|| format!("{text:?} is neither true nor false")),
        Some(_) => Err("a boolean is required".to_owned()),
    }
}

/// Adds the key to an error.
fn of<T>(key: &str, value: Result<T, String>) -> Result<T, String> {
    value.map_err(|why| format!("{key}: {why}"))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

/// A path without detours. Addresses stay as they are.
fn local_path(path: String) -> String {
    let special = path.is_empty() || path.contains(':') || path.starts_with('~');
    if special { path } else { lapstrake_go::path::clean(&path) }
}

/// References to services are references to targets.
fn named_contexts(given: Pairs) -> BTreeMap<String, String> {
    let context =
        |value: String| match value.strip_prefix("service:").or_else(|| value.strip_prefix("target:")) {
            Some(name) => format!("target:{}", name.replace('.', "_")),
            None => local_path(value),
        };
    given.into_iter().filter_map(|(name, value)| Some((name, context(value?)))).collect()
}

impl Service<'_> {
    /// The target of this service.
    pub(super) fn target(&self, build: &Json) -> Result<Target, String> {
        let short;
        let build = match build {
            Json::Object(build) => build,
            Json::String(context) => {
                short = Map::from_iter([("context".to_owned(), Json::String(context.clone()))]);
                &short
            }
            _ => return Err("build must be a text or a mapping".to_owned()),
        };
        let text = |key: &str| -> Result<Option<String>, String> {
            let value = build.get(key).map_or(Ok(None), scalar);
            Ok(of(key, value)?.filter(|text| !text.is_empty()))
        };
        let list = |key: &str| of(key, texts(build.get(key), false));
        let mut target = Target {
            context: text("context")?.map(local_path),
            contexts: named_contexts(of("additional_contexts", pairs(build.get("additional_contexts")))?),
            dockerfile: text("dockerfile")?,
            dockerfile_inline: text("dockerfile_inline")?,
            args: self.args(build)?,
            labels: of("labels", pairs(build.get("labels")))?
                .into_iter()
                .map(|(name, value)| (name, Some(value.unwrap_or_default())))
                .collect(),
            tags: some(list("tags")?),
            cache_from: some(read_texts(&list("cache_from")?)?),
            cache_to: some(read_texts(&list("cache_to")?)?),
            target: text("target")?,
            network: text("network")?,
            platforms: some(list("platforms")?),
            shm_size: text("shm_size")?.map(|size| of("shm_size", readable(&size))).transpose()?,
            ulimits: some(of("ulimits", ulimits(build.get("ulimits")))?),
            extra_hosts: hosts(build.get("extra_hosts"))?,
            ssh: some(of("ssh", agents(build.get("ssh")))?),
            secret: some(of("secrets", self.build_secrets(build.get("secrets")))?),
            no_cache: of("no_cache", flag(build.get("no_cache")))?.filter(|flag| *flag),
            pull: of("pull", flag(build.get("pull")))?.filter(|flag| *flag),
            ..Target::default()
        };
        let mut attestations = Vec::new();
        for kind in ["sbom", "provenance"] {
            if let Some(value) = text(kind)? {
                attestations.extend(AttestEntry::of_text(&attestation(kind, &value))?);
            }
        }
        target.attest = some(attestations);
        if let Some(extension) = build.get("x-bake").filter(|extension| !extension.is_null()) {
            of("x-bake", extend(&mut target, extension))?;
        }
        if target.tags.is_none() {
            target.tags = self.service.get("image").map_or(Ok(None), scalar)?.map(|image| vec![image]);
        }
        Ok(target)
    }

    /// Arguments without a value have the one of the service's environment, of its files of variables, or of ours. The files are
    /// read only where an argument needs them.
    fn args(&self, build: &Map<String, Json>) -> Result<Pairs, String> {
        let environment = of("environment", pairs(self.service.get("environment")))?;
        let args = of("args", pairs(build.get("args")))?;
        let needed = args.iter().any(|(name, value)| value.is_none() && !environment.contains_key(name));
        let filed = if needed {
            let outer =
                |name: &str| self.variables.get(name).or_else(|| environment.get(name).cloned().flatten());
            env_files::variables(self.service, &self.variables.outside.directory, &outer)?
        } else {
            BTreeMap::new()
        };
        let resolve = |name: &str| {
            let inner = environment.get(name).cloned().unwrap_or_else(|| filed.get(name).cloned());
            inner.or_else(|| self.variables.get(name))
        };
        let args = args.into_iter();
        Ok(args
            .filter_map(|(name, value)| value.or_else(|| resolve(&name)).map(|value| (name, Some(value))))
            .collect())
    }

    fn build_secrets(&self, value: Option<&Json>) -> Result<Vec<SecretEntry>, String> {
        let Some(Json::Array(items)) = value else { return Ok(Vec::new()) };
        let mut secrets = Vec::new();
        for item in items {
            let id = match item {
                Json::String(id) => id.clone(),
                Json::Object(long) => {
                    long.get("source").and_then(Json::as_str).unwrap_or_default().to_owned()
                }
                _ => return Err("a name or a mapping is required".to_owned()),
            };
            let definition = self.secrets.get(&id).and_then(Json::as_object);
            let field = |name: &str| {
                definition
                    .and_then(|fields| fields.get(name))
                    .and_then(Json::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            if definition.is_some_and(|fields| fields.get("external") == Some(&Json::Bool(true))) {
                return Err(format!("unsupported external secret {id}"));
            }
            secrets.push(SecretEntry { src: local_path(field("file")), env: field("environment"), id });
        }
        Ok(secrets)
    }
}

fn agents(value: Option<&Json>) -> Result<Vec<SshEntry>, String> {
    let entry = |(id, path): (String, Option<String>)| SshEntry {
        id,
        paths: path.into_iter().filter(|path| !path.is_empty()).collect(),
    };
    let mut agents: Vec<SshEntry> = pairs(value)?.into_iter().map(entry).collect();
    agents.sort_by(|a, b| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
    Ok(agents)
}

fn hosts(value: Option<&Json>) -> Result<Pairs, String> {
    let host = |text: String| {
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(|| format!("extra_hosts: {text:?} is not HOST=ADDRESS"))?;
        Ok((name.to_owned(), Some(address.trim_matches(['[', ']']).to_owned())))
    };
    match value {
        Some(Json::Array(_)) => texts(value, false)?.into_iter().map(host).collect(),
        Some(Json::Object(fields)) => {
            let each = |(name, value): (&String, &Json)| {
                let value = if value.is_array() {
                    texts(Some(value), false)?.join(",")
                } else {
                    scalar(value)?.unwrap_or_default()
                };
                Ok((name.clone(), Some(value)))
            };
            of("extra_hosts", fields.iter().map(each).collect())
        }
        _ => Ok(Pairs::new()),
    }
}

fn ulimits(value: Option<&Json>) -> Result<Vec<String>, String> {
    let Some(Json::Object(limits)) = value else { return Ok(Vec::new()) };
    let limit = |(name, value): (&String, &Json)| {
        let part = |key: &str| value.get(key).map_or(Ok(None), scalar);
        match value {
            Json::Object(_) => {
                let (soft, hard) = (part("soft")?.unwrap_or_default(), part("hard")?.unwrap_or_default());
                Ok(format!("{name}={soft}:{hard}"))
            }
            single => {
                let number = scalar(single)?.unwrap_or_default();
                Ok(format!("{name}={number}:{number}"))
            }
        }
    };
    limits.iter().map(limit).collect()
}

/// A size as Docker shows it: `64MiB`.
fn readable(text: &str) -> Result<String, String> {
    let bytes = lapstrake_go::size::parse(text).ok_or_else(|| format!("{text:?} is not a size"))?;
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = if size >= 1000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    let shown = format!("{size:.digits$}");
    let shown = if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.') } else { &shown };
    Ok(format!("{shown}{}", units[unit]))
}

/// Adds what the extension `x-bake` says.
fn extend(target: &mut Target, extension: &Json) -> Result<(), String> {
    let fields = extension.as_object().ok_or("a mapping is required")?;
    let list = |key: &str| of(key, texts(fields.get(key), true));
    let add = |all: &mut Option<Vec<String>>, new: Vec<String>| {
        if !new.is_empty() {
            let all = all.get_or_insert_default();
            all.extend(new);
            without_repeats(all);
        }
    };
    add(&mut target.tags, list("tags")?);
    add(&mut target.platforms, list("platforms")?);
    add(&mut target.no_cache_filter, list("no-cache-filter")?);
    entries(&mut target.cache_from, &list("cache-from")?)?;
    entries(&mut target.cache_to, &list("cache-to")?)?;
    entries(&mut target.secret, &list("secret")?)?;
    entries(&mut target.ssh, &list("ssh")?)?;
    entries::<OutputEntry>(&mut target.output, &list("output")?)?;
    if let Some(agents) = &mut target.ssh {
        agents.sort_by(|a, b| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
    }
    target.pull = of("pull", flag(fields.get("pull")))?.or(target.pull);
    target.no_cache = of("no-cache", flag(fields.get("no-cache")))?.or(target.no_cache);
    for (name, value) in named_contexts(of("contexts", pairs(fields.get("contexts")))?) {
        target.contexts.entry(name).or_insert(value);
    }
    Ok(())
}

fn entries<E: Entry>(all: &mut Option<Vec<E>>, new: &[String]) -> Result<(), String> {
    if !new.is_empty() {
        *all = merged(all, &Some(read_texts(new)?));
    }
    Ok(())
}
