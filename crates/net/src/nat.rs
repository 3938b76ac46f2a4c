//! The way out for who may change the machine's network: a switch, and addresses translated by the machine.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{NetError, cannot};
use crate::link::{Index, Links, Route};
use crate::namespace::Namespace;
use crate::nft::{self, Table};

/// Where IPv4 packets are passed on if it is 1.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The same of IPv6. Switching it on makes the machine deaf to its routers, so it stays as it is.
const FORWARD6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The machine's own number in each network.
const GATEWAY: u8 = 1;

/// A bridge in a namespace of its own, and its wire to the machine.
#[derive(Debug)]
pub(crate) struct Switch {
    number: u8,
    table: Table,
    namespace: Namespace,
    bridge: Index,
    ipv6: bool,
    taken: Mutex<BTreeSet<u8>>,
}

/// A container's wire to a switch.
#[derive(Debug)]
pub(crate) struct Port {
    switch: Arc<Switch>,
    link: Index,
    host: u8,
}

impl Switch {
    /// Makes one, with the first network that nobody has.
    pub(crate) fn new() -> Result<Self, NetError> {
        let machine = Links::here().map_err(cannot("talk about the network"))?;
        let routes = machine.routes(libc::AF_INET).map_err(cannot("read the routes"))?;
        let (number, table) = claim(&machine, &routes)?;
        let namespace = Namespace::new().map_err(cannot("make a network namespace"))?;
        let ipv6 = reads(FORWARD6, "1") && machine.leads_out(libc::AF_INET6);
        let wire = |machine: &Links| -> Result<Index, Errno> {
            let name = name(number);
            let link = match machine.pair(&name, "up", namespace.as_fd()) {
                // Its owner has gone, else we had not got the table, and the kernel has not cleaned up yet.
                Err(Errno::EXIST) => {
                    // It may go this very moment.
                    machine.index(&name).and_then(|old| machine.remove(old)).unwrap_or_default();
                    machine.pair(&name, "up", namespace.as_fd())?
                }
                made => made?,
            };
            machine.address(link, v4(number, GATEWAY), 24)?;
            if ipv6 {
                machine.address(link, v6(number, GATEWAY), 64)?;
            }
            machine.up(link)?;
            let links = &namespace.links;
            let (bridge, up) = (links.bridge("bridge")?, links.index("up")?);
            links.attach(up, bridge)?;
            links.up(up)?;
            links.up(bridge)?;
            links.settle(up)?;
            machine.settle(link)?;
            Ok(bridge)
        };
        let bridge = wire(&machine).map_err(cannot("wire a switch to the machine's network"))?;
        Ok(Self { number, table, namespace, bridge, ipv6, taken: Mutex::default() })
    }

    /// A namespace with a wire to it.
    pub(crate) fn plug(self: &Arc<Self>) -> Result<(Namespace, Port), NetError> {
        let namespace = Namespace::new().map_err(cannot("make a network namespace"))?;
        let host = self.take().ok_or(NetError::NoAddress)?;
        // Owns the number from here on.
        let mut port = Port { switch: self.clone(), link: 0, host };
        let mut wire = || -> Result<(), Errno> {
            let links = &self.namespace.links;
            port.link = links.pair(&format!("port{host}"), "eth0", namespace.as_fd())?;
            links.attach(port.link, self.bridge)?;
            links.isolate(port.link)?;
            let inside = &namespace.links;
            let link = inside.index("eth0")?;
            inside.address(link, v4(self.number, host), 24)?;
            if self.ipv6 {
                inside.address(link, v6(self.number, host), 64)?;
            }
            inside.up(link)?;
            // After its other end: the bridge passes nothing on before it has heard that the wire is whole.
            links.up(port.link)?;
            inside.default_route(link, v4(self.number, GATEWAY))?;
            if self.ipv6 {
                inside.default_route(link, v6(self.number, GATEWAY))?;
            }
            links.settle(port.link)?;
            inside.settle(link)
        };
        wire().map_err(cannot("wire a container to its switch"))?;
        Ok((namespace, port))
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
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // A rule that rejects is an error here; it has been said by the count that stays.
            container.within(send).unwrap_or_default();
            for wait in [0, 1, 2, 4, 8, 16] {
                std::thread::sleep(Duration::from_millis(wait));
                // What cannot be counted is no reason to do without.
                if self.table.tried().is_ok_and(|count| count > 0) {
                    return true;
                }
            }
        }
        false
    }

    fn take(&self) -> Option<u8> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (GATEWAY + 1..u8::MAX).find(|host| taken.insert(*host))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // The kernel would do it a moment later, and until then our network would look taken.
        self.namespace.links.index("up").and_then(|up| self.namespace.links.remove(up)).unwrap_or_default();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Now, not when the kernel comes to it: the name and the number are used again.
        if self.link != 0 {
            self.switch.namespace.links.remove(self.link).unwrap_or_default();
        }
        self.switch.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
    }
}

/// The first network that no route of the machine leads to and no other process has.
fn claim(machine: &Links, routes: &[Route]) -> Result<(u8, Table), NetError> {
    for number in 0..u8::MAX {
        // An interface of ours whose process has gone is about to go, too. The table says whether that has.
        let own = |route: &Route| route.length == 24 && machine.index(&name(number)).is_ok();
        let taken = |routes: &[Route]| routes.iter().any(|route| overlaps(route, number) && !own(route));
        // It may have gone since.
        if taken(routes) && machine.routes(libc::AF_INET).is_ok_and(|routes| taken(&routes)) {
            continue;
        }
        if let Some(table) = Table::new(&name(number)).map_err(cannot("make a table of packet rules"))? {
            return Ok((number, table));
        }
    }
    Err(NetError::NoAddress)
}

/// What names of interfaces and tables of ours begin with.
const PREFIX: &str = "lap";

fn name(number: u8) -> String {
    format!("{PREFIX}{number}")
}

fn v4(network: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, 209, network, host).into()
}

fn v6(network: u8, host: u8) -> IpAddr {
    Ipv6Addr::new(0xfd6c, 0x6170, 0x7374, network.into(), 0, 0, 0, host.into()).into()
}

/// That the machine passes packets on, because we have it do so. It stops when this goes, if everything else is as it
/// was: whoever has come since with an interface or rules for forwarded packets may count on it, and so may another
/// process of ours.
#[derive(Debug)]
pub(crate) struct Forwarding {
    others: Others,
}

/// Who else may forward: interfaces, and chains of packet rules, but for ours.
#[derive(Debug, PartialEq, Eq)]
struct Others {
    links: BTreeSet<String>,
    chains: BTreeSet<String>,
}

/// Has the machine pass on packets of containers; nothing if it did before.
pub(crate) fn forward() -> Result<Option<Forwarding>, NetError> {
    if reads(FORWARD, "1") {
        return Ok(None);
    }
    let mut others = Others::look();
    others.chains.retain(|chain| !chain.contains(&format!(" {PREFIX}")));
    fs::write(FORWARD, "1")
        .map_err(|source| NetError::Kernel { action: "set net.ipv4.ip_forward", source })?;
    Ok(Some(Forwarding { others }))
}

impl Others {
    fn look() -> Self {
        let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let links = text.lines().filter_map(|line| line.split_once(':'));
        // One of ours is there for as long as the kernel takes to remove it. The table tells whether somebody uses it.
        let links = links.map(|(name, _)| name.trim().to_owned());
        let links = links.filter(|link| !link.starts_with(PREFIX)).collect();
        let chains = nft::chains().unwrap_or_default().iter().map(nft::Chain::shown).collect();
        Self { links, chains }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if Others::look() == self.others {
            // Else it stays on, which is what every other tool leaves.
            fs::write(FORWARD, "0").unwrap_or_default();
        }
    }
}

/// Whether a route other than the one to everywhere has addresses of ours. One that a switch of ours has made has.
fn overlaps(route: &Route, number: u8) -> bool {
    let (IpAddr::V4(theirs), IpAddr::V4(ours)) = (route.network, v4(number, 0)) else { return false };
    let length = u32::from(route.length.min(24));
    if length == 0 {
        return false;
    }
    let mask = u32::MAX << (32 - length);
    theirs.to_bits() & mask == ours.to_bits() & mask
}

fn reads(path: &str, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
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
