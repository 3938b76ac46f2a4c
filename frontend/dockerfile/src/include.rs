//! `INCLUDE path`: several files put together to one text, before anything in them means something.
//!
//! The line of an INCLUDE stays as an empty one, so that the first lines of the included file are no parser directives of
//! the whole. Where a line comes from is kept in the [`SourceFile`].

use lapstrake_diag::{Diagnostic, Piece, SourceFile};

use crate::parse::{Include, Parsed, Phase, code, parse_as};
use crate::syntax::Dialect;

/// No chain of files is longer.
const DEEPEST: usize = 16;
/// No more files are put together, however short they are.
const MOST_FILES: usize = 1000;
/// No text is longer, in bytes.
const LONGEST: usize = 64 << 20;

/// A file that cannot be put in.
#[derive(Clone, Debug)]
pub struct BadInclude {
    /// The file with the line that is wrong.
    pub file: SourceFile,
    /// What is wrong with it.
    pub diagnostic: Diagnostic,
}

/// Reads the file that a path (the first argument) means in the file of a name (the second one): its text, and its name,
/// which is the same for every way to it. The error is a reason.
pub type Load<'l> = dyn Fn(&str, &str) -> Result<SourceFile, String> + 'l;

/// `file` with all included files in their places.
///
/// # Errors
/// [`BadInclude`] for a file that cannot be loaded, that includes itself, or that is no whole number of instructions.
pub fn with_includes(
    file: SourceFile,
    dialect: Dialect,
    load: &Load<'_>,
) -> Result<SourceFile, Box<BadInclude>> {
    let parsed = parse_as(&file, dialect);
    if parsed.includes.is_empty() {
        return Ok(file);
    }
    let mut joiner = Joiner {
        load,
        dialect,
        escape: parsed.dockerfile.escape,
        chain: Vec::new(),
        files: 0,
        pieces: Vec::new(),
    };
    joiner.chain.push(file.name().to_owned());
    joiner.join(&file, &parsed)?;
    Ok(SourceFile::joined(file.name(), joiner.pieces))
}

struct Joiner<'l> {
    load: &'l Load<'l>,
    dialect: Dialect,
    escape: char,
    /// The names of the files that are being put in, outermost first.
    chain: Vec<String>,
    files: usize,
    pieces: Vec<Piece>,
}

impl Joiner<'_> {
    fn join(&mut self, file: &SourceFile, parsed: &Parsed) -> Result<(), Box<BadInclude>> {
        let mut next = 1;
        for include in &parsed.includes {
            self.piece(file, next, include.lines.0 - 1);
            let (name, first) = (file.name().to_owned(), include.lines.0);
            self.pieces.push(Piece { name, first, text: "\n".to_owned() });
            let bad = |message: String| {
                let diagnostic = Diagnostic::error(code::INSTRUCTION, message, include.path.span);
                Box::new(BadInclude { file: file.clone(), diagnostic })
            };
            let included = self.load(include, file.name()).map_err(bad)?;
            let inner = self.check(&included)?;
            self.chain.push(included.name().to_owned());
            self.join(&included, &inner)?;
            self.chain.pop();
            next = include.lines.1 + 1;
        }
        self.piece(file, next, file.line_count());
        Ok(())
    }

    fn load(&mut self, include: &Include, from: &str) -> Result<SourceFile, String> {
        let path = &include.path.node;
        let included = (self.load)(path, from).map_err(|why| format!("cannot include {path:?}: {why}"))?;
        if let Some(at) = self.chain.iter().position(|name| name == included.name()) {
            let circle = [&self.chain[at..], &[included.name().to_owned()]].concat();
            return Err(format!("files include each other in a circle: {}", circle.join(" → ")));
        }
        self.files += 1;
        let length: usize = self.pieces.iter().map(|piece| piece.text.len()).sum();
        if self.chain.len() >= DEEPEST || self.files > MOST_FILES || length > LONGEST {
            return Err(format!(
                "too much is included: more than {DEEPEST} files deep, {MOST_FILES} files or {LONGEST} bytes"
            ));
        }
        Ok(included)
    }

    /// An included file has to be whole by itself: nothing in it may reach beyond its end.
    fn check(&self, included: &SourceFile) -> Result<Parsed, Box<BadInclude>> {
        let parsed = parse_as(included, self.dialect);
        let bad = |diagnostic| Err(Box::new(BadInclude { file: included.clone(), diagnostic }));
        let last = included.line_span(included.line_count());
        let unusable = parsed.diagnostics.iter().zip(&parsed.faults);
        let unusable =
            unusable.filter(|(_, fault)| fault.phase == Phase::Parse && !fault.instruction.is_empty());
        if let Some((diagnostic, _)) = unusable.into_iter().next() {
            return bad(diagnostic.clone());
        }
        if parsed.dockerfile.escape != self.escape {
            let message = "an included file must have the escape character of the file that includes it";
            return bad(Diagnostic::error(code::PARSE, message, included.line_span(1)));
        }
        if ends_open(included.text(), self.escape) {
            let message = "an included file must not end in the middle of an instruction";
            return bad(Diagnostic::error(code::PARSE, message, last));
        }
        Ok(parsed)
    }

    /// Lines `first..=last` of `file`.
    fn piece(&mut self, file: &SourceFile, first: u32, last: u32) {
        if first > last {
            return;
        }
        let lines = file.line_span(first).join(file.line_span(last));
        let mut text = file.text()[lines.range()].to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.pieces.push(Piece { name: file.name().to_owned(), first, text });
    }
}

/// Whether the last line with something on it is continued. Comments and empty lines do not end a continuation.
fn ends_open(text: &str, escape: char) -> bool {
    let mut lines = text.lines().rev().map(str::trim);
    let last = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    last.is_some_and(|line| line.ends_with(escape))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn joined(files: &[(&'static str, &'static str)]) -> Result<SourceFile, Box<BadInclude>> {
        let texts: BTreeMap<&str, &str> = files.iter().copied().collect();
        let load = |path: &str, _: &str| {
            let text = texts.get(path).ok_or_else(|| "there is no such file".to_owned())?;
            Ok(SourceFile::new(path, *text))
        };
        with_includes(load("Dockerfile", "").unwrap(), Dialect::Lapstrake, &load)
    }

    #[test]
    fn files_are_put_together() {
        let file = joined(&[
            ("Dockerfile", "# syntax=lapstrake\nFROM a\nInclude part\nRUN <<E\nINCLUDE no\nE\nINCLUDE part"),
            ("part", "# escape=\\\nRUN b\nINCLUDE deep"),
            ("deep", "RUN c"),
        ])
        .unwrap();
        let part = "# escape=\\\nRUN b\n\nRUN c\n";
        let whole = format!("# syntax=lapstrake\nFROM a\n\n{part}RUN <<E\nINCLUDE no\nE\n\n{part}");
        assert_eq!(file.text(), whole);
        let place = |line| (file.origin(line).name.to_owned(), file.origin(line).line);
        assert_eq!(place(5), ("part".to_owned(), 2));
        assert_eq!(place(7), ("deep".to_owned(), 1));
        assert_eq!(place(8), ("Dockerfile".to_owned(), 4));
        assert_eq!(place(12), ("part".to_owned(), 1));
        let parsed = parse_as(&file, Dialect::Lapstrake);
        assert_eq!(parsed.first_error(), None);
        assert_eq!(parsed.dockerfile.stages[0].instructions.len(), 5);
    }

    #[test]
    fn what_cannot_be_put_in() {
        let table = [
            ("INCLUDE missing", "x", "Dockerfile", "cannot include \"missing\": there is no such file"),
            ("INCLUDE part", "INCLUDE part", "part", "files include each other in a circle: part → part"),
            ("INCLUDE part", "INCLUDE Dockerfile", "part", "in a circle: Dockerfile → part → Dockerfile"),
            ("INCLUDE part", "RUN a \\\n# x\n\n", "part", "must not end in the middle"),
            ("INCLUDE part", "RUN <<E\n", "part", "unterminated heredoc"),
            ("INCLUDE part", "# escape=`\nRUN a", "part", "escape character"),
        ];
        for (main, part, place, message) in table {
            let bad = joined(&[("Dockerfile", main), ("part", part)]).unwrap_err();
            assert_eq!(bad.file.name(), place, "{main} {part}");
            assert!(bad.diagnostic.message.contains(message), "{}", bad.diagnostic.message);
        }
        for text in ["INCLUDE", "INCLUDE a b", "INCLUDE $x", "INCLUDE --x a"] {
            let parsed = parse_as(&SourceFile::new("f", text), Dialect::Lapstrake);
            assert!(parsed.first_error().is_some_and(|e| e.message.starts_with("INCLUDE")), "{text}");
        }
        let plain = parse_as(&SourceFile::new("f", "FROM a\nINCLUDE b"), Dialect::BuildKit);
        assert!(plain.first_error().is_some_and(|e| e.message == "unknown instruction: INCLUDE"));
    }
}
