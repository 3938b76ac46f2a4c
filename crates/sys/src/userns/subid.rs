//! `/etc/subuid`, `/etc/subgid` and `/proc/PID/uid_map`: text to ranges and back.
//!
//! Pure.

/// `count` ids from `inside` on in the namespace that are those from `outside` on outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

/// The kernel takes 340 lines since 4.15; nobody has this many.
const MAX_RANGES: usize = 339;

/// The name of `uid` in the text of a `/etc/passwd`.
pub(super) fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found = fields.nth(1)?.parse() == Ok(uid);
        found.then(|| name.to_owned())
    })
}

/// `own` as id 0, then the ranges that `text` gives to `user` (or to `uid`, by number) as 1, 2, …
pub(super) fn ranges(text: &str, user: &str, uid: u32, own: u32) -> Option<Vec<Range>> {
    let mut found = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut next = 1_u32;
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        if owner != user && owner.parse() != Ok(uid) {
            continue;
        }
        let (Some(Ok(start)), Some(Ok(count))) =
            (fields.next().map(str::parse::<u32>), fields.next().map(str::parse::<u32>))
        else {
            continue;
        };
        let Some(end) = next.checked_add(count) else { break };
        if count == 0 || start.checked_add(count).is_none() || found.len() >= MAX_RANGES {
            continue;
        }
        found.push(Range { inside: next, outside: start, count });
        next = end;
    }
    (found.len() > 1).then_some(found)
}

/// How many ids a user is given as a rule: as many as a container can name.
const USUAL: u32 = 1 << 16;
/// Where ranges begin as a rule (`SUB_UID_MIN` of `login.defs(5)`).
const FIRST: u32 = 100_000;

/// The first range of [`USUAL`] ids, as first and last, that no line of the texts gives to anybody.
pub(super) fn free<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<(u32, u32)> {
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for line in texts.into_iter().flat_map(str::lines) {
        let mut numbers = line.trim().split(':').skip(1).map(str::parse::<u32>);
        if let (Some(Ok(start)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
            taken.push((start.into(), u64::from(start) + u64::from(count)));
        }
    }
    taken.sort_unstable();
    let mut start = u64::from(FIRST);
    for (from, to) in taken {
        if from >= start + u64::from(USUAL) {
            break;
        }
        start = start.max(to);
    }
    // The last id of all means none.
    let last = u32::try_from(start + u64::from(USUAL) - 1).ok().filter(|last| *last < u32::MAX)?;
    Some((u32::try_from(start).ok()?, last))
}

/// The ids that exist in a namespace by its `uid_map`, each mapped to itself.
pub(super) fn identity(map: &str) -> Vec<Range> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let (Some(Ok(inside)), _, Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next())
            else {
                return None;
            };
            Some(Range { inside, outside: inside, count })
        })
        .collect()
}

/// The lines to write to a `uid_map`.
pub(super) fn lines(ranges: &[Range]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

/// How many ids there are.
pub(super) fn count(ranges: &[Range]) -> u32 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(range.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_range_is_nobodys() {
        assert_eq!(free([]), Some((100_000, 165_535)));
        assert_eq!(free(["ann:100000:65536\n", "bob:165536:65536\n"]), Some((231_072, 296_607)));
        assert_eq!(free(["ann:231072:65536\nbob:100000:65536\n"]), Some((165_536, 231_071)));
        // A gap that is too narrow, an overlap, and lines that mean nothing.
        assert_eq!(free(["a:100000:10\nb:150000:100000\nx\ny:z:1\n"]), Some((250_000, 315_535)));
        assert_eq!(free(["a:99999:2\n"]), Some((100_001, 165_536)));
        assert_eq!(free(["a:100000:4294867295\n"]), None);
    }

    #[test]
    fn ranges_go_by_name_and_by_number() {
        let text = "# comment\nann:100000:65536\nbob:165536:65536\n1001:300000:10\nbob:nonsense\nbob:5:0\n";
        let of = |inside, outside, count| Range { inside, outside, count };
        for (user, uid, expected) in [
            ("ann", 1000, Some(vec![of(0, 1000, 1), of(1, 100_000, 65_536)])),
            ("bob", 1001, Some(vec![of(0, 1001, 1), of(1, 165_536, 65_536), of(65_537, 300_000, 10)])),
            ("eve", 1002, None),
        ] {
            assert_eq!(ranges(text, user, uid, uid), expected, "{user}");
        }
    }

    #[test]
    fn a_range_that_overflows_is_not_used() {
        assert_eq!(ranges("a:4294967290:100\n", "a", 1, 1), None);
    }

    #[test]
    fn names_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 7), None);
    }

    #[test]
    fn identity_keeps_what_exists() {
        let map = "         0     100000      65536\n     70000   1 5\n";
        let ranges = identity(map);
        assert_eq!(lines(&ranges), "0 0 65536\n70000 70000 5\n");
        assert_eq!(count(&ranges), 65_541);
    }
}
