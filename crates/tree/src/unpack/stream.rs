//! Decompression and the diff id, on a thread of their own: an archive is unpacked as fast as the slower of the two
//! halves, not as their sum.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sha2::{Digest, Sha256};

use crate::decompress::decompress;
use crate::error::TreeError;

const CHUNK: usize = 256 << 10;
/// Chunks on the way: 2 MiB.
const IN_FLIGHT: usize = 8;

type Message = io::Result<Vec<u8>>;

/// What the other half reads.
pub(super) struct Plain {
    from: Receiver<Message>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.chunk.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            match self.from.recv() {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk?),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Runs `consume` over the decompressed input; also returns the sha256 and the length of what was read.
pub(super) fn with_plain<T>(
    input: impl Read + Send,
    max_bytes: u64,
    consume: impl FnOnce(Plain) -> Result<T, TreeError>,
) -> Result<(T, [u8; 32], u64), TreeError> {
    let (to, from) = sync_channel(IN_FLIGHT);
    thread::scope(|scope| {
        let producer = scope.spawn(move || produce(input, max_bytes, &to));
        // The receiver dies with the closure: a producer that is ahead of a failed consumer stops.
        let done = consume(Plain { from, chunk: io::Cursor::new(Vec::new()) });
        match producer.join() {
            Ok(Ok((digest, size))) => done.map(|value| (value, digest, size)),
            // The reason why the stream ended early is better than what its reader made of it.
            Ok(Err(Some(reason))) => Err(reason),
            Ok(Err(None)) => {
                done.and(Err(TreeError::Corrupt { what: "archive", why: "it was not read to its end" }))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// `Err(None)`: the consumer went away, and knows why.
fn produce(
    input: impl Read + Send,
    max_bytes: u64,
    to: &SyncSender<Message>,
) -> Result<([u8; 32], u64), Option<TreeError>> {
    let action = "decompress the archive";
    let buffered = BufReader::with_capacity(CHUNK, input);
    let (_, mut plain) = decompress(buffered).map_err(|e| Some(TreeError::stream(action)(e)))?;
    let mut hasher = Sha256::new();
    let mut size = 0u64;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        if let Err(e) = (&mut plain).take(CHUNK as u64).read_to_end(&mut chunk) {
            drop(to.send(Err(io::Error::from(e.kind()))));
            return Err(Some(TreeError::stream(action)(e)));
        }
        if chunk.is_empty() {
            return Ok((hasher.finalize().into(), size));
        }
        size += chunk.len() as u64;
        if size > max_bytes {
            drop(to.send(Err(io::Error::other("too big"))));
            return Err(Some(TreeError::TooBig { what: "bytes", limit: max_bytes }));
        }
        hasher.update(&chunk);
        to.send(Ok(chunk)).map_err(|_| None)?;
    }
}
