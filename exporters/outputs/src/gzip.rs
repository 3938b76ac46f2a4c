//! gzip on all cores, the same bytes whatever their number.
//!
//! The input is cut into blocks of a fixed size, each of which becomes a member of its own. Members behind each other are one
//! gzip file (RFC 1952, section 2.2), as eStargz layers are. libdeflate compresses a block half as fast again as a streaming
//! encoder that makes the same size.
//!
//! Blocks are compressed by threads while the caller makes the next ones and writes the members that are ready. A block that
//! does not compress is stored: trying costs as much as compressing, and images are full of archives, pictures and keys.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use libdeflater::{CompressionLvl, Compressor};

/// Small enough that two cores have work with a small layer, large enough that what is lost at the seams is nothing.
const BLOCK: usize = 1 << 20;
/// More are of no use: one thread makes the blocks.
const MOST_WORKERS: usize = 8;
/// Blocks of each worker that wait or are ready. A block takes its size in memory twice.
const WAITING: usize = 2;

/// How much of a block tells whether it compresses, and in how many places that is looked for.
const SAMPLE: usize = 4 << 10;
const SAMPLES: usize = 8;
/// A sample that becomes no shorter than this does not compress.
const INCOMPRESSIBLE: usize = SAMPLE - SAMPLE / 32;

/// Compresses what is written to it. [`ParallelGzip::finish`] has to be called.
pub(crate) struct ParallelGzip<W> {
    out: W,
    level: CompressionLvl,
    /// What is not yet a whole block.
    block: Block,
    /// There once a second block begins.
    workers: Option<Workers>,
    /// Whether a member has been written.
    begun: bool,
}

/// A part of the input, and what it is compressed.
#[derive(Default)]
struct Block {
    plain: Vec<u8>,
    packed: Vec<u8>,
    /// How much of `packed` is the member.
    length: usize,
}

impl<W: Write> ParallelGzip<W> {
    /// Begins a file.
    pub(crate) fn new(out: W, level: u32) -> io::Result<ParallelGzip<W>> {
        let level = known(level)?;
        Ok(ParallelGzip { out, level, block: Block::default(), workers: None, begun: false })
    }

    /// Ends the file and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if let Some(mut workers) = self.workers.take() {
            while let Some(block) = workers.next()? {
                self.out.write_all(block.member())?;
            }
        }
        // Nothing is a file too.
        if !self.block.plain.is_empty() || !self.begun {
            self.block.pack(&mut Compressors::new(self.level))?;
            self.out.write_all(self.block.member())?;
        }
        Ok(self.out)
    }

    /// Gives a whole block away, and takes an empty one.
    fn give(&mut self) -> io::Result<()> {
        let workers = self.workers.get_or_insert_with(|| Workers::start(self.level));
        workers.give(std::mem::take(&mut self.block));
        self.begun = true;
        if workers.are_full()
            && let Some(mut block) = workers.next()?
        {
            self.out.write_all(block.member())?;
            block.plain.clear();
            self.block = block;
        }
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.plain.len() == BLOCK {
            self.give()?;
        }
        let take = bytes.len().min(BLOCK - self.block.plain.len());
        self.block.plain.extend_from_slice(&bytes[..take]);
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that compress blocks. They are not rayon's: the caller may be one of those, and must not wait for another.
struct Workers {
    /// `None` once no block will come.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// The blocks that were given, in order.
    waiting: VecDeque<Receiver<io::Result<Block>>>,
}

/// A block, and where it goes.
struct Job {
    block: Block,
    to: SyncSender<io::Result<Block>>,
}

impl Workers {
    fn start(level: CompressionLvl) -> Workers {
        let (jobs, taken) = channel::<Job>();
        let taken = Arc::new(Mutex::new(taken));
        let count = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS));
        let work = move |taken: Arc<Mutex<Receiver<Job>>>| {
            let mut compressors = Compressors::new(level);
            let next = || taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok(Job { mut block, to }) = next() {
                let done = block.pack(&mut compressors);
                // A file that is given up takes no members.
                to.send(done.map(|()| block)).unwrap_or_default();
            }
        };
        let threads = (0..count).map(|_| {
            let taken = Arc::clone(&taken);
            thread::spawn(move || work(taken))
        });
        Workers { jobs: Some(jobs), threads: threads.collect(), waiting: VecDeque::new() }
    }

    fn give(&mut self, block: Block) {
        let (to, from) = sync_channel(1);
        self.waiting.push_back(from);
        if let Some(jobs) = &self.jobs {
            // If no thread is left, its end is found where the member is waited for.
            jobs.send(Job { block, to }).unwrap_or_default();
        }
    }

    fn are_full(&self) -> bool {
        self.waiting.len() >= self.threads.len() * WAITING
    }

    /// The earliest block, once it is compressed.
    fn next(&mut self) -> io::Result<Option<Block>> {
        let Some(from) = self.waiting.pop_front() else { return Ok(None) };
        from.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))?.map(Some)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.waiting.clear();
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // What a thread that panicked had to say was said.
            drop(thread.join());
        }
    }
}

/// `bytes` as a member.
pub(crate) fn member(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut block = Block { plain: bytes.to_vec(), ..Block::default() };
    block.pack(&mut Compressors::new(known(level)?))?;
    block.packed.truncate(block.length);
    Ok(block.packed)
}

fn known(level: u32) -> io::Result<CompressionLvl> {
    let number = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("gzip has no level {level}")))
}

/// What a thread compresses with.
struct Compressors {
    wanted: Compressor,
    /// For samples.
    quick: Compressor,
    /// Stores.
    none: Compressor,
}

impl Compressors {
    fn new(level: CompressionLvl) -> Compressors {
        let at = |level| Compressor::new(CompressionLvl::new(level).unwrap_or_default());
        Compressors { wanted: Compressor::new(level), quick: at(1), none: at(0) }
    }

    /// Whether none of the samples of `bytes` becomes shorter.
    fn is_incompressible(&mut self, bytes: &[u8]) -> bool {
        let mut out = [0; 2 * SAMPLE];
        bytes.len() >= SAMPLES * SAMPLE
            && (0..SAMPLES).all(|number| {
                let start = bytes.len() / SAMPLES * number;
                let sample = &bytes[start..start + SAMPLE];
                self.quick.deflate_compress(sample, &mut out).is_ok_and(|length| length >= INCOMPRESSIBLE)
            })
    }
}

impl Block {
    fn member(&self) -> &[u8] {
        &self.packed[..self.length]
    }

    /// Makes the member: no name, no time, an unknown system, so that nothing could differ.
    fn pack(&mut self, compressors: &mut Compressors) -> io::Result<()> {
        let stored = compressors.is_incompressible(&self.plain);
        let compressor = if stored { &mut compressors.none } else { &mut compressors.wanted };
        let bound = compressor.gzip_compress_bound(self.plain.len());
        if self.packed.len() < bound {
            self.packed.resize(bound, 0);
        }
        self.length = compressor.gzip_compress(&self.plain, &mut self.packed).map_err(io::Error::other)?;
        Ok(())
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
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, 18 * BLOCK, 18 * BLOCK + 5] {
            let data = bytes(length);
            let packed = gzip(&data, 100_003);
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == data, "{length}");
            assert!(gzip(&data, 7919) == packed, "{length}");
            // As one thread makes it.
            let blocks = data.chunks(BLOCK).chain(data.is_empty().then_some(&[][..]));
            let alone: Vec<u8> = blocks.flat_map(|block| member(block, 3).unwrap()).collect();
            assert!(alone == packed, "{length}");
        }
    }

    /// Noise is stored. A block with a piece that compresses is compressed, wherever the piece is.
    #[test]
    fn noise_is_stored() {
        let noise: Vec<u8> =
            (0..BLOCK / 32).flat_map(|number| *digest(number).first_chunk::<32>().unwrap()).collect();
        let stored = member(&noise, 3).unwrap().len();
        assert!((BLOCK..BLOCK + BLOCK / 1000).contains(&stored), "{stored}");
        for at in (0..=BLOCK - (128 << 10) - SAMPLE).step_by(61_000) {
            let mut some = noise.clone();
            some[at..at + (128 << 10) + SAMPLE].fill(b'a');
            let length = member(&some, 3).unwrap().len();
            assert!(length < BLOCK - (120 << 10), "{at}: {length}");
        }
    }

    /// Bytes that nothing makes shorter.
    fn digest(number: usize) -> [u8; 32] {
        use lapstrake_oci::Digest;
        let hex = Digest::sha256(&number.to_le_bytes()).hex().to_owned();
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    /// A writer that fails ends the threads, and the error is the writer's.
    #[test]
    fn a_failing_writer_ends_all() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = ParallelGzip::new(Full(100), 3).unwrap();
        let data = bytes(100 * BLOCK);
        let failed = writer.write_all(&data).and_then(|()| writer.finish().map(drop));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
