//! A definition of one or more bake files: its variables, functions and blocks, each evaluated when it is first needed.

mod blocks;
mod functions;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{BakeError, Baked};
use crate::eval::{Effort, Names, UserFunction};
use crate::functions::Host;
use crate::syntax::{Attribute, Block, Body};
use crate::target::{Group, Target};
use crate::value::{Type, Value};
pub use variables::Variable;

/// The values that come from outside of the files.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Variables that nothing overrides: `BAKE_CMD_CONTEXT`, `BAKE_LOCAL_PLATFORM`.
    pub built_in: BTreeMap<String, String>,
    /// Values of variables by `--var`.
    pub vars: BTreeMap<String, String>,
    /// The environment, whose variables override those of the files.
    pub environment: BTreeMap<String, String>,
    /// The text of the file `.env`, for compose files.
    pub dotenv: Option<String>,
    /// The directory at which `env_file` of compose services starts. Files outside of this directory are refused.
    pub directory: PathBuf,
    /// The machine, as functions see it.
    pub host: Host,
}

impl Outside {
    /// The value that overrides the variable `name`.
    pub(crate) fn lookup(&self, name: &str) -> Option<&str> {
        self.vars.get(name).or_else(|| self.environment.get(name)).map(String::as_str)
    }
}

/// A target of a block: one, or one for each combination of its matrix.
struct Instance {
    /// The block, by its number in [`Module::blocks`].
    block: usize,
    /// The variables of the matrix.
    local: BTreeMap<String, Value>,
    name: String,
    values: BTreeMap<String, Value>,
    progress: BTreeSet<String>,
}

/// A definition in evaluation.
pub(crate) struct Module<'o> {
    outside: &'o Outside,
    host: Arc<Host>,
    effort: Effort,
    variables: BTreeMap<String, Block>,
    attributes: BTreeMap<String, Attribute>,
    functions: BTreeMap<String, Block>,
    blocks: Vec<Block>,
    instances: Vec<Instance>,
    /// The instances of a kind and name.
    named: BTreeMap<(String, String), Vec<usize>>,
    values: BTreeMap<String, Value>,
    constraints: BTreeMap<String, Type>,
    progress: BTreeSet<String>,
    user_functions: BTreeMap<String, UserFunction>,
    warnings: Vec<String>,
}

/// What a definition says.
pub(crate) struct Evaluated {
    pub(crate) targets: Vec<Target>,
    pub(crate) groups: Vec<Group>,
    pub(crate) variables: Vec<Variable>,
    /// Sentences about what is ignored.
    pub(crate) warnings: Vec<String>,
}

/// Evaluates `bodies`, the files of a definition in their order.
///
/// # Errors
/// An expression, a variable or a block is wrong.
pub(crate) fn evaluate(bodies: Vec<Body>, outside: &Outside) -> Baked<Evaluated> {
    let mut module = Module::new(bodies, outside)?;
    let variables = module.all_variables()?;
    module.validate()?;
    module.all_functions()?;
    module.name_blocks()?;
    let (targets, groups) = module.all_blocks()?;
    let names: Vec<String> = module.attributes.keys().cloned().collect();
    for name in names {
        module.resolve(&name)?;
    }
    Ok(Evaluated { targets, groups, variables, warnings: module.warnings })
}

impl<'o> Module<'o> {
    fn new(bodies: Vec<Body>, outside: &'o Outside) -> Baked<Module<'o>> {
        let mut module = Module {
            outside,
            host: Arc::new(outside.host.clone()),
            effort: Effort::default(),
            variables: BTreeMap::new(),
            attributes: BTreeMap::new(),
            functions: BTreeMap::new(),
            blocks: Vec::new(),
            instances: Vec::new(),
            named: BTreeMap::new(),
            values: BTreeMap::new(),
            constraints: BTreeMap::new(),
            progress: BTreeSet::new(),
            user_functions: BTreeMap::new(),
            warnings: Vec::new(),
        };
        for body in bodies {
            let attributes = body.attributes.into_iter();
            module.attributes.extend(attributes.map(|attribute| (attribute.name.clone(), attribute)));
            for block in body.blocks {
                module.add(block)?;
            }
        }
        Ok(module)
    }

    fn add(&mut self, block: Block) -> Baked<()> {
        let label = match &block.labels[..] {
            [label] => label.clone(),
            labels => {
                let error = BakeError::new(format!(
                    "a {} has one label, its name, and this has {}",
                    block.kind,
                    labels.len()
                ));
                return Err(error.at(&block.origin, block.range.clone()));
            }
        };
        match block.kind.as_str() {
            "variable" => drop(self.variables.insert(label, block)),
            "function" => drop(self.functions.insert(label, block)),
            "target" | "group" => self.blocks.push(block),
            kind => {
                let file = block.origin.file.name();
                self.warnings.push(format!("{file}: the block {kind} {label:?} is ignored: bake knows variable, function, group and target"));
            }
        }
        Ok(())
    }
}

impl Names for Module<'_> {
    fn variable(&mut self, name: &str) -> Baked<Option<Value>> {
        self.resolve(name)
    }

    fn block(&mut self, kind: &str, name: &str, attribute: Option<&str>) -> Baked<Option<Value>> {
        self.block_value(kind, name, attribute)
    }

    fn is_block(&self, kind: &str) -> bool {
        matches!(kind, "target" | "group")
    }

    fn function(&mut self, name: &str) -> Baked<Option<UserFunction>> {
        self.user_function(name)
    }

    fn host(&self) -> Arc<Host> {
        self.host.clone()
    }

    fn effort(&mut self) -> &mut Effort {
        &mut self.effort
    }
}
