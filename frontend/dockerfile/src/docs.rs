//! What comments say of stages and arguments.

use std::collections::BTreeMap;

use crate::text::Text;

/// What the comment lines say of names: the text behind a name on the first line that starts with it.
pub(crate) struct Docs<'c> {
    /// The lines and their numbers, sorted, so that many names do not go through many lines.
    lines: Vec<(&'c str, usize)>,
    given: BTreeMap<Text, Text>,
}

impl<'c> Docs<'c> {
    pub(crate) fn new(comments: &'c [Text]) -> Docs<'c> {
        let mut lines: Vec<_> =
            comments.iter().enumerate().map(|(number, line)| (line.as_str(), number)).collect();
        lines.sort_unstable();
        Docs { lines, given: BTreeMap::new() }
    }

    pub(crate) fn of(&mut self, name: &str) -> Text {
        if name.is_empty() || self.lines.is_empty() {
            return Text::new();
        }
        if let Some(doc) = self.given.get(name) {
            return doc.clone();
        }
        let prefix = format!("{name} ");
        let start = self.lines.partition_point(|(line, _)| *line < prefix.as_str());
        let found = self.lines[start..].iter().take_while(|(line, _)| line.starts_with(&prefix));
        let first = found.min_by_key(|(_, number)| *number);
        let doc: Text = first.map_or("", |(line, _)| &line[prefix.len()..]).into();
        self.given.insert(name.into(), doc.clone());
        doc
    }
}
