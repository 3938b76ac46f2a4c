//! A terminal as lines that never wrap.
//!
//! indicatif fills each line up to the terminal's edge and relies on the cursor being on the next one then. Terminals and
//! tables of widths differ about emoji and combining marks, so that such a line would push all others away, in each redraw.
//! Here each line ends by a line feed, and the terminal cuts what is too long.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use indicatif::TermLike;

/// Has the terminal cut lines instead of breaking them.
const CUT: &str = "\u{1b}[?7l";
/// Has it break them again.
const BREAK: &str = "\u{1b}[?7h";
/// More columns than any line has: indicatif is not to count on lines that are broken.
const COLUMNS: u16 = 1 << 12;

/// Standard error.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Frame>);

/// The output of one redraw, written at once.
#[derive(Debug, Default)]
struct Frame {
    text: String,
    /// Whether the cursor is behind a line that has not been ended yet.
    open: bool,
}

impl Lines {
    fn with(&self, change: impl FnOnce(&mut Frame)) -> io::Result<()> {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

impl Lines {
    /// Moves the cursor by `n` lines or columns, into the direction that the letter means.
    fn moved(&self, n: usize, direction: char) -> io::Result<()> {
        let moved = |frame: &mut Frame| frame.moved(&format!("\u{1b}[{n}{direction}"));
        if n > 0 { self.with(moved) } else { Ok(()) }
    }
}

impl Frame {
    /// Moves the cursor.
    fn moved(&mut self, sequence: &str) {
        self.text.push_str(sequence);
        self.open = false;
    }

    fn write(&mut self, text: &str) {
        match text {
            "\r" => self.moved("\r"),
            // What indicatif fills a line up with: the line is over.
            fill if fill.bytes().all(|byte| byte == b' ') => {
                self.text.push_str("\u{1b}[K");
                self.open = true;
            }
            text => {
                if std::mem::take(&mut self.open) {
                    self.text.push_str("\r\n");
                }
                self.text.push_str(text);
            }
        }
    }
}

impl TermLike for Lines {
    fn width(&self) -> u16 {
        COLUMNS
    }

    fn height(&self) -> u16 {
        // The board never draws more than fit.
        u16::MAX
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.with(|frame| {
            frame.write(text);
            frame.moved("\r\n");
        })
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.with(|frame| frame.write(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.with(|frame| frame.moved("\r\u{1b}[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        let text = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).text);
        if text.is_empty() {
            return Ok(());
        }
        let mut err = io::stderr().lock();
        err.write_all(format!("{CUT}{text}{BREAK}").as_bytes())?;
        err.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_by_a_line_feed_and_not_by_their_width() {
        let mut frame = Frame::default();
        for text in ["one", "   ", "two", ""] {
            frame.write(text);
        }
        assert_eq!(frame.text, "one\u{1b}[K\r\ntwo\u{1b}[K");
        frame.text.clear();
        frame.moved("\u{1b}[1A");
        frame.write("\r");
        frame.write("three");
        assert_eq!(frame.text, "\u{1b}[1A\rthree");
    }
}
