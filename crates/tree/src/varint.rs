//! Numbers and byte strings of the crate's binary forms: LEB128, zig-zag, length-prefixed. Total on any input.

use crate::error::TreeError;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A reader over a buffer that fails instead of panicking.
#[derive(Debug)]
pub(crate) struct Cursor<'b> {
    rest: &'b [u8],
    what: &'static str,
}

impl<'b> Cursor<'b> {
    /// `what` names the thing being decoded in errors.
    pub(crate) fn new(rest: &'b [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    fn corrupt(&self, why: &'static str) -> TreeError {
        TreeError::Corrupt { what: self.what, why }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'b [u8], TreeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.corrupt("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, TreeError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], TreeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, TreeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number is too long"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, TreeError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, TreeError> {
        u32::try_from(self.varint()?).map_err(|_| self.corrupt("a number is too big"))
    }

    pub(crate) fn length(&mut self) -> Result<usize, TreeError> {
        usize::try_from(self.varint()?).map_err(|_| self.corrupt("a length is too big"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], TreeError> {
        let len = self.length()?;
        self.take(len)
    }
}
