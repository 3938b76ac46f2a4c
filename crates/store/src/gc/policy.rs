//! Which items are to go: BuildKit's rules, as a function of what there is. Touches nothing.

use std::cmp::Reverse;

use super::{Item, ItemKind};

/// How full the disk is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All that there is.
    pub total: u64,
    /// What is free for us.
    pub free: u64,
}

/// How much may stay, in bytes. Without any limit nothing may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What stays in any case (`--reserved-space`).
    pub reserved: Option<u64>,
    /// What may stay at the most (`--max-used-space`).
    pub max_used: Option<u64>,
    /// What has to be free on the disk (`--min-free-space`).
    pub min_free: Option<u64>,
}

impl Limits {
    /// What may stay of `used` bytes; `None` if everything has to go.
    fn keep(&self, used: u64, space: Space) -> Option<u64> {
        if *self == Limits::default() {
            return None;
        }
        let mut keep = self.max_used.unwrap_or(u64::MAX);
        if let Some(min_free) = self.min_free
            && space.free < min_free
        {
            keep = keep.min(used.saturating_sub(min_free - space.free));
        }
        // Without another limit, what is reserved is all that stays.
        if self.max_used.is_none() && self.min_free.is_none() {
            keep = 0;
        }
        Some(keep.max(self.reserved.unwrap_or(0)))
    }
}

/// Which items a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these kinds; none means all.
    pub kinds: Vec<ItemKind>,
    /// Only what nobody has used for so many seconds.
    pub unused_for: i64,
    /// Only items whose id begins like this.
    pub ids: Vec<String>,
    /// Only items whose description contains this.
    pub descriptions: Vec<String>,
}

impl Filter {
    /// Whether the filter takes `item` at the time `now`, in seconds since the Unix epoch.
    pub fn takes(&self, item: &Item, now: i64) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&item.kind))
            && now.saturating_sub(item.used) >= self.unused_for
            && (self.ids.is_empty() || self.ids.iter().any(|id| item.id.starts_with(id.as_str())))
            && (self.descriptions.is_empty()
                || self.descriptions.iter().any(|text| item.description.contains(text.as_str())))
    }
}

/// Of what a filter takes, what is over the limits goes; what nobody has used for the longest time first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub filter: Filter,
    /// What may stay.
    pub limits: Limits,
}

const MB: u64 = 1_000_000;
const GB: u64 = 1_000 * MB;
const HOUR: i64 = 3_600;

impl Rule {
    /// BuildKit's default rules, in its order. Cache directories and indexes that nobody has used for two days go when
    /// there is more than half a gigabyte in all; what nobody has used for two months, and then anything, goes when
    /// the cache takes more than four fifths of the disk or 100 GB, or when less than a fifth is free; a tenth of the
    /// disk, up to 10 GB, always stays. `max_used` stands in place of the 100 GB.
    pub fn defaults(space: Space, max_used: Option<u64>) -> Vec<Rule> {
        let limits = Limits {
            reserved: Some((space.total / 10).min(10 * GB)),
            max_used: Some(max_used.unwrap_or((space.total / 5 * 4).min(100 * GB))),
            min_free: Some(space.total / 5),
        };
        // A limit that was asked for counts, even below what would be kept otherwise.
        let limits = Limits { reserved: limits.reserved.min(limits.max_used), ..limits };
        Rule::defaults_with(limits)
    }

    /// The rules of [`Rule::defaults`] with other limits. Cache directories and indexes are treated as there.
    pub fn defaults_with(limits: Limits) -> Vec<Rule> {
        let short_lived = Filter {
            kinds: vec![ItemKind::CacheMount, ItemKind::Context],
            unused_for: 48 * HOUR,
            ..Filter::default()
        };
        let old = Filter { unused_for: 60 * 24 * HOUR, ..Filter::default() };
        vec![
            Rule { filter: short_lived, limits: Limits { max_used: Some(512 * MB), ..Limits::default() } },
            Rule { filter: old, limits },
            Rule { filter: Filter::default(), limits },
        ]
    }
}

/// The items that have to go, of all that there are. What an image has never goes.
pub(super) fn victims(items: &[Item], rules: &[Rule], space: Space, now: i64) -> Vec<usize> {
    let mut used: u64 = items.iter().filter(|item| !item.shared).map(|item| item.size).sum();
    let mut space = space;
    let mut gone = vec![false; items.len()];
    for rule in rules {
        let mut candidates: Vec<usize> = (0..items.len())
            .filter(|at| !gone[*at] && !items[*at].shared && rule.filter.takes(&items[*at], now))
            .collect();
        candidates.sort_by_key(|at| (items[*at].used, items[*at].uses, Reverse(items[*at].depth)));
        // What has to be free does not change by what is freed: both sides grow together.
        let keep = rule.limits.keep(used, space);
        for at in candidates {
            if keep.is_some_and(|keep| used <= keep) {
                break;
            }
            gone[at] = true;
            used = used.saturating_sub(items[at].size);
            space.free = space.free.saturating_add(items[at].size);
        }
    }
    (0..items.len()).filter(|at| gone[*at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, kind: ItemKind, size: u64, used: i64) -> Item {
        let (id, description) = (id.to_owned(), String::new());
        Item {
            kind,
            id,
            size,
            created: used,
            used,
            uses: 1,
            shared: false,
            recorded: true,
            depth: 0,
            description,
        }
    }

    const NOW: i64 = 100 * 24 * HOUR;
    const ROOMY: Space = Space { total: 1_000 * GB, free: 900 * GB };

    fn ids(items: &[Item], rules: &[Rule], space: Space) -> String {
        victims(items, rules, space, NOW).into_iter().map(|at| items[at].id.as_str()).collect()
    }

    #[test]
    fn nothing_goes_by_default_while_there_is_room() {
        let items = [item("a", ItemKind::Layer, 50 * GB, 0), item("b", ItemKind::CacheMount, 400 * MB, 0)];
        // There is more than half a gigabyte, so the old cache directory goes.
        assert_eq!(ids(&items, &Rule::defaults(ROOMY, None), ROOMY), "b");
        assert_eq!(ids(&items[1..], &Rule::defaults(ROOMY, None), ROOMY), "");
    }

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_needed() {
        let items = [
            item("a", ItemKind::Layer, 40 * GB, NOW - 10),
            item("b", ItemKind::Layer, 40 * GB, NOW - 30),
            item("c", ItemKind::Layer, 40 * GB, NOW - 20),
        ];
        assert_eq!(ids(&items, &Rule::defaults(ROOMY, None), ROOMY), "b");
        assert_eq!(ids(&items, &Rule::defaults(ROOMY, Some(50 * GB)), ROOMY), "bc");
    }

    #[test]
    fn a_full_disk_takes_what_is_short_but_not_what_is_reserved() {
        let full = Space { total: 100 * GB, free: 15 * GB };
        let items = [
            item("a", ItemKind::Layer, 6 * GB, NOW - 3),
            item("b", ItemKind::Layer, 6 * GB, NOW - 2),
            item("c", ItemKind::Layer, 6 * GB, NOW - 1),
        ];
        assert_eq!(ids(&items, &Rule::defaults(full, None), full), "a");
        let fuller = Space { total: 100 * GB, free: 0 };
        // 10 GB are reserved: the last 6 GB and what is left of the others would be less.
        assert_eq!(ids(&items, &Rule::defaults(fuller, None), fuller), "ab");
    }

    #[test]
    fn without_limits_all_that_no_image_has_goes() {
        let mut items = vec![item("a", ItemKind::Layer, 1, NOW), item("b", ItemKind::Layer, 1, NOW)];
        items[1].shared = true;
        assert_eq!(ids(&items, &[Rule::default()], ROOMY), "a");
    }

    #[test]
    fn filters() {
        let items = [
            item("a", ItemKind::Layer, 1, NOW - 2 * HOUR),
            item("b", ItemKind::CacheMount, 1, NOW - 2 * HOUR),
            item("c", ItemKind::CacheMount, 1, NOW),
        ];
        let only = |filter| [Rule { filter, limits: Limits::default() }];
        let kinds = Filter { kinds: vec![ItemKind::CacheMount], ..Filter::default() };
        assert_eq!(ids(&items, &only(kinds), ROOMY), "bc");
        let old = Filter { unused_for: HOUR, ..Filter::default() };
        assert_eq!(ids(&items, &only(old), ROOMY), "ab");
        let named = Filter { ids: vec!["c".to_owned()], ..Filter::default() };
        assert_eq!(ids(&items, &only(named), ROOMY), "c");
    }

    #[test]
    fn what_stands_on_others_goes_first() {
        let mut items = vec![item("a", ItemKind::Layer, 1, 0), item("b", ItemKind::Layer, 1, 0)];
        items[1].depth = 1;
        let limits = Limits { max_used: Some(1), ..Limits::default() };
        assert_eq!(ids(&items, &[Rule { filter: Filter::default(), limits }], ROOMY), "b");
    }
}
