//! Which compression a stream has, by its first bytes, and its decompression. Memory is bounded for every format.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// zstd windows above 128 MiB are refused, as everywhere where `--long` was not asked for.
const ZSTD_WINDOW_LOG: u32 = 27;
/// xz may take this much memory; its highest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// A compression format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard, also behind skippable frames.
    Zstd,
}

impl Compression {
    /// Tells the format by the first bytes (six are enough).
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// A reader of what is inside.
    ///
    /// # Errors
    /// When the decoder cannot be set up (out of memory).
    pub fn reader<'r>(self, input: impl BufRead + Send + 'r) -> io::Result<Box<dyn Read + Send + 'r>> {
        Ok(match self {
            Self::Plain => Box::new(input),
            Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream?))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// A reader of what is inside `input`, whatever its compression.
///
/// # Errors
/// When the first bytes cannot be read or the decoder cannot be set up.
pub fn decompress<'r>(
    mut input: impl BufRead + Send + 'r,
) -> io::Result<(Compression, Box<dyn Read + Send + 'r>)> {
    // `fill_buf` may return less than asked of a pipe; six bytes are needed at most, and formats without them are
    // told apart from each other by fewer.
    let mut start = Vec::with_capacity(6);
    (&mut input).take(6).read_to_end(&mut start)?;
    let compression = Compression::detect(&start);
    Ok((compression, compression.reader(io::Cursor::new(start).chain(input))?))
}
