//! Compose files: their services with a build are targets.

mod build;
mod env_files;
mod merge;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::dotenv;
use crate::error::{BakeError, Baked};
use crate::file::File;
use crate::module::Outside;
use crate::target::{Group, Target};

/// The targets of compose files.
#[derive(Default)]
pub(crate) struct Composed {
    pub(crate) targets: Vec<Target>,
    pub(crate) groups: Vec<Group>,
    pub(crate) warnings: Vec<String>,
}

/// The parts of a compose file that bake uses.
const KEPT: [&str; 5] = ["image", "build", "environment", "env_file", "extends"];

/// Whether `file` is a compose file: by its ending, or else by its content.
pub(crate) fn is_compose(file: &File) -> bool {
    let name = file.name.to_lowercase();
    let ends = |endings: [&str; 2]| endings.iter().any(|ending| name.ends_with(ending));
    if ends([".yml", ".yaml"]) {
        return true;
    }
    if ends([".json", ".hcl"]) {
        return false;
    }
    parse(file).is_ok_and(|document| document.get("services").is_some_and(Json::is_object))
}

fn parse(file: &File) -> Baked<Map<String, Json>> {
    let fail = |why: String| BakeError::new(format!("{}: {why}", file.name));
    let document: Json = serde_saphyr::from_str(&file.text).map_err(|error| {
        let text = error.to_string();
        fail(format!("cannot parse: {}", text.lines().next().unwrap_or_default()))
    })?;
    match document {
        Json::Object(document) => Ok(document),
        _ => Err(fail("a compose file must be a mapping".to_owned())),
    }
}

/// Variables of compose files: those of the command line, of the environment and of `.env`.
pub(crate) struct Variables<'o> {
    outside: &'o Outside,
    dotenv: BTreeMap<String, String>,
}

impl Variables<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let outer = self.outside.lookup(name).map(str::to_owned);
        outer.or_else(|| self.dotenv.get(name).cloned())
    }
}

/// Reads compose files, the later ones as overrides of the earlier ones.
///
/// # Errors
/// A file is wrong, or uses what is not supported.
pub(crate) fn read(files: &[&File], outside: &Outside) -> Baked<Composed> {
    let outer = |name: &str| outside.lookup(name).map(str::to_owned);
    let dotenv = match &outside.dotenv {
        Some(text) => dotenv::parse(text, &outer).map_err(|why| BakeError::new(format!(".env: {why}")))?,
        None => BTreeMap::new(),
    };
    let variables = Variables { outside, dotenv };
    let mut composed = Composed::default();
    let mut document = Map::new();
    for file in files {
        let mut next = parse(file)?;
        if next.contains_key("include") {
            let text = format!("{}: `include` of compose files is not supported", file.name);
            return Err(BakeError::new(text).hint("name the included files with `-f`"));
        }
        next.retain(|key, _| key == "services" || key == "secrets");
        if next.is_empty() {
            return Err(BakeError::new(format!("{}: empty compose file", file.name)));
        }
        if let Some(Json::Object(services)) = next.get_mut("services") {
            for service in services.values_mut().filter_map(Json::as_object_mut) {
                service.retain(|key, _| KEPT.contains(&key.as_str()));
            }
        }
        let mut unset = Vec::new();
        let mut next = Json::Object(next);
        interpolate(&mut next, &variables, &mut unset, &file.name)?;
        unset.sort();
        unset.dedup();
        composed.warnings.extend(unset.into_iter().map(|name| {
            format!("{}: the variable {name} is not set: an empty text takes its place", file.name)
        }));
        if let Json::Object(next) = next {
            merge::document(&mut document, next);
        }
    }
    targets(&document, &variables, &mut composed)?;
    Ok(composed)
}

fn interpolate(
    value: &mut Json,
    variables: &Variables<'_>,
    unset: &mut Vec<String>,
    file: &str,
) -> Baked<()> {
    match value {
        Json::String(text) if text.contains('$') => {
            let lookup = |name: &str| variables.get(name);
            *text = dotenv::interpolated(text, &lookup, unset)
                .map_err(|why| BakeError::new(format!("{file}: {why}")))?;
        }
        Json::Array(items) => {
            items.iter_mut().try_for_each(|item| interpolate(item, variables, unset, file))?;
        }
        Json::Object(fields) => {
            fields.values_mut().try_for_each(|item| interpolate(item, variables, unset, file))?;
        }
        _ => {}
    }
    Ok(())
}

fn targets(document: &Map<String, Json>, variables: &Variables<'_>, composed: &mut Composed) -> Baked<()> {
    let services = match document.get("services") {
        Some(Json::Object(services)) => services,
        Some(Json::Null) | None => return Ok(()),
        Some(_) => return Err(BakeError::new("services must be a mapping")),
    };
    let empty = Map::new();
    let secrets = document.get("secrets").and_then(Json::as_object).unwrap_or(&empty);
    let mut group = Group { name: "default".to_owned(), ..Group::default() };
    for name in services.keys() {
        let service = merge::extended(name, services).map_err(BakeError::new)?;
        let Some(build) = service.get("build").filter(|build| !build.is_null()) else { continue };
        let sanitized = name.replace('.', "_");
        let fail = |why: String| BakeError::new(format!("service {name}: {why}"));
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !sanitized.chars().all(fits) || sanitized.is_empty() {
            return Err(BakeError::new(format!(
                "invalid service name {sanitized:?}: only letters, digits, `_` and `-` are allowed"
            )));
        }
        let from = build::Service { service: &service, secrets, variables };
        let mut target = from.target(build).map_err(fail)?;
        target.name.clone_from(&sanitized);
        group.targets.push(sanitized);
        composed.targets.push(target);
    }
    composed.groups.push(group);
    Ok(())
}
