//! COPY and ADD.

use lapstrake_diag::Span;
use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Add, Copy, InlineFile, Transfer, Word, quoted};
use lapstrake_graph::{self as graph, Edge, File, FileAction, MakeFile, Op, Owner, Source, VertexMeta};

use crate::error::LowerError;
use crate::paths;
use crate::stage::{StageRun, place};
use crate::stages::Step;

/// What COPY and ADD differ in.
struct Kind {
    keyword: &'static str,
    /// The tree that paths are taken from.
    from: Edge,
    unpack: bool,
    parents: bool,
    optional: bool,
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
        let kind =
            Kind { keyword: "COPY", from, unpack: false, parents: copy.parents, optional: copy.optional };
        for source in &copy.transfer.sources {
            let text = self.expand(&source.node, place(step, source))?;
            let what = if is_git(&text) {
                "a git ref"
            } else if is_http(&text) {
                "a URL"
            } else {
                continue;
            };
            let message = format!("source can't be {what} for COPY");
            return Err(LowerError::instruction(message, place(step, source)));
        }
        self.transfer(step, &copy.transfer, &kind)
    }

    pub(crate) fn add(&mut self, step: &Step<'_>, add: &Add) -> Result<(), LowerError> {
        let sources = &add.transfer.sources;
        let remote = |text: &str| is_git(text) || is_http(text);
        if let Some(checksum) = &add.checksum {
            let span = place(step, checksum);
            self.expand(&checksum.node, span)?;
            let [source] = sources.as_slice() else {
                return Err(LowerError::instruction(
                    "checksum can't be specified for multiple sources",
                    span,
                ));
            };
            if !remote(&self.expand(&source.node, place(step, source))?) {
                return Err(LowerError::instruction("checksum requires HTTP(S) or Git sources", span));
            }
        }
        for source in sources {
            let text = self.expand(&source.node, place(step, source))?;
            if remote(&text) {
                let what = if is_git(&text) { "a git repository" } else { "a URL" };
                let message = format!("ADD of {what} is not supported yet: {text}");
                return Err(LowerError::instruction(message, place(step, source)));
            }
        }
        let from = self.context()?;
        let kind = Kind {
            keyword: "ADD",
            from,
            unpack: add.unpack.unwrap_or(true),
            parents: false,
            optional: false,
        };
        self.transfer(step, &add.transfer, &kind)
    }

    /// The main build context.
    pub(crate) fn context(&mut self) -> Result<Edge, LowerError> {
        let source = Source::Local { name: "context".to_owned() };
        let meta = VertexMeta { name: "[internal] load build context".to_owned(), ..VertexMeta::default() };
        Ok(self.lowering.graph.add(Op::Source(source), vec![], meta)?.into())
    }

    fn transfer(&mut self, step: &Step<'_>, transfer: &Transfer, kind: &Kind) -> Result<(), LowerError> {
        let attributes = self.attributes(step, transfer)?;
        let mut sources = Vec::new();
        for source in &transfer.sources {
            let text = self.expand(&source.node, place(step, source))?;
            if step.sources.is_empty() {
                self.check_ignored(if kind.keyword == "ADD" { "Add" } else { "Copy" }, &text);
            }
            sources.push(text);
        }
        let dest_text = self.expand(&transfer.dest.node, place(step, &transfer.dest))?;
        let dest = paths::destination(self.state.cwd(), &dest_text);
        let mut actions = Vec::new();
        if !sources.is_empty() {
            actions.push(FileAction::Copy(graph::Copy {
                input: 1,
                sources: sources.iter().map(|source| source_path(source, kind.parents)).collect(),
                dest: dest.clone(),
                chown: attributes.owner.clone(),
                chmod: attributes.chmod.clone(),
                exclude: transfer.exclude.iter().map(|word| word.node.clone()).collect(),
                parents: kind.parents,
                optional: kind.optional,
                unpack: kind.unpack,
                timestamp: self.lowering.globals.epoch,
            }));
        }
        for file in &transfer.inline {
            let action = self.inline(file, &dest, &attributes, step)?;
            actions.push(action);
        }
        let created_by = row(kind, transfer, &attributes, &sources, &dest_text);
        let text = self.step_text(&step.command);
        let from = (!sources.is_empty()).then_some(kind.from);
        let op = Op::File(File { actions });
        // A mode needs the tree below, so that --chmod undoes --link.
        if transfer.link && attributes.chmod.is_none() {
            self.linked(step, op, from, &text, created_by)
        } else {
            let name = self.name(&text, step);
            let meta = self.uncached_meta(name, step);
            let inputs = std::iter::once(self.state.edge).chain(from).collect();
            let vertex = self.lowering.graph.add(op, inputs, meta)?;
            self.layer(created_by, vertex);
            Ok(())
        }
    }

    /// `--link`: the files on an empty tree, stacked on what there is.
    fn linked(
        &mut self,
        step: &Step<'_>,
        op: Op,
        from: Option<Edge>,
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
            let span: Span = if step.onbuild { step.span } else { file.span };
            let known = |name: &str| self.state.env.get(name).map(str::to_owned);
            let expanded = words::expand(&file.data, &known, mode)
                .map_err(|error| LowerError::instruction(error.why, span))?;
            self.check_variables(&expanded.unmatched, span);
            expanded.text
        } else {
            file.data.to_string()
        };
        Ok(FileAction::MakeFile(MakeFile {
            dest: dest.to_owned(),
            name: file.name.clone(),
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
    if source.contains('\\') { paths::resolve("/", source) } else { paths::clean(source) }
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
    let clause = |clause: &str| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let starts = actions.starts_with(['+', '-', '=']);
        starts && actions.chars().all(|c| "+-=rwxXstugo".contains(c))
    };
    if text.split(',').all(clause) {
        return Ok(());
    }
    Err(format!("invalid chmod parameter: '{text}'. it should be octal or symbolic, such as u=rwX,go=rX"))
}

fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && !is_git(source)
}

/// Whether a source is fetched with git: by scheme, by an `.git` behind http, or in the form of `user@host:path`.
fn is_git(source: &str) -> bool {
    let bare = source.split(['#', '?']).next().unwrap_or(source);
    if source.starts_with("http://") || source.starts_with("https://") {
        return bare.ends_with(".git");
    }
    if source.starts_with("git://") || source.starts_with("ssh://") {
        return true;
    }
    let word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match bare.split_once(':') {
        Some((host, path)) if !path.is_empty() && !path.starts_with("//") => {
            host.split_once('@').is_some_and(|(user, host)| word(user) && word(host))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources() {
        let table = [
            ("https://host/x.tar.gz", (true, false)),
            ("https://host/x.git#main:dir", (false, true)),
            ("git://host/x", (false, true)),
            ("git@host:x/y", (false, true)),
            ("github.com/x/y", (false, false)),
            ("a:b", (false, false)),
            ("dir/file", (false, false)),
        ];
        for (source, expected) in table {
            assert_eq!((is_http(source), is_git(source)), expected, "{source}");
        }
    }

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
