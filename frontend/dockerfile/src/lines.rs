//! Physical lines to logical lines: comments, continuation, heredoc bodies, and the way back to the source.
//!
//! Knows nothing of instructions. Every byte is looked at a bounded number of times.

use std::borrow::Cow;

use lapstrake_diag::{SourceFile, Span, Spanned};

use crate::directives::{Directive, DirectiveZone};
use crate::text::{Text, Word, trim_start};

/// A longer physical line is refused, as BuildKit's scanner does.
pub(crate) const MAX_LINE: usize = 65_535;

/// A physical line.
#[derive(Clone, Copy)]
struct Physical<'a> {
    /// Without terminator.
    text: &'a str,
    span: Span,
    number: u32,
}

/// The text of one instruction with its continuation lines joined.
#[derive(Debug)]
pub(crate) struct Logical<'a> {
    /// The joined text; pieces are joined without a separator. That of a single line is the source's own.
    pub(crate) text: Cow<'a, str>,
    /// From the first to the last physical line, terminators left out.
    pub(crate) span: Span,
    /// First and last physical line.
    pub(crate) lines: (u32, u32),
    /// The comment lines above, `#` taken off.
    pub(crate) comments: Vec<Text>,
    /// Where the first empty line within is, if there is one.
    pub(crate) empty_continuation: Option<Span>,
    /// Where the first piece of the text stands in the source.
    first: usize,
    /// (offset in `text`, offset in the source) of all other pieces, ascending.
    pieces: Vec<(usize, usize)>,
}

impl Logical<'_> {
    /// Where `start..end` of the text stands in the source.
    pub(crate) fn source_span(&self, start: usize, end: usize) -> Span {
        if end <= start {
            let at = self.source_offset(start);
            return Span::new(at, at);
        }
        Span::new(self.source_offset(start), self.source_offset(end - 1) + 1)
    }

    fn source_offset(&self, offset: usize) -> usize {
        let behind = self.pieces.partition_point(|(logical, _)| *logical <= offset);
        let piece = behind.checked_sub(1).and_then(|index| self.pieces.get(index));
        piece.map_or(self.first + offset, |(logical, source)| source + (offset - logical))
    }
}

/// Something wrong with the lines themselves.
pub(crate) struct LineProblem {
    pub(crate) message: String,
    pub(crate) span: Span,
    /// The line that BuildKit names: how many it has behind it.
    pub(crate) behind: u32,
    /// Whether a parser directive is wrong: then BuildKit reads nothing.
    pub(crate) of_directive: bool,
}

/// Reads a file once, from top to bottom.
pub(crate) struct Reader<'a> {
    file: &'a SourceFile,
    next: u32,
    offset: usize,
    zone: DirectiveZone,
    comments: Vec<Text>,
    /// The escape character in force.
    pub(crate) escape: char,
    /// Parser directives found so far.
    pub(crate) directives: Vec<Directive>,
    /// What was wrong and did not stop the reading.
    pub(crate) problems: Vec<LineProblem>,
    stopped: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a SourceFile) -> Reader<'a> {
        Reader {
            file,
            next: 1,
            offset: 0,
            zone: DirectiveZone::default(),
            comments: Vec::new(),
            escape: '\\',
            directives: Vec::new(),
            problems: Vec::new(),
            stopped: false,
        }
    }

    fn physical(&mut self) -> Option<Physical<'a>> {
        let text = &self.file.text()[self.offset..];
        if text.is_empty() || self.stopped {
            return None;
        }
        let text = match text.strip_prefix('\u{feff}').filter(|_| self.offset == 0) {
            Some(text) => {
                self.offset = '\u{feff}'.len_utf8();
                text
            }
            None => text,
        };
        let end = memchr::memchr(b'\n', text.as_bytes());
        let length = end.map_or(text.len(), |at| at + 1);
        let bare = &text[..end.unwrap_or(text.len())];
        let text = bare.trim_end_matches('\r');
        let span = Span::new(self.offset, self.offset + text.len());
        if bare.len() > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            let behind = self.next - 1;
            self.problems.push(LineProblem { message, span, behind, of_directive: false });
            self.stopped = true;
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.offset += length;
        Some(Physical { text, span, number })
    }

    /// How many lines have been read.
    pub(crate) fn behind(&self) -> u32 {
        self.next - 1
    }

    /// The next instruction's text.
    pub(crate) fn logical(&mut self) -> Option<Logical<'a>> {
        let (first, indent) = loop {
            let line = self.physical()?;
            let trimmed = trim_start(line.text);
            let comment = trimmed.starts_with('#');
            if comment {
                self.take_comment(line);
            }
            self.look_for_directive(line, trimmed);
            if !trimmed.is_empty() && !comment {
                break (line, line.text.len() - trimmed.len());
            }
        };
        let mut logical = Logical {
            text: Cow::Borrowed(""),
            first: first.span.start() + indent,
            span: Span::new(first.span.start() + indent, first.span.end()),
            lines: (first.number, first.number),
            comments: std::mem::take(&mut self.comments),
            empty_continuation: None,
            pieces: Vec::new(),
        };
        let mut continued = self.append(&mut logical, first, indent);
        while continued {
            let Some(line) = self.physical() else {
                // BuildKit asks its scanner again, gets what it has of a line that is too long, and counts it.
                self.problems.iter_mut().filter(|_| self.stopped).for_each(|problem| problem.behind += 1);
                break;
            };
            logical.lines.1 = line.number;
            logical.span = logical.span.join(line.span);
            let trimmed = trim_start(line.text);
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                logical.empty_continuation.get_or_insert(line.span);
                continue;
            }
            continued = self.append(&mut logical, line, 0);
        }
        Some(logical)
    }

    /// Appends a line's text from byte `from`; gives whether the next line continues it.
    fn append(&self, logical: &mut Logical<'a>, line: Physical<'a>, from: usize) -> bool {
        let text = &line.text[from..];
        let (text, continued) = match self.without_continuation(text) {
            Some(text) => (text, true),
            None => (text, false),
        };
        if logical.text.is_empty() {
            logical.first = line.span.start() + from;
            logical.text = Cow::Borrowed(text);
        } else if !text.is_empty() {
            logical.pieces.push((logical.text.len(), line.span.start() + from));
            let joined = logical.text.to_mut();
            if !continued {
                joined.reserve_exact(text.len());
            }
            joined.push_str(text);
        }
        continued
    }

    /// The text before a continuation character at the end. Only the character just before it is looked at, so a
    /// doubled one does not continue, and a tripled one does not either.
    fn without_continuation<'t>(&self, text: &'t str) -> Option<&'t str> {
        let before = text.trim_end_matches([' ', '\t']).strip_suffix(self.escape)?;
        (!before.ends_with(self.escape)).then_some(before)
    }

    fn take_comment(&mut self, line: Physical<'_>) {
        // One byte is dropped, whatever it is: an indented comment keeps its `#`, and perhaps half a space.
        match String::from_utf8_lossy(&line.text.as_bytes()[1..]).trim() {
            "" => self.comments.clear(),
            comment => self.comments.push(comment.into()),
        }
    }

    fn look_for_directive(&mut self, line: Physical<'_>, trimmed: &str) {
        match self.zone.line(trimmed, line.number, line.span) {
            Ok(None) => {}
            Ok(Some(directive)) => {
                self.comments.pop();
                if directive.name == "escape" {
                    self.set_escape(&directive);
                }
                self.directives.push(directive);
            }
            Err(message) => {
                let behind = line.number - 1;
                self.problems.push(LineProblem { message, span: line.span, behind, of_directive: true });
            }
        }
    }

    fn set_escape(&mut self, directive: &Directive) {
        match directive.value.as_str() {
            "\\" => self.escape = '\\',
            "`" => self.escape = '`',
            other => {
                let message = format!("invalid escape token '{other}' does not match ` or \\");
                let behind = directive.line - 1;
                self.problems.push(LineProblem { message, span: directive.span, behind, of_directive: true });
            }
        }
    }

    /// The lines up to one that is `terminator`, byte for byte, and the last line taken. With `chomp`, tabs in front
    /// of the terminator do not count. `None`: there is no such line, and nothing is left to read.
    pub(crate) fn heredoc(&mut self, terminator: &str, chomp: bool) -> Option<(Word, u32, Span)> {
        let start = self.offset;
        while let Some(line) = self.physical() {
            let candidate = if chomp { line.text.trim_start_matches('\t') } else { line.text };
            if candidate == terminator {
                let span = Span::new(start, line.span.start());
                let body = Text::from(&self.file.text()[span.range()]);
                return Some((Spanned::new(body, span), line.number, line.span));
            }
        }
        // BuildKit's scanner gives up on a long line without saying so here.
        self.problems.retain(|problem| problem.span.start() < start);
        None
    }
}
