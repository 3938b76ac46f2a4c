//! PAX extended header records, written and read. Not the tar crate's reader: that one splits at line ends, which
//! may occur inside a value (a capability is binary).

use std::collections::BTreeMap;

/// Key prefix of extended attributes.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records of one entry, sorted by key so that their bytes depend on nothing else.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pax {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records.insert(key.to_vec(), value.to_vec());
    }

    /// The oldest form of sparse files repeats two records: they become the one of the next form.
    fn add_to_map(&mut self, number: &[u8]) -> Result<(), &'static str> {
        if number.contains(&b',') {
            return Err("its map of holes is not of numbers");
        }
        let map = self.records.entry(b"GNU.sparse.map".to_vec()).or_default();
        if !map.is_empty() {
            map.push(b',');
        }
        map.extend_from_slice(number);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.records.get(key).map(Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in &self.records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut len = rest + decimal_len(rest);
            if decimal_len(len) != decimal_len(rest) {
                len = rest + decimal_len(len);
            }
            out.extend_from_slice(format!("{len} ").as_bytes());
            out.extend_from_slice(key);
            out.push(b'=');
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out
    }

    /// Reads records; the reason when they are malformed. An empty value takes an earlier record back.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or("a PAX record has no length")?;
            let len = std::str::from_utf8(&bytes[..space]).ok().and_then(|t| t.parse::<usize>().ok());
            let len = len.filter(|&len| len > space + 1 && len <= bytes.len());
            let (record, rest) = bytes.split_at(len.ok_or("a PAX record has a wrong length")?);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or("a PAX record has no end")?;
            let equals = record.iter().position(|&b| b == b'=').ok_or("a PAX record has no value")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                pax.add_to_map(value)?;
            } else if value.is_empty() {
                pax.records.remove(key);
            } else {
                pax.add(key, value);
            }
            bytes = rest;
        }
        Ok(pax)
    }
}

fn decimal_len(number: usize) -> usize {
    number.to_string().len()
}

/// Seconds with as many decimals as needed, of a time in nanoseconds.
pub(crate) fn format_time(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let (seconds, fraction) = (ns.unsigned_abs() / 1_000_000_000, ns.unsigned_abs() % 1_000_000_000);
    let text = format!("{sign}{seconds}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The inverse of [`format_time`], saturating; digits beyond nanoseconds are dropped.
pub(crate) fn parse_time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) {
        return None;
    }
    let seconds = seconds.parse::<i64>().unwrap_or(i64::MAX);
    let fraction = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let fraction = fraction.fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let ns = seconds.saturating_mul(1_000_000_000).saturating_add(fraction);
    Some(if negative { -ns } else { ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for len in [1, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 988, 989, 990, 991, 992, 993] {
            let mut pax = Pax::default();
            pax.add(b"path", &vec![b'x'; len]);
            pax.add(b"SCHILY.xattr.a", b"\n=\n12 \n");
            let back = Pax::decode(&pax.encode()).unwrap();
            assert_eq!(back.records, pax.records, "{len}");
        }
    }

    #[test]
    fn malformed_records() {
        for bad in [
            "x",
            "5",
            "5 a=b",
            "99 a=b\n",
            "0 a=b\n",
            "3 \n",
            "18446744073709551616 a=b\n",
            "6 abc\n",
            "6 a=bc",
        ] {
            assert!(Pax::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Pax::decode(b"6 a=b\n5 a=\n").unwrap().is_empty());
    }

    #[test]
    fn times() {
        let cases = [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (-1_500_000_000, "-1.5"),
            (-1, "-0.000000001"),
        ];
        for (ns, text) in cases {
            assert_eq!(format_time(ns), text);
            assert_eq!(parse_time(text.as_bytes()), Some(ns));
        }
        assert_eq!(parse_time(b"99999999999999999999"), Some(i64::MAX));
        assert_eq!(parse_time(b"1.0000000019"), Some(1_000_000_001));
        for bad in ["", ".5", "1e3", "+1", "--1"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }
}
