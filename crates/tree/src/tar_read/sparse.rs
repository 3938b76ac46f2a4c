//! Files with holes, as GNU tar writes them: the form in headers of its own, and the three forms in PAX records. The archive
//! has the data without the holes and a map of the data.

use std::collections::VecDeque;
use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::number::number;
use crate::layer_tar::Pax;

/// Most pieces of data in one file: GNU tar's form in records holds no more either.
const MAX_PIECES: usize = 64 << 10;
/// The map at the beginning of the data comes in blocks.
const BLOCK: usize = 512;

/// A run of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    length: u64,
}

/// Where the data of a file with holes is.
#[derive(Debug, Default)]
pub(super) struct SparseMap {
    pieces: VecDeque<Piece>,
    /// How much was read of the file.
    at: u64,
    /// Its length with the holes.
    pub(super) size: u64,
}

/// The forms in PAX records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PaxForm {
    /// 0.0 and 0.1: the map is in the records.
    InRecords,
    /// 1.0: the map is in front of the data.
    InContent,
}

impl PaxForm {
    /// The form that records tell of; none for a file without holes.
    pub(super) fn of(pax: &Pax) -> Option<PaxForm> {
        let text = |key: &[u8]| pax.get(key).unwrap_or_default();
        match (text(b"GNU.sparse.major"), text(b"GNU.sparse.minor")) {
            (b"1", b"0") => Some(PaxForm::InContent),
            (b"0", b"0" | b"1") => Some(PaxForm::InRecords),
            (b"", b"") => {
                let map = pax.get(b"GNU.sparse.map").or_else(|| pax.get(b"GNU.sparse.numblocks"));
                map.map(|_| PaxForm::InRecords)
            }
            _ => None,
        }
    }
}

/// Takes the map out of the headers of GNU's own form. `next` reads a further block.
pub(super) fn of_headers<E>(
    header: &Header,
    bad: impl Fn(&'static str) -> E,
    mut next: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<SparseMap, E> {
    let gnu = header.as_gnu().ok_or_else(|| bad("it has holes and no map of them"))?;
    let mut pieces = Vec::new();
    let mut take = |all: &[GnuSparseHeader]| {
        // An empty field ends the list.
        for one in all.iter().take_while(|one| one.offset[0] != 0) {
            let numbers = number(&one.offset).zip(number(&one.numbytes));
            let (start, length) = numbers.ok_or_else(|| bad("its map of holes is not of numbers"))?;
            push(&mut pieces, start, length).map_err(&bad)?;
        }
        Ok(())
    };
    take(&gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut further = GnuExtSparseHeader::new();
        next(further.as_mut_bytes())?;
        take(&further.sparse)?;
        more = further.is_extended();
    }
    let size = number(&gnu.realsize).ok_or_else(|| bad("its size is not a number"))?;
    SparseMap::new(pieces, size).map_err(bad)
}

/// The map in PAX records.
pub(super) fn of_records(pax: &Pax, size: i64) -> Result<SparseMap, &'static str> {
    let map = pax.get(b"GNU.sparse.map").unwrap_or_default();
    let numbers: Vec<&[u8]> = map.split(|byte| *byte == b',').filter(|_| !map.is_empty()).collect();
    let count = pax.get(b"GNU.sparse.numblocks").map_or(Some(numbers.len() as i64 / 2), decimal);
    if !numbers.len().is_multiple_of(2) || count != Some(numbers.len() as i64 / 2) {
        return Err("its map of holes is not as long as it says");
    }
    let mut pieces = Vec::new();
    for pair in numbers.chunks_exact(2) {
        let (start, length) =
            decimal(pair[0]).zip(decimal(pair[1])).ok_or("its map of holes is not of numbers")?;
        push(&mut pieces, start, length)?;
    }
    SparseMap::new(pieces, size)
}

/// The map in front of the data. It ends with a block of `content`, which is left behind it.
pub(super) fn of_content<E: From<io::Error>>(
    content: &mut impl Read,
    size: i64,
    bad: impl Fn(&'static str) -> E,
) -> Result<SparseMap, E> {
    let mut block = [0u8; BLOCK];
    let mut at = BLOCK;
    let mut line = || {
        let mut digits = Vec::new();
        loop {
            if at == BLOCK {
                content.read_exact(&mut block)?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'\n' => return decimal(&digits).ok_or_else(|| bad("its map of holes is not of numbers")),
                _ if digits.len() > 20 => return Err(bad("its map of holes is not of numbers")),
                byte => digits.push(byte),
            }
        }
    };
    let count = line()?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        let (start, length) = (line()?, line()?);
        push(&mut pieces, start, length).map_err(&bad)?;
    }
    SparseMap::new(pieces, size).map_err(bad)
}

/// Decimal digits.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn push(pieces: &mut Vec<Piece>, start: i64, length: i64) -> Result<(), &'static str> {
    if pieces.len() == MAX_PIECES {
        return Err("it has too many holes");
    }
    let negative = |_| "its map of holes is not of numbers";
    let (start, length) = (u64::try_from(start).map_err(negative)?, u64::try_from(length).map_err(negative)?);
    pieces.push(Piece { start, length });
    Ok(())
}

impl SparseMap {
    fn new(pieces: Vec<Piece>, size: i64) -> Result<Self, &'static str> {
        let size = u64::try_from(size).map_err(|_| "its size is not a number")?;
        let mut end = 0;
        for piece in &pieces {
            if piece.start < end || piece.start.checked_add(piece.length).is_none_or(|end| end > size) {
                return Err("its map of holes is out of order");
            }
            end = piece.start + piece.length;
        }
        let pieces = pieces.into_iter().filter(|piece| piece.length > 0).collect();
        Ok(Self { pieces, at: 0, size })
    }

    /// The bytes that the archive has of it.
    pub(super) fn stored(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length).sum()
    }

    /// Reads on: zeros in holes, else from `data`.
    pub(super) fn read(&mut self, buffer: &mut [u8], mut data: impl Read) -> io::Result<usize> {
        let piece = self.pieces.front().copied();
        let next = piece.map_or(self.size, |piece| piece.start);
        let shorter = |length: u64| usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        if self.at < next {
            let zeros = shorter(next - self.at);
            buffer[..zeros].fill(0);
            self.at += zeros as u64;
            return Ok(zeros);
        }
        let Some(piece) = piece else { return Ok(0) };
        let end = piece.start + piece.length;
        let want = shorter(end - self.at);
        let got = data.read(&mut buffer[..want])?;
        self.at += got as u64;
        if self.at == end {
            self.pieces.pop_front();
        }
        Ok(got)
    }
}
