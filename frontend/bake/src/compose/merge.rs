//! Several compose files, and services that extend others.

use serde_json::{Map, Value as Json};

/// Mappings that may be written as lists of `NAME=VALUE`.
const PAIRS: [&str; 6] = ["args", "labels", "environment", "additional_contexts", "extra_hosts", "x-bake"];

/// The deepest chain of `extends`.
const DEPTH: usize = 32;

/// Puts `over` on top of `document`.
pub(super) fn document(document: &mut Map<String, Json>, over: Map<String, Json>) {
    merge(document, over);
}

fn merge(below: &mut Map<String, Json>, over: Map<String, Json>) {
    for (key, value) in over {
        let value = canonical(&key, value);
        let old = below.remove(&key).map(|old| canonical(&key, old));
        let merged = match (old, value) {
            (Some(Json::Object(mut old)), Json::Object(new)) => {
                merge(&mut old, new);
                Json::Object(old)
            }
            (Some(Json::Array(mut old)), Json::Array(new)) => {
                let fresh: Vec<Json> = new.into_iter().filter(|item| !old.contains(item)).collect();
                old.extend(fresh);
                Json::Array(old)
            }
            (Some(old), Json::Null) => old,
            (_, new) => new,
        };
        below.insert(key, merged);
    }
}

/// The long form of what has a short one.
fn canonical(key: &str, value: Json) -> Json {
    match value {
        Json::String(context) if key == "build" => {
            Json::Object(Map::from_iter([("context".to_owned(), Json::String(context))]))
        }
        Json::String(_) | Json::Object(_) if key == "env_file" => Json::Array(vec![value]),
        Json::Array(items) if PAIRS.contains(&key) => {
            let pair = |item: Json| match item {
                Json::String(text) => Some(match text.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Json::String(value.to_owned())),
                    None if key == "extra_hosts" => {
                        let (name, value) = text.split_once(':')?;
                        (name.to_owned(), Json::String(value.to_owned()))
                    }
                    None => (text, Json::Null),
                }),
                _ => None,
            };
            Json::Object(items.into_iter().filter_map(pair).collect())
        }
        other => other,
    }
}

/// The service `name` with the services that it extends.
pub(super) fn extended(name: &str, services: &Map<String, Json>) -> Result<Map<String, Json>, String> {
    let mut chain = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(name) = next {
        if chain.len() > DEPTH {
            return Err(format!(
                "service {name}: services extend each other in a circle, or more than {DEPTH} deep"
            ));
        }
        let service = match services.get(&name) {
            Some(Json::Object(service)) => service.clone(),
            Some(Json::Null) => Map::new(),
            Some(_) => return Err(format!("service {name} must be a mapping")),
            None => return Err(format!("service {name} is extended, and is not there")),
        };
        next = match service.get("extends") {
            None | Some(Json::Null) => None,
            Some(Json::String(base)) => Some(base.clone()),
            Some(Json::Object(base)) if base.contains_key("file") => {
                return Err(format!(
                    "service {name}: `extends` with a file is not supported: name the file with `-f` in front"
                ));
            }
            Some(Json::Object(base)) => base.get("service").and_then(Json::as_str).map(str::to_owned),
            Some(_) => return Err(format!("service {name}: `extends` must be a name or a mapping")),
        };
        chain.push(service);
    }
    let mut whole = Map::new();
    for service in chain.into_iter().rev() {
        merge(&mut whole, service);
    }
    Ok(whole)
}
