//! Interfaces, addresses and routes of one network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::netlink::{Answer, Message, Socket, u32_at};

const IFINFO: usize = 16;
const RTMSG: usize = 12;
/// From `linux/veth.h`, which libc lacks.
const VETH_INFO_PEER: u16 = 1;

/// An interface that takes longer to pass packets does not have to.
const SETTLED: Duration = Duration::from_secs(2);

/// An interface's number.
pub(crate) type Index = u32;

/// Talks about links, addresses and routes.
#[derive(Debug)]
pub(crate) struct Links {
    socket: Socket,
}

/// Where packets for some addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The first of the addresses; any of the family where `length` is 0.
    pub(crate) network: IpAddr,
    /// How many bits of it count.
    pub(crate) length: u8,
}

impl Links {
    /// Of the network namespace that the calling thread is in.
    pub(crate) fn here() -> Result<Self, Errno> {
        Ok(Self { socket: Socket::open(None)? })
    }

    /// The number of an interface.
    pub(crate) fn index(&self, name: &str) -> Result<Index, Errno> {
        let ask = Message::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &info(libc::AF_UNSPEC, 0, 0));
        let answers = self.socket.list(ask.text(libc::IFLA_IFNAME, name))?;
        let link = answers.iter().find(|answer| answer.kind == libc::RTM_NEWLINK);
        link.map(|link| u32_at(&link.body, 4)).ok_or(Errno::NODEV)
    }

    /// The names of all interfaces.
    pub(crate) fn names(&self) -> Result<Vec<String>, Errno> {
        let list = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &info(libc::AF_UNSPEC, 0, 0));
        let answers = self.socket.list(list)?;
        let links = answers.iter().filter(|answer| answer.kind == libc::RTM_NEWLINK);
        let name = |link: &Answer| {
            let found = link.attributes(IFINFO);
            let (_, name) = found.into_iter().find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
            Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        };
        Ok(links.filter_map(name).collect())
    }

    /// Makes a pair of interfaces, one here and one in `other`.
    pub(crate) fn pair(&self, here: &str, there: &str, other: BorrowedFd<'_>) -> Result<Index, Errno> {
        let fd = other.as_raw_fd().cast_unsigned();
        let peer = |peer: Message| peer.text(libc::IFLA_IFNAME, there).number(libc::IFLA_NET_NS_FD, fd);
        let make = make_link(here).nest(libc::IFLA_LINKINFO, &[], |kind| {
            kind.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, &[], |data| {
                data.nest(VETH_INFO_PEER, &info(libc::AF_UNSPEC, 0, 0), peer)
            })
        });
        self.socket.ask(make)?;
        self.index(here)
    }

    /// Has several things done, in the order given.
    pub(crate) fn all(&self, orders: Vec<LinkRequest>) -> Result<(), Errno> {
        let orders = orders.into_iter().map(|order| order.0).collect();
        self.socket.batch(orders).map_err(|refused| refused.errno)
    }

    /// Waits until an interface that is on passes packets: the kernel learns of the other end a moment later, and what
    /// is sent until then is lost, which costs a second.
    pub(crate) fn settle(&self, link: Index) -> Result<(), Errno> {
        const UP: u8 = 6;
        let begun = Instant::now();
        loop {
            let ask = Message::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &info(libc::AF_UNSPEC, link, 0));
            let answers = self.socket.list(ask)?;
            let state = answers.iter().filter(|answer| answer.kind == libc::RTM_NEWLINK).find_map(|answer| {
                let found = answer.attributes(IFINFO);
                found
                    .iter()
                    .find(|(kind, _)| *kind == libc::IFLA_OPERSTATE)
                    .and_then(|(_, value)| value.first().copied())
            });
            // Late is better than not at all.
            if state == Some(UP) || begun.elapsed() > SETTLED {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The routes of the main table.
    pub(crate) fn routes(&self, of: libc::c_int) -> Result<Vec<Route>, Errno> {
        let mut header = [0; RTMSG];
        header[0] = of as u8;
        let answers = self.socket.list(Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &header))?;
        Ok(answers.iter().filter_map(|answer| route(answer, of)).collect())
    }

    /// Whether there is a way to everywhere.
    pub(crate) fn leads_out(&self, of: libc::c_int) -> bool {
        self.routes(of).is_ok_and(|routes| routes.iter().any(|route| route.length == 0))
    }
}

/// Something that [`Links::all`] has done.
#[derive(Debug)]
pub(crate) struct LinkRequest(Message);

/// Switches an interface on.
pub(crate) fn up(link: Index) -> LinkRequest {
    let on = libc::IFF_UP.cast_unsigned();
    LinkRequest(Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &info(libc::AF_UNSPEC, link, on)))
}

/// Gives an interface an address, which nobody else is asked about, and the network of the first `length` bits.
pub(crate) fn address(link: Index, (address, length): (IpAddr, u8)) -> LinkRequest {
    let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut header = vec![family(address), length, flags, libc::RT_SCOPE_UNIVERSE];
    header.extend(link.to_ne_bytes());
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let bytes = octets(address);
    let add = Message::new(libc::RTM_NEWADDR, flags, &header);
    LinkRequest(add.with(libc::IFA_LOCAL, &bytes).with(libc::IFA_ADDRESS, &bytes))
}

/// Sends everything else to `gateway`.
pub(crate) fn default_route(link: Index, gateway: IpAddr) -> LinkRequest {
    let mut header = [0; RTMSG];
    header[0] = family(gateway);
    header[4..8].copy_from_slice(&[
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ]);
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let add = Message::new(libc::RTM_NEWROUTE, flags, &header);
    LinkRequest(add.with(libc::RTA_GATEWAY, &octets(gateway)).number(libc::RTA_OIF, link))
}

fn make_link(name: &str) -> Message {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Message::new(libc::RTM_NEWLINK, flags, &info(libc::AF_UNSPEC, 0, 0)).text(libc::IFLA_IFNAME, name)
}

/// `struct ifinfomsg`, with `flags` to be set.
fn info(family: libc::c_int, index: Index, flags: u32) -> [u8; IFINFO] {
    let mut header = [0; IFINFO];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn route(answer: &Answer, of: libc::c_int) -> Option<Route> {
    let (found, length, table) = (*answer.body.first()?, *answer.body.get(1)?, *answer.body.get(4)?);
    if answer.kind != libc::RTM_NEWROUTE || libc::c_int::from(found) != of || table != libc::RT_TABLE_MAIN {
        return None;
    }
    let destination = answer.attributes(RTMSG).into_iter().find(|(kind, _)| *kind == libc::RTA_DST);
    let bytes = destination.map_or(&[][..], |(_, bytes)| bytes);
    let network = match of {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default()).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()).into(),
    };
    Some(Route { network, length })
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
