//! Targets and groups: matrices, names and attributes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Instance, Module};
use crate::convert::convert;
use crate::error::{BakeError, Baked};
use crate::eval::{Scope, eval};
use crate::syntax::{Attribute, Block};
use crate::target::{FORMS, Form, Group, Target, without_repeats};
use crate::value::{Type, Value};

/// The most targets that matrices make together.
const MOST_TARGETS: usize = 4096;

/// Whether a target may be called so.
pub(crate) fn valid_name(name: &str) -> Result<(), String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(valid) {
        return Err(format!("invalid name {name:?}: only letters, digits, `_` and `-` are allowed"));
    }
    Ok(())
}

/// The attributes of a group.
fn group_form(name: &str) -> Option<Form> {
    match name {
        "targets" => Some(Form::Texts),
        "description" => Some(Form::Text),
        _ => None,
    }
}

impl Module<'_> {
    /// Finds out the names of all blocks, which a matrix multiplies.
    pub(super) fn name_blocks(&mut self) -> Baked<()> {
        for number in 0..self.blocks.len() {
            let block = self.blocks[number].clone();
            let first = self.instances.len();
            self.expand(number, &block).map_err(|error| error.at(&block.origin, block.range.clone()))?;
            let mut names = BTreeSet::new();
            for at in first..self.instances.len() {
                let name = self.instances[at].name.clone();
                if !names.insert(name.clone()) {
                    let error = BakeError::new(format!("duplicate name {name:?}"));
                    let hint = "give the targets of a matrix their names with `name`, as `name = \"app-${version}\"`";
                    return Err(error.at(&block.origin, block.range.clone()).hint(hint));
                }
                self.named.entry((block.kind.clone(), name)).or_default().push(at);
            }
            self.warn_of_unknown(&block);
        }
        Ok(())
    }

    fn warn_of_unknown(&mut self, block: &Block) {
        let known = |name: &str| match block.kind.as_str() {
            "target" => Form::of(name).is_some() || matches!(name, "name" | "matrix"),
            _ => group_form(name).is_some(),
        };
        let label = block.labels.first().map_or("", String::as_str);
        let attributes = block.body.attributes.iter().map(|attribute| &attribute.name);
        let blocks = block.body.blocks.iter().map(|inner| &inner.kind);
        for name in attributes.filter(|name| !known(name)).chain(blocks) {
            let candidates = FORMS.iter().map(|(name, _)| *name);
            let meant = lapstrake_diag::did_you_mean(name, candidates)
                .map_or_else(String::new, |meant| format!(", did you mean {meant:?}?"));
            let (file, kind) = (block.origin.file.name(), &block.kind);
            self.warnings.push(format!("{file}: the attribute {name:?} of the {kind} {label:?} is ignored: bake does not know it{meant}"));
        }
    }

    fn expand(&mut self, number: usize, block: &Block) -> Baked<()> {
        let label = block.labels.first().cloned().unwrap_or_default();
        valid_name(&label)?;
        let (matrix, name) = (block.body.attribute("matrix"), block.body.attribute("name"));
        if block.kind == "group" && (matrix.is_some() || name.is_some()) {
            return Err(BakeError::new("matrix and name are not supported for groups"));
        }
        let Some(matrix) = matrix else {
            if name.is_some() {
                return Err(BakeError::new("name requires matrix"));
            }
            return self.push_instance(number, label, BTreeMap::new());
        };
        for local in self.combinations(matrix)? {
            let own = match name {
                Some(name) => self.instance_name(name, &local)?,
                None => label.clone(),
            };
            self.push_instance(number, own, local)?;
        }
        Ok(())
    }

    fn push_instance(&mut self, block: usize, name: String, local: BTreeMap<String, Value>) -> Baked<()> {
        if self.instances.len() >= MOST_TARGETS {
            return Err(BakeError::new(format!("the definition has more than {MOST_TARGETS} targets")));
        }
        self.instances.push(Instance {
            block,
            local,
            name,
            values: BTreeMap::new(),
            progress: BTreeSet::new(),
        });
        Ok(())
    }

    fn instance_name(&mut self, name: &Attribute, local: &BTreeMap<String, Value>) -> Baked<String> {
        let scope = Scope::with(&name.origin, local.clone());
        let value = eval(self, &name.expr, &scope)?;
        let text = convert(&value, &Type::String).map_err(|why| scope.error(&name.expr, why))?;
        let text = text.as_str().ok_or_else(|| scope.error(&name.expr, "the name is null"))?;
        valid_name(text)
            .map_err(|why| scope.error(&name.expr, why).hint("`sanitize(…)` replaces other characters"))?;
        Ok(text.to_owned())
    }

    /// The combinations of the values of a matrix, the first name's values slowest.
    fn combinations(&mut self, matrix: &Attribute) -> Baked<Vec<BTreeMap<String, Value>>> {
        let scope = Scope::new(&matrix.origin);
        let value = eval(self, &matrix.expr, &scope)?;
        let fields = value.as_fields().ok_or_else(|| scope.error(&matrix.expr, "matrix must be a map"))?;
        let mut combinations: Vec<BTreeMap<String, Value>> = vec![BTreeMap::new()];
        for (name, values) in fields {
            let values: Vec<Value> = match (values.as_items(), values.as_fields()) {
                (Some(items), _) => items.to_vec(),
                (None, Some(fields)) => fields.values().cloned().collect(),
                (None, None) => return Err(scope.error(&matrix.expr, "matrix values must be a list")),
            };
            if combinations.len().saturating_mul(values.len()) > MOST_TARGETS {
                let text = format!("the matrix has more than {MOST_TARGETS} combinations");
                return Err(scope.error(&matrix.expr, text));
            }
            let with = |before: &BTreeMap<String, Value>, value: &Value| {
                let mut combination = before.clone();
                combination.insert(name.clone(), value.clone());
                combination
            };
            combinations = combinations
                .iter()
                .flat_map(|before| values.iter().map(|value| with(before, value)).collect::<Vec<_>>())
                .collect();
        }
        Ok(combinations)
    }

    /// The value of the attribute `attribute` of the block `name`, or of all of them; nothing if there is no such block.
    pub(super) fn block_value(
        &mut self,
        kind: &str,
        name: &str,
        attribute: Option<&str>,
    ) -> Baked<Option<Value>> {
        let Some(at) =
            self.named.get(&(kind.to_owned(), name.to_owned())).and_then(|all| all.last()).copied()
        else {
            return Ok(None);
        };
        if let Some(attribute) = attribute {
            return self.attribute_value(at, attribute).map(Some);
        }
        let names: Vec<&str> = match kind {
            "target" => FORMS.iter().map(|(name, _)| *name).chain(["name"]).collect(),
            _ => vec!["name", "description", "targets"],
        };
        let fields = names.into_iter().map(|name| Ok((name.to_owned(), self.attribute_value(at, name)?)));
        Ok(Some(Value::object(fields.collect::<Baked<_>>()?)))
    }

    /// The value of an attribute of an instance, in its form.
    fn attribute_value(&mut self, at: usize, name: &str) -> Baked<Value> {
        let instance = &self.instances[at];
        if name == "name" {
            return Ok(Value::text(instance.name.as_str()));
        }
        if let Some(value) = instance.values.get(name) {
            return Ok(value.clone());
        }
        let block = &self.blocks[instance.block];
        let form = if block.kind == "target" { Form::of(name) } else { group_form(name) };
        let form =
            form.ok_or_else(|| BakeError::new(format!("a {} has no attribute named {name:?}", block.kind)))?;
        let Some(attribute) = block.body.attribute(name).cloned() else {
            return Ok(if name == "description" { Value::text("") } else { form.unset() });
        };
        if instance.progress.contains(name) {
            let (kind, own) = (&block.kind, &instance.name);
            return Err(BakeError::new(format!("reference cycle not allowed for {kind}.{own}.{name}")));
        }
        let scope = Scope::with(&attribute.origin, instance.local.clone());
        self.instances[at].progress.insert(name.to_owned());
        let value = eval(self, &attribute.expr, &scope);
        self.instances[at].progress.remove(name);
        let fitted = form
            .fit(&value?)
            .map_err(|why| scope.error(&attribute.expr, format!("unsuitable value for {name}: {why}")))?;
        self.instances[at].values.insert(name.to_owned(), fitted.clone());
        Ok(fitted)
    }

    /// All targets and groups. Blocks of one name are merged; a later group replaces an earlier one.
    pub(super) fn all_blocks(&mut self) -> Baked<(Vec<Target>, Vec<Group>)> {
        let (mut targets, mut groups): (Vec<Target>, Vec<Group>) = (Vec::new(), Vec::new());
        for at in 0..self.instances.len() {
            let block = self.blocks[self.instances[at].block].clone();
            if block.kind == "group" {
                let group = self.group(at, &block)?;
                match groups.iter_mut().find(|other| other.name == group.name) {
                    Some(other) => *other = group,
                    None => groups.push(group),
                }
                continue;
            }
            let target = self.target(at, &block)?;
            match targets.iter_mut().find(|other| other.name == target.name) {
                Some(other) => other.merge(&target),
                None => targets.push(target),
            }
        }
        groups.extend(self.matrix_groups());
        Ok((targets, groups))
    }

    /// A group for each matrix, with the targets that it makes.
    fn matrix_groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for instance in &self.instances {
            let block = &self.blocks[instance.block];
            let label = block.labels.first().cloned().unwrap_or_default();
            match groups.iter_mut().find(|group| group.name == label) {
                Some(group) => group.targets.push(instance.name.clone()),
                None => groups.push(Group {
                    name: label,
                    description: String::new(),
                    targets: vec![instance.name.clone()],
                }),
            }
        }
        groups.iter_mut().for_each(|group| without_repeats(&mut group.targets));
        groups.retain(|group| group.targets != [group.name.clone()]);
        groups
    }

    fn target(&mut self, at: usize, block: &Block) -> Baked<Target> {
        let mut target = Target { name: self.instances[at].name.clone(), ..Target::default() };
        for attribute in &block.body.attributes {
            if Form::of(&attribute.name).is_none() {
                continue;
            }
            let value = self.attribute_value(at, &attribute.name)?;
            let scope = Scope::new(&attribute.origin);
            target.set(&attribute.name, &value).map_err(|why| {
                scope.error(&attribute.expr, format!("unsuitable value for {}: {why}", attribute.name))
            })?;
        }
        Ok(target)
    }

    fn group(&mut self, at: usize, block: &Block) -> Baked<Group> {
        let name = self.instances[at].name.clone();
        if block.body.attribute("targets").is_none() {
            let error = BakeError::new(format!("the group {name:?} needs `targets`"));
            return Err(error.at(&block.origin, block.range.clone()));
        }
        let description = self.attribute_value(at, "description")?.as_str().unwrap_or_default().to_owned();
        let targets = self.attribute_value(at, "targets")?;
        let texts =
            targets.as_items().unwrap_or_default().iter().filter_map(Value::as_str).map(str::to_owned);
        let mut group = Group { name, description, targets: texts.collect() };
        without_repeats(&mut group.targets);
        Ok(group)
    }
}
