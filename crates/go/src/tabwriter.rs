//! `text/tabwriter`: lines with tabs as columns.

/// How a table is set. As in Go, a column is a run of lines that have a cell there with a tab behind it: a line without
/// one ends the column, and the next one has a width of its own.
#[derive(Clone, Debug)]
pub struct TabWriter {
    /// The least width of a column, with its padding; of each column, and of all further ones the last.
    least: Vec<usize>,
    padding: usize,
    width: fn(&str) -> usize,
}

impl TabWriter {
    /// `tabwriter.NewWriter(out, least, 0, padding, ' ', 0)`: columns of at least `least` characters, each `padding` wider
    /// than its widest cell.
    #[must_use]
    pub fn new(least: usize, padding: usize) -> TabWriter {
        TabWriter { least: vec![least], padding, width: |text| text.chars().count() }
    }

    /// A table whose first columns have least widths of their own, which Go's has not: a list that is printed again and
    /// again does not jump.
    #[must_use]
    pub fn columns(least: &[usize], padding: usize) -> TabWriter {
        TabWriter { least: least.to_vec(), ..TabWriter::new(0, padding) }
    }

    /// Measures cells with `width`; Go counts characters.
    #[must_use]
    pub fn measured(self, width: fn(&str) -> usize) -> TabWriter {
        TabWriter { width, ..self }
    }

    /// Lines with tabs between their cells as a table, each with a line feed at its end.
    #[must_use]
    pub fn lines<L: AsRef<str>>(&self, lines: &[L]) -> String {
        self.table(&lines.iter().map(|line| line.as_ref().split('\t').collect()).collect::<Vec<_>>())
    }

    /// Rows of cells as a table. A tab in a cell stays one.
    #[must_use]
    pub fn rows<C: AsRef<str>>(&self, rows: &[impl AsRef<[C]>]) -> String {
        self.table(
            &rows.iter().map(|row| row.as_ref().iter().map(AsRef::as_ref).collect()).collect::<Vec<_>>(),
        )
    }

    fn table(&self, cells: &[Vec<&str>]) -> String {
        // By column: its width in the block that the current line belongs to, and where the block ends.
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        let mut out = String::new();
        for (number, line) in cells.iter().enumerate() {
            let (last, padded) = line.split_last().unwrap_or((&"", &[]));
            blocks.truncate(padded.len());
            for (column, cell) in padded.iter().enumerate() {
                if blocks.get(column).is_none_or(|(_, end)| *end <= number) {
                    let block = self.block(&cells[number..], column);
                    blocks.truncate(column);
                    blocks.push((block.0, number + block.1));
                }
                out.push_str(cell);
                let room = blocks[column].0.saturating_sub((self.width)(cell));
                out.extend(std::iter::repeat_n(' ', room));
            }
            out.push_str(last);
            out.push('\n');
        }
        out
    }

    /// Width and number of lines of the block of `column` that begins with the first of `lines`.
    fn block(&self, lines: &[Vec<&str>], column: usize) -> (usize, usize) {
        let inside = lines.iter().take_while(|line| line.len() > column + 1);
        let (mut widest, mut count) = (0, 0);
        for line in inside {
            widest = widest.max((self.width)(line[column]) + self.padding);
            count += 1;
        }
        let least = self.least.get(column).or(self.least.last()).copied().unwrap_or(0);
        (widest.max(least), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_runs_of_lines() {
        let text = TabWriter::new(0, 1).lines(&["a\tb\tc", "aaa\tbbbb\tc", "alone", "a\tb", "é\t日本\tx"]);
        assert_eq!(text, "a   b    c\naaa bbbb c\nalone\na b\né 日本 x\n");
        assert_eq!(TabWriter::new(10, 3).lines(&["a\tb", "12345678\tb"]), "a          b\n12345678   b\n");
        assert_eq!(TabWriter::columns(&[5, 3], 1).lines(&["a\tb\tc\td"]), "a    b  c  d\n");
        assert_eq!(TabWriter::new(0, 1).measured(str::len).lines(&["é\tb", "abc\td"]), "é  b\nabc d\n");
        assert_eq!(TabWriter::new(0, 1).lines::<&str>(&[]), "");
    }
}
