//! The way out for who may change the machine's network: a wire, and addresses translated by the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{NetError, cannot};
use crate::forwarding::{self, reads};
use crate::link::{self, Links, Route};
use crate::namespace::Namespace;
use crate::nft::{self, PREFIX, Table};

/// Where IPv6 packets are passed on if it is 1. Switching it on makes the machine deaf to its routers, so it stays as it is.
const FORWARD6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The machine's own number in each network.
const GATEWAY: u8 = 1;
/// The container's number in its network.
const CONTAINER: u8 = 2;

/// A container's wire to the machine.
#[derive(Debug)]
pub(crate) struct VethPair {
    number: u8,
    table: Option<Table>,
}

/// A namespace with a wire to the machine, in the first network that nobody has.
pub(crate) fn connect() -> Result<(Namespace, VethPair), NetError> {
    let machine = Links::here().map_err(cannot("talk about the network"))?;
    let namespace = Namespace::new().map_err(cannot("make a network namespace"))?;
    let ipv6 = reads(FORWARD6, "1") && machine.leads_out(libc::AF_INET6);
    loop {
        let wire = claim(&machine)?;
        match wire.lay(&machine, &namespace, ipv6) {
            // Its owner has gone, else we had not got the table, and the kernel has not cleaned up yet.
            Err(Errno::EXIST) => {}
            laid => {
                laid.map_err(cannot("wire a container to the machine's network"))?;
                return Ok((namespace, wire));
            }
        }
    }
}

impl VethPair {
    fn lay(&self, machine: &Links, namespace: &Namespace, ipv6: bool) -> Result<(), Errno> {
        let networks = || [v4 as fn(u8, u8) -> (IpAddr, u8), v6].into_iter().take(if ipv6 { 2 } else { 1 });
        let link = machine.pair(&name(self.number), "eth0", namespace.as_fd())?;
        let eth0 = namespace.links.index("eth0")?;
        let addresses = networks().map(|network| link::address(link, network(self.number, GATEWAY)));
        machine.all(addresses.chain([link::up(link)]).collect())?;
        let inside = networks().map(|network| link::address(eth0, network(self.number, CONTAINER)));
        let routes = networks().map(|network| link::default_route(eth0, network(self.number, GATEWAY).0));
        namespace.links.all(inside.chain([link::up(eth0)]).chain(routes).collect())?;
        machine.settle(link)?;
        namespace.links.settle(eth0)
    }

    /// Whether the machine's packet rules let pass what a container sends, tried by sending something. The machine has to
    /// forward. Where there is no way to everywhere, nothing is tried.
    pub(crate) fn lets_out(&self, container: &Namespace) -> bool {
        /// On a busy machine a packet may take a while from one end to the other.
        const PATIENCE: Duration = Duration::from_millis(300);
        let machine = Links::here();
        if !machine.is_ok_and(|machine| machine.leads_out(libc::AF_INET)) {
            return true;
        }
        let send = || -> Result<(), Errno> {
            let socket = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, socket, None)?;
            match rustix::net::connect(&socket, &SocketAddrV4::new(nft::TRIED, 443)) {
                Err(Errno::INPROGRESS) => Ok(()),
                sent => sent,
            }
        };
        let tried = || self.table.as_ref().map_or(Ok(0), Table::tried);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // A rule that rejects is an error here; it has been said by the count that stays.
            container.within(send).unwrap_or_default();
            for wait in [0, 1, 2, 4, 8, 16] {
                std::thread::sleep(Duration::from_millis(wait));
                // What cannot be counted is no reason to do without.
                if tried().is_ok_and(|count| count > 0) {
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        if let Some(table) = self.table.take() {
            forwarding::end(table);
        }
    }
}

/// The first network that no route of the machine leads to and no other process has. Interfaces of networks that have
/// gone stay for a moment, and so do their routes.
fn claim(machine: &Links) -> Result<VethPair, NetError> {
    let routes = machine.routes(libc::AF_INET).map_err(cannot("read the routes"))?;
    for number in 0..u8::MAX {
        if routes.iter().any(|route| overlaps(route, number)) || machine.index(&name(number)).is_ok() {
            continue;
        }
        if let Some(table) = forwarding::begin(&name(number))? {
            return Ok(VethPair { number, table: Some(table) });
        }
    }
    Err(NetError::NoAddress)
}

fn name(number: u8) -> String {
    format!("{PREFIX}{number}")
}

/// An address in a network, and how many bits of it are the network's.
fn v4(network: u8, host: u8) -> (IpAddr, u8) {
    (Ipv4Addr::new(10, 209, network, host).into(), 24)
}

fn v6(network: u8, host: u8) -> (IpAddr, u8) {
    (Ipv6Addr::new(0xfd6c, 0x6170, 0x7374, network.into(), 0, 0, 0, host.into()).into(), 64)
}

/// Whether a route other than the one to everywhere has addresses of ours. One that a switch of ours has made has.
fn overlaps(route: &Route, number: u8) -> bool {
    let (IpAddr::V4(theirs), (IpAddr::V4(ours), _)) = (route.network, v4(number, 0)) else { return false };
    let length = u32::from(route.length.min(24));
    if length == 0 {
        return false;
    }
    let mask = u32::MAX << (32 - length);
    theirs.to_bits() & mask == ours.to_bits() & mask
}

/// What lets packets of containers through these chains of packet rules, for whoever may change them.
pub fn advice(chains: &[String]) -> String {
    let rules = chains.iter().flat_map(|chain| {
        ["iifname \"lap*\" accept", "oifname \"lap*\" ct state established,related accept"]
            .map(|rule| format!("nft 'insert rule {chain} {rule}'"))
    });
    format!("as root: {}", rules.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_others() {
        for (network, length, expected) in [
            ([0, 0, 0, 0], 0, false),
            ([10, 0, 0, 0], 8, true),
            ([10, 209, 7, 0], 24, true),
            ([10, 209, 7, 128], 25, true),
            ([10, 209, 6, 0], 24, false),
            ([10, 209, 6, 0], 23, true),
            ([192, 0, 2, 0], 24, false),
        ] {
            let route = Route { network: IpAddr::from(network), length };
            assert_eq!(overlaps(&route, 7), expected, "{route:?}");
        }
    }
}
