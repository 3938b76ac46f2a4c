//! gzip on all cores, the same bytes whatever their number.
//!
//! The input is cut into blocks of a fixed size, each of which becomes a member of its own. Members behind each other are one
//! gzip file (RFC 1952, section 2.2), as eStargz layers are. libdeflate compresses a block half as fast again as a streaming
//! encoder that makes the same size.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor};
use rayon::prelude::*;

/// Small enough that two cores have work with a small layer, large enough that what is lost at the seams is nothing.
const BLOCK: usize = 1 << 20;
/// How many blocks wait until they are compressed together. Memory is twice as many blocks.
const BATCH: usize = 8;

/// Compresses what is written to it. [`ParallelGzip::finish`] has to be called.
pub(crate) struct ParallelGzip<W> {
    out: W,
    level: CompressionLvl,
    /// Up to [`BATCH`] blocks.
    buffer: Vec<u8>,
    /// Whether a member has been written.
    begun: bool,
}

impl<W: Write> ParallelGzip<W> {
    /// Begins a file.
    pub(crate) fn new(out: W, level: u32) -> io::Result<ParallelGzip<W>> {
        let buffer = Vec::with_capacity(BATCH * BLOCK);
        Ok(ParallelGzip { out, level: known(level)?, buffer, begun: false })
    }

    /// Ends the file and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.compress()?;
        if !self.begun {
            // Nothing is a file too.
            self.out.write_all(&packed(&mut Compressor::new(self.level), &[])?)?;
        }
        Ok(self.out)
    }

    fn compress(&mut self) -> io::Result<()> {
        let level = self.level;
        let members = self.buffer.par_chunks(BLOCK).map_init(|| Compressor::new(level), packed);
        for member in members.collect::<io::Result<Vec<_>>>()? {
            self.out.write_all(&member)?;
            self.begun = true;
        }
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BATCH * BLOCK - self.buffer.len();
        let take = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..take]);
        if take == room {
            self.compress()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `bytes` as a member.
pub(crate) fn member(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    packed(&mut Compressor::new(known(level)?), bytes)
}

fn known(level: u32) -> io::Result<CompressionLvl> {
    let number = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("gzip has no level {level}")))
}

/// One member: no name, no time, an unknown system, so that nothing could differ.
fn packed(compressor: &mut Compressor, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut out).map_err(io::Error::other)?;
    out.truncate(length);
    Ok(out)
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
        let mut writer = ParallelGzip::new(Vec::new(), 3).unwrap();
        for piece in data.chunks(piece) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn levels_are_those_of_gzip() {
        for level in 0..=9 {
            let packed = member(b"text", level).unwrap();
            let mut plain = String::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut plain).unwrap();
            assert_eq!(plain, "text", "{level}");
            // No flags, no time, an unknown system.
            assert_eq!((&packed[..8], packed[9]), (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], 0xff), "{level}");
        }
        assert!(member(b"text", 99).is_err());
    }

    #[test]
    fn it_is_gzip_and_always_the_same() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, BATCH * BLOCK, BATCH * BLOCK + 5] {
            let data = bytes(length);
            let packed = gzip(&data, 100_003);
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == data, "{length}");
            assert!(gzip(&data, 7919) == packed, "{length}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert!(pool.install(|| gzip(&data, 100_003)) == packed, "{length}");
        }
    }
}
