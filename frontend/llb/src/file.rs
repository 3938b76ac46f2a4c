//! Changes of files.
//!
//! The actions of one op are a graph of their own: each has the number of an input of the op, or of the result of an earlier
//! action. Actions in a row, each on the result of the one before, become one vertex.

use std::collections::BTreeMap;

use lapstrake_graph::{
    Copy, CopyVariant, Edge, File, FileAction, MakeDir, MakeFile, Op, Owner, OwnerPart, Remove, Symlink,
    VertexMeta,
};
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;

use crate::error::LlbError;
use crate::lower::{Lowering, This};

/// Actions in a row that become one vertex.
struct Chain {
    /// The number of the op's input that is changed; −1 for the empty tree. `None` for the result of an earlier vertex.
    base: Option<i64>,
    /// Input 0 is the tree that is changed.
    inputs: Vec<Edge>,
    actions: Vec<FileAction>,
}

/// The result of an action.
enum State {
    /// It is known as an edge.
    Made(Edge),
    /// Further actions may follow in the same vertex.
    Open(Chain),
    /// The only action that needs the result has gone on with its chain.
    Continued,
}

/// The actions of one op on their way.
struct Progress {
    results: Vec<State>,
    /// The number of uses of each result by other actions.
    uses: BTreeMap<usize, usize>,
}

impl Lowering<'_> {
    /// Changes of files with their outputs.
    pub(crate) fn file(&mut self, this: &This<'_>, file: &pb::FileOp) -> Result<Vec<(i64, Edge)>, LlbError> {
        let mut progress = Progress { results: Vec::new(), uses: BTreeMap::new() };
        let users = file.actions.iter().flat_map(|action| [action.input, action.secondary_input]);
        for result in users.filter_map(|input| earlier(this, input)) {
            *progress.uses.entry(result).or_default() += 1;
        }
        let mut outputs = Vec::new();
        for (number, action) in file.actions.iter().enumerate() {
            let mut chain = self.base(this, (number, action.input), &mut progress)?;
            let step = self.action(this, action, &mut chain, &mut progress)?;
            chain.actions.push(step);
            progress.results.push(State::Open(chain));
            if action.output >= 0 {
                let edge = self.made(this, number, &mut progress, true)?;
                outputs.push((action.output, edge));
            }
        }
        if outputs.is_empty() {
            return Err(this.invalid("no outputs specified"));
        }
        Ok(outputs)
    }

    /// The chain that an action goes on: a new one on an input, or that of an earlier action which nothing else needs.
    fn base(
        &mut self,
        this: &This<'_>,
        (number, input): (usize, i64),
        progress: &mut Progress,
    ) -> Result<Chain, LlbError> {
        let Some(earlier) = earlier(this, input) else {
            let edge = self.input_or_scratch(this, input)?;
            return Ok(Chain { base: Some(input), inputs: vec![edge], actions: Vec::new() });
        };
        if earlier >= number {
            return Err(this.invalid(format!("action {number} stands on a later one")));
        }
        let alone = progress.uses.get(&earlier) == Some(&1);
        if alone && matches!(progress.results[earlier], State::Open(_)) {
            let state = std::mem::replace(&mut progress.results[earlier], State::Continued);
            if let State::Open(chain) = state {
                return Ok(chain);
            }
        }
        let edge = self.made(this, earlier, progress, false)?;
        Ok(Chain { base: None, inputs: vec![edge], actions: Vec::new() })
    }

    /// The edge of the result of action `number`. `last` says that the op itself has this output, so that the vertex has the
    /// op's name in progress streams.
    fn made(
        &mut self,
        this: &This<'_>,
        number: usize,
        progress: &mut Progress,
        last: bool,
    ) -> Result<Edge, LlbError> {
        let missing = || this.invalid(format!("there is no result of action {number}"));
        let state = progress.results.get_mut(number).ok_or_else(missing)?;
        let chain = match std::mem::replace(state, State::Continued) {
            State::Open(chain) => chain,
            State::Made(edge) => {
                *state = State::Made(edge);
                return Ok(edge);
            }
            State::Continued => return Err(missing()),
        };
        let meta = VertexMeta { id: this.meta.id.clone().filter(|_| last), ..this.meta.clone() };
        let op = Op::File(File { actions: chain.actions });
        let edge: Edge = self.graph.add(op, chain.inputs, meta)?.into();
        progress.results[number] = State::Made(edge);
        Ok(edge)
    }

    fn action(
        &mut self,
        this: &This<'_>,
        action: &pb::FileAction,
        chain: &mut Chain,
        progress: &mut Progress,
    ) -> Result<FileAction, LlbError> {
        let names = [Some(action.input), chain.base];
        let action_kind =
            action.action.as_ref().ok_or_else(|| this.invalid("an action that does nothing"))?;
        Ok(match action_kind {
            Action::Copy(copy) => {
                let from = match earlier(this, action.secondary_input) {
                    Some(earlier) => self.made(this, earlier, progress, false)?,
                    None => self.input_or_scratch(this, action.secondary_input)?,
                };
                chain.inputs.push(from);
                FileAction::Copy(copied(this, copy, chain.inputs.len() - 1, names)?)
            }
            Action::Mkfile(file) => FileAction::MakeFile(MakeFile {
                dest: absolute(&file.path),
                name: file.path.rsplit('/').next().unwrap_or_default().to_owned(),
                mode: bits(file.mode),
                chmod: None,
                data: file.data.clone(),
                owner: owner(this, file.owner.as_ref(), names)?,
                timestamp: timestamp(file.timestamp),
                needs_parent: true,
            }),
            Action::Mkdir(dir) => FileAction::MakeDir(MakeDir {
                path: absolute(&dir.path),
                mode: bits(dir.mode),
                parents: dir.make_parents,
                owner: owner(this, dir.owner.as_ref(), names)?,
                timestamp: timestamp(dir.timestamp),
            }),
            Action::Rm(remove) => FileAction::Remove(Remove {
                path: absolute(&remove.path),
                optional: remove.allow_not_found,
                wildcards: remove.allow_wildcard,
            }),
            Action::Symlink(link) => FileAction::Symlink(Symlink {
                path: absolute(&link.newpath),
                text: link.oldpath.clone(),
                owner: owner(this, link.owner.as_ref(), names)?,
                timestamp: timestamp(link.timestamp),
            }),
        })
    }
}

/// The number of the action whose result `input` means; nothing for an input of the op.
fn earlier(this: &This<'_>, input: i64) -> Option<usize> {
    usize::try_from(input).ok()?.checked_sub(this.inputs.len())
}

fn copied(
    this: &This<'_>,
    copy: &pb::FileActionCopy,
    input: usize,
    names: [Option<i64>; 2],
) -> Result<Copy, LlbError> {
    let chmod = match (copy.mode_str.as_str(), copy.mode) {
        ("", -1) => None,
        ("", mode) => Some(format!("{:o}", bits(mode))),
        (text, _) => Some(text.to_owned()),
    };
    let variant = CopyVariant {
        literal: !copy.allow_wildcard,
        needs_match: copy.allow_wildcard && !copy.allow_empty_wildcard,
        keep_links: !copy.follow_symlink,
        whole_directory: !copy.dir_copy_contents,
        needs_parent: !copy.create_dest_path,
        include: copy.include_patterns.clone(),
        required: copy.required_paths.clone(),
        replace: copy.always_replace_existing_dest_paths,
        all_times: timestamp(copy.timestamp).is_some(),
    };
    Ok(Copy {
        input,
        sources: vec![absolute(&copy.src)],
        dest: absolute(&copy.dest),
        chown: owner(this, copy.owner.as_ref(), names)?,
        chmod,
        chmod_made: false,
        exclude: copy.exclude_patterns.clone(),
        parents: false,
        optional: false,
        unpack: copy.attempt_unpack_docker_compatibility,
        timestamp: timestamp(copy.timestamp),
        variant,
    })
}

/// The path from the root. A slash at its end stays.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The permission bits of a mode.
fn bits(mode: i32) -> u32 {
    u32::from_le_bytes(mode.to_le_bytes()) & 0o7777
}

/// Seconds; BuildKit has nanoseconds, and −1 for now.
fn timestamp(nanoseconds: i64) -> Option<i64> {
    (nanoseconds != -1).then(|| nanoseconds.div_euclid(1_000_000_000))
}

/// An owner. Names are looked up in the tree that is changed, which has the numbers `names` among the inputs. Another tree is
/// not supported.
fn owner(
    this: &This<'_>,
    owner: Option<&pb::ChownOpt>,
    names: [Option<i64>; 2],
) -> Result<Option<Owner>, LlbError> {
    let Some(owner) = owner else { return Ok(None) };
    let part = |part: Option<&pb::UserOpt>| -> Result<Option<OwnerPart>, LlbError> {
        Ok(match part.and_then(|part| part.user.as_ref()) {
            None => None,
            Some(pb::user_opt::User::ById(id)) => Some(OwnerPart::Id(*id)),
            Some(pb::user_opt::User::ByName(named)) => {
                if !names.contains(&Some(named.input)) {
                    return Err(this.unsupported("an owner whose name is looked up in another tree"));
                }
                Some(OwnerPart::parse(&named.name))
            }
        })
    };
    let user = part(owner.user.as_ref())?.unwrap_or(OwnerPart::Id(0));
    let group = part(owner.group.as_ref())?;
    Ok(Some(Owner { user, group }))
}
