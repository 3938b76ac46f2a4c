//! Networks of a container's own with a way out: made ahead, used again, gone with their maker.
//!
//! ```text
//! who has the right (root)                        who has not
//!
//! machine     lapN ── 10.209.N.1, nft table       machine     pasta or slirp4netns, a program for each
//!              │      (masquerade, no way in)                   │ (sockets of an ordinary user)
//! container   eth0, and loopback                  container   tap, and loopback
//! ```
//! Nothing is left behind, however this process ends: namespaces live by our descriptors and the processes in them, the
//! interface of the machine goes with its other end in the container's namespace, the table belongs to our socket
//! (`NFT_TABLE_F_OWNER`), the helpers die with the thread that started them. The kernel does all of this in threads of its
//! own, and nobody waits for it. `net.ipv4.ip_forward` is switched off again with the last network (`forwarding`), unless
//! somebody else may count on it by then, or all processes that knew were killed.
//!
//! Speaks netlink by itself: the crates for it bring an async runtime (`rtnetlink`) or a C library or program
//! (`nftables`, `rustables`), for a dozen kinds of messages.
//!
//! Does not know containers, images or builds.

mod error;
mod forwarding;
mod helper;
mod link;
mod namespace;
mod nat;
mod netlink;
mod nft;
mod pool;
mod relay;

pub use error::NetError;
pub use nat::advice;
pub use pool::{Choice, Lease, Networks, Way};
pub use relay::RELAY;
