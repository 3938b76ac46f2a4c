//! A text with a name, and places in it.

use std::ops::Range;

/// A range of bytes of a source file: `start..end`.
///
/// A tree has a few for each word, so they are small. In a text of over 4 GiB, what lies beyond is all at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes `start..end`.
    pub fn new(start: usize, end: usize) -> Span {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: narrow(start), end: narrow(end.max(start)) }
    }

    /// The first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// One past the last byte.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// The bytes themselves, to index a text with.
    pub fn range(self) -> Range<usize> {
        self.start()..self.end()
    }

    /// The smallest span that holds both.
    pub fn join(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A value with the place it was written at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub node: T,
    /// Its place.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// `node`, written at `span`.
    pub fn new(node: T, span: Span) -> Spanned<T> {
        Spanned { node, span }
    }
}

/// A place as people count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

/// A text with its name and the starts of its lines.
///
/// The text may consist of parts of several files. Lines and columns then count in the whole, and [`SourceFile::origin`]
/// has the origin of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    name: String,
    text: String,
    starts: Vec<usize>,
    /// Sorted by `line`; empty if the text is all of one file.
    parts: Vec<Part>,
}

/// Lines of a file as a part of a text that is put together. It reaches to where the next part begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// The first line in the whole text, counted from 1.
    line: u32,
    name: String,
    /// The number of that line in its own file.
    first: u32,
}

/// The origin of lines of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The file's name.
    pub name: &'a str,
    /// The line's number in that file, counted from 1.
    pub line: u32,
    /// First and last line, in the whole text, of the part around.
    pub part: (u32, u32),
}

/// Lines of a file, for [`SourceFile::joined`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file's name.
    pub name: String,
    /// The number of the first line in that file, counted from 1.
    pub first: u32,
    /// Whole lines, each with its terminator.
    pub text: String,
}

impl SourceFile {
    /// `name` is what diagnostics call the file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> SourceFile {
        let text = text.into();
        let ends = || text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let mut starts = Vec::with_capacity(ends().count() + 1);
        starts.extend(std::iter::once(0).chain(ends().filter(|start| *start < text.len())));
        SourceFile { name: name.into(), starts, text, parts: Vec::new() }
    }

    /// The text of all pieces, which must not be empty, one behind the other.
    pub fn joined(name: impl Into<String>, pieces: Vec<Piece>) -> SourceFile {
        let mut text = String::new();
        let mut parts = Vec::new();
        let mut line = 1;
        for piece in pieces {
            text.push_str(&piece.text);
            parts.push(Part { line, name: piece.name, first: piece.first });
            let lines = piece.text.bytes().filter(|byte| *byte == b'\n').count();
            line += u32::try_from(lines).unwrap_or(u32::MAX);
        }
        SourceFile { parts, ..SourceFile::new(name, text) }
    }

    /// The origin of line `line` (from 1).
    pub fn origin(&self, line: u32) -> Origin<'_> {
        let after = self.parts.partition_point(|part| part.line <= line);
        let end = self.parts.get(after).map_or(self.line_count(), |next| next.line - 1);
        match after.checked_sub(1).and_then(|at| self.parts.get(at)) {
            Some(part) => {
                Origin { name: &part.name, line: part.first + (line - part.line), part: (part.line, end) }
            }
            None => Origin { name: &self.name, line, part: (1, end) },
        }
    }

    /// Whether it is put together of several files.
    pub fn is_joined(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Like [`SourceFile::new`]; bytes that are not UTF-8 become U+FFFD.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> SourceFile {
        SourceFile::new(name, String::from_utf8_lossy(bytes))
    }

    /// The file's name in diagnostics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many lines there are; a last line without a terminator counts, an empty text has one.
    pub fn line_count(&self) -> u32 {
        u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    /// The bytes of line `line` (from 1), terminator included. Lines past the end are empty.
    pub fn line_span(&self, line: u32) -> Span {
        let index = (line as usize).saturating_sub(1);
        let start = self.starts.get(index).copied().unwrap_or(self.text.len());
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        Span::new(start, end)
    }

    /// The text of line `line` (from 1) without its terminator.
    pub fn line(&self, line: u32) -> &str {
        let span = self.line_span(line);
        self.text[span.range()].trim_end_matches(['\r', '\n'])
    }

    /// Line and column of a byte.
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.floor(offset);
        let index = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let column = self.text[self.starts[index]..offset].chars().count() + 1;
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Position { line: narrow(index + 1), column: narrow(column) }
    }

    /// First and last line of a span.
    pub fn lines(&self, span: Span) -> (u32, u32) {
        let first = self.position(span.start()).line;
        let last = if span.end > span.start { self.position(span.end() - 1).line } else { first };
        (first, last)
    }

    /// `span` cut to the text, on character boundaries.
    pub fn clamp(&self, span: Span) -> Span {
        Span::new(self.floor(span.start()), self.floor(span.end()))
    }

    fn floor(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_know_where_they_come_from() {
        let piece = |name: &str, first, text: &str| Piece { name: name.into(), first, text: text.into() };
        let pieces = vec![piece("f", 1, "a\n\n"), piece("g", 1, "x\ny\n"), piece("f", 3, "b\nc\n")];
        let file = SourceFile::joined("f", pieces);
        let origins: Vec<(&str, u32)> =
            (1..=6).map(|line| file.origin(line)).map(|origin| (origin.name, origin.line)).collect();
        assert_eq!(origins, [("f", 1), ("f", 2), ("g", 1), ("g", 2), ("f", 3), ("f", 4)]);
        assert_eq!(file.origin(4).part, (3, 4));
        assert_eq!(file.origin(6).part, (5, 6));
        let whole = SourceFile::new("f", "a\nb\n");
        assert_eq!(whole.origin(2), Origin { name: "f", line: 2, part: (1, 2) });
    }

    #[test]
    fn lines_and_columns() {
        let file = SourceFile::new("f", "aé\nb\r\n\nlast");
        assert_eq!(file.line_count(), 4);
        assert_eq!(
            (file.line(1), file.line(2), file.line(3), file.line(4), file.line(9)),
            ("aé", "b", "", "last", "")
        );
        assert_eq!(file.position(0), Position { line: 1, column: 1 });
        assert_eq!(file.position(3), Position { line: 1, column: 3 });
        assert_eq!(file.position(4), Position { line: 2, column: 1 });
        assert_eq!(file.position(999), Position { line: 4, column: 5 });
        assert_eq!(file.lines(Span::new(0, 5)), (1, 2));
        assert_eq!(SourceFile::new("f", "").line_count(), 1);
        assert_eq!(SourceFile::new("f", "x\n").line_count(), 1);
    }
}
