//! The parser's front: text to [`Dockerfile`] and diagnostics.

use std::borrow::Cow;

use lapstrake_diag::{Diagnostic, SourceFile, Span, Spanned};
use lapstrake_go::quoted;

use crate::directives::detect_syntax;
use crate::docs::Docs;
use crate::heredoc::{has_sign, heredoc_words};
use crate::instruction::{Args, Problem, Request, Typed, typed, words};
use crate::json_array::{self, Array};
use crate::lines::{Logical, Reader};
use crate::split::{Piece, blank, blank_words, byte_space, quoted_words, split};
use crate::syntax::{Around, Command, Dialect, Dockerfile, Flag, Instruction, Keyword, Pair, Stage};
use crate::text::{Text, Word};

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

/// So many errors of a kind are kept of one file; of the rest, how many they are.
const MOST_ERRORS: usize = 1_000;

/// Which of BuildKit's steps an error belongs to. Each step looks at the whole file before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Splitting the text into instructions.
    Parse,
    /// Making typed instructions.
    Instruction,
    /// Making stages of them.
    Stage,
}

impl Phase {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Parse => "parse",
            Phase::Instruction => "instruction",
            Phase::Stage => "stage",
        }
    }
}

/// What BuildKit says of an error besides its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step that finds it.
    pub phase: Phase,
    /// First and last line as BuildKit reports them. These are the instruction's, but for directives and for lines that
    /// are too long BuildKit names the line before, and 0 where it knows none.
    pub lines: (u32, u32),
    /// The keyword as written; empty if the error is not about an instruction.
    pub instruction: String,
}

/// A continued instruction with an empty line within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyContinuation {
    /// The instruction's last line, heredoc bodies left out.
    pub line: u32,
    /// The line with its continuation joined.
    pub text: Text,
    /// The instruction's last line.
    pub span: Span,
}

/// An instruction that turned out to be none: what the checks see of it before that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The keyword as written.
    pub keyword: Word,
    /// The arguments, split.
    pub args: Vec<Word>,
    /// The comment lines above, `#` taken off.
    pub comments: Vec<Text>,
    /// All its bytes.
    pub span: Span,
    /// First and last line.
    pub lines: (u32, u32),
}

/// What became of a text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Everything that could be read.
    pub dockerfile: Dockerfile,
    /// What is wrong with the text. Errors come first, in the order in which BuildKit would meet them.
    pub diagnostics: Vec<Diagnostic>,
    /// What BuildKit says of the errors: the first belongs to the first of `diagnostics`, and so on.
    pub faults: Vec<Fault>,
    /// Where BuildKit's parser itself warns.
    pub empty_continuations: Vec<EmptyContinuation>,
    /// Lines that another file is to be put in place of. [`crate::with_includes`] leaves none; here each is an error.
    pub includes: Vec<Include>,
    /// The instruction of the first error, if that is one of [`Phase::Instruction`].
    pub refused: Option<Refused>,
}

/// `INCLUDE path`. Only [`Dialect::Lapstrake`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// The path as written.
    pub path: Word,
    /// First and last line.
    pub lines: (u32, u32),
}

impl Parsed {
    /// The error that BuildKit would report.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        self.diagnostics.iter().find(|diagnostic| diagnostic.is_error())
    }
}

/// Parses a whole file, in the dialect that its `syntax` directive names.
pub fn parse(file: &SourceFile) -> Parsed {
    parse_as(file, dialect(file))
}

/// The dialect that the `syntax` directive of `file` names.
pub fn dialect(file: &SourceFile) -> Dialect {
    detect_syntax(file.text()).map_or(Dialect::BuildKit, |(syntax, _)| Dialect::of_syntax(&syntax))
}

/// Parses a whole file in a given dialect.
pub fn parse_as(file: &SourceFile, dialect: Dialect) -> Parsed {
    let mut parser = Parser::new(file, dialect);
    parser.run();
    parser.finish()
}

/// Parses the text of an ONBUILD trigger: exactly one instruction. The escape character is `\`, whatever the file
/// that triggers says; the dialect is that file's.
pub fn parse_trigger(text: &str, dialect: Dialect) -> Result<Command, String> {
    let file = SourceFile::new("ONBUILD", text);
    let mut parsed = parse_commands(&file, dialect);
    if let Some((error, _)) = parsed.errors.iter().chain(&parsed.late_errors).next() {
        return Err(error.message.clone());
    }
    match (parsed.commands.len(), parsed.commands.pop()) {
        (1, Some(command)) => Ok(command),
        _ => Err("onbuild trigger should be a single expression".to_owned()),
    }
}

fn parse_commands(file: &SourceFile, dialect: Dialect) -> Parser<'_> {
    let mut parser = Parser::new(file, dialect);
    parser.trigger = true;
    parser.run();
    parser
}

struct Parser<'a> {
    file: &'a SourceFile,
    dialect: Dialect,
    reader: Reader<'a>,
    /// Whether instructions may stand alone.
    trigger: bool,
    global_args: Vec<Command>,
    stages: Vec<Stage>,
    commands: Vec<Command>,
    /// Errors that stop BuildKit before it looks at any instruction.
    errors: Vec<(Diagnostic, Fault)>,
    late_errors: Vec<(Diagnostic, Fault)>,
    /// The first error behind [`MOST_ERRORS`], and how many there were from there.
    more: Option<(Span, Fault, usize)>,
    warnings: Vec<Diagnostic>,
    empty_continuations: Vec<EmptyContinuation>,
    refused: Option<Refused>,
    includes: Vec<Include>,
    instructions: usize,
    failed_from: bool,
}

impl<'a> Parser<'a> {
    fn new(file: &'a SourceFile, dialect: Dialect) -> Parser<'a> {
        Parser {
            file,
            dialect,
            reader: Reader::new(file),
            trigger: false,
            global_args: Vec::new(),
            stages: Vec::new(),
            commands: Vec::new(),
            errors: Vec::new(),
            late_errors: Vec::new(),
            more: None,
            warnings: Vec::new(),
            empty_continuations: Vec::new(),
            refused: None,
            includes: Vec::new(),
            instructions: 0,
            failed_from: false,
        }
    }

    fn run(&mut self) {
        while let Some(mut logical) = self.reader.logical() {
            self.instructions += 1;
            if let Some(place) = logical.empty_continuation {
                self.warn_of_empty(place, &logical);
            }
            match request(&mut self.reader, &mut logical, self.dialect) {
                Ok(mut request) => {
                    request.brief = self.late_errors.len() >= MOST_ERRORS;
                    self.accept(request, &logical);
                }
                Err(_) if self.errors.len() >= MOST_ERRORS => self.pass_over(Phase::Parse, &logical),
                Err(problem) => {
                    let keyword = split(&logical.text, self.reader.escape).keyword.text.into_owned();
                    self.errors.push(failed(Phase::Parse, keyword, problem, &logical));
                }
            }
        }
    }

    fn warn_of_empty(&mut self, place: Span, logical: &Logical<'_>) {
        let last = self.file.line_span(logical.lines.1);
        let (line, text) = (logical.lines.1, Text::from(&*logical.text));
        make_room(&mut self.empty_continuations, logical.span.end(), self.file.text().len());
        self.empty_continuations.push(EmptyContinuation { line, text, span: last });
        if self.warnings.len() < MOST_ERRORS {
            let message = "Empty continuation line";
            let warning = Diagnostic::warning(code::EMPTY_CONTINUATION, message, last);
            self.warnings.push(warning.with_label(place, "this line is empty"));
        }
    }

    /// Counts an error that is not kept.
    fn pass_over(&mut self, phase: Phase, logical: &Logical<'_>) {
        let fault = || Fault { phase, lines: logical.lines, instruction: String::new() };
        self.more.get_or_insert_with(|| (logical.span, fault(), 0)).2 += 1;
    }

    fn fail_late(&mut self, keyword: String, problem: Problem, logical: &Logical<'_>) {
        if self.late_errors.len() >= MOST_ERRORS {
            return self.pass_over(Phase::Instruction, logical);
        }
        self.late_errors.push(failed(Phase::Instruction, keyword, problem, logical));
    }

    fn refuse(&mut self, request: Request, problem: Problem, logical: &Logical<'_>) {
        self.failed_from |= request.known == Some(Keyword::From);
        if self.late_errors.is_empty() {
            self.refused = Some(Refused {
                keyword: request.keyword.clone(),
                args: words(&request).to_vec(),
                comments: request.comments,
                span: logical.span,
                lines: logical.lines,
            });
        }
        self.fail_late(request.keyword.node.into(), problem, logical);
    }

    fn accept(&mut self, mut request: Request, logical: &Logical<'_>) {
        if is_include(&request.keyword.node, self.dialect) {
            let problem = include(&request, logical.lines).map_or_else(
                |problem| problem,
                |include| {
                    let message =
                        format!("INCLUDE {}: there is no directory to include it from", include.path.node);
                    let problem = Problem::at(message, include.path.span);
                    self.includes.push(include);
                    problem
                },
            );
            return self.fail_late(request.keyword.node.into(), problem, logical);
        }
        let typed = match typed(&mut request) {
            Ok(typed) => typed,
            Err(problem) => return self.refuse(request, problem, logical),
        };
        match typed {
            Typed::From(from) => {
                let doc = match request.comments.as_slice() {
                    [] => Text::new(),
                    comments => Docs::new(comments).of(&from.name().unwrap_or_default()),
                };
                make_room(&mut self.stages, logical.span.end(), self.file.text().len());
                self.stages.push(Stage {
                    from,
                    span: logical.span,
                    lines: logical.lines,
                    text: request.text,
                    doc,
                    around: Around::new(request.flags, request.heredocs, request.comments),
                    instructions: Vec::new(),
                });
            }
            Typed::Instruction(instruction) => {
                let command = Command {
                    instruction,
                    span: logical.span,
                    lines: logical.lines,
                    text: request.text,
                    json: request.json,
                    around: Around::new(request.flags, request.heredocs, request.comments),
                };
                self.place(command, logical);
            }
        }
    }

    fn place(&mut self, command: Command, logical: &Logical<'_>) {
        let (read, all) = (logical.span.end(), self.file.text().len());
        if self.trigger {
            self.commands.push(command);
        } else if let Some(stage) = self.stages.last_mut() {
            make_room(&mut stage.instructions, read, all);
            stage.instructions.push(command);
        } else if matches!(command.instruction, Instruction::Arg(_)) {
            make_room(&mut self.global_args, read, all);
            self.global_args.push(command);
        } else if !self.failed_from && self.late_errors.len() >= MOST_ERRORS {
            self.pass_over(Phase::Stage, logical);
        } else if !self.failed_from {
            let message = "no build stage in current context";
            if self.late_errors.is_empty() {
                // The checks see what it is before that shows.
                self.refused = Some(Refused {
                    keyword: Word::new(Text::from(command.keyword()), command.span),
                    args: Vec::new(),
                    comments: command.around.comments().to_vec(),
                    span: command.span,
                    lines: command.lines,
                });
            }
            let error = Diagnostic::error(code::STAGE, message, command.span);
            let fault = Fault {
                phase: Phase::Stage,
                lines: command.lines,
                instruction: command.keyword().to_owned(),
            };
            self.late_errors.push((error.with_hint("only ARG may stand in front of the first FROM"), fault));
        }
    }

    fn finish(mut self) -> Parsed {
        let about_file = |phase, line| Fault { phase, lines: (line, line), instruction: String::new() };
        let in_directives = self.reader.problems.iter().any(|problem| problem.of_directive);
        for problem in std::mem::take(&mut self.reader.problems) {
            let error = Diagnostic::error(code::PARSE, problem.message, problem.span);
            self.errors.push((error, about_file(Phase::Parse, problem.behind)));
        }
        self.errors.sort_by_key(|(error, _)| error.span().map_or(0, Span::start));
        let whole = Span::new(0, 0);
        if self.file.text().is_empty() {
            let error = Diagnostic::error(code::PARSE, "the Dockerfile cannot be empty", whole);
            self.errors.push((error, about_file(Phase::Parse, 0)));
        } else if self.instructions == 0 && !in_directives {
            let behind = self.reader.behind();
            let error =
                Diagnostic::error(code::PARSE, "file with no instructions", self.file.line_span(behind));
            self.errors.insert(0, (error, about_file(Phase::Parse, behind)));
        } else if self.stages.is_empty() && self.errors.is_empty() && self.late_errors.is_empty() {
            let error = Diagnostic::error(code::STAGE, "dockerfile contains no stages to build", whole);
            self.late_errors.push((error, about_file(Phase::Stage, 0)));
        }
        self.errors.append(&mut self.late_errors);
        if let Some((place, fault, count)) = self.more.take() {
            let code = match fault.phase {
                Phase::Parse => code::PARSE,
                Phase::Instruction => code::INSTRUCTION,
                Phase::Stage => code::STAGE,
            };
            let message = format!("and {count} more errors from here on");
            self.errors.push((Diagnostic::error(code, message, place), fault));
        }
        let (mut diagnostics, faults): (Vec<_>, Vec<_>) = self.errors.into_iter().unzip();
        diagnostics.append(&mut self.warnings);
        let dockerfile = Dockerfile {
            dialect: self.dialect,
            directives: self.reader.directives,
            escape: self.reader.escape,
            global_args: self.global_args,
            stages: self.stages,
        };
        let (empty_continuations, includes) = (self.empty_continuations, self.includes);
        let refused =
            self.refused.filter(|_| faults.first().is_some_and(|fault: &Fault| fault.phase > Phase::Parse));
        Parsed { dockerfile, diagnostics, faults, empty_continuations, includes, refused }
    }
}

/// Lets a long list that is full grow by what the rest of the text would bring if it went on like this. A list that doubles
/// writes to twice the memory that it needs, and of a file with a million instructions that is most of the time.
fn make_room<T>(list: &mut Vec<T>, read: usize, all: usize) {
    if list.len() == list.capacity() && list.len() >= 1024 {
        let rest = all.saturating_sub(read) as u64 * list.len() as u64 / read.max(1) as u64;
        // A little more: what falls short is copied once again, and room that is never written to costs nothing.
        let rest = usize::try_from(rest + rest / 8).unwrap_or(0);
        list.reserve_exact(rest.max(list.len() / 2) + 64);
    }
}

/// The main place is all of an instruction that has several lines, so that a reader sees it whole; the exact place is
/// then a second one.
fn failed(phase: Phase, instruction: String, problem: Problem, logical: &Logical<'_>) -> (Diagnostic, Fault) {
    let code = if phase == Phase::Parse { code::PARSE } else { code::INSTRUCTION };
    let mut diagnostic = match problem.place {
        Some(place) if logical.lines.0 == logical.lines.1 => Diagnostic::error(code, problem.message, place),
        Some(place) => Diagnostic::error(code, problem.message, logical.span).with_label(place, "here"),
        None => Diagnostic::error(code, problem.message, logical.span),
    };
    diagnostic.hint = problem.hint;
    (diagnostic, Fault { phase, lines: logical.lines, instruction })
}

fn is_include(keyword: &str, dialect: Dialect) -> bool {
    dialect == Dialect::Lapstrake && keyword.eq_ignore_ascii_case("INCLUDE")
}

fn include(request: &Request, lines: (u32, u32)) -> Result<Include, Problem> {
    match (&request.args, request.flags.first()) {
        (_, Some(flag)) => Err(Problem::at("INCLUDE has no flags", flag.span)),
        (Args::Words(words), None) => match words.as_slice() {
            [path] if path.node.contains('$') => Err(Problem::at(
                "INCLUDE has no variables: files are put together before any has a value",
                path.span,
            )),
            [path] => Ok(Include { path: path.clone(), lines }),
            _ => Err(Problem::new("INCLUDE requires exactly one argument")),
        },
        _ => Err(Problem::new("INCLUDE requires exactly one argument")),
    }
}

/// Splits a line the way its keyword asks for, and takes the heredoc bodies behind it.
fn request(reader: &mut Reader<'_>, logical: &mut Logical<'_>, dialect: Dialect) -> Result<Request, Problem> {
    let escape = reader.escape;
    let split = split(&logical.text, escape);
    let word = |piece: &Piece<'_>| {
        Spanned::new(Text::from(&*piece.text), logical.source_span(piece.start, piece.end))
    };
    let flag = |piece| {
        let word = word(piece);
        Flag { text: word.node, span: word.span }
    };
    let flags = split.flags.iter().map(flag).collect();
    let keyword = word(&split.keyword);
    let known = Keyword::parse(&keyword.node);
    let (args, json) = match known {
        Some(known) => arguments(known, &split.rest, escape, &word)?,
        None if is_include(&keyword.node, dialect) => {
            (Args::Words(blank_words(&split.rest).map(|piece| word(&piece)).collect()), false)
        }
        None => (Args::Words(Vec::new()), false),
    };
    let takes_heredocs = match (known, &args) {
        (Some(Keyword::Add | Keyword::Copy | Keyword::Run), _) => !json,
        (Some(Keyword::Onbuild), Args::Trigger(Some(_))) => {
            trigger_takes_heredocs(&split.rest, escape, &word)?
        }
        _ => false,
    };
    let mut heredocs = Vec::new();
    if takes_heredocs && has_sign(&logical.text) {
        let found = heredoc_words(&logical.text).map_err(Problem::new)?;
        heredocs.reserve_exact(found.len());
        for mut heredoc in found {
            let Some((body, line, end)) = reader.heredoc(&heredoc.name, heredoc.chomp) else {
                logical.lines.1 = reader.behind();
                return Err(Problem::new("unterminated heredoc"));
            };
            heredoc.content = body.node;
            heredoc.span = body.span;
            logical.lines.1 = line;
            logical.span = logical.span.join(end);
            heredocs.push(heredoc);
        }
    }
    let comments = std::mem::take(&mut logical.comments);
    let text = Text::from(&*logical.text);
    Ok(Request { dialect, brief: false, keyword, known, flags, args, json, heredocs, comments, text })
}

fn arguments(
    keyword: Keyword,
    rest: &Piece<'_>,
    escape: char,
    word: &dyn Fn(&Piece<'_>) -> Word,
) -> Result<(Args, bool), Problem> {
    let size = rest.text.len();
    let listed = |pieces: &mut dyn Iterator<Item = Piece<'_>>| {
        let mut words = Vec::new();
        for piece in pieces {
            make_room(&mut words, piece.start - rest.start, size);
            words.push(word(&piece));
        }
        Args::Words(words)
    };
    let whole = || Args::Words(if rest.text.is_empty() { Vec::new() } else { vec![word(rest)] });
    Ok(match keyword {
        Keyword::Add | Keyword::Copy | Keyword::Volume => match json_array(rest)? {
            Some(items) => (listed(&mut items.into_iter()), true),
            None => (listed(&mut blank_words(rest)), false),
        },
        Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell => match json_array(rest)? {
            Some(items) => (listed(&mut items.into_iter()), true),
            None => (whole(), false),
        },
        Keyword::Expose | Keyword::From => (listed(&mut blank_words(rest)), false),
        Keyword::Arg => (listed(&mut quoted_words(rest, escape)), false),
        Keyword::Env | Keyword::Label => {
            (Args::Pairs(name_values(keyword, rest, escape, &|piece| word(piece).span)?), false)
        }
        Keyword::User | Keyword::Workdir | Keyword::Stopsignal | Keyword::Maintainer => (whole(), false),
        Keyword::Healthcheck => health(rest, word)?,
        Keyword::Onbuild => {
            let trigger = split(&rest.text, escape).keyword;
            let place = rest.part(trigger.start, trigger.end);
            (Args::Trigger((!place.text.is_empty()).then(|| word(&place))), false)
        }
    })
}

/// The type is read byte by byte, each taken for a code point, so it may end within a character.
fn health(rest: &Piece<'_>, word: &dyn Fn(&Piece<'_>) -> Word) -> Result<(Args, bool), Problem> {
    let bytes = rest.text.as_bytes();
    let length = bytes.iter().take_while(|byte| !byte_space(**byte)).count();
    if length == 0 {
        return Ok((Args::Health(Vec::new()), false));
    }
    let next = length + bytes[length..].iter().take_while(|byte| byte_space(**byte)).count();
    let piece = |from: usize, to: usize| Piece {
        text: String::from_utf8_lossy(&bytes[from..to]),
        start: rest.start + from,
        end: rest.start + to,
    };
    let command = piece(next, bytes.len());
    let mut words = vec![word(&piece(0, length))];
    let items = json_array(&command)?;
    let json = items.is_some();
    match items {
        Some(items) => words.extend(items.iter().map(word)),
        None if command.text.is_empty() => {}
        None => words.push(word(&command)),
    }
    Ok((Args::Health(words), json))
}

/// Whether bodies follow an ONBUILD line; also finds what is wrong with how the trigger is split, however many ONBUILD
/// stand in front of it.
fn trigger_takes_heredocs(
    rest: &Piece<'_>,
    escape: char,
    word: &dyn Fn(&Piece<'_>) -> Word,
) -> Result<bool, Problem> {
    let mut text = Cow::Borrowed(&*rest.text);
    let mut at = 0;
    let mut chained = false;
    loop {
        let inner = split(&text[at..], escape);
        let Some(keyword) = Keyword::parse(&inner.keyword.text) else { return Ok(false) };
        if keyword != Keyword::Onbuild {
            let base = rest.start + at;
            let inner_word = |piece: &Piece<'_>| {
                word(&Piece { text: piece.text.clone(), start: base + piece.start, end: base + piece.end })
            };
            let (_, json) = arguments(keyword, &inner.rest, escape, &inner_word)?;
            return Ok(matches!(keyword, Keyword::Add | Keyword::Copy | Keyword::Run) && !json && !chained);
        }
        chained = true;
        if inner.rest.text.is_empty() {
            return Ok(false);
        }
        match inner.rest.text {
            Cow::Borrowed(_) => at += inner.rest.start,
            Cow::Owned(owned) => (text, at) = (Cow::Owned(owned), 0),
        }
    }
}

/// The strings of a JSON array; `None` for text that is no JSON array, which then is text for a shell or a list.
fn json_array<'p>(rest: &'p Piece<'_>) -> Result<Option<Vec<Piece<'p>>>, Problem> {
    let text = rest.text.trim_start();
    let start = rest.start + rest.text.len() - text.len();
    let items = match json_array::parse(text) {
        Array::Strings(items) => items,
        Array::Not => return Ok(None),
        Array::Mixed => {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            return Err(Problem::new(message));
        }
    };
    let piece = |item: json_array::Item| Piece {
        text: Cow::Owned(item.text),
        start: start + item.start,
        end: start + item.end,
    };
    Ok(Some(items.into_iter().map(piece).collect()))
}

fn name_values(
    keyword: Keyword,
    rest: &Piece<'_>,
    escape: char,
    place: &dyn Fn(&Piece<'_>) -> Span,
) -> Result<Vec<Pair>, Problem> {
    let mut words = quoted_words(rest, escape).peekable();
    let Some(first) = words.peek() else { return Ok(Vec::new()) };
    if !first.text.contains('=') {
        let Some((key, value)) = rest.text.split_once(blank) else {
            return Err(Problem::new(format!("{} must have two arguments", keyword.name())));
        };
        let value = value.trim_start_matches(blank).into();
        return Ok(vec![Pair { key: key.into(), value, legacy: true, span: place(rest) }]);
    }
    let mut pairs = Vec::new();
    for piece in words {
        make_room(&mut pairs, piece.start - rest.start, rest.text.len());
        let place = place(&piece);
        let Some((key, value)) = piece.text.split_once('=') else {
            let message = format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                quoted(&piece.text)
            );
            return Err(Problem::at(message, place));
        };
        pairs.push(Pair { key: key.into(), value: value.into(), legacy: false, span: place });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
