//! Making bytes of entries ahead of time, in parallel, and handing them on in order.
//!
//! By threads of its own: whoever writes may be one of rayon's workers, and must not wait for another.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::{TarOptions, Writer};
use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::path::TreePath;

/// A file from this size on is made in pieces; nor are more bytes in one chunk.
const LARGE: u64 = 256 << 10;
/// A small part with its headers is one piece.
const MOST_IN_PIECE: usize = 1 << 20;
/// Most entries in one chunk: enough that handing it on costs nothing beside making it.
const ENTRIES: usize = 256;
/// Chunks of one worker that may be waiting.
const WAITING: usize = 4;
/// More are of no use: one thread takes the bytes of all of them. Together they hold some 20 MiB at most.
const MOST_WORKERS: usize = 4;

/// Bytes of a part of the tar.
enum Chunk {
    /// More of the part follows.
    Piece(Vec<u8>),
    /// The part's end.
    Last(Vec<u8>),
}

/// Buffers that were used before: fresh memory costs the kernel as much as filling it costs us.
type Pool = Mutex<Vec<Vec<u8>>>;

/// Writes all entries. After each part `done` gets the writer and the number of entries that were written.
pub(super) fn write<W: Write, O: FnMut(&TreePath) -> io::Result<File>>(
    entries: &[Entry],
    opener: &(impl Fn() -> O + Sync),
    writer: &mut Writer<W>,
    mut done: impl FnMut(&mut Writer<W>, usize),
) -> Result<(), TreeError> {
    let parts = parts(entries);
    if let [only] = parts.as_slice()
        && only.iter().all(|entry| content(entry) <= LARGE)
    {
        let mut open = opener();
        only.iter().try_for_each(|entry| writer.entry(entry, &mut open))?;
        done(writer, only.len());
        return Ok(());
    }
    let options = writer.options;
    let pool = &Pool::default();
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS));
    let workers = workers.min(parts.len());
    let parts = &parts;
    std::thread::scope(|scope| {
        // Each has every n-th part, so that taking turns among them gives the parts in order.
        let turns: Vec<Receiver<_>> = (0..workers)
            .map(|first| {
                let (send, receive) = sync_channel(WAITING);
                scope.spawn(move || {
                    let mut pieces = Pieces { send, pool, bytes: Vec::new() };
                    pieces.make_all(parts.iter().skip(first).step_by(workers), &mut opener(), &options);
                });
                receive
            })
            .collect();
        let mut written = 0;
        for (number, part) in parts.iter().enumerate() {
            take_part(&turns[number % workers], writer, pool)?;
            written += part.len();
            done(writer, written);
        }
        Ok(())
    })
}

/// Writes the pieces of one part.
fn take_part<W: Write>(
    from: &Receiver<Result<Chunk, TreeError>>,
    writer: &mut Writer<W>,
    pool: &Pool,
) -> Result<(), TreeError> {
    for chunk in from {
        let (mut bytes, last) = match chunk? {
            Chunk::Piece(bytes) => (bytes, false),
            Chunk::Last(bytes) => (bytes, true),
        };
        writer.put(&bytes)?;
        bytes.clear();
        pool.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        if last {
            return Ok(());
        }
    }
    // Only a thread that panicked ends within a part; its panic goes on where the threads are joined.
    Ok(())
}

fn content(entry: &Entry) -> u64 {
    if let Kind::File { size, .. } = entry.kind { size } else { 0 }
}

/// Cuts the entries so that each part is a large file, or small enough.
fn parts(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let size = content(entry);
        let full = at - start >= ENTRIES || bytes + size > LARGE;
        if full && at > start {
            parts.push(&entries[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < entries.len() {
        parts.push(&entries[start..]);
    }
    parts
}

/// Whether somebody takes what is made.
enum Taken {
    Yes,
    No,
}

/// Makes parts in pieces, and hands them on.
struct Pieces<'p> {
    send: SyncSender<Result<Chunk, TreeError>>,
    pool: &'p Pool,
    /// The piece that grows.
    bytes: Vec<u8>,
}

impl Pieces<'_> {
    fn make_all<'t>(
        &mut self,
        parts: impl Iterator<Item = &'t &'t [Entry]>,
        open: &mut impl FnMut(&TreePath) -> io::Result<File>,
        options: &TarOptions,
    ) {
        for part in parts {
            match self.make(part, open, options) {
                Ok(Taken::Yes) => {}
                // The writer has failed, and says so.
                Ok(Taken::No) => return,
                Err(error) => return self.send.send(Err(error)).unwrap_or_default(),
            }
        }
    }

    fn make(
        &mut self,
        part: &[Entry],
        open: &mut impl FnMut(&TreePath) -> io::Result<File>,
        options: &TarOptions,
    ) -> Result<Taken, TreeError> {
        self.bytes = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let mut writer = Writer::new(&mut *self, options);
        match part.iter().try_for_each(|entry| writer.entry(entry, open)) {
            Err(TreeError::Stream { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Taken::No);
            }
            done => done?,
        }
        let last = std::mem::take(&mut self.bytes);
        Ok(if self.send.send(Ok(Chunk::Last(last))).is_ok() { Taken::Yes } else { Taken::No })
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.bytes.is_empty() && self.bytes.len() + bytes.len() > MOST_IN_PIECE {
            let next = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let piece = std::mem::replace(&mut self.bytes, next);
            self.send.send(Ok(Chunk::Piece(piece))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::ContentDigest;
    use crate::tree::tests::{dir, path};

    fn file(at: &str, size: u64) -> Entry {
        let kind = Kind::File { size, content: ContentDigest([0; 32]) };
        Entry { path: path(at), kind, meta: crate::entry::Meta::default() }
    }

    #[test]
    fn cut() {
        let many: Vec<Entry> = (0..1300).map(|number| dir(&format!("{number:04}"))).collect();
        let lengths = |entries: &[Entry]| parts(entries).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&many), [256, 256, 256, 256, 256, 20]);
        assert_eq!(lengths(&[]), [0; 0]);
        let large = LARGE + 1;
        let mixed =
            [file("a", 1), file("b", large), file("c", 1), file("d", LARGE), file("e", large), file("f", 0)];
        // The file of no length comes after one that fills its part alone.
        assert_eq!(lengths(&mixed), [1, 1, 1, 1, 1, 1]);
        assert_eq!(lengths(&[file("a", 1), file("b", LARGE - 1), file("c", 1)]), [2, 1]);
    }
}
