//! Diagnostics and excerpts as text.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{Diagnostic, Severity, SourceFile, Span};

/// Whether a terminal's colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// Text with ANSI escapes.
    Coloured,
}

/// `diagnostic` with the lines of `file` it is about.
pub fn render(diagnostic: &Diagnostic, file: &SourceFile, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let mut group = Group::with_title(title);
    for snippet in snippets(diagnostic, file) {
        group = group.element(snippet);
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    renderer.render(&[group])
}

/// One for each part of the text that has labels, the one with the main place first.
fn snippets<'a>(
    diagnostic: &'a Diagnostic,
    file: &'a SourceFile,
) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let mut found: Vec<(Span, Snippet<'a, annotate_snippets::Annotation<'a>>)> = Vec::new();
    for (number, label) in diagnostic.labels.iter().enumerate() {
        let span = file.clamp(label.span);
        let origin = file.origin(file.position(span.start()).line);
        let (first, last) = origin.part;
        let part = file.line_span(first).join(file.line_span(last));
        let end = span.end().clamp(span.start(), part.end());
        let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(span.start() - part.start()..end - part.start());
        let annotation =
            if label.note.is_empty() { annotation } else { annotation.label(label.note.as_str()) };
        match found.iter_mut().find(|(known, _)| *known == part) {
            Some((_, snippet)) => *snippet = snippet.clone().annotation(annotation),
            None => {
                let start = file.origin(first);
                let text = &file.text()[part.range()];
                let line = usize::try_from(start.line).unwrap_or(1);
                let snippet = Snippet::source(text).path(start.name).line_start(line);
                found.push((part, snippet.annotation(annotation)));
            }
        }
    }
    found.into_iter().map(|(_, snippet)| snippet).collect()
}

/// The lines `first..=last` with a little context, marked the way BuildKit's clients mark them.
///
/// Two lines of context on both sides of a single line, one on both sides of several.
pub fn excerpt(file: &SourceFile, first: u32, last: u32) -> String {
    let count = file.line_count();
    let last = last.clamp(1, count);
    let first = first.clamp(1, last);
    let origin = file.origin(first);
    let (top, bottom) = origin.part;
    let last = last.min(bottom);
    // BuildKit's clients count what follows the last line end as a line.
    let bottom = bottom + u32::from(bottom == count && file.text().ends_with('\n'));
    let mut pad = if first == last { 2 } else { 1 };
    let (mut start, mut end) = (first, last);
    let mut moved = true;
    while pad > 0 && moved {
        moved = false;
        if start > top {
            start -= 1;
            moved = true;
        }
        if end < bottom {
            end += 1;
            moved = true;
        }
        pad -= 1;
    }
    let rule = "-".repeat(20);
    let mut out = format!("{}:{}\n{rule}\n", origin.name, origin.line);
    for line in start..=end {
        let mark = if (first..=last).contains(&line) { ">>>" } else { "   " };
        let number = origin.line + line - first;
        writeln!(out, " {number:3} | {mark} {}", file.line(line)).expect("writing to a string does not fail");
    }
    out.push_str(&rule);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Piece;

    #[test]
    fn an_excerpt_has_context() {
        let file = SourceFile::new("Dockerfile", "FROM busybox\n\nRUN invalid\nCOPY . .\n");
        let expected = "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     \n   3 | >>> RUN invalid\n   4 |     COPY . .\n   5 |     \n--------------------\n";
        assert_eq!(excerpt(&file, 3, 3), expected);
        let open = SourceFile::new("Dockerfile", "FROM busybox\nRUN invalid");
        assert!(excerpt(&open, 2, 2).ends_with("   2 | >>> RUN invalid\n--------------------\n"));
        assert!(excerpt(&file, 99, 99).contains(">>> COPY"));
    }

    #[test]
    fn parts_are_shown_with_their_own_names_and_lines() {
        let piece = |name: &str, first, text: &str| Piece { name: name.into(), first, text: text.into() };
        let pieces = vec![
            piece("Dockerfile", 1, "FROM a\n\n"),
            piece("part", 1, "RUN x\nRUM y\nRUN z\n"),
            piece("Dockerfile", 3, "RUN last\n"),
        ];
        let file = SourceFile::joined("Dockerfile", pieces);
        let expected = "part:2\n--------------------\n   1 |     RUN x\n   2 | >>> RUM y\n   3 |     RUN z\n--------------------\n";
        assert_eq!(excerpt(&file, 4, 4), expected);
        let diagnostic = Diagnostic::error("InstructionError", "unknown", Span::new(14, 17))
            .with_label(Span::new(26, 29), "and here");
        let text = render(&diagnostic, &file, Style::Plain);
        for part in ["part:2:1", "RUM y", "Dockerfile:3:1", "and here"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_diagnostic_shows_its_place() {
        let file = SourceFile::new("Dockerfile", "FROM a\nRUM make\n");
        let diagnostic = Diagnostic::error("InstructionError", "unknown instruction: RUM", Span::new(7, 10))
            .with_hint("did you mean RUN?");
        let text = render(&diagnostic, &file, Style::Plain);
        for part in [
            "error[InstructionError]: unknown instruction: RUM",
            "Dockerfile:2:1",
            "RUM make",
            "^^^",
            "help: did you mean RUN?",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(render(&diagnostic, &file, Style::Coloured).contains('\u{1b}'));
        let bare = Diagnostic { labels: vec![], ..diagnostic };
        assert!(render(&bare, &file, Style::Plain).contains("unknown instruction"));
    }
}
