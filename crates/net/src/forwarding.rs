//! `net.ipv4.ip_forward`, on for as long as a network of ours needs it.
//!
//! Each network has a table of packet rules, which goes with its process. Where the machine did not forward before, the table
//! has a note: a hash of the interfaces and chains of others at that time. Tables that come while such a one is there get
//! the same note, if nothing of others has changed. Whoever removes the last table switches forwarding off again, if its note
//! still holds: else somebody else may count on it, and it stays on, which is what every other tool leaves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::error::{NetError, cannot};
use crate::link::Links;
use crate::nft::{self, PREFIX, Table};

/// Where IPv4 packets are passed on if it is 1.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Keeps other processes that use this network namespace from doing the same; goes when it is dropped.
fn lock() -> Option<File> {
    /// Anybody in the namespace may hold the lock and be stopped.
    const PATIENCE: Duration = Duration::from_secs(5);
    let file = File::open("/proc/thread-self/ns/net").ok()?;
    let begun = Instant::now();
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if begun.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Some(file)
}

/// Makes the table of a network and has the machine forward; nothing where another process has the table.
pub(crate) fn begin(name: &str) -> Result<Option<Table>, NetError> {
    let _lock = lock();
    let forwards = reads(FORWARD, "1");
    let before = others();
    // Where it is on, it was off before if a table says so.
    let is_noted = || nft::notes().unwrap_or_default().contains(&Some(before));
    let note = (!forwards || is_noted()).then_some(before);
    let table = Table::new(name, note).map_err(cannot("make a table of packet rules"))?;
    if table.is_some() && !forwards {
        switch_on()?;
    }
    Ok(table)
}

/// Has the machine forward, should somebody have switched that off.
pub(crate) fn keep() -> Result<(), NetError> {
    if reads(FORWARD, "1") { Ok(()) } else { switch_on() }
}

fn switch_on() -> Result<(), NetError> {
    fs::write(FORWARD, "1").map_err(|source| NetError::Kernel { action: "set net.ipv4.ip_forward", source })
}

/// Removes the table of a network, and switches forwarding off if nobody needs it any more.
///
/// The table is removed here and now. A table that went with its socket would be counted for a while as one that needs
/// forwarding.
pub(crate) fn end(table: Table) {
    let Some(before) = table.note() else {
        table.remove();
        return table.release();
    };
    let lock = lock();
    table.remove();
    let is_last = || nft::notes().is_ok_and(|notes| notes.is_empty());
    // Without the lock somebody may begin this very moment.
    if lock.is_some() && is_last() && others() == before {
        fs::write(FORWARD, "0").unwrap_or_default();
    }
    drop(lock);
    table.release();
}

/// A hash of the interfaces and chains of packet rules that may count on forwarding and are not ours.
///
/// The kernel lists the interfaces in one piece. `/proc/net/dev` is read in several: interfaces that go meanwhile, as ours
/// do, would hide others.
fn others() -> u64 {
    let links = Links::here().and_then(|links| links.names()).unwrap_or_default();
    let links: BTreeSet<&String> = links.iter().filter(|link| !link.starts_with(PREFIX)).collect();
    let chains = nft::chains().unwrap_or_default();
    let chains = chains.iter().filter(|chain| !chain.table.starts_with(PREFIX)).map(nft::Chain::shown);
    let chains: BTreeSet<String> = chains.collect();
    let mut hasher = DefaultHasher::new();
    (links, chains).hash(&mut hasher);
    hasher.finish()
}

/// Whether a setting of the kernel's has this value.
pub(crate) fn reads(path: &str, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}
