//! What stages use of what they may be given: arguments, secrets, SSH agents.

use std::collections::{BTreeMap, BTreeSet};

use lapstrake_dockerfile::{Arg, MountType};

/// First and last line.
type Range = (u32, u32);

/// An argument that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The value that it has; empty if it has none.
    pub value: String,
    /// What the comments say of it.
    pub description: String,
    /// Where it is declared.
    pub lines: Range,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineItem {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is first used.
    pub lines: Range,
}

/// What one stage uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    /// Names of arguments, those of its FROM included.
    pub(crate) names: BTreeSet<String>,
    /// Names of arguments in its FROM.
    pub(crate) from: BTreeSet<String>,
    /// Arguments that it declares itself.
    pub(crate) args: BTreeMap<String, OutlineArg>,
    pub(crate) secrets: BTreeMap<String, OutlineItem>,
    pub(crate) ssh: BTreeMap<String, OutlineItem>,
}

impl Used {
    /// What a FROM uses.
    pub(crate) fn by_from(names: BTreeSet<String>) -> Used {
        Used { from: names.clone(), names, ..Used::default() }
    }

    /// An ARG; one that only takes a global value over is declared elsewhere.
    pub(crate) fn arg(&mut self, arg: &Arg, value: Option<&str>, inherited: bool, lines: Range) {
        if !inherited {
            self.args.insert(arg.name.to_string(), described(arg, value, lines));
        }
        self.names.insert(arg.name.to_string());
    }

    /// A mount of a secret or an agent.
    pub(crate) fn mount(&mut self, kind: MountType, id: &str, required: bool, lines: Range) {
        let known = if kind == MountType::Ssh { &mut self.ssh } else { &mut self.secrets };
        let item = || OutlineItem { name: id.to_owned(), required, lines };
        known.entry(id.to_owned()).or_insert_with(item);
    }
}

pub(crate) fn described(arg: &Arg, value: Option<&str>, lines: Range) -> OutlineArg {
    OutlineArg {
        name: arg.name.to_string(),
        value: value.unwrap_or_default().to_owned(),
        description: arg.doc.to_string(),
        lines,
    }
}
