//! Targets and groups.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::convert::convert;
use crate::entries::{self, AttestEntry, CacheEntry, OutputEntry, SecretEntry, SshEntry};
use crate::value::{Type, Value};

/// A group of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The name.
    #[serde(skip)]
    pub name: String,
    /// The purpose, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The names of targets and groups.
    pub targets: Vec<String>,
}

/// Names with values, some of which may be `null`.
pub type Pairs = BTreeMap<String, Option<String>>;

/// A target: the options of a build. A field that is not set is `None`, and an inherited one stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// The name.
    #[serde(skip)]
    pub name: String,
    /// The purpose, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The targets whose fields this one has, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<String>,
    /// Annotations of the image.
    #[serde(skip_serializing_if = "none_or_empty", serialize_with = "escaped_list")]
    pub annotations: Option<Vec<String>>,
    /// Attestations.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub attest: Option<Vec<AttestEntry>>,
    /// The main context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Named contexts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, String>,
    /// The Dockerfile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The text of the Dockerfile, in place of a file.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped_option")]
    pub dockerfile_inline: Option<String>,
    /// Values of `ARG`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "escaped_pairs")]
    pub args: Pairs,
    /// Labels of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "escaped_pairs")]
    pub labels: Pairs,
    /// Names of the image.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub tags: Option<Vec<String>>,
    /// Caches to take results from.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub cache_from: Option<Vec<CacheEntry>>,
    /// Caches to leave results in.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub cache_to: Option<Vec<CacheEntry>>,
    /// The stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Secrets of `RUN`.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub secret: Option<Vec<SecretEntry>>,
    /// SSH agents of `RUN`.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub ssh: Option<Vec<SshEntry>>,
    /// Platforms of the image.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub platforms: Option<Vec<String>>,
    /// Outputs.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub output: Option<Vec<OutputEntry>>,
    /// Whether registries are asked for images that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
    /// Whether all steps run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    /// The network of `RUN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The stages whose steps run.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub no_cache_filter: Option<Vec<String>>,
    /// The size of `/dev/shm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<String>,
    /// Limits of processes.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub ulimits: Option<Vec<String>>,
    /// Limits of containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What is done in place of a build: `check`, `outline`, `targets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Permissions of steps.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub entitlements: Option<Vec<String>>,
    /// Lines of `/etc/hosts`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "escaped_pairs")]
    pub extra_hosts: Pairs,
    /// Source policies, which are not followed.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub policy: Option<Vec<BTreeMap<String, String>>>,
    /// Whether only other targets need the result.
    #[serde(skip)]
    pub linked: bool,
}

/// Limits of containers, by the names of buildx.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resources {
    /// The most memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<String>,
    /// The part of the processors' time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    /// The period of the quota, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<i64>,
    /// The most time of processors in a period, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// The processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
}

impl Resources {
    /// Sets one limit.
    ///
    /// # Errors
    /// No limit is called so, or the value is no number where one is needed.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || {
            value
                .parse()
                .map(Some)
                .map_err(|_| format!("invalid value {value} for int64 key resources.{name}"))
        };
        let text = || Some(value.to_owned());
        match name {
            "memory" => self.memory = text(),
            "memory-swap" => self.memory_swap = text(),
            "cpu-shares" => self.cpu_shares = number()?,
            "cpu-period" => self.cpu_period = number()?,
            "cpu-quota" => self.cpu_quota = number()?,
            "cpuset-cpus" => self.cpuset_cpus = text(),
            "cpuset-mems" => self.cpuset_mems = text(),
            other => return Err(format!("unknown resources key {other}")),
        }
        Ok(())
    }

    /// The limits as `--resource` takes them.
    pub fn texts(&self) -> Vec<String> {
        let numbers =
            [("cpu-shares", self.cpu_shares), ("cpu-period", self.cpu_period), ("cpu-quota", self.cpu_quota)];
        let texts = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        texts.chain(numbers).collect()
    }

    fn merge(&mut self, other: &Resources) {
        let Resources { memory, memory_swap, cpu_shares, cpu_period, cpu_quota, cpuset_cpus, cpuset_mems } =
            other;
        replace(&mut self.memory, memory);
        replace(&mut self.memory_swap, memory_swap);
        replace(&mut self.cpu_shares, cpu_shares);
        replace(&mut self.cpu_period, cpu_period);
        replace(&mut self.cpu_quota, cpu_quota);
        replace(&mut self.cpuset_cpus, cpuset_cpus);
        replace(&mut self.cpuset_mems, cpuset_mems);
    }
}

fn none_or_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// `text` so that it is the same when it is read as a bake file again.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn escaped_option<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().map(escaped).serialize(serializer)
}

fn escaped_list<S: Serializer>(list: &Option<Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().flatten().map(|text| escaped(text)))
}

fn escaped_pairs<S: Serializer>(pairs: &Pairs, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value.as_deref().map(escaped))))
}

fn replace<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
    if new.is_some() {
        old.clone_from(new);
    }
}

fn append(old: &mut Option<Vec<String>>, new: &Option<Vec<String>>) {
    if let Some(new) = new {
        old.get_or_insert_default().extend(new.iter().cloned());
    }
}

fn extend(old: &mut Pairs, new: &Pairs) {
    old.extend(
        new.iter().filter(|(_, value)| value.is_some()).map(|(name, value)| (name.clone(), value.clone())),
    );
}

/// The form of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Flag,
    Texts,
    Pairs,
    Entries,
    Resources,
}

/// The attributes of a target.
pub(crate) const FORMS: [(&str, Form); 29] = [
    ("annotations", Form::Texts),
    ("args", Form::Pairs),
    ("attest", Form::Entries),
    ("cache-from", Form::Entries),
    ("cache-to", Form::Entries),
    ("call", Form::Text),
    ("context", Form::Text),
    ("contexts", Form::Pairs),
    ("description", Form::Text),
    ("dockerfile", Form::Text),
    ("dockerfile-inline", Form::Text),
    ("entitlements", Form::Texts),
    ("extra-hosts", Form::Pairs),
    ("inherits", Form::Texts),
    ("labels", Form::Pairs),
    ("network", Form::Text),
    ("no-cache", Form::Flag),
    ("no-cache-filter", Form::Texts),
    ("output", Form::Entries),
    ("platforms", Form::Texts),
    ("policy", Form::Entries),
    ("pull", Form::Flag),
    ("resources", Form::Resources),
    ("secret", Form::Entries),
    ("shm-size", Form::Text),
    ("ssh", Form::Entries),
    ("tags", Form::Texts),
    ("target", Form::Text),
    ("ulimits", Form::Texts),
];

impl Form {
    /// The form of the attribute `name`.
    pub(crate) fn of(name: &str) -> Option<Form> {
        FORMS.iter().find(|(known, _)| *known == name).map(|(_, form)| *form)
    }

    /// `value` in this form.
    pub(crate) fn fit(self, value: &Value) -> Result<Value, String> {
        match self {
            Form::Text => convert(value, &Type::String),
            Form::Flag => convert(value, &Type::Bool),
            Form::Texts => convert(value, &Type::List(Box::new(Type::String))),
            Form::Pairs => convert(value, &Type::Map(Box::new(Type::String))),
            Form::Entries if value.is_null() || value.as_items().is_some() => Ok(value.clone()),
            Form::Entries => Err("a list is required".to_owned()),
            Form::Resources if value.is_null() || value.as_fields().is_some() => Ok(value.clone()),
            Form::Resources => Err("an object is required".to_owned()),
        }
    }

    /// The value of an attribute that is not set.
    pub(crate) fn unset(self) -> Value {
        match self {
            Form::Text => Value::Null(Type::String),
            Form::Flag => Value::Null(Type::Bool),
            Form::Texts => Value::Null(Type::List(Box::new(Type::String))),
            Form::Pairs => Value::Null(Type::Map(Box::new(Type::String))),
            Form::Entries => Value::list(Type::Map(Box::new(Type::String)), Vec::new()),
            Form::Resources => Value::NULL,
        }
    }
}

fn texts(value: &Value) -> Result<Option<Vec<String>>, String> {
    let Some(items) = value.as_items() else { return Ok(None) };
    let text = |item: &Value| {
        item.as_str().map(str::to_owned).ok_or_else(|| "string is required, and an item is null".to_owned())
    };
    items.iter().map(text).collect::<Result<_, _>>().map(Some)
}

fn pairs(value: &Value) -> Pairs {
    let fields = value.as_fields().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned))).collect()
}

fn list<E: entries::Entry>(value: &Value) -> Result<Option<Vec<E>>, String> {
    if value.is_null() { Ok(None) } else { entries::read(value).map(Some) }
}

impl Target {
    /// Sets the attribute `name` to a value in its form.
    pub(crate) fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let text = || value.as_str().map(str::to_owned);
        let flag = || match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        };
        match name {
            "annotations" => self.annotations = texts(value)?,
            "args" => self.args = pairs(value),
            "attest" => self.attest = list(value)?,
            "cache-from" => self.cache_from = list(value)?,
            "cache-to" => self.cache_to = list(value)?,
            "call" => self.call = text(),
            "context" => self.context = text(),
            "contexts" => {
                let given = pairs(value).into_iter();
                let text = |(name, value): (String, Option<String>)| {
                    value
                        .map(|value| (name, value))
                        .ok_or_else(|| "string is required, and a context is null".to_owned())
                };
                self.contexts = given.map(text).collect::<Result<_, _>>()?;
            }
            "description" => self.description = text().unwrap_or_default(),
            "dockerfile" => self.dockerfile = text(),
            "dockerfile-inline" => self.dockerfile_inline = text(),
            "entitlements" => self.entitlements = texts(value)?,
            "extra-hosts" => self.extra_hosts = pairs(value),
            "inherits" => self.inherits = texts(value)?.unwrap_or_default(),
            "labels" => self.labels = pairs(value),
            "network" => self.network = text(),
            "no-cache" => self.no_cache = flag(),
            "no-cache-filter" => self.no_cache_filter = texts(value)?,
            "output" => self.output = list(value)?,
            "platforms" => self.platforms = texts(value)?,
            "policy" => self.policy = policies(value)?,
            "pull" => self.pull = flag(),
            "resources" => self.resources = resources(value)?,
            "secret" => self.secret = list(value)?,
            "shm-size" => self.shm_size = text(),
            "ssh" => self.ssh = list(value)?,
            "tags" => self.tags = texts(value)?,
            "target" => self.target = text(),
            "ulimits" => self.ulimits = texts(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Takes the fields of `other` that are set there. Lists are added up or replaced, as buildx does.
    pub(crate) fn merge(&mut self, other: &Target) {
        replace(&mut self.context, &other.context);
        replace(&mut self.dockerfile, &other.dockerfile);
        replace(&mut self.dockerfile_inline, &other.dockerfile_inline);
        extend(&mut self.args, &other.args);
        extend(&mut self.labels, &other.labels);
        extend(&mut self.extra_hosts, &other.extra_hosts);
        self.contexts.extend(other.contexts.iter().map(|(name, value)| (name.clone(), value.clone())));
        replace(&mut self.tags, &other.tags);
        replace(&mut self.target, &other.target);
        replace(&mut self.call, &other.call);
        append(&mut self.annotations, &other.annotations);
        self.attest = entries::merged(&self.attest, &other.attest);
        if let Some(policy) = &other.policy {
            self.policy.get_or_insert_default().extend(policy.iter().cloned());
        }
        self.secret = entries::merged(&self.secret, &other.secret);
        self.ssh = entries::merged(&self.ssh, &other.ssh);
        replace(&mut self.platforms, &other.platforms);
        self.cache_from = entries::merged(&self.cache_from, &other.cache_from);
        replace(&mut self.cache_to, &other.cache_to);
        replace(&mut self.output, &other.output);
        replace(&mut self.pull, &other.pull);
        replace(&mut self.no_cache, &other.no_cache);
        replace(&mut self.network, &other.network);
        append(&mut self.no_cache_filter, &other.no_cache_filter);
        replace(&mut self.shm_size, &other.shm_size);
        append(&mut self.ulimits, &other.ulimits);
        if let Some(resources) = &other.resources {
            self.resources.get_or_insert_default().merge(resources);
        }
        if !other.description.is_empty() {
            self.description.clone_from(&other.description);
        }
        append(&mut self.entitlements, &other.entitlements);
        self.inherits.extend(other.inherits.iter().cloned());
    }

    /// Drops what is there twice, and what is empty.
    pub(crate) fn normalize(&mut self) {
        self.attest = self.attest.take().map(entries::normalized);
        self.secret = self.secret.take().map(entries::normalized);
        self.ssh = self.ssh.take().map(entries::normalized);
        self.cache_from = self.cache_from.take().map(entries::normalized);
        self.cache_to = self.cache_to.take().map(entries::normalized);
        self.output = self.output.take().map(entries::normalized);
        if self.network.as_deref() == Some("host") {
            self.entitlements.get_or_insert_default().push("network.host".to_owned());
        }
        let lists = [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
            &mut self.entitlements,
        ];
        lists.into_iter().flatten().for_each(without_repeats);
        self.contexts.retain(|_, value| !value.is_empty());
    }
}

/// Keeps the first of equal texts, and no empty one.
pub(crate) fn without_repeats(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
}

fn policies(value: &Value) -> Result<Option<Vec<BTreeMap<String, String>>>, String> {
    let Some(items) = value.as_items() else { return Ok(None) };
    let each = |item: &Value| match item {
        Value::String(text) => policy(text),
        object => {
            let map = convert(object, &Type::Map(Box::new(Type::String)))?;
            Ok(pairs(&map).into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
        }
    };
    items.iter().map(each).collect::<Result<_, _>>().map(Some)
}

/// Reads a policy's text.
pub(crate) fn policy(text: &str) -> Result<BTreeMap<String, String>, String> {
    let fields = lapstrake_go::csv::fields(text).map_err(|error| error.to_string())?;
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_lowercase(), value.to_owned())),
        None => Err(format!("invalid value {field}")),
    };
    fields.into_iter().map(pair).collect()
}

fn resources(value: &Value) -> Result<Option<Resources>, String> {
    let Some(fields) = value.as_fields() else { return Ok(None) };
    let mut resources = Resources::default();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let text = convert(value, &Type::String)?;
        resources.set(name, text.as_str().unwrap_or_default())?;
    }
    Ok(Some(resources))
}
