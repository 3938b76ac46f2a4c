//! A text with a name, and places in it.

/// A range of bytes of a source file: `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes `start..end`.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end: end.max(start) }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    name: String,
    text: String,
    starts: Vec<usize>,
}

impl SourceFile {
    /// `name` is what diagnostics call the file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> SourceFile {
        let text = text.into();
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let starts =
            std::iter::once(0).chain(after).filter(|start| *start == 0 || *start < text.len()).collect();
        SourceFile { name: name.into(), starts, text }
    }

    /// Like [`SourceFile::new`]; bytes that are not UTF-8 become U+FFFD.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> SourceFile {
        SourceFile::new(name, String::from_utf8_lossy(bytes))
    }

    /// What diagnostics call the file.
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
        self.text[span.start..span.end].trim_end_matches(['\r', '\n'])
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
        let first = self.position(span.start).line;
        let last = if span.end > span.start { self.position(span.end - 1).line } else { first };
        (first, last)
    }

    /// `span` cut to the text, on character boundaries.
    pub fn clamp(&self, span: Span) -> Span {
        Span::new(self.floor(span.start), self.floor(span.end))
    }

    fn floor(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
