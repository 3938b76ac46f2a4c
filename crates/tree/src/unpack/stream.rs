//! Decompression and the diff id, each on a thread of its own: an archive is unpacked as fast as the slowest of the three
//! parts, not as their sum.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};

use crate::decompress::decompress;
use crate::error::TreeError;

const CHUNK: usize = 256 << 10;
/// Chunks that each part may be behind: 2 MiB.
const IN_FLIGHT: usize = 8;

/// Bytes that both other parts read.
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

/// Buffers that were used before: fresh memory costs the kernel as much as filling it costs us.
#[derive(Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| vec![0; CHUNK])
    }

    /// Takes back a chunk that its last reader is done with.
    fn give(&self, chunk: Arc<Chunk>) {
        if let Some(chunk) = Arc::into_inner(chunk) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(chunk.buffer);
        }
    }
}

/// What the unpacking part reads.
pub(super) struct Plain<'p> {
    from: Receiver<io::Result<Arc<Chunk>>>,
    pool: &'p Pool,
    chunk: Option<Arc<Chunk>>,
    at: usize,
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &self.chunk {
                let got = (&chunk.buffer[self.at..chunk.length]).read(buffer)?;
                self.at += got;
                if got > 0 || buffer.is_empty() {
                    return Ok(got);
                }
            }
            if let Some(read) = self.chunk.take() {
                self.pool.give(read);
            }
            match self.from.recv() {
                Ok(chunk) => (self.chunk, self.at) = (Some(chunk?), 0),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Runs `consume` over the decompressed input; also returns the sha256 and the length of what was read.
pub(super) fn with_plain<T>(
    input: impl Read + Send,
    max_bytes: u64,
    consume: impl FnOnce(Plain<'_>) -> Result<T, TreeError>,
) -> Result<(T, [u8; 32], u64), TreeError> {
    let pool = &Pool::default();
    let (to, from) = sync_channel(IN_FLIGHT);
    let (to_hash, hashed) = sync_channel(IN_FLIGHT);
    thread::scope(|scope| {
        let producer = scope.spawn(move || produce(input, max_bytes, pool, &to, &to_hash));
        let digest = scope.spawn(move || hash(&hashed, pool));
        // The receiver dies with the closure: a producer that is ahead of a failed consumer stops.
        let done = consume(Plain { from, pool, chunk: None, at: 0 });
        let produced = producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let digest = digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match produced {
            Ok(size) => done.map(|value| (value, digest, size)),
            // The reason why the stream ended early is better than what its reader made of it.
            Err(Some(reason)) => Err(reason),
            Err(None) => {
                done.and(Err(TreeError::Corrupt { what: "archive", why: "it was not read to its end" }))
            }
        }
    })
}

fn hash(chunks: &Receiver<Arc<Chunk>>, pool: &Pool) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for chunk in chunks {
        hasher.update(&chunk.buffer[..chunk.length]);
        pool.give(chunk);
    }
    hasher.finalize().into()
}

/// Returns how many bytes there were. `Err(None)`: the consumer went away, and knows why.
fn produce(
    input: impl Read + Send,
    max_bytes: u64,
    pool: &Pool,
    to: &SyncSender<io::Result<Arc<Chunk>>>,
    to_hash: &SyncSender<Arc<Chunk>>,
) -> Result<u64, Option<TreeError>> {
    let action = "decompress the archive";
    let buffered = BufReader::with_capacity(CHUNK, input);
    let (_, mut plain) = decompress(buffered).map_err(|e| Some(TreeError::stream(action)(e)))?;
    let mut size = 0u64;
    loop {
        let mut buffer = pool.take();
        let length = match fill(&mut plain, &mut buffer) {
            Ok(length) => length,
            Err(e) => {
                drop(to.send(Err(io::Error::from(e.kind()))));
                return Err(Some(TreeError::stream(action)(e)));
            }
        };
        if length == 0 {
            return Ok(size);
        }
        size += length as u64;
        if size > max_bytes {
            drop(to.send(Err(io::Error::other("too big"))));
            return Err(Some(TreeError::TooBig { what: "bytes", limit: max_bytes }));
        }
        let chunk = Arc::new(Chunk { buffer, length });
        // The hash takes all that comes.
        drop(to_hash.send(Arc::clone(&chunk)));
        to.send(Ok(chunk)).map_err(|_| None)?;
    }
}

/// Reads until the buffer is full or nothing more comes.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}
