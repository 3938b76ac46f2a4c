//! A definition: the targets and groups of bake files, and the choice of those that are built.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::compose;
use crate::error::{BakeError, Baked};
use crate::file::File;
use crate::module::{self, Outside, Variable};
use crate::overrides::Overrides;
use crate::patterns;
use crate::syntax;
use crate::target::{Group, Target, without_repeats};

/// The deepest inheritance, and the deepest nesting of groups and of linked targets.
const DEPTH: usize = 128;

/// The targets, groups and variables of bake files.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    /// The targets, in the order of the files.
    pub targets: Vec<Target>,
    /// The groups.
    pub groups: Vec<Group>,
    /// The variables, by name.
    pub variables: Vec<Variable>,
    /// Sentences about what is ignored.
    pub warnings: Vec<String>,
}

/// The targets that are built, as `--print` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TargetSet {
    /// The groups that lead to the targets.
    #[serde(rename = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Group>,
    /// The targets.
    #[serde(rename = "target")]
    pub targets: BTreeMap<String, Target>,
}

impl Definition {
    /// Reads `files`, the first one first.
    ///
    /// # Errors
    /// A file is wrong. The error has the place.
    pub fn read(files: &[File], outside: &Outside) -> Baked<Definition> {
        let (mut bodies, mut composes) = (Vec::new(), Vec::new());
        for file in files {
            match compose::is_compose(file) {
                true => composes.push(file),
                false => bodies.push(syntax::read(&file.name, &file.text)?),
            }
        }
        let mut definition = Definition::default();
        if !composes.is_empty() {
            let read = compose::read(&composes, outside)?;
            (definition.targets, definition.groups, definition.warnings) =
                (read.targets, read.groups, read.warnings);
        }
        let evaluated = module::evaluate(bodies, outside)?;
        for target in evaluated.targets {
            match definition.targets.iter_mut().find(|other| other.name == target.name) {
                Some(other) => other.merge(&target),
                None => definition.targets.push(target),
            }
        }
        for group in evaluated.groups {
            match definition.groups.iter_mut().find(|other| other.name == group.name) {
                Some(other) => *other = group,
                None => definition.groups.push(group),
            }
        }
        definition.variables = evaluated.variables;
        definition.warnings.extend(evaluated.warnings);
        Ok(definition)
    }

    /// The targets that `wanted` names, with `overrides`.
    ///
    /// # Errors
    /// A name or an override fits nothing, or targets go in circles.
    pub fn choose(&self, wanted: &[String], overrides: &Overrides) -> Baked<TargetSet> {
        let mut names = Vec::new();
        for name in wanted {
            names.extend(self.matching(&name.replace('.', "_"))?);
        }
        without_repeats(&mut names);
        let mut chosen = TargetSet::default();
        let mut cache = BTreeMap::new();
        for name in &names {
            let mut known = BTreeMap::new();
            let reached = self.reach(name, &mut known, 0)?;
            for target in &reached.targets {
                let resolved = self.resolve(target, overrides, &mut cache)?;
                chosen.targets.insert(target.clone(), resolved);
            }
            for group in &reached.groups {
                if let Some(group) = self.group(group) {
                    chosen.groups.insert(group.name.clone(), group.clone());
                }
            }
        }
        add_default(&mut chosen.groups, &names);
        let mut links = Links { definition: self, overrides, cache, done: BTreeSet::new() };
        let direct: Vec<String> = chosen.targets.keys().cloned().collect();
        for name in direct {
            links.load(&name, &mut chosen.targets, &mut Vec::new())?;
        }
        Ok(chosen)
    }

    /// Reads overrides in the syntax of `--set`. An argument without a value has the one of `environment`.
    ///
    /// # Errors
    /// An override is not `PATTERN.KEY[+]=VALUE`, or its pattern fits no target.
    pub fn overrides(&self, list: &[String], environment: &BTreeMap<String, String>) -> Baked<Overrides> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        Overrides::read(list, &names, environment)
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The targets and groups that a pattern fits, or the name itself.
    fn matching(&self, pattern: &str) -> Baked<Vec<String>> {
        if !pattern.contains(['*', '?', '[', ']']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let all =
            self.groups.iter().map(|group| &group.name).chain(self.targets.iter().map(|target| &target.name));
        let fitting: Vec<String> = all.filter(|name| patterns::fits(pattern, name)).cloned().collect();
        if fitting.is_empty() {
            return Err(
                BakeError::new(format!("could not find any target matching {pattern:?}")).hint(self.names())
            );
        }
        Ok(fitting)
    }

    /// The names that there are, as a hint.
    fn names(&self) -> String {
        let all =
            self.groups.iter().map(|group| &group.name).chain(self.targets.iter().map(|target| &target.name));
        let mut all: Vec<&str> = all.map(String::as_str).collect();
        all.sort_unstable();
        all.dedup();
        all.truncate(20);
        match all.is_empty() {
            true => "the definition has no targets".to_owned(),
            false => format!("the definition has {}", all.join(", ")),
        }
    }

    /// The targets and groups that `name` leads to.
    fn reach(&self, name: &str, known: &mut BTreeMap<String, Reached>, depth: usize) -> Baked<Reached> {
        if let Some(reached) = known.get(name) {
            return Ok(reached.clone());
        }
        if depth > DEPTH {
            return Err(BakeError::new(format!("groups are nested more than {DEPTH} deep")));
        }
        let Some(group) = self.group(name) else {
            return Ok(Reached { targets: vec![name.to_owned()], groups: Vec::new() });
        };
        known.insert(name.to_owned(), Reached::default());
        let mut reached = Reached { targets: Vec::new(), groups: vec![name.to_owned()] };
        for member in &group.targets {
            // A group may have the name of one of its targets.
            let inner = match member == name {
                true => Reached { targets: vec![name.to_owned()], groups: Vec::new() },
                false => self.reach(member, known, depth + 1)?,
            };
            match inner.targets.is_empty() {
                true => reached.targets.push(member.clone()),
                false => reached.targets.extend(inner.targets),
            }
            reached.groups.extend(inner.groups);
        }
        without_repeats(&mut reached.targets);
        without_repeats(&mut reached.groups);
        known.insert(name.to_owned(), reached.clone());
        Ok(reached)
    }

    /// The target `name` with what it inherits, the overrides and the defaults.
    fn resolve(&self, name: &str, overrides: &Overrides, cache: &mut Cache) -> Baked<Target> {
        let mut target = self.inherited(name, overrides, cache, &mut Vec::new())?;
        target.context.get_or_insert_with(|| ".".to_owned());
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    fn inherited(
        &self,
        name: &str,
        overrides: &Overrides,
        cache: &mut Cache,
        path: &mut Vec<String>,
    ) -> Baked<Target> {
        if let Some(target) = cache.get(name) {
            return Ok(target.clone());
        }
        if path.iter().any(|other| other == name) {
            let circle = [path.as_slice(), &[name.to_owned()]].concat().join(" → ");
            return Err(BakeError::new(format!("targets inherit from each other in a circle: {circle}")));
        }
        if path.len() > DEPTH {
            return Err(BakeError::new(format!("targets inherit more than {DEPTH} deep")));
        }
        let own = self.targets.iter().find(|target| target.name == name);
        let own =
            own.ok_or_else(|| BakeError::new(format!("failed to find target {name}")).hint(self.names()))?;
        path.push(name.to_owned());
        let mut target = Target::default();
        for parent in &own.inherits {
            target.merge(&self.inherited(parent, overrides, cache, path)?);
            // Equal entries of several parents would double at each level.
            target.normalize();
        }
        path.pop();
        target.merge(own);
        target.inherits.clear();
        target.name = name.to_owned();
        overrides.apply(name, &mut target)?;
        target.normalize();
        cache.insert(name.to_owned(), target.clone());
        Ok(target)
    }
}

type Cache = BTreeMap<String, Target>;

#[derive(Clone, Debug, Default)]
struct Reached {
    targets: Vec<String>,
    groups: Vec<String>,
}

/// Names of the command line become the group `default`.
fn add_default(groups: &mut BTreeMap<String, Group>, names: &[String]) {
    for name in names {
        if name == "default" && groups.contains_key("default") {
            continue;
        }
        let default = groups
            .entry("default".to_owned())
            .or_insert_with(|| Group { name: "default".to_owned(), ..Group::default() });
        default.targets.push(name.clone());
    }
    if let Some(default) = groups.get_mut("default") {
        without_repeats(&mut default.targets);
        default.targets.sort();
    }
}

/// The way through contexts that are other targets.
struct Links<'d> {
    definition: &'d Definition,
    overrides: &'d Overrides,
    cache: Cache,
    done: BTreeSet<String>,
}

impl Links<'_> {
    /// Adds the targets that are contexts of the target `name`.
    fn load(
        &mut self,
        name: &str,
        targets: &mut BTreeMap<String, Target>,
        path: &mut Vec<String>,
    ) -> Baked<()> {
        if self.done.contains(name) {
            return Ok(());
        }
        if path.len() > DEPTH {
            return Err(BakeError::new(format!("targets are linked more than {DEPTH} deep")));
        }
        path.push(name.to_owned());
        let contexts = targets.get(name).map(|target| target.contexts.clone()).unwrap_or_default();
        for link in contexts.values().filter_map(|value| value.strip_prefix("target:")) {
            if link == name {
                return Err(BakeError::new(format!("target {link} cannot link to itself")));
            }
            if path.iter().any(|other| other == link) {
                return Err(BakeError::new(format!("infinite loop from {name} to {link}")));
            }
            if !targets.contains_key(link) {
                let mut target = self.definition.resolve(link, self.overrides, &mut self.cache)?;
                target.output = Some(vec![crate::entries::OutputEntry::of_kind("cacheonly")]);
                target.linked = true;
                targets.insert(link.to_owned(), target);
            }
            self.load(link, targets, path)?;
            check_link(name, link, targets)?;
        }
        path.pop();
        self.done.insert(name.to_owned());
        Ok(())
    }
}

/// The target has the permissions of its context, and no platform that its context lacks.
fn check_link(name: &str, link: &str, targets: &mut BTreeMap<String, Target>) -> Baked<()> {
    let Some(linked) = targets.get(link).cloned() else { return Ok(()) };
    let Some(target) = targets.get_mut(name) else { return Ok(()) };
    if let Some(more) = &linked.entitlements {
        let all = target.entitlements.get_or_insert_default();
        all.extend(more.iter().cloned());
        without_repeats(all);
    }
    let (own, its) = (target.platforms.clone().unwrap_or_default(), linked.platforms.unwrap_or_default());
    if own.len() > 1 && its.len() > 1 && !own.iter().all(|platform| its.contains(platform)) {
        return Err(BakeError::new(format!(
            "target {link} can't be used by {name} because its platforms [{}] are not a subset of [{}]",
            own.join(" "),
            its.join(" ")
        )));
    }
    Ok(())
}
