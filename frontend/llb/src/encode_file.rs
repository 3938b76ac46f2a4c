//! Changes of files of a graph as ops of a definition.

use lapstrake_graph::{Copy, File, FileAction, MakeDir, MakeFile, Owner, OwnerPart, Remove, Symlink};
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;

use crate::encoded::{Inputs, NotDefinable};

/// The actions of `file` on `inputs`. `add` adds a further op to the definition, and gives its name.
pub(crate) fn file(
    file: &File,
    inputs: &[Option<pb::Input>],
    all: &mut Inputs,
    add: &mut dyn FnMut(&pb::Op) -> String,
) -> Result<pb::op::Op, NotDefinable> {
    let base = all.add(inputs.first().cloned().flatten());
    // Each action is on the result of the one before. The results are numbered behind the inputs.
    let mut steps: Vec<(i64, Action)> = Vec::new();
    for action in &file.actions {
        match action {
            FileAction::Copy(copy) => {
                let from = all.add(inputs.get(copy.input).cloned().flatten());
                steps.extend(copied(copy, base)?.into_iter().map(|copy| (from, Action::Copy(copy))));
            }
            FileAction::MakeFile(file) if file.needs_parent => {
                steps.push((-1, Action::Mkfile(plain_file(file, base))));
            }
            FileAction::MakeFile(file) => {
                // What is at the destination decides about the place, as for a copy.
                let (made, copy) = inline_file(file, base);
                let digest = add(&made);
                let from = all.add(Some(pb::Input { digest, index: 0 }));
                steps.push((from, Action::Copy(copy)));
            }
            FileAction::MakeDir(dir) => steps.push((-1, Action::Mkdir(directory(dir, base)))),
            FileAction::Symlink(link) => steps.push((-1, Action::Symlink(symlink(link, base)))),
            FileAction::Remove(remove) => steps.push((-1, Action::Rm(removal(remove)))),
        }
    }
    let (count, last) = (all.0.len(), steps.len().saturating_sub(1));
    let number = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
    let actions = steps.into_iter().enumerate().map(|(index, (from, action))| pb::FileAction {
        input: index.checked_sub(1).map_or(base, |before| number(count + before)),
        secondary_input: from,
        output: if index == last { 0 } else { -1 },
        action: Some(action),
    });
    Ok(pb::op::Op::File(pb::FileOp { actions: actions.collect() }))
}

fn directory(dir: &MakeDir, base: i64) -> pb::FileActionMkDir {
    pb::FileActionMkDir {
        path: dir.path.clone(),
        mode: bits(dir.mode),
        make_parents: dir.parents,
        owner: owner(dir.owner.as_ref(), base),
        timestamp: timestamp(dir.timestamp),
    }
}

fn symlink(link: &Symlink, base: i64) -> pb::FileActionSymlink {
    pb::FileActionSymlink {
        oldpath: link.text.clone(),
        newpath: link.path.clone(),
        owner: owner(link.owner.as_ref(), base),
        timestamp: timestamp(link.timestamp),
    }
}

fn removal(remove: &Remove) -> pb::FileActionRm {
    pb::FileActionRm {
        path: remove.path.clone(),
        allow_not_found: remove.optional,
        allow_wildcard: remove.wildcards,
    }
}

/// The actions of a copy, one for each source.
fn copied(copy: &Copy, base: i64) -> Result<Vec<pb::FileActionCopy>, NotDefinable> {
    if copy.parents || copy.optional {
        return Err(NotDefinable("a copy with `--parents`, or of sources that may be missing".to_owned()));
    }
    let (mode, mode_str) = match &copy.chmod {
        None => (-1, String::new()),
        Some(text) => match i32::from_str_radix(text, 8) {
            Ok(mode) => (mode, String::new()),
            Err(_) => (-1, text.clone()),
        },
    };
    let variant = &copy.variant;
    let one = |source: &String| pb::FileActionCopy {
        src: source.clone(),
        dest: copy.dest.clone(),
        owner: owner(copy.chown.as_ref(), base),
        mode,
        mode_str: mode_str.clone(),
        follow_symlink: !variant.keep_links,
        dir_copy_contents: !variant.whole_directory,
        attempt_unpack_docker_compatibility: copy.unpack,
        create_dest_path: !variant.needs_parent,
        allow_wildcard: !variant.literal,
        allow_empty_wildcard: !variant.needs_match,
        timestamp: timestamp(copy.timestamp),
        include_patterns: variant.include.clone(),
        exclude_patterns: copy.exclude.clone(),
        always_replace_existing_dest_paths: variant.replace,
        required_paths: variant.required.clone(),
    };
    Ok(copy.sources.iter().map(one).collect())
}

fn plain_file(file: &MakeFile, base: i64) -> pb::FileActionMkFile {
    pb::FileActionMkFile {
        path: file.dest.clone(),
        mode: bits(file.mode),
        data: file.data.clone(),
        owner: owner(file.owner.as_ref(), base),
        timestamp: timestamp(file.timestamp),
    }
}

/// A file as an op of its own, and the copy of it.
fn inline_file(file: &MakeFile, base: i64) -> (pb::Op, pb::FileActionCopy) {
    let path = format!("/{}", file.name);
    let made = pb::FileActionMkFile {
        path: path.clone(),
        mode: bits(file.mode),
        data: file.data.clone(),
        owner: None,
        timestamp: timestamp(file.timestamp),
    };
    let action =
        pb::FileAction { input: -1, secondary_input: -1, output: 0, action: Some(Action::Mkfile(made)) };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let mode = file.chmod.as_ref().and_then(|text| i32::from_str_radix(text, 8).ok());
    let copy = pb::FileActionCopy {
        src: path,
        dest: file.dest.clone(),
        owner: owner(file.owner.as_ref(), base),
        mode: mode.unwrap_or(-1),
        mode_str: if mode.is_some() { String::new() } else { file.chmod.clone().unwrap_or_default() },
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        timestamp: timestamp(file.timestamp),
        ..pb::FileActionCopy::default()
    };
    (pb::Op { op: Some(op), ..pb::Op::default() }, copy)
}

fn bits(mode: u32) -> i32 {
    i32::try_from(mode & 0o7777).unwrap_or(0)
}

fn timestamp(seconds: Option<i64>) -> i64 {
    seconds.map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000))
}

/// An owner. Names are looked up in the input `base`, the tree that is changed.
fn owner(owner: Option<&Owner>, base: i64) -> Option<pb::ChownOpt> {
    let part = |part: &OwnerPart| pb::UserOpt {
        user: Some(match part {
            OwnerPart::Id(id) => pb::user_opt::User::ById(*id),
            OwnerPart::Name(name) => {
                pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.clone(), input: base })
            }
        }),
    };
    let Owner { user, group } = owner?;
    Some(pb::ChownOpt { user: Some(part(user)), group: group.as_ref().map(part) })
}
