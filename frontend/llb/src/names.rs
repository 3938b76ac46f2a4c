//! The names of steps, as people see them.

use lapstrake_proto::pb;

/// The key of the description that has a step's name.
pub(crate) const CUSTOM_NAME: &str = "llb.customname";

/// The name that BuildKit gives to an op without one.
pub(crate) fn of_op(op: &pb::Op) -> String {
    match &op.op {
        Some(pb::op::Op::Source(source)) => source.identifier.clone(),
        Some(pb::op::Op::Exec(exec)) => {
            exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default()
        }
        Some(pb::op::Op::File(file)) => {
            let actions: Vec<String> = file.actions.iter().map(of_action).collect();
            actions.join(", ")
        }
        Some(pb::op::Op::Build(_)) => "build".to_owned(),
        Some(pb::op::Op::Merge(_)) => "merge".to_owned(),
        Some(pb::op::Op::Diff(_)) => "diff".to_owned(),
        Some(pb::op::Op::Passthrough(_)) => "passthrough".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn of_action(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    match &action.action {
        Some(Action::Copy(copy)) => {
            let include: String =
                copy.include_patterns.iter().map(|pattern| format!("({pattern})")).collect();
            format!("copy {}{include} {}", copy.src, copy.dest)
        }
        Some(Action::Mkfile(file)) => format!("mkfile {}", file.path),
        Some(Action::Mkdir(dir)) => format!("mkdir {}", dir.path),
        Some(Action::Rm(remove)) => format!("rm {}", remove.path),
        Some(Action::Symlink(link)) => format!("symlink {} -> {}", link.newpath, link.oldpath),
        None => "unknown".to_owned(),
    }
}
