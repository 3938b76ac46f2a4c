//! The machine's table of packet rules for one network.
//!
//! ```text
//! table inet lapN                              owned by our socket: the kernel removes it with that
//!   chain out    nat hook postrouting          iifname "lapN" masquerade
//!   chain across filter hook forward           oifname "lapN" ct state established,related accept
//!                                              oifname "lapN" drop
//!   chain tried  filter hook postrouting       iifname "lapN" ip daddr 192.0.2.250 counter drop
//! ```
//! The last chain counts what is sent to try whether the machine's other rules let anything out ([`TRIED`]).
//! So a container reaches what the machine reaches, and nobody reaches a container: neither other containers nor machines
//! that send packets for its address to this one.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::netlink::{Answer, Message, Refused, Socket, attributes};

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const END: u16 = libc::NFNL_MSG_BATCH_END as u16;
const NEW_TABLE: u16 = SUBSYSTEM | libc::NFT_MSG_NEWTABLE as u16;
const GET_TABLE: u16 = SUBSYSTEM | libc::NFT_MSG_GETTABLE as u16;
const DELETE_TABLE: u16 = SUBSYSTEM | libc::NFT_MSG_DELTABLE as u16;
const NEW_CHAIN: u16 = SUBSYSTEM | libc::NFT_MSG_NEWCHAIN as u16;
const GET_CHAIN: u16 = SUBSYSTEM | libc::NFT_MSG_GETCHAIN as u16;
const GET_RULE: u16 = SUBSYSTEM | libc::NFT_MSG_GETRULE as u16;
const NEW_RULE: u16 = SUBSYSTEM | libc::NFT_MSG_NEWRULE as u16;

// From `linux/netfilter/nf_tables.h`.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_USERDATA: u16 = 6;
const TABLE_OWNED: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const SOURCE_NAT: u32 = 100;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const REGISTER: u32 = 1;
const KEY_IIFNAME: u32 = 6;
const KEY_OIFNAME: u32 = 7;
const KEY_PROTOCOL: u32 = 15;
const CT_STATE: u32 = 0;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`, in the machine's order.
const ANSWERS: u32 = 6;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// What names of interfaces and tables of ours begin with.
pub(crate) const PREFIX: &str = "lap";

/// A table that is there as long as this is.
#[derive(Debug)]
pub(crate) struct Table {
    socket: Socket,
    name: String,
    note: Option<u64>,
}

/// Where packets go that are only to be counted: an address for documents, which nobody has. They never leave the machine.
pub(crate) const TRIED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);

impl Table {
    /// How many packets for [`TRIED`] have come past the rules of everybody for forwarded packets.
    pub(crate) fn tried(&self) -> Result<u64, Errno> {
        let list = Message::new(GET_RULE, libc::NLM_F_DUMP, &INET);
        let list = list.text(RULE_TABLE, &self.name).text(RULE_CHAIN, "tried");
        Ok(self.socket.list(list)?.iter().find_map(counted).unwrap_or(0))
    }

    /// Makes the table for the interface `link`, and calls it the same; nothing where another process has it.
    /// `note` is what [`notes`] tells everybody of it.
    pub(crate) fn new(link: &str, note: Option<u64>) -> Result<Option<Self>, Errno> {
        let socket = Socket::owner(NETFILTER)?;
        match socket.batch(batch(link, note)) {
            Ok(()) => Ok(Some(Self { socket, name: link.to_owned(), note })),
            // Without rights it is the first message that is refused, which only begins the batch.
            Err(Refused { at: TABLE, errno: Errno::PERM | Errno::EXIST }) => Ok(None),
            Err(Refused { errno, .. }) => Err(errno),
        }
    }
}

/// Leaves a descriptor to the kernel's collector of sockets. A socket that waits in its own queue is reached by nobody, so
/// the collector frees the queue and closes what is in it: since Linux 6.9 in a thread of the kernel's, before in ours.
fn leave(fd: OwnedFd) -> Result<(), Errno> {
    let (queue, sender) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let sent = [queue.as_fd(), fd.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    ancillary.push(SendAncillaryMessage::ScmRights(&sent));
    rustix::net::sendmsg(&sender, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty())?;
    drop(fd);
    drop(queue);
    // The collector begins when a socket is closed.
    drop(sender);
    Ok(())
}

/// What somebody has noted at a table of ours.
pub(crate) fn notes() -> Result<Vec<Option<u64>>, Errno> {
    let socket = Socket::open(Some(NETFILTER))?;
    let list = Message::new(GET_TABLE, libc::NLM_F_DUMP, &INET);
    let tables = socket.list(list)?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let noted = tables.iter().filter_map(|table| {
        let all = table.attributes(4);
        let of = |wanted| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
        let ours = text(of(TABLE_NAME)?).starts_with(PREFIX);
        let note = of(TABLE_USERDATA).map(text).unwrap_or_default();
        let note = note.split_once(NOTE).map(|(_, note)| note.trim_end_matches('\0'));
        ours.then(|| note.and_then(|note| u64::from_str_radix(note, 16).ok()))
    });
    Ok(noted.collect())
}

impl Table {
    /// What was noted at it.
    pub(crate) fn note(&self) -> Option<u64> {
        self.note
    }

    /// Has the kernel close the socket, some time. To close it takes until every processor has noticed, 15 ms on a busy
    /// machine.
    pub(crate) fn release(self) {
        // Where that cannot be, the socket is closed here and now.
        leave(self.socket.into_fd()).unwrap_or_default();
    }

    /// Removes the table.
    pub(crate) fn remove(&self) {
        let remove = Message::new(DELETE_TABLE, libc::NLM_F_ACK, &INET).text(TABLE_NAME, &self.name);
        self.socket.batch(vec![edge(BEGIN), remove, edge(END)]).unwrap_or_default();
    }
}

/// Where a batch begins or ends.
fn edge(kind: u16) -> Message {
    Message::new(kind, 0, &[0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8])
}

/// What the note of a table begins with.
const NOTE: &str = "lapstrake forwards; before: ";

/// As `nft` keeps and shows comments: a kind, a length, a string ended by a zero.
fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes(), &[0]].concat()
}

/// Where in the batch the table is.
const TABLE: u32 = 2;

fn batch(link: &str, note: Option<u64>) -> Vec<Message> {
    let ack = libc::NLM_F_ACK;
    let create = ack | libc::NLM_F_CREATE;
    // Exclusive: a table of this name would be another's.
    let table = Message::new(NEW_TABLE, create | libc::NLM_F_EXCL, &INET)
        .text(TABLE_NAME, link)
        .big(TABLE_FLAGS, TABLE_OWNED);
    let table = match note {
        Some(note) => table.with(TABLE_USERDATA, &comment(&format!("{NOTE}{note:x}"))),
        None => table,
    };
    let chain = |name: &str, kind: &str, hook, priority| {
        Message::new(NEW_CHAIN, create, &INET)
            .text(CHAIN_TABLE, link)
            .text(CHAIN_NAME, name)
            .nest(CHAIN_HOOK, &[], |at| at.big(HOOK_NUMBER, hook).big(HOOK_PRIORITY, priority))
            .text(CHAIN_TYPE, kind)
    };
    let rule = |chain: &str, expressions: &dyn Fn(Message) -> Message| {
        Message::new(NEW_RULE, create | libc::NLM_F_APPEND, &INET)
            .text(RULE_TABLE, link)
            .text(RULE_CHAIN, chain)
            .nest(RULE_EXPRESSIONS, &[], expressions)
    };
    vec![
        edge(BEGIN),
        table,
        chain("out", "nat", POSTROUTING, SOURCE_NAT),
        chain("across", "filter", FORWARD, 0),
        chain("tried", "filter", POSTROUTING, 0),
        rule("out", &|all| masquerade(interface(all, KEY_IIFNAME, link))),
        rule("across", &|all| verdict(answers(interface(all, KEY_OIFNAME, link)), ACCEPT)),
        rule("across", &|all| verdict(interface(all, KEY_OIFNAME, link), DROP)),
        rule("tried", &|all| verdict(counter(for_tried(interface(all, KEY_IIFNAME, link))), DROP)),
        edge(END),
    ]
}

/// `struct nfgenmsg` of the family for both versions of IP.
const INET: [u8; 4] = [libc::NFPROTO_INET as u8, 0, 0, 0];

fn expression(all: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    all.nest(ELEMENT, &[], |one| one.text(NAME, name).nest(DATA, &[], data))
}

/// The packet goes through the interface `link`.
fn interface(all: Message, key: u32, link: &str) -> Message {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(link.bytes()) {
        *to = from;
    }
    let all = expression(all, "meta", |data| data.big(2, key).big(1, REGISTER));
    compare(all, EQUAL, &name)
}

/// The packet belongs to a connection that was there.
fn answers(all: Message) -> Message {
    let all = expression(all, "ct", |data| data.big(2, CT_STATE).big(1, REGISTER));
    let all = expression(all, "bitwise", |data| {
        let data = data.big(1, REGISTER).big(2, REGISTER).big(3, 4);
        data.nest(4, &[], |mask| mask.number(1, ANSWERS)).nest(5, &[], |xor| xor.number(1, 0))
    });
    compare(all, UNEQUAL, &[0; 4])
}

fn compare(all: Message, how: u32, with: &[u8]) -> Message {
    expression(all, "cmp", |data| data.big(1, REGISTER).big(2, how).nest(3, &[], |value| value.with(1, with)))
}

/// The packet is one of IPv4 for [`TRIED`].
fn for_tried(all: Message) -> Message {
    const NETWORK_HEADER: u32 = 1;
    let all = expression(all, "meta", |data| data.big(2, KEY_PROTOCOL).big(1, REGISTER));
    let all = compare(all, EQUAL, &[libc::NFPROTO_IPV4 as u8]);
    let all =
        expression(all, "payload", |data| data.big(1, REGISTER).big(2, NETWORK_HEADER).big(3, 16).big(4, 4));
    compare(all, EQUAL, &TRIED.octets())
}

fn counter(all: Message) -> Message {
    expression(all, "counter", |data| data)
}

/// What the counter of a rule says.
fn counted(rule: &Answer) -> Option<u64> {
    const PACKETS: u16 = 2;
    let of = |all: Vec<(u16, &[u8])>, wanted: u16| {
        all.into_iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec())
    };
    let expressions = of(rule.attributes(4), RULE_EXPRESSIONS)?;
    attributes(&expressions).into_iter().find_map(|(_, one)| {
        let name = of(attributes(one), NAME)?;
        let data = of(attributes(one), DATA).filter(|_| name.starts_with(b"counter"))?;
        Some(u64::from_be_bytes(of(attributes(&data), PACKETS)?.try_into().ok()?))
    })
}

fn masquerade(all: Message) -> Message {
    expression(all, "masq", |data| data)
}

fn verdict(all: Message, verdict: u32) -> Message {
    expression(all, "immediate", |data| {
        data.big(1, 0).nest(2, &[], |value| value.nest(2, &[], |code| code.big(1, verdict)))
    })
}

/// A chain of anybody's through which forwarded packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    family: u8,
    pub(crate) table: String,
    name: String,
    drops: bool,
}

impl Chain {
    /// `FAMILY TABLE CHAIN`, as `nft` has it.
    pub(crate) fn shown(&self) -> String {
        let family = if i32::from(self.family) == libc::NFPROTO_INET { "inet" } else { "ip" };
        format!("{family} {} {}", self.table, self.name)
    }
}

/// All chains through which forwarded packets of IPv4 go.
pub(crate) fn chains() -> Result<Vec<Chain>, Errno> {
    let socket = Socket::open(Some(NETFILTER))?;
    let list = Message::new(GET_CHAIN, libc::NLM_F_DUMP, &[libc::NFPROTO_UNSPEC as u8, 0, 0, 0]);
    Ok(socket.list(list)?.iter().filter_map(chain).collect())
}

/// Those that drop what no rule of theirs lets through, and in whose tables no rule is about interfaces of ours.
pub(crate) fn dropping() -> Result<Vec<String>, Errno> {
    let socket = Socket::open(Some(NETFILTER))?;
    let mut all = Vec::new();
    for chain in chains()?.into_iter().filter(|chain| chain.drops) {
        let rules =
            Message::new(GET_RULE, libc::NLM_F_DUMP, &[chain.family, 0, 0, 0]).text(RULE_TABLE, &chain.table);
        if !socket.list(rules)?.iter().any(|rule| names_us(&rule.body)) {
            all.push(chain.shown());
        }
    }
    Ok(all)
}

/// Whether a rule compares something with a name that begins as our interfaces do.
fn names_us(rule: &[u8]) -> bool {
    // The value's own attribute has the kind 1, in the machine's order.
    let [low, high] = 1_u16.to_ne_bytes();
    rule.windows(5).any(|bytes| bytes == [low, high, b'l', b'a', b'p'])
}

fn chain(answer: &Answer) -> Option<Chain> {
    let family = *answer.body.first()?;
    if !matches!(i32::from(family), libc::NFPROTO_INET | libc::NFPROTO_IPV4) {
        return None;
    }
    let found = answer.attributes(4);
    let of = |wanted: u16| found.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let text =
        |wanted| of(wanted).map(|value| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
    let hook = attributes(of(CHAIN_HOOK)?);
    let number = hook.iter().find(|(kind, _)| *kind == HOOK_NUMBER).map(|(_, value)| *value)?;
    let drops = of(CHAIN_POLICY) == Some(&DROP.to_be_bytes()[..]);
    (number == FORWARD.to_be_bytes())
        .then(|| Some(Chain { family, table: text(CHAIN_TABLE)?, name: text(CHAIN_NAME)?, drops }))?
}
