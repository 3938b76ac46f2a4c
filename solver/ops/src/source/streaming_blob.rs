//! A file that is read while it is written: a layer is unpacked as it comes. What is on its way waits on the disk, not in
//! memory, so a slow unpacking never holds up the download.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The reader is told of this many bytes at once.
const STRIDE: u64 = 256 << 10;

#[derive(Default)]
struct Progress {
    written: u64,
    /// Whether nothing more will come, and then whether it is all there.
    end: Option<bool>,
}

#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    change: Condvar,
}

impl Shared {
    fn tell(&self, written: u64, end: Option<bool>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress = Progress { written, end };
        self.change.notify_all();
    }
}

/// The writer's half of the news.
pub(crate) struct Notifier(Arc<Shared>);

/// Reads `file` as far as [`BlobWriter`] tells.
pub(crate) fn streaming_blob(file: File) -> (Notifier, StreamingBlob) {
    let shared = Arc::new(Shared::default());
    (Notifier(shared.clone()), StreamingBlob { file, shared, at: 0 })
}

/// Reads what is there, and waits for more. Ends only where the writer says that this is all.
pub(crate) struct StreamingBlob {
    file: File,
    shared: Arc<Shared>,
    at: u64,
}

impl Read for StreamingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        while progress.written <= self.at {
            match progress.end {
                Some(true) => return Ok(0),
                Some(false) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download was cut off"));
                }
                None => {
                    progress = self.shared.change.wait(progress).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        let there = usize::try_from(progress.written - self.at).unwrap_or(usize::MAX);
        drop(progress);
        let most = buffer.len().min(there);
        let got = self.file.read(&mut buffer[..most])?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Writes, and tells the reader. Dropped without [`BlobWriter::end`], it tells that nothing more will come.
pub(crate) struct BlobWriter<W: Write> {
    job: Option<W>,
    told: Notifier,
    written: u64,
    last: u64,
    ended: bool,
}

impl<W: Write> BlobWriter<W> {
    pub(crate) fn new(job: W, told: Notifier) -> BlobWriter<W> {
        BlobWriter { job: Some(job), told, written: 0, last: 0, ended: false }
    }

    /// All is there and checked.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.ended = true;
        self.told.0.tell(self.written, Some(true));
        Ok(())
    }

    /// The writer below.
    ///
    /// # Panics
    /// Never: it is taken only here, which takes all.
    pub(crate) fn into_inner(mut self) -> W {
        self.job.take().expect("it was not taken before")
    }
}

impl<W: Write> Write for BlobWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(job) = &mut self.job else { return Ok(0) };
        let count = job.write(bytes)?;
        self.written += count as u64;
        if self.written - self.last >= STRIDE {
            job.flush()?;
            self.last = self.written;
            self.told.0.tell(self.written, None);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.job.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl<W: Write> Drop for BlobWriter<W> {
    fn drop(&mut self) {
        if !self.ended {
            self.told.0.tell(self.written, Some(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::NamedTempFile, BlobWriter<File>, StreamingBlob) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (told, reader) = streaming_blob(File::open(file.path()).unwrap());
        let writer = BlobWriter::new(file.reopen().unwrap(), told);
        (file, writer, reader)
    }

    #[test]
    fn all_of_it_is_read_while_it_comes() {
        let (_file, mut writer, mut reader) = pair();
        let data: Vec<u8> = (0..5_000_000u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for piece in data.chunks(70_001) {
            writer.write_all(piece).unwrap();
        }
        writer.end().unwrap();
        drop(writer);
        assert!(read.join().unwrap().unwrap() == data);
    }

    #[test]
    fn what_is_cut_off_has_no_end() {
        let (_file, mut writer, mut reader) = pair();
        writer.write_all(b"half").unwrap();
        drop(writer);
        let mut all = Vec::new();
        assert_eq!(reader.read_to_end(&mut all).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
