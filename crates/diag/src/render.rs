//! Diagnostics and excerpts as text.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{Diagnostic, Severity, SourceFile};

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
    let mut group = if diagnostic.labels.is_empty() {
        Group::with_title(title)
    } else {
        title.element(snippet(diagnostic, file))
    };
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    renderer.render(&[group])
}

fn snippet<'a>(
    diagnostic: &'a Diagnostic,
    file: &'a SourceFile,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let mut snippet = Snippet::source(file.text()).path(file.name());
    for (number, label) in diagnostic.labels.iter().enumerate() {
        let span = file.clamp(label.span);
        let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(span.start..span.end);
        snippet = snippet.annotation(if label.note.is_empty() {
            annotation
        } else {
            annotation.label(label.note.as_str())
        });
    }
    snippet
}

/// The lines `first..=last` with a little context, marked the way BuildKit's clients mark them.
///
/// Two lines of context on both sides of a single line, one on both sides of several.
pub fn excerpt(file: &SourceFile, first: u32, last: u32) -> String {
    let count = file.line_count();
    let last = last.clamp(1, count);
    let first = first.clamp(1, last);
    let mut pad = if first == last { 2 } else { 1 };
    let (mut start, mut end) = (first, last);
    let mut moved = true;
    while pad > 0 && moved {
        moved = false;
        if start > 1 {
            start -= 1;
            moved = true;
        }
        if end < count {
            end += 1;
            moved = true;
        }
        pad -= 1;
    }
    let rule = "-".repeat(20);
    let mut out = format!("{}:{first}\n{rule}\n", file.name());
    for line in start..=end {
        let mark = if (first..=last).contains(&line) { ">>>" } else { "   " };
        writeln!(out, " {line:3} | {mark} {}", file.line(line)).expect("writing to a string does not fail");
    }
    out.push_str(&rule);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;

    #[test]
    fn an_excerpt_has_context() {
        let file = SourceFile::new("Dockerfile", "FROM busybox\n\nRUN invalid\nCOPY . .\n");
        let expected = "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     \n   3 | >>> RUN invalid\n   4 |     COPY . .\n--------------------\n";
        assert_eq!(excerpt(&file, 3, 3), expected);
        assert!(excerpt(&file, 99, 99).contains(">>> COPY"));
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
