//! COPY and ADD.

use lapstrake_diag::Span;
use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Add, Copy, InlineFile, Transfer, Word};
use lapstrake_go::{path, quoted};
use lapstrake_graph::{self as graph, Edge, File, FileAction, MakeFile, Op, Owner, Source, VertexMeta};
use lapstrake_tree::copy::{ModeChange, names_directory};

use crate::error::LowerError;
use crate::paths;
use crate::remote::{Remote, checksum_digest, file, git_source, is_http, remote, title, with_flags};
use crate::stage::{StageRun, place};
use crate::stages::Step;

/// What COPY and ADD differ in.
struct Kind {
    keyword: &'static str,
    /// The tree that paths are taken from.
    from: Edge,
    unpack: bool,
    /// What is done with archives from elsewhere.
    unpack_remote: bool,
    parents: bool,
    optional: bool,
    keep_git_dir: Option<bool>,
    /// `--checksum`, or nothing.
    checksum: String,
}

/// The flags of both, expanded.
struct Attributes {
    chown: Option<String>,
    owner: Option<Owner>,
    chmod: Option<String>,
}

impl StageRun<'_, '_> {
    pub(crate) fn copy(&mut self, step: &Step<'_>, copy: &Copy) -> Result<(), LowerError> {
        let from = match step.sources.first() {
            Some(Some(id)) => match self.lowering.source_edge(*id)? {
                Some(edge) => edge,
                None => {
                    let name = copy.from.as_ref().map_or("", |from| from.node.as_str());
                    let message = format!(
                        "cannot copy from stage {}, it needs to be defined before current stage {}",
                        quoted(name),
                        quoted(&self.label)
                    );
                    return Err(LowerError::stage(message, step.span));
                }
            },
            _ => self.context()?,
        };
        for source in &copy.transfer.sources {
            let span = place(step, source);
            let text = self.expand(&source.node, span)?;
            let what = match remote(&text).map_err(|why| LowerError::instruction(why, span))? {
                Some(Remote::Git(_)) => "a git ref",
                Some(Remote::Http(_)) => "a URL",
                None => continue,
            };
            return Err(LowerError::instruction(format!("source can't be {what} for COPY"), span));
        }
        let kind = Kind {
            keyword: "COPY",
            from,
            unpack: false,
            unpack_remote: false,
            parents: copy.parents,
            optional: copy.optional,
            keep_git_dir: None,
            checksum: String::new(),
        };
        self.transfer(step, &copy.transfer, &kind)
    }

    pub(crate) fn add(&mut self, step: &Step<'_>, add: &Add) -> Result<(), LowerError> {
        let sources = &add.transfer.sources;
        let mut checksum = String::new();
        if let Some(word) = &add.checksum {
            let span = place(step, word);
            checksum = self.expand(&word.node, span)?;
            let [source] = sources.as_slice() else {
                return Err(LowerError::instruction(
                    "checksum can't be specified for multiple sources",
                    span,
                ));
            };
            let text = self.expand(&source.node, place(step, source))?;
            if !is_http(&text) && !matches!(remote(&text), Ok(Some(_))) {
                return Err(LowerError::instruction("checksum requires HTTP(S) or Git sources", span));
            }
        }
        let from = self.context()?;
        let kind = Kind {
            keyword: "ADD",
            from,
            unpack: add.unpack.unwrap_or(true),
            unpack_remote: add.unpack == Some(true),
            parents: false,
            optional: false,
            keep_git_dir: add.keep_git_dir,
            checksum,
        };
        self.transfer(step, &add.transfer, &kind)
    }

    /// The main build context.
    pub(crate) fn context(&mut self) -> Result<Edge, LowerError> {
        let inputs = self.lowering.inputs;
        let source = inputs.main.clone().unwrap_or_else(|| inputs.local("context"));
        let meta = VertexMeta { name: title(&source), ..VertexMeta::default() };
        let vertices = &mut self.lowering.graph;
        let whole: Edge = vertices.add(Op::Source(source), vec![], meta.clone())?.into();
        if inputs.main.is_none() || inputs.main_subdir.is_empty() {
            return Ok(whole);
        }
        let scratch = VertexMeta { name: "FROM scratch".to_owned(), ..VertexMeta::default() };
        let empty = vertices.add(Op::Source(Source::Scratch), vec![], scratch)?.into();
        let copy = graph::Copy {
            input: 1,
            sources: vec![path::clean_rooted(&inputs.main_subdir)],
            dest: "/".to_owned(),
            chown: None,
            chmod: None,
            chmod_made: false,
            exclude: Vec::new(),
            parents: false,
            optional: false,
            unpack: false,
            timestamp: self.lowering.globals.epoch,
            variant: graph::CopyVariant::default(),
        };
        let op = Op::File(File { actions: vec![FileAction::Copy(copy)] });
        Ok(vertices.add(op, vec![empty, whole], meta)?.into())
    }

    /// The tree that a source elsewhere is, and the path in it.
    fn remote(
        &mut self,
        found: Remote,
        kind: &Kind,
        (step, span): (&Step<'_>, Span),
    ) -> Result<(Edge, String), LowerError> {
        let bad = |why: String| LowerError::instruction(why, span);
        let (source, path) = match found {
            Remote::Http(url) => {
                let checksum = kind.checksum.as_str();
                let digest = (!checksum.is_empty()).then(|| checksum_digest(checksum)).transpose();
                let http = file(&url, digest.map_err(bad)?);
                let path = format!("/{}", http.name);
                (Source::Http(http), path)
            }
            Remote::Git(git) => {
                let git = with_flags(git, kind.keep_git_dir, &kind.checksum).map_err(bad)?;
                (git_source(&git, kind.keep_git_dir == Some(true), false), "/".to_owned())
            }
        };
        let name = match &source {
            Source::Http(http) => http.url.clone(),
            other => title(other),
        };
        let meta = self.meta(name, step);
        Ok((self.lowering.graph.add(Op::Source(source), vec![], meta)?.into(), path))
    }

    fn transfer(&mut self, step: &Step<'_>, transfer: &Transfer, kind: &Kind) -> Result<(), LowerError> {
        let attributes = self.attributes(step, transfer)?;
        let mut sources = Vec::new();
        for source in &transfer.sources {
            let text = self.expand(&source.node, place(step, source))?;
            if step.sources.is_empty() && matches!(remote(&text), Ok(None)) {
                self.check_ignored(if kind.keyword == "ADD" { "Add" } else { "Copy" }, &text);
            }
            sources.push(text);
        }
        let dest_text = self.expand(&transfer.dest.node, place(step, &transfer.dest))?;
        let dest = paths::destination(self.state.cwd(), &dest_text);
        let (mut actions, inputs) = self.copies(step, transfer, kind, (&sources, &dest, &attributes))?;
        for file in &transfer.inline {
            let action = self.inline(file, &dest, &attributes, step)?;
            actions.push(action);
        }
        let created_by = row(kind, transfer, &attributes, &sources, &dest_text);
        let text = self.step_text(&step.command);
        let op = Op::File(File { actions });
        // A mode needs the tree below, so that --chmod undoes --link.
        if transfer.link && attributes.chmod.is_none() {
            self.linked(step, op, inputs, &text, created_by)
        } else {
            let name = self.name(&text, step);
            let meta = self.uncached_meta(name, step);
            let inputs = std::iter::once(self.state.edge).chain(inputs).collect();
            let vertex = self.lowering.graph.add(op, inputs, meta)?;
            self.layer(created_by, vertex);
            Ok(())
        }
    }

    /// A copy for each source, neighbours from one tree together, and the trees that they come from.
    fn copies(
        &mut self,
        step: &Step<'_>,
        transfer: &Transfer,
        kind: &Kind,
        (sources, dest, attributes): (&[String], &str, &Attributes),
    ) -> Result<(Vec<FileAction>, Vec<Edge>), LowerError> {
        let mut inputs = Vec::new();
        let mut actions: Vec<FileAction> = Vec::new();
        for (text, word) in sources.iter().zip(&transfer.sources) {
            let span = place(step, word);
            let remote = remote(text).map_err(|why| LowerError::instruction(why, span))?;
            // Of a repository BuildKit copies the root itself, of other directories what is in them.
            let chmod_made = matches!(remote, Some(Remote::Git(_)))
                && attributes.chmod.is_some()
                && !names_directory(dest.as_bytes());
            let unpack = if remote.is_some() { kind.unpack_remote } else { kind.unpack };
            let (edge, path) = match remote {
                Some(remote) => self.remote(remote, kind, (step, span))?,
                None => (kind.from, source_path(text, kind.parents)),
            };
            let input = input_number(&mut inputs, edge);
            if let Some(FileAction::Copy(last)) = actions.last_mut()
                && last.input == input
                && edge == kind.from
            {
                last.sources.push(path);
                continue;
            }
            actions.push(FileAction::Copy(graph::Copy {
                variant: graph::CopyVariant::default(),
                input,
                sources: vec![path],
                dest: dest.to_owned(),
                chown: attributes.owner.clone(),
                chmod: attributes.chmod.clone(),
                chmod_made,
                exclude: transfer.exclude.iter().map(|word| word.node.to_string()).collect(),
                parents: kind.parents,
                optional: kind.optional,
                unpack,
                timestamp: self.lowering.globals.epoch,
            }));
        }
        Ok((actions, inputs))
    }

    /// `--link`: the files on an empty tree, stacked on what there is.
    fn linked(
        &mut self,
        step: &Step<'_>,
        op: Op,
        from: Vec<Edge>,
        text: &str,
        created_by: String,
    ) -> Result<(), LowerError> {
        let name = self.name(text, step);
        let meta = VertexMeta { name: "FROM scratch".to_owned(), ..VertexMeta::default() };
        let empty: Edge = self.lowering.graph.add(Op::Source(Source::Scratch), vec![], meta)?.into();
        let meta = self.uncached_meta(name, step);
        let inputs = std::iter::once(empty).chain(from).collect();
        let files = self.lowering.graph.add(op, inputs, meta)?;
        self.naming.done -= usize::from(self.naming.done > 0);
        let name = self.name(&format!("LINK {text}"), step);
        let meta = self.uncached_meta(name, step);
        let stacked = self.lowering.graph.add(Op::Merge, vec![self.state.edge, files.into()], meta)?;
        self.layer(created_by, stacked);
        Ok(())
    }

    fn attributes(&self, step: &Step<'_>, transfer: &Transfer) -> Result<Attributes, LowerError> {
        let expanded = |word: &Option<Word>| match word {
            Some(word) => {
                self.expand(&word.node, place(step, word)).map(|text| Some(text).filter(|t| !t.is_empty()))
            }
            None => Ok(None),
        };
        let (chown, chmod) = (expanded(&transfer.chown)?, expanded(&transfer.chmod)?);
        if let (Some(text), Some(word)) = (&chmod, &transfer.chmod) {
            check_mode(text).map_err(|message| LowerError::instruction(message, place(step, word)))?;
        }
        let owner = chown.as_deref().map(Owner::parse);
        if let (Some(owner), Some(word)) = (&owner, &transfer.chown)
            && transfer.link
            && chmod.is_none()
            && owner.needs_lookup()
        {
            let error = LowerError::instruction("invalid user index: -1", place(step, word));
            return Err(error.hint("with --link there is no tree to look names up in; give numbers"));
        }
        Ok(Attributes { chown, owner, chmod })
    }

    fn inline(
        &self,
        file: &InlineFile,
        dest: &str,
        attributes: &Attributes,
        step: &Step<'_>,
    ) -> Result<FileAction, LowerError> {
        let data = if file.expand {
            // Bodies know only `\` as an escape, whatever the file says.
            let mode = Mode { skip_process_quotes: true, ..Mode::plain('\\') };
            let span: Span = if step.onbuild { step.span } else { file.word.span };
            let known = |name: &str| self.state.env.get(name).map(str::to_owned);
            let expanded = words::expand(&file.data, &known, mode)
                .map_err(|error| LowerError::instruction(error.why, span))?;
            expanded.text
        } else {
            file.data.to_string()
        };
        Ok(FileAction::MakeFile(MakeFile {
            needs_parent: false,
            dest: dest.to_owned(),
            name: file.name.to_string(),
            mode: 0o644,
            chmod: attributes.chmod.clone(),
            data: data.into_bytes(),
            owner: attributes.owner.clone(),
            timestamp: self.lowering.globals.epoch,
        }))
    }
}

/// A source from the root of its tree. With `--parents` the place of `/./` means something and stays.
fn source_path(source: &str, parents: bool) -> String {
    if parents {
        return source.to_owned();
    }
    // A backslash escapes in patterns, and what it escapes may be a slash or a dot.
    if source.contains('\\') { paths::resolve("/", source) } else { path::clean_rooted(source) }
}

fn row(kind: &Kind, transfer: &Transfer, attributes: &Attributes, sources: &[String], dest: &str) -> String {
    let mut words = vec![kind.keyword.to_owned()];
    if kind.parents {
        words.push("--parents".to_owned());
    }
    words.extend(attributes.chown.iter().map(|chown| format!("--chown={chown}")));
    words.extend(attributes.chmod.iter().map(|chmod| format!("--chmod={chmod}")));
    words.extend(sources.iter().cloned());
    words.extend(transfer.inline.iter().map(|file| format!("<<{}", file.name)));
    words.push(dest.to_owned());
    format!("{} # buildkit", words.join(" "))
}

/// Octal up to 07777, or clauses such as `u=rwX,go-w`.
fn check_mode(text: &str) -> Result<(), String> {
    let octal =
        || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(()),
            _ => Err(octal()),
        };
    }
    if text.parse::<ModeChange>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid chmod parameter: '{text}'. it should be octal or symbolic, such as u=rwX,go=rX"))
}

/// The number of an input behind the tree that is changed.
fn input_number(inputs: &mut Vec<Edge>, edge: Edge) -> usize {
    let at = inputs.iter().position(|known| *known == edge).unwrap_or_else(|| {
        inputs.push(edge);
        inputs.len() - 1
    });
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for good in ["0", "644", "7777", "u=rwX,go=rX", "+x", "g=u", "a+s", "u+x-w"] {
            assert_eq!(check_mode(good), Ok(()), "{good}");
        }
        for bad in ["64a", "10000", "x", "u", "u=rwx,", "", "u=q"] {
            assert!(check_mode(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check_mode("64a").unwrap_err(),
            "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777"
        );
    }
}
