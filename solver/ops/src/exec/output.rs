//! What a process says, passed on as long as it is not too much.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use lapstrake_engine::{Step, Stream};

/// As much of the end as is passed on where the middle is left out.
const END: usize = 64 << 10;

/// As much as says why something failed.
const LAST: usize = 16 << 10;

/// Passes everything on until the last process that has the other end is gone. After `limit` bytes only the end follows.
/// The process never waits for us. Gives the last that was said.
pub(crate) fn forward(fd: OwnedFd, stream: Stream, step: &Step, limit: u64) -> String {
    let mut file = File::from(fd);
    let mut buffer = vec![0; 32 << 10];
    let mut last = VecDeque::new();
    let mut clip = OutputLimit { left: limit, end: VecDeque::new(), skipped: 0 };
    while let Ok(got) = file.read(&mut buffer) {
        if got == 0 {
            break;
        }
        last.extend(&buffer[got.saturating_sub(LAST)..got]);
        last.drain(..last.len().saturating_sub(LAST));
        let now = clip.take(&buffer[..got]);
        if !now.is_empty() {
            step.log(stream, now.to_vec());
        }
    }
    if let Some(rest) = clip.finish(limit) {
        step.log(stream, rest);
    }
    String::from_utf8_lossy(last.make_contiguous()).into_owned()
}

/// What is left of a limit, and the end of what was too much.
struct OutputLimit {
    left: u64,
    end: VecDeque<u8>,
    skipped: u64,
}

impl OutputLimit {
    /// What is passed on at once.
    fn take<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
        let (now, late) = data.split_at(room);
        self.left -= room as u64;
        self.end.extend(late);
        let over = self.end.len().saturating_sub(END);
        self.end.drain(..over);
        self.skipped += over as u64;
        now
    }

    /// What is passed on in the end.
    fn finish(self, limit: u64) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        if self.skipped > 0 {
            let told =
                format!("\n[output clipped, log limit {limit} bytes reached: {} left out]\n", self.skipped);
            rest.extend(told.into_bytes());
        }
        rest.extend(self.end);
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_left_out() {
        let mut clip = OutputLimit { left: 5, end: VecDeque::new(), skipped: 0 };
        assert_eq!(clip.take(b"abc"), b"abc");
        assert_eq!(clip.take(b"defg"), b"de");
        let long = vec![b'x'; END];
        assert_eq!(clip.take(&long), b"");
        let rest = clip.finish(5).unwrap();
        let told = "\n[output clipped, log limit 5 bytes reached: 2 left out]\n";
        assert_eq!(rest.len(), told.len() + END);
        assert!(rest.starts_with(told.as_bytes()) && rest.ends_with(b"xx"));
        let short = OutputLimit { left: 5, end: VecDeque::new(), skipped: 0 };
        assert_eq!(short.finish(5), None);
    }
}
