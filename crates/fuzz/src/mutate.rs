//! Changes to inputs that are the same for the same seed, on any machine.

/// Makes new inputs of old ones.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Starts anywhere; the same `seed` gives the same changes.
    pub fn new(seed: u64) -> Mutator {
        Mutator { state: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    /// A number below `end`, which is more than 0 (xorshift64*).
    pub fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let mixed = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(mixed % end as u64).unwrap_or(0)
    }

    /// One of `seeds` with some changes: bytes, words of the dictionary, parts of itself and of the others.
    pub fn input(&mut self, seeds: &[Vec<u8>], dictionary: &[String], longest: usize) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes, seeds, dictionary);
        }
        bytes.truncate(longest);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dictionary: &[String]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(40) + 1);
        match self.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let byte = u8::try_from(self.below(256)).unwrap_or_default();
                bytes.insert(at, byte);
            }
            2 | 3 => {
                let word = dictionary[self.below(dictionary.len())].as_bytes();
                bytes.splice(at..at, word.iter().copied());
            }
            4 => {
                let copied = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copied);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                let to = from + self.below((other.len() - from).min(80) + 1);
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}
