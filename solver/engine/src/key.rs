//! Cache keys: BLAKE3 over tagged, length-prefixed parts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A cache key or the digest of some content: 32 bytes, 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Key {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Key, blake3::HexError> {
        Ok(Key(*blake3::Hash::from_hex(text)?.as_bytes()))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Key, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

/// Hashes parts so that no two different lists of parts give the same bytes: each part is its tag's length, its tag,
/// its value's length and its value, lengths as 8 bytes little-endian.
pub struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// A hasher for keys of `domain`. The domain carries the version of what is hashed.
    pub fn new(domain: &str) -> KeyHasher {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        hasher.bytes(domain.as_bytes());
        hasher
    }

    /// Takes in one part.
    #[must_use]
    pub fn part(mut self, tag: &str, value: &[u8]) -> KeyHasher {
        self.bytes(tag.as_bytes());
        self.bytes(value);
        self
    }

    /// The key of everything taken in.
    pub fn finish(self) -> Key {
        Key(*self.0.finalize().as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let one = KeyHasher::new("t").part("ab", b"c").finish();
        let two = KeyHasher::new("t").part("a", b"bc").finish();
        let three = KeyHasher::new("t").part("ab", b"").part("c", b"").finish();
        assert!(one != two && two != three && one != three);
        assert_eq!(one.to_string().parse::<Key>().unwrap(), one);
    }
}
