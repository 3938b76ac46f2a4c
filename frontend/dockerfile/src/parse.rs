//! The parser's front: text to [`Dockerfile`] and diagnostics.

use lapstrake_diag::{Diagnostic, SourceFile, Span, Spanned};

use crate::heredoc::heredoc_words;
use crate::instruction::{Args, Problem, Request, Typed, doc_comment, typed};
use crate::lines::{Logical, Reader};
use crate::quote::quoted;
use crate::split::{Piece, blank, blank_words, quoted_words, split};
use crate::syntax::{Command, Dockerfile, Flag, Instruction, Keyword, Pair, Stage, Word};

/// The codes of this crate's diagnostics.
pub mod code {
    /// The text cannot be split into instructions.
    pub const PARSE: &str = "ParseError";
    /// An instruction is not what its keyword asks for.
    pub const INSTRUCTION: &str = "InstructionError";
    /// The instructions do not make up stages.
    pub const STAGE: &str = "StageError";
    /// An empty line within a continued instruction.
    pub const EMPTY_CONTINUATION: &str = "NoEmptyContinuation";
}

/// What became of a text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Everything that could be read.
    pub dockerfile: Dockerfile,
    /// What is wrong with the text. Errors come first, in the order in which BuildKit would meet them.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// The error that BuildKit would report.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        self.diagnostics.iter().find(|diagnostic| diagnostic.is_error())
    }
}

/// Parses a whole file.
pub fn parse(file: &SourceFile) -> Parsed {
    let mut parser = Parser::new(file);
    parser.run();
    parser.finish()
}

/// Parses the text of an ONBUILD trigger: exactly one instruction. The escape character is `\`, whatever the file
/// that triggers says.
pub fn parse_trigger(text: &str) -> Result<Command, String> {
    let file = SourceFile::new("ONBUILD", text);
    let mut parsed = parse_commands(&file);
    if let Some(error) = parsed.errors.iter().chain(&parsed.late_errors).next() {
        return Err(error.message.clone());
    }
    match (parsed.commands.len(), parsed.commands.pop()) {
        (1, Some(command)) => Ok(command),
        _ => Err("onbuild trigger should be a single expression".to_owned()),
    }
}

fn parse_commands(file: &SourceFile) -> Parser<'_> {
    let mut parser = Parser::new(file);
    parser.trigger = true;
    parser.run();
    parser
}

struct Parser<'a> {
    file: &'a SourceFile,
    reader: Reader<'a>,
    /// Whether instructions may stand alone.
    trigger: bool,
    global_args: Vec<Command>,
    stages: Vec<Stage>,
    commands: Vec<Command>,
    /// Errors that stop BuildKit before it looks at any instruction.
    errors: Vec<Diagnostic>,
    late_errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    instructions: usize,
    failed_from: bool,
}

impl<'a> Parser<'a> {
    fn new(file: &'a SourceFile) -> Parser<'a> {
        Parser {
            file,
            reader: Reader::new(file),
            trigger: false,
            global_args: Vec::new(),
            stages: Vec::new(),
            commands: Vec::new(),
            errors: Vec::new(),
            late_errors: Vec::new(),
            warnings: Vec::new(),
            instructions: 0,
            failed_from: false,
        }
    }

    fn run(&mut self) {
        while let Some(mut logical) = self.reader.logical() {
            self.instructions += 1;
            if let Some(place) = logical.empty_continuation {
                let message = "Empty continuation line";
                let last = self.file.line_span(logical.lines.1);
                let warning = Diagnostic::warning(code::EMPTY_CONTINUATION, message, last);
                self.warnings.push(warning.with_label(place, "this line is empty"));
            }
            match request(&mut self.reader, &mut logical) {
                Ok(request) => self.accept(request, &logical),
                Err(problem) => self.errors.push(diagnostic(code::PARSE, problem, &logical)),
            }
        }
    }

    fn accept(&mut self, request: Request, logical: &Logical) {
        let typed = match typed(&request) {
            Ok(typed) => typed,
            Err(problem) => {
                self.failed_from |= Keyword::parse(&request.keyword.node) == Some(Keyword::From);
                self.late_errors.push(diagnostic(code::INSTRUCTION, problem, logical));
                return;
            }
        };
        match typed {
            Typed::From(from) => {
                let name = from.name().unwrap_or_default();
                self.stages.push(Stage {
                    from,
                    span: logical.span,
                    lines: logical.lines,
                    keyword: request.keyword,
                    text: request.text,
                    flags: request.flags,
                    doc: doc_comment(&request.comments, &name),
                    comments: request.comments,
                    instructions: Vec::new(),
                });
            }
            Typed::Instruction(instruction) => {
                let command = Command {
                    args: request.args.words(),
                    instruction,
                    keyword: request.keyword,
                    span: logical.span,
                    lines: logical.lines,
                    text: request.text,
                    flags: request.flags,
                    json: request.json,
                    heredocs: request.heredocs,
                    comments: request.comments,
                };
                self.place(command);
            }
        }
    }

    fn place(&mut self, command: Command) {
        if self.trigger {
            self.commands.push(command);
        } else if let Some(stage) = self.stages.last_mut() {
            stage.instructions.push(command);
        } else if matches!(command.instruction, Instruction::Arg(_)) {
            self.global_args.push(command);
        } else if !self.failed_from {
            let message = "no build stage in current context";
            self.late_errors.push(
                Diagnostic::error(code::STAGE, message, command.span)
                    .with_hint("only ARG may stand in front of the first FROM"),
            );
        }
    }

    fn finish(mut self) -> Parsed {
        for problem in std::mem::take(&mut self.reader.problems) {
            self.errors.push(Diagnostic::error(code::PARSE, problem.message, problem.span));
        }
        self.errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        let whole = Span::new(0, 0);
        if self.file.text().is_empty() {
            self.errors.push(Diagnostic::error(code::PARSE, "the Dockerfile cannot be empty", whole));
        } else if self.instructions == 0 && self.errors.is_empty() {
            let (line, _) = self.file.lines(Span::new(self.file.text().len(), self.file.text().len()));
            let place = self.file.line_span(line);
            self.errors.push(Diagnostic::error(code::PARSE, "file with no instructions", place));
        } else if self.stages.is_empty() && self.errors.is_empty() && self.late_errors.is_empty() {
            let message = "dockerfile contains no stages to build";
            self.late_errors.push(Diagnostic::error(code::STAGE, message, whole));
        }
        let mut diagnostics = self.errors;
        diagnostics.append(&mut self.late_errors);
        diagnostics.append(&mut self.warnings);
        let dockerfile = Dockerfile {
            directives: self.reader.directives,
            escape: self.reader.escape,
            global_args: self.global_args,
            stages: self.stages,
        };
        Parsed { dockerfile, diagnostics }
    }
}

/// The main place is all of an instruction that has several lines, so that a reader sees it whole; the exact place is
/// then a second one.
fn diagnostic(code: &'static str, problem: Problem, logical: &Logical) -> Diagnostic {
    match problem.place {
        Some(place) if logical.lines.0 == logical.lines.1 => Diagnostic::error(code, problem.message, place),
        Some(place) => Diagnostic::error(code, problem.message, logical.span).with_label(place, "here"),
        None => Diagnostic::error(code, problem.message, logical.span),
    }
}

/// Splits a line the way its keyword asks for, and takes the heredoc bodies behind it.
fn request(reader: &mut Reader<'_>, logical: &mut Logical) -> Result<Request, Problem> {
    let escape = reader.escape;
    let split = split(&logical.text, escape);
    let word = |piece: &Piece| Spanned::new(piece.text.clone(), logical.source_span(piece.start, piece.end));
    let flags = split.flags.iter().map(|piece| {
        let word = word(piece);
        Flag { text: word.node, span: word.span }
    });
    let flags = flags.collect();
    let keyword = word(&split.keyword);
    let known = Keyword::parse(&keyword.node);
    let (args, json) = match known {
        Some(known) => arguments(known, &split.rest, escape, &word)?,
        None => (Args::Words(Vec::new()), false),
    };
    let takes_heredocs = match (known, &args) {
        (Some(Keyword::Add | Keyword::Copy | Keyword::Run), _) => !json,
        (Some(Keyword::Onbuild), Args::Trigger(Some(_))) => trigger_takes_heredocs(&split.rest, escape)?,
        _ => false,
    };
    let text = logical.text.clone();
    let mut heredocs = Vec::new();
    if takes_heredocs && text.contains("<<") {
        for mut heredoc in heredoc_words(&text).map_err(Problem::new)? {
            let Some((body, line, end)) = reader.heredoc(&heredoc.name, heredoc.chomp) else {
                return Err(Problem::new("unterminated heredoc"));
            };
            heredoc.content = body.node;
            heredoc.span = body.span;
            logical.lines.1 = line;
            logical.span.end = end;
            heredocs.push(heredoc);
        }
    }
    let comments = std::mem::take(&mut logical.comments);
    Ok(Request { keyword, flags, args, json, heredocs, comments, text })
}

fn arguments(
    keyword: Keyword,
    rest: &Piece,
    escape: char,
    word: &dyn Fn(&Piece) -> Word,
) -> Result<(Args, bool), Problem> {
    let words = |pieces: Vec<Piece>| Args::Words(pieces.iter().map(word).collect());
    let whole = || if rest.text.is_empty() { Vec::new() } else { vec![rest.clone()] };
    Ok(match keyword {
        Keyword::Add | Keyword::Copy | Keyword::Volume => match json_array(rest)? {
            Some(items) => (words(items), true),
            None => (words(blank_words(rest)), false),
        },
        Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell => match json_array(rest)? {
            Some(items) => (words(items), true),
            None => (words(whole()), false),
        },
        Keyword::Expose | Keyword::From => (words(blank_words(rest)), false),
        Keyword::Arg => (words(quoted_words(rest, escape)), false),
        Keyword::Env | Keyword::Label => (Args::Pairs(name_values(keyword, rest, escape, word)?), false),
        Keyword::User | Keyword::Workdir | Keyword::Stopsignal | Keyword::Maintainer => {
            (words(whole()), false)
        }
        Keyword::Healthcheck => health(rest, word)?,
        Keyword::Onbuild => {
            let trigger = split(&rest.text, escape).keyword;
            let place = Piece {
                start: rest.start + trigger.start,
                end: rest.start + trigger.end,
                text: trigger.text,
            };
            (Args::Trigger((!place.text.is_empty()).then(|| word(&place))), false)
        }
    })
}

fn health(rest: &Piece, word: &dyn Fn(&Piece) -> Word) -> Result<(Args, bool), Problem> {
    let length = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
    if length == 0 {
        return Ok((Args::Health(Vec::new()), false));
    }
    let kind = Piece { text: rest.text[..length].to_owned(), start: rest.start, end: rest.start + length };
    let command = rest.text[length..].trim_start();
    let start = rest.start + rest.text.len() - command.len();
    let command = Piece { text: command.to_owned(), start, end: rest.end };
    let mut words = vec![word(&kind)];
    let items = json_array(&command)?;
    let json = items.is_some();
    match items {
        Some(items) => words.extend(items.iter().map(word)),
        None if command.text.is_empty() => {}
        None => words.push(word(&command)),
    }
    Ok((Args::Health(words), json))
}

/// Whether bodies follow an ONBUILD line; also finds what is wrong with how the trigger is split.
fn trigger_takes_heredocs(rest: &Piece, escape: char) -> Result<bool, Problem> {
    let inner = split(&rest.text, escape);
    let Some(keyword) = Keyword::parse(&inner.keyword.text) else { return Ok(false) };
    if keyword == Keyword::Onbuild {
        return Ok(false);
    }
    let plain = |piece: &Piece| Spanned::new(piece.text.clone(), Span::default());
    let (_, json) = arguments(keyword, &inner.rest, escape, &plain)?;
    Ok(matches!(keyword, Keyword::Add | Keyword::Copy | Keyword::Run) && !json)
}

/// The strings of a JSON array; `None` for text that is no JSON array, which then is text for a shell or a list.
fn json_array(rest: &Piece) -> Result<Option<Vec<Piece>>, Problem> {
    let text = rest.text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let mut items = Vec::new();
    for value in values {
        let serde_json::Value::String(text) = value else {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            return Err(Problem::new(message));
        };
        // Where in the array an item stands is not kept: an item's place is the array.
        items.push(Piece { text, start: rest.start, end: rest.end });
    }
    Ok(Some(items))
}

fn name_values(
    keyword: Keyword,
    rest: &Piece,
    escape: char,
    word: &dyn Fn(&Piece) -> Word,
) -> Result<Vec<Pair>, Problem> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.text.contains('=') {
        let Some((key, value)) = rest.text.split_once(blank) else {
            return Err(Problem::new(format!("{} must have two arguments", keyword.name())));
        };
        let value = value.trim_start_matches(blank).to_owned();
        return Ok(vec![Pair { key: key.to_owned(), value, legacy: true, span: word(rest).span }]);
    }
    let mut pairs = Vec::new();
    for piece in &words {
        let place = word(piece).span;
        let Some((key, value)) = piece.text.split_once('=') else {
            let message = format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                quoted(&piece.text)
            );
            return Err(Problem::at(message, place));
        };
        pairs.push(Pair { key: key.to_owned(), value: value.to_owned(), legacy: false, span: place });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
