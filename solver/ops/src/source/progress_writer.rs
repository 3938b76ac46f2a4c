//! A writer that tells how far a download is.

use std::io::{self, Write};

use lapstrake_engine::Step;
use lapstrake_oci::Digest;

/// Told of in steps of this many bytes: a few times a second on a quick line, and never an event for every packet.
const STRIDE: u64 = 1 << 20;

/// Passes everything on and counts it.
pub(crate) struct ProgressWriter<'a, W> {
    job: W,
    step: &'a Step,
    id: String,
    written: u64,
    told: u64,
    total: u64,
}

impl<'a, W: Write> ProgressWriter<'a, W> {
    /// Begins to tell `step` of `digest`, which has `total` bytes.
    pub(crate) fn new(job: W, step: &'a Step, digest: &Digest, total: u64) -> Self {
        let id = format!("sha256:{}", digest.short());
        step.status(&id, 0, total, false);
        Self { job, step, id, written: 0, told: 0, total }
    }

    /// Tells that all of it is there.
    pub(crate) fn done(self) -> W {
        self.step.status(&self.id, self.written, self.total, true);
        self.job
    }
}

impl<W: Write> Write for ProgressWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.job.write(bytes)?;
        self.written += count as u64;
        // A quarter of a small blob is as much of a difference on the screen as a megabyte of a large one.
        if self.written - self.told >= STRIDE.min(self.total / 4).max(1) {
            self.told = self.written;
            self.step.status(&self.id, self.written, self.total, false);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.job.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use lapstrake_engine::{Event, Progress, StepId};

    use super::*;

    #[test]
    fn tells_in_strides() {
        let (sender, events) = channel();
        let step = Progress::new(sender).start(StepId("s".to_owned()), "s");
        let digest = Digest::sha256(b"x");
        let mut writer = ProgressWriter::new(Vec::new(), &step, &digest, 5 << 20);
        for _ in 0..(5 << 10) {
            writer.write_all(&[0; 1024]).unwrap();
        }
        assert_eq!(writer.done().len(), 5 << 20);
        drop(step);
        let told: Vec<(u64, bool)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Status { current, done, .. } => Some((current >> 20, done)),
                _ => None,
            })
            .collect();
        assert_eq!(told, [(0, false), (1, false), (2, false), (3, false), (4, false), (5, false), (5, true)]);
    }
}
