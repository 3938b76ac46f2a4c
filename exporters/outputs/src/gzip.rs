//! gzip on all cores, the same bytes whatever their number.
//!
//! The input is cut into blocks of a fixed size. Each is compressed for itself, with the end of the one before it for a
//! dictionary, and ends on a whole byte; behind each other they are one deflate stream (RFC 1951) in one gzip member
//! (RFC 1952).

use std::io::{self, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use rayon::prelude::*;

/// Small enough that two cores have work with a small layer, large enough that what is lost at the seams is nothing.
const BLOCK: usize = 512 << 10;
/// How far deflate looks back.
const WINDOW: usize = 32 << 10;
/// How many blocks wait until they are compressed together. Memory is twice as many blocks.
const BATCH: usize = 16;
/// No name, no time, an unknown system: nothing that could differ.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it. [`ParallelGzip::finish`] has to be called.
pub(crate) struct ParallelGzip<W> {
    out: W,
    level: Compression,
    /// Up to [`WINDOW`] bytes of the batch before, then up to [`BATCH`] blocks.
    buffer: Vec<u8>,
    /// Where the blocks begin.
    start: usize,
    crc: crc32fast::Hasher,
    length: u64,
}

impl<W: Write> ParallelGzip<W> {
    /// Begins a member.
    pub(crate) fn new(mut out: W, level: u32) -> io::Result<ParallelGzip<W>> {
        out.write_all(&HEADER)?;
        let buffer = Vec::with_capacity(WINDOW + BATCH * BLOCK);
        let (crc, level) = (crc32fast::Hasher::new(), Compression::new(level));
        Ok(ParallelGzip { out, level, buffer, start: 0, crc, length: 0 })
    }

    /// Ends the member and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.compress(true)?;
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        // The length counts modulo 2^32.
        let length = u32::try_from(self.length & u64::from(u32::MAX)).unwrap_or_default();
        self.out.write_all(&length.to_le_bytes())?;
        Ok(self.out)
    }

    fn compress(&mut self, last: bool) -> io::Result<()> {
        let (buffer, start, level) = (&self.buffer, self.start, self.level);
        // An empty end is a block too: the stream needs a last one.
        let count = (buffer.len() - start).div_ceil(BLOCK).max(usize::from(last));
        let blocks = (0..count).into_par_iter().map(|number| {
            let from = start + number * BLOCK;
            let block = &buffer[from..(from + BLOCK).min(buffer.len())];
            let mut crc = crc32fast::Hasher::new();
            crc.update(block);
            let before = &buffer[from.saturating_sub(WINDOW)..from];
            deflate(block, before, level, last && number + 1 == count).map(|bytes| (bytes, crc))
        });
        for (bytes, crc) in blocks.collect::<io::Result<Vec<_>>>()? {
            self.out.write_all(&bytes)?;
            self.crc.combine(&crc);
        }
        let keep = self.buffer.len().min(WINDOW);
        self.buffer.drain(..self.buffer.len() - keep);
        self.start = keep;
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.start + BATCH * BLOCK - self.buffer.len();
        let take = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..take]);
        self.length += take as u64;
        if take == room {
            self.compress(false)?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `bytes` as a member.
pub(crate) fn member(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut out = HEADER.to_vec();
    out.extend(deflate(bytes, &[], Compression::new(level), true)?);
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes);
    out.extend(crc.finalize().to_le_bytes());
    let length = u32::try_from(bytes.len() as u64 & u64::from(u32::MAX)).unwrap_or_default();
    out.extend(length.to_le_bytes());
    Ok(out)
}

fn deflate(block: &[u8], before: &[u8], level: Compression, last: bool) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(level, false);
    if !before.is_empty() {
        deflate.set_dictionary(before).map_err(io::Error::other)?;
    }
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(block.len() / 2 + 64);
    loop {
        let taken = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        let status = deflate.compress_vec(&block[taken..], &mut out, flush).map_err(io::Error::other)?;
        // A flush is over once it leaves room.
        let done = if last { status == Status::StreamEnd } else { out.len() < out.capacity() };
        if done && deflate.total_in() == block.len() as u64 {
            return Ok(out);
        }
        out.reserve(out.capacity().max(1024));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Bytes that compress, but not to nothing.
    fn bytes(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        (0..length).map(|at| if at % 7 == 0 { u8::try_from(next()).unwrap() } else { b'a' }).collect()
    }

    fn gzip(data: &[u8], piece: usize) -> Vec<u8> {
        let mut writer = ParallelGzip::new(Vec::new(), 4).unwrap();
        for piece in data.chunks(piece) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn it_is_gzip_and_always_the_same() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, BATCH * BLOCK, BATCH * BLOCK + 5] {
            let data = bytes(length);
            let packed = gzip(&data, 100_003);
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == data, "{length}");
            assert!(gzip(&data, 7919) == packed, "{length}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert!(pool.install(|| gzip(&data, 100_003)) == packed, "{length}");
        }
    }
}
