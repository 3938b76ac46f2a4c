//! The SHA-256 of a layer's tar, and states of that hash from which another one can go on.
//!
//! SHA-256 reads from the first byte to the last: one changed file would have all files read again. So the state of the
//! hash is kept every few megabytes, at ends of entries. A tar that begins with the same entries is hashed from the last
//! state that they share. Which entries those are is told by their digest, and not by another tree.
//!
//! ```text
//! "LSTARH"  u8 version  varint count  states  16 bytes: blake3 of all before, cut
//! state   = varint number of entries, 32 bytes: blake3 of these entries (as in L digests), the state as sha2 writes it
//! ```

use std::fs::File;
use std::io::{self, Write};

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use super::{TarOptions, Writer, ahead};
use crate::entry::Entry;
use crate::error::TreeError;
use crate::path::TreePath;
use crate::tree::{Tree, put_entry};
use crate::varint::{Cursor, put_varint};

/// At least so many bytes of tar are between two states: hashing them takes a few milliseconds.
const STRIDE: u64 = 4 << 20;

const MAGIC: &[u8; 6] = b"LSTARH";
/// The number changes with the states, and with the bytes of the tar.
const VERSION: u8 = 1;
const CONTEXT: &str = "lapstrake tar entries 1";
const CHECK: usize = 16;
const WHAT: &str = "states of a hash";
/// How many bytes of entries are hashed at once.
const PIECE: usize = 64 << 10;

/// The sha256 of the tar that [`super::write_layer`] would write with default options: the layer's diff id. `known` are
/// states of this or another layer's; they become those of this one.
///
/// # Errors
/// As [`super::write_layer`].
pub fn diff_id<O: FnMut(&TreePath) -> io::Result<File>>(
    tree: &Tree,
    opener: impl Fn() -> O + Sync,
    known: &mut HashStates,
) -> Result<[u8; 32], TreeError> {
    let entries = tree.entries();
    let (mut prefix, hasher) = known.resume(entries);
    let first = prefix.entries;
    let mut writer = Writer::new(Hashing(hasher), &TarOptions::default());
    let mut last = 0;
    ahead::write(&entries[first..], &opener, &mut writer, |writer, done| {
        if writer.written - last >= STRIDE {
            last = writer.written;
            prefix.extend_to(entries, first + done);
            let state = writer.out.0.serialize();
            known.0.push(State { entries: prefix.entries, digest: prefix.digest(), state });
        }
    })?;
    writer.end()?;
    Ok(writer.out.0.finalize().into())
}

/// States of the hash of a layer's tar, the earliest first.
#[derive(Clone, Debug, Default)]
pub struct HashStates(Vec<State>);

#[derive(Clone, Debug)]
struct State {
    /// How many entries the hash has read.
    entries: usize,
    /// Their digest.
    digest: [u8; 32],
    state: SerializedState<Sha256>,
}

impl HashStates {
    /// Keeps the states that a tar of `entries` goes through, and returns where the last of them leaves off.
    fn resume(&mut self, entries: &[Entry]) -> (Prefix, Sha256) {
        let (mut prefix, mut hasher) = (Prefix::default(), Sha256::new());
        let mut kept = 0;
        for state in &self.0 {
            let mut longer = prefix.clone();
            if state.entries < prefix.entries || state.entries > entries.len() {
                break;
            }
            longer.extend_to(entries, state.entries);
            let Ok(resumed) = Sha256::deserialize(&state.state) else { break };
            if longer.digest() != state.digest {
                break;
            }
            (prefix, hasher, kept) = (longer, resumed, kept + 1);
        }
        self.0.truncate(kept);
        (prefix, hasher)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: the tar is short.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        put_varint(&mut out, self.0.len() as u64);
        for state in &self.0 {
            put_varint(&mut out, state.entries as u64);
            out.extend_from_slice(&state.digest);
            out.extend_from_slice(&state.state);
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(&check.as_bytes()[..CHECK]);
        out
    }

    /// Reads the binary form back.
    ///
    /// # Errors
    /// [`TreeError::Version`] for another format version, [`TreeError::Corrupt`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let corrupt = |why| TreeError::Corrupt { what: WHAT, why };
        let (body, check) = bytes.split_last_chunk::<CHECK>().ok_or_else(|| corrupt("they are cut short"))?;
        let rest = body.strip_prefix(MAGIC).ok_or_else(|| corrupt("they do not start as such"))?;
        let (&found, rest) = rest.split_first().ok_or_else(|| corrupt("they are cut short"))?;
        if found != VERSION {
            return Err(TreeError::Version { what: WHAT, found, expected: VERSION });
        }
        if blake3::hash(body).as_bytes()[..CHECK] != check[..] {
            return Err(corrupt("their digest is another one"));
        }
        let mut cursor = Cursor::new(rest, WHAT);
        let count = cursor.varint()?;
        let mut states = Vec::new();
        for _ in 0..count {
            let entries = usize::try_from(cursor.varint()?).map_err(|_| corrupt("a number is too large"))?;
            let digest = cursor.array()?;
            let mut state = SerializedState::<Sha256>::default();
            let bytes = cursor.take(state.len())?;
            state.copy_from_slice(bytes);
            states.push(State { entries, digest, state });
        }
        if cursor.remaining() > 0 { Err(corrupt("something follows them")) } else { Ok(Self(states)) }
    }
}

/// The digest of the first entries of a tree.
#[derive(Clone)]
struct Prefix {
    entries: usize,
    hasher: blake3::Hasher,
}

impl Default for Prefix {
    fn default() -> Self {
        Self { entries: 0, hasher: blake3::Hasher::new_derive_key(CONTEXT) }
    }
}

impl Prefix {
    /// Takes in the entries up to number `end`.
    fn extend_to(&mut self, entries: &[Entry], end: usize) {
        let mut buffer = Vec::with_capacity(PIECE);
        for entry in &entries[self.entries..end] {
            put_entry(&mut buffer, entry);
            if buffer.len() >= PIECE {
                self.hasher.update(&buffer);
                buffer.clear();
            }
        }
        self.hasher.update(&buffer);
        self.entries = end;
    }

    fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::tree::tests::file;

    const SIZE: usize = 1 << 20;

    fn tree(last: &[u8]) -> Tree {
        let mut entries: Vec<Entry> =
            (0..16).map(|number| file(&format!("f{number:02}"), &vec![number; SIZE])).collect();
        entries.push(file("z", last));
        Tree::from_entries(entries).unwrap()
    }

    type Opener<'c> = Box<dyn FnMut(&TreePath) -> io::Result<File> + 'c>;

    /// Opens files as [`tree`] has them, and counts them.
    fn files<'c>(last: &'c [u8], opened: &'c AtomicUsize) -> impl Fn() -> Opener<'c> + Sync {
        move || {
            Box::new(move |path| {
                opened.fetch_add(1, Ordering::Relaxed);
                let number = String::from_utf8_lossy(path.name()).strip_prefix('f').map(str::parse::<u8>);
                let mut file = tempfile::tempfile()?;
                match number {
                    Some(number) => file.write_all(&vec![number.unwrap(); SIZE])?,
                    None => file.write_all(last)?,
                }
                file.rewind()?;
                Ok(file)
            })
        }
    }

    fn hash(last: &[u8], known: &mut HashStates) -> ([u8; 32], usize) {
        let opened = AtomicUsize::new(0);
        let digest = diff_id(&tree(last), files(last, &opened), known).unwrap();
        (digest, opened.into_inner())
    }

    #[test]
    fn only_what_comes_after_a_shared_state_is_read() {
        let mut states = HashStates::default();
        let (first, opened) = hash(b"x", &mut states);
        assert_eq!((opened, states.len()), (17, 4));
        let decoded = HashStates::decode(&states.encode()).unwrap();
        for known in [states, decoded] {
            let mut known = known;
            assert_eq!(hash(b"x", &mut known.clone()), (first, 1));
            let (second, opened) = hash(b"yy", &mut known);
            assert_eq!((opened, known.len()), (1, 4));
            assert_eq!(second, hash(b"yy", &mut HashStates::default()).0);
            assert_ne!(second, first);
        }
    }

    #[test]
    fn states_of_other_entries_are_dropped() {
        let mut states = HashStates::default();
        hash(b"x", &mut states);
        let other = Tree::from_entries(vec![file("a", b"x")]).unwrap();
        let open = || {
            |_: &TreePath| {
                let mut file = tempfile::tempfile()?;
                file.write_all(b"x")?;
                file.rewind()?;
                Ok(file)
            }
        };
        let digest = diff_id(&other, open, &mut states).unwrap();
        assert!(states.is_empty());
        assert_eq!(digest, diff_id(&other, open, &mut HashStates::default()).unwrap());
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let mut states = HashStates::default();
        hash(b"x", &mut states);
        let good = states.encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(HashStates::decode(&bad).is_err(), "{at}");
            assert!(HashStates::decode(&good[..at]).is_err(), "{at}");
        }
    }
}
