//! Values of a target that are written as a text or as an object: outputs, caches, attestations, secrets, agents.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::convert::convert;
use crate::value::{Type, Value};

/// Names and values.
pub(crate) type Attributes = BTreeMap<String, String>;

/// The fields of a line of CSV, each `NAME=VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("invalid value {field}")),
    };
    fields(text)?.into_iter().map(pair).collect()
}

fn fields(text: &str) -> Result<Vec<String>, String> {
    lapstrake_go::csv::fields(text).map_err(|error| error.to_string())
}

/// The fields of an object as texts; those that are `null` are left out.
fn texts(value: &Value) -> Result<Attributes, String> {
    let map = convert(value, &Type::Map(Box::new(Type::String)))?;
    let fields = map.as_fields().into_iter().flatten();
    Ok(fields.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
}

/// One line of CSV.
fn csv(pairs: &[(&str, &str)]) -> String {
    let field = |(name, value): &(&str, &str)| {
        let pair = format!("{name}={value}");
        if pair.contains([',', '"']) { format!("\"{}\"", pair.replace('"', "\"\"")) } else { pair }
    };
    pairs.iter().map(field).collect::<Vec<_>>().join(",")
}

/// An entry of a target.
pub(crate) trait Entry: Sized + PartialEq + Clone {
    /// Reads a text, which may stand for several.
    fn of_text(text: &str) -> Result<Vec<Self>, String>;
    /// Reads an object.
    fn of_object(value: &Value) -> Result<Self, String>;
    /// The key by which a later entry replaces an earlier one; nothing where only equal ones do.
    fn key(&self) -> Option<&str>;
}

/// The entries of a list.
pub(crate) fn read<E: Entry>(value: &Value) -> Result<Vec<E>, String> {
    let items = match value {
        Value::List(_, items) | Value::Tuple(items) => items,
        _ => return Err("a list is required".to_owned()),
    };
    let mut entries = Vec::new();
    for item in items.iter() {
        match item {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => entries.extend(E::of_text(text)?),
            Value::Null(_) => return Err("an entry must not be null".to_owned()),
            object => entries.push(E::of_object(object)?),
        }
    }
    Ok(entries)
}

/// The entries of texts.
pub(crate) fn read_texts<E: Entry>(list: &[String]) -> Result<Vec<E>, String> {
    let mut entries = Vec::new();
    for text in list.iter().filter(|text| !text.is_empty()) {
        entries.extend(E::of_text(text)?);
    }
    Ok(entries)
}

/// Each entry once.
pub(crate) fn normalized<E: Entry>(list: Vec<E>) -> Vec<E> {
    if list.first().is_some_and(|entry| entry.key().is_some()) {
        let mut kept: Vec<E> = Vec::new();
        for entry in list {
            match kept.iter_mut().find(|other| other.key() == entry.key()) {
                Some(other) => *other = entry,
                None => kept.push(entry),
            }
        }
        return kept;
    }
    without_equals(list)
}

/// As buildx does it, order and all: from the end, an entry that equals a later one takes the last one's place.
fn without_equals<E: Entry>(mut list: Vec<E>) -> Vec<E> {
    for at in (0..list.len().saturating_sub(1)).rev() {
        if let Some(other) = (at + 1..list.len()).find(|other| list[*other] == list[at]) {
            let last = list.len() - 1;
            list.swap(other, last);
            list.pop();
        }
    }
    list
}

/// The entries of both, each once.
pub(crate) fn merged<E: Entry>(before: &Option<Vec<E>>, after: &Option<Vec<E>>) -> Option<Vec<E>> {
    let all: Vec<E> = before.iter().chain(after).flatten().cloned().collect();
    if all.is_empty() { before.clone().or_else(|| after.clone()) } else { Some(normalized(all)) }
}

/// A cache, of which results are taken or in which they are left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// The kind: `registry`, `local`, `inline` and so on.
    pub kind: String,
    /// Further attributes.
    pub attributes: Attributes,
}

impl Serialize for CacheEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = self.attributes.clone();
        all.insert("type".to_owned(), self.kind.clone());
        all.serialize(serializer)
    }
}

impl CacheEntry {
    /// The entry in the syntax of `--cache-from` and `--cache-to`.
    pub fn text(&self) -> String {
        if let (true, 1, Some(reference)) =
            (self.kind == "registry", self.attributes.len(), self.attributes.get("ref"))
        {
            return reference.clone();
        }
        attributed(&self.kind, None, &self.attributes)
    }
}

fn attributed(kind: &str, dest: Option<&str>, attributes: &Attributes) -> String {
    let mut pairs = vec![("type", kind)];
    pairs.extend(dest.map(|dest| ("dest", dest)));
    pairs.extend(attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    csv(&pairs)
}

impl Entry for CacheEntry {
    fn of_text(text: &str) -> Result<Vec<CacheEntry>, String> {
        let registry = |reference: String| CacheEntry {
            kind: "registry".to_owned(),
            attributes: BTreeMap::from([("ref".to_owned(), reference)]),
        };
        if !text.contains('=') {
            return Ok(fields(text)?.into_iter().map(registry).collect());
        }
        let mut entry = CacheEntry::default();
        for (name, value) in pairs(text)? {
            match name.to_lowercase().as_str() {
                "type" => entry.kind = value,
                name => drop(entry.attributes.insert(name.to_owned(), value)),
            }
        }
        if entry.kind.is_empty() {
            return Err(format!("type required for {text:?}"));
        }
        Ok(vec![entry])
    }

    fn of_object(value: &Value) -> Result<CacheEntry, String> {
        let mut attributes = texts(value)?;
        let kind = attributes.remove("type").filter(|kind| !kind.is_empty());
        let kind = kind.ok_or_else(|| format!("type required for {:?}", value.to_json().to_string()))?;
        Ok(CacheEntry { kind, attributes })
    }

    fn key(&self) -> Option<&str> {
        None
    }
}

/// An output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputEntry {
    /// The kind: `image`, `docker`, `local` and so on.
    pub kind: String,
    /// The destination.
    pub dest: String,
    /// Further attributes.
    pub attributes: Attributes,
}

impl OutputEntry {
    /// An output of this kind without attributes.
    pub fn of_kind(kind: &str) -> OutputEntry {
        OutputEntry { kind: kind.to_owned(), ..OutputEntry::default() }
    }

    /// The entry in the syntax of `--output`.
    pub fn text(&self) -> String {
        let dest = Some(self.dest.as_str()).filter(|dest| !dest.is_empty());
        attributed(&self.kind, dest, &self.attributes)
    }
}

impl Serialize for OutputEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = self.attributes.clone();
        all.insert("type".to_owned(), self.kind.clone());
        if !self.dest.is_empty() {
            all.insert("dest".to_owned(), self.dest.clone());
        }
        all.serialize(serializer)
    }
}

impl Entry for OutputEntry {
    fn of_text(text: &str) -> Result<Vec<OutputEntry>, String> {
        let list = fields(text)?;
        let mut entry = OutputEntry::default();
        if list.len() == 1 && list[0] == text && !text.starts_with("type=") {
            (entry.kind, entry.dest) =
                (if text == "-" { "tar" } else { "local" }.to_owned(), text.to_owned());
            return Ok(vec![entry]);
        }
        for (name, value) in pairs(text)? {
            match name.trim().to_lowercase().as_str() {
                "type" => entry.kind = value,
                "dest" => entry.dest = value,
                name => drop(entry.attributes.insert(name.to_owned(), value)),
            }
        }
        if entry.kind.is_empty() {
            return Err("type is required for output".to_owned());
        }
        Ok(vec![entry])
    }

    fn of_object(value: &Value) -> Result<OutputEntry, String> {
        let mut attributes = texts(value)?;
        let kind =
            attributes.remove("type").filter(|kind| !kind.is_empty()).ok_or("type is required for output")?;
        let dest = attributes.remove("dest").unwrap_or_default();
        Ok(OutputEntry { kind, dest, attributes })
    }

    fn key(&self) -> Option<&str> {
        None
    }
}

/// An attestation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttestEntry {
    /// The kind: `provenance` or `sbom`.
    pub kind: String,
    /// Whether it is declined.
    pub disabled: bool,
    /// Further attributes.
    pub attributes: Attributes,
}

impl AttestEntry {
    /// The entry in the syntax of `--attest`.
    pub fn text(&self) -> String {
        let mut pairs = vec![("type", self.kind.as_str())];
        if self.disabled {
            pairs.push(("disabled", "true"));
        }
        pairs.extend(self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        csv(&pairs)
    }
}

/// The attestation `kind` as `--provenance` and `--sbom` name it.
pub fn attestation(kind: &str, text: &str) -> String {
    match lapstrake_go::parse_bool(text) {
        Some(wanted) => format!("type={kind},disabled={}", !wanted),
        None => format!("type={kind},{text}"),
    }
}

impl Serialize for AttestEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |text: &String| serde_json::Value::String(text.clone());
        let mut all: BTreeMap<&str, serde_json::Value> =
            self.attributes.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        all.insert("type", text(&self.kind));
        if self.disabled {
            all.insert("disabled", serde_json::Value::Bool(true));
        }
        all.serialize(serializer)
    }
}

impl Entry for AttestEntry {
    fn of_text(text: &str) -> Result<Vec<AttestEntry>, String> {
        let mut entry = AttestEntry::default();
        for (name, value) in pairs(text)? {
            match name.trim().to_lowercase().as_str() {
                "type" => entry.kind = value,
                "disabled" => entry.disabled = flag(&name, &value)?,
                _ => drop(entry.attributes.insert(name, value)),
            }
        }
        if entry.kind.is_empty() {
            return Err("attestation type not specified".to_owned());
        }
        Ok(vec![entry])
    }

    fn of_object(value: &Value) -> Result<AttestEntry, String> {
        let mut attributes = texts(value)?;
        let kind = attributes.remove("type").unwrap_or_default();
        let disabled = attributes.remove("disabled").map_or(Ok(false), |value| flag("disabled", &value))?;
        Ok(AttestEntry { kind, disabled, attributes })
    }

    fn key(&self) -> Option<&str> {
        Some(&self.kind)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    lapstrake_go::parse_bool(value)
        .ok_or_else(|| format!("invalid value {name}={value}: neither true nor false"))
}

/// A secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SecretEntry {
    /// The name for `RUN`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The file with the value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// The environment variable with the value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env: String,
}

impl SecretEntry {
    /// The entry in the syntax of `--secret`.
    pub fn text(&self) -> String {
        let all = [("id", self.id.as_str()), ("src", self.src.as_str()), ("env", self.env.as_str())];
        csv(&all.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
    }
}

impl Entry for SecretEntry {
    fn of_text(text: &str) -> Result<Vec<SecretEntry>, String> {
        let (mut entry, mut kind) = (SecretEntry::default(), String::new());
        for field in fields(text)? {
            let Some((name, value)) = field.split_once('=') else {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            };
            let value = value.to_owned();
            match name.to_lowercase().as_str() {
                "type" if value != "file" && value != "env" => {
                    return Err(format!("unsupported secret type {value:?}"));
                }
                "type" => kind = value,
                "id" => entry.id = value,
                "source" | "src" => entry.src = value,
                "env" => entry.env = value,
                other => return Err(format!("unexpected key '{other}' in '{field}'")),
            }
        }
        if kind == "env" && entry.env.is_empty() {
            entry.env = std::mem::take(&mut entry.src);
        }
        Ok(vec![entry])
    }

    fn of_object(value: &Value) -> Result<SecretEntry, String> {
        let mut all = texts(value)?;
        let mut take = |name: &str| all.remove(name).unwrap_or_default();
        Ok(SecretEntry { id: take("id"), src: take("src"), env: take("env") })
    }

    fn key(&self) -> Option<&str> {
        Some(&self.id)
    }
}

/// An SSH agent, or keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SshEntry {
    /// The name for `RUN`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Sockets or keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl SshEntry {
    /// The entry in the syntax of `--ssh`.
    pub fn text(&self) -> String {
        if self.paths.is_empty() { self.id.clone() } else { format!("{}={}", self.id, self.paths.join(",")) }
    }
}

impl Entry for SshEntry {
    fn of_text(text: &str) -> Result<Vec<SshEntry>, String> {
        let (id, paths) = match text.split_once('=') {
            Some((id, paths)) => (id, paths.split(',').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        Ok(vec![SshEntry { id: id.to_owned(), paths }])
    }

    fn of_object(value: &Value) -> Result<SshEntry, String> {
        let fields = value.as_fields().ok_or("an object is required")?;
        let id = fields.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let paths = match fields.get("paths") {
            Some(paths) => convert(paths, &Type::List(Box::new(Type::String)))?,
            None => Value::NULL,
        };
        let paths = paths
            .as_items()
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        Ok(SshEntry { id, paths })
    }

    fn key(&self) -> Option<&str> {
        Some(&self.id)
    }
}
