//! Changes of files.
//!
//! The actions of one op are a graph of their own: each has the number of an input of the op, or of the result of an earlier
//! action. Actions in a row, each on the result of the one before, become one vertex.

use lapstrake_graph::{
    Copy, CopyVariant, Edge, File, FileAction, MakeDir, MakeFile, Op, Owner, OwnerPart, Remove, Symlink,
    VertexMeta,
};
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;

use crate::error::LlbError;
use crate::lower::{Lowering, This};

/// Actions that wait for more of their kind.
#[derive(Clone)]
struct Chain {
    /// Input 0 is the tree that is changed.
    inputs: Vec<Edge>,
    actions: Vec<FileAction>,
}

/// The result of an action.
#[derive(Clone)]
enum State {
    /// It is known as an edge.
    Made(Edge),
    /// Further actions may follow in the same vertex.
    Open(Chain),
}

impl Lowering<'_> {
    /// Changes of files with their outputs.
    pub(crate) fn file(&mut self, this: &This<'_>, file: &pb::FileOp) -> Result<Vec<(i64, Edge)>, LlbError> {
        let mut results: Vec<State> = Vec::new();
        let mut outputs = Vec::new();
        for (number, action) in file.actions.iter().enumerate() {
            let mut chain = self.base(this, file, (number, action.input), &mut results)?;
            let step = self.action(this, action, &mut chain, &mut results)?;
            chain.actions.push(step);
            results.push(State::Open(chain));
            if action.output >= 0 {
                let edge = self.made(this, number, &mut results, true)?;
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
        file: &pb::FileOp,
        (number, input): (usize, i64),
        results: &mut [State],
    ) -> Result<Chain, LlbError> {
        let new = |edge| Chain { inputs: vec![edge], actions: Vec::new() };
        let Some(earlier) = earlier(this, input) else {
            return Ok(new(self.input_or_scratch(this, input)?));
        };
        if earlier >= number {
            return Err(this.invalid(format!("action {number} stands on a later one")));
        }
        let wants = |wanted: i64| self::earlier(this, wanted) == Some(earlier);
        let users = file.actions.iter().flat_map(|action| [action.input, action.secondary_input]);
        let alone = users.filter(|wanted| wants(*wanted)).count() == 1;
        match &results[earlier] {
            State::Open(chain) if alone => Ok(chain.clone()),
            _ => Ok(new(self.made(this, earlier, results, false)?)),
        }
    }

    /// The edge of the result of action `number`. `last` says that the op itself has this output, so that the vertex has the
    /// op's name in progress streams.
    fn made(
        &mut self,
        this: &This<'_>,
        number: usize,
        results: &mut [State],
        last: bool,
    ) -> Result<Edge, LlbError> {
        let chain = match results.get(number) {
            Some(State::Made(edge)) => return Ok(*edge),
            Some(State::Open(chain)) => chain.clone(),
            None => return Err(this.invalid(format!("there is no action {number}"))),
        };
        let meta = VertexMeta { id: this.meta.id.clone().filter(|_| last), ..this.meta.clone() };
        let op = Op::File(File { actions: chain.actions });
        let edge: Edge = self.graph.add(op, chain.inputs, meta)?.into();
        results[number] = State::Made(edge);
        Ok(edge)
    }

    fn action(
        &mut self,
        this: &This<'_>,
        action: &pb::FileAction,
        chain: &mut Chain,
        results: &mut [State],
    ) -> Result<FileAction, LlbError> {
        let action_kind =
            action.action.as_ref().ok_or_else(|| this.invalid("an action that does nothing"))?;
        Ok(match action_kind {
            Action::Copy(copy) => {
                let from = match earlier(this, action.secondary_input) {
                    Some(earlier) => self.made(this, earlier, results, false)?,
                    None => self.input_or_scratch(this, action.secondary_input)?,
                };
                chain.inputs.push(from);
                FileAction::Copy(copied(this, copy, chain.inputs.len() - 1)?)
            }
            Action::Mkfile(file) => FileAction::MakeFile(MakeFile {
                dest: absolute(&file.path),
                name: file.path.rsplit('/').next().unwrap_or_default().to_owned(),
                mode: bits(file.mode),
                chmod: None,
                data: file.data.clone(),
                owner: owner(this, file.owner.as_ref(), action.input)?,
                timestamp: timestamp(file.timestamp),
                needs_parent: true,
            }),
            Action::Mkdir(dir) => FileAction::MakeDir(MakeDir {
                path: absolute(&dir.path),
                mode: bits(dir.mode),
                parents: dir.make_parents,
                owner: owner(this, dir.owner.as_ref(), action.input)?,
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
                owner: owner(this, link.owner.as_ref(), action.input)?,
                timestamp: timestamp(link.timestamp),
            }),
        })
    }
}

/// The number of the action whose result `input` means; nothing for an input of the op.
fn earlier(this: &This<'_>, input: i64) -> Option<usize> {
    usize::try_from(input).ok()?.checked_sub(this.inputs.len())
}

fn copied(this: &This<'_>, copy: &pb::FileActionCopy, input: usize) -> Result<Copy, LlbError> {
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
        chown: owner(this, copy.owner.as_ref(), 0)?,
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

/// An owner. Names are looked up in the tree that is changed, `base`: another one is not supported.
fn owner(this: &This<'_>, owner: Option<&pb::ChownOpt>, base: i64) -> Result<Option<Owner>, LlbError> {
    let Some(owner) = owner else { return Ok(None) };
    let part = |part: Option<&pb::UserOpt>| -> Result<Option<OwnerPart>, LlbError> {
        Ok(match part.and_then(|part| part.user.as_ref()) {
            None => None,
            Some(pb::user_opt::User::ById(id)) => Some(OwnerPart::Id(*id)),
            Some(pb::user_opt::User::ByName(named)) => {
                if named.input != base && named.input != 0 && named.input != -1 {
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
