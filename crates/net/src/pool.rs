//! Networks that are made ahead, lent, and lent again.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::{NetError, cannot};
use crate::forwarding;
use crate::helper::{self, Helper};
use crate::namespace::Namespace;
use crate::nat::{self, VethPair};
use crate::nft;
use crate::relay::Relay;

/// The networks that wait for their next user at most. Many steps at once need more, and one that then comes back is
/// removed: a server would keep its wires on the machine for good.
const MOST_READY: usize = 8;

/// Networks of one process. One that was given back clean is lent again: nothing that its last user has left can still
/// be alive.
#[derive(Debug)]
pub struct Networks {
    /// Whom questions for names go to that a container asks itself.
    names: Vec<SocketAddr>,
    found: Mutex<Option<Found>>,
    idle: Mutex<Idle>,
}

/// What has been found out about this machine.
#[derive(Clone, Debug)]
struct Found {
    out: Out,
    blocked: Option<Vec<String>>,
}

/// How containers get out.
#[derive(Clone, Copy, Debug)]
enum Out {
    Wires,
    Helpers,
}

#[derive(Debug, Default)]
struct Idle {
    ready: Vec<Network>,
    /// How many are lent.
    lent: usize,
    /// One that is being made.
    coming: Option<JoinHandle<Result<Network, NetError>>>,
}

/// A namespace with a way out. The order is that of going: who answers, who carries, what is carried.
#[derive(Debug)]
struct Network {
    _relay: Option<Relay>,
    carrier: Carrier,
    namespace: Namespace,
}

#[derive(Debug)]
enum Carrier {
    VethPair { _wire: VethPair },
    Helper(Helper),
}

/// How containers get out, and why not in a better way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How.
    pub way: Way,
    /// The machine drops what it forwards: because of these chains of packet rules, or of others where there are none. With
    /// [`Way::Nat`] containers do not get out.
    pub blocked: Option<Vec<String>>,
}

impl Choice {
    /// Whether containers get out.
    pub fn leads_out(&self) -> bool {
        self.way != Way::Nat || self.blocked.is_none()
    }
}

/// How containers get out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through a wire and the machine's packet filter.
    Nat,
    /// Through this program.
    Program(&'static str),
}

/// A network that is somebody's for a while.
#[derive(Debug)]
pub struct Lease {
    networks: Arc<Networks>,
    network: Option<Network>,
    clean: bool,
}

impl Networks {
    /// None yet. A container that asks [`crate::RELAY`] for names is answered by `names`.
    pub fn new(names: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self { names, found: Mutex::default(), idle: Mutex::default() })
    }

    /// Begins to make one, so that it is there when it is wanted.
    pub fn prepare(self: &Arc<Self>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.ready.is_empty() && idle.coming.is_none() {
            let networks = self.clone();
            // Without a thread it is made when it is wanted.
            idle.coming = std::thread::Builder::new().spawn(move || networks.make()).ok();
        }
    }

    /// A network for one container.
    ///
    /// # Errors
    /// [`NetError`] where this machine has no way out for us.
    pub fn take(self: &Arc<Self>) -> Result<Lease, NetError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (ready, coming) = match idle.ready.pop() {
            Some(ready) => (Some(ready), None),
            None => (None, idle.coming.take()),
        };
        // Containers run side by side: one more may come soon.
        let more = idle.lent > 0;
        idle.lent += 1;
        drop(idle);
        // Counts as lent from here on, whatever becomes of it.
        let mut lease = Lease { networks: self.clone(), network: None, clean: false };
        let network = match (ready, coming.map(JoinHandle::join)) {
            (Some(ready), _) => ready,
            (None, Some(Ok(made))) => made?,
            (None, _) => self.make()?,
        };
        if matches!(network.carrier, Carrier::VethPair { .. }) {
            forwarding::keep()?;
        }
        lease.network = Some(network);
        if more {
            self.prepare();
        }
        Ok(lease)
    }

    /// How containers get out. Makes a network to find out, which the next container has.
    ///
    /// # Errors
    /// As [`Networks::take`].
    pub fn choose(self: &Arc<Self>) -> Result<Choice, NetError> {
        let mut lease = self.take()?;
        lease.is_clean();
        let way = lease.way().ok_or(NetError::NoAddress)?;
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let blocked = found.as_ref().and_then(|found| found.blocked.clone());
        Ok(Choice { way, blocked })
    }

    /// Lets go of all networks that nobody has. One that is being made is waited for: its maker notes what it has changed on the
    /// machine, and has to take that back.
    pub fn close(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (ready, coming) = (std::mem::take(&mut idle.ready), idle.coming.take());
        drop(idle);
        drop((ready, coming.map(JoinHandle::join)));
    }

    fn make(&self) -> Result<Network, NetError> {
        let (namespace, carrier) = match self.out()? {
            (_, Some(made)) => made,
            (Out::Wires, None) => plugged()?,
            (Out::Helpers, None) => helped()?,
        };
        let relay = match self.names.as_slice() {
            [] => None,
            names => Some(Relay::start(&namespace, names)?),
        };
        Ok(Network { _relay: relay, carrier, namespace })
    }

    /// How containers get out; with a first one that finding out has left.
    fn out(&self) -> Result<(Out, Option<Made>), NetError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return Ok((found.out, None));
        }
        let (new, made) = Self::find()?;
        Ok((found.insert(new).out, made))
    }

    /// A wire where we have the right to one and the machine's packet rules let pass what it forwards; else helpers.
    fn find() -> Result<(Found, Option<Made>), NetError> {
        let helpers = |blocked| Found { out: Out::Helpers, blocked };
        let (namespace, wire) = match nat::connect() {
            Ok(made) => made,
            Err(error) if error.is_of_rights() => return Ok((helpers(None), None)),
            // Whatever the kernel lacks, helpers may do without.
            Err(error) => return helped().map(|made| (helpers(None), Some(made))).map_err(|_| error),
        };
        let wires = |blocked, made| (Found { out: Out::Wires, blocked }, Some(made));
        if wire.lets_out(&namespace) {
            return Ok(wires(None, (namespace, Carrier::VethPair { _wire: wire })));
        }
        let blocked = Some(nft::dropping().unwrap_or_default());
        match helped() {
            Ok(helped) => Ok((helpers(blocked), Some(helped))),
            Err(_) => Ok(wires(blocked, (namespace, Carrier::VethPair { _wire: wire }))),
        }
    }
}

/// A namespace, and what carries its packets.
type Made = (Namespace, Carrier);

fn plugged() -> Result<Made, NetError> {
    nat::connect().map(|(namespace, wire)| (namespace, Carrier::VethPair { _wire: wire }))
}

fn helped() -> Result<Made, NetError> {
    let namespace = Namespace::new().map_err(cannot("make a network namespace"))?;
    let helper = helper::start(&namespace)?;
    Ok((namespace, Carrier::Helper(helper)))
}

impl Network {
    fn way(&self) -> Way {
        match &self.carrier {
            Carrier::VethPair { .. } => Way::Nat,
            Carrier::Helper(helper) => Way::Program(helper.program),
        }
    }
}

impl Lease {
    /// The network namespace.
    pub fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.network.as_ref().map(|network| network.namespace.as_fd())
    }

    /// How it gets out.
    pub fn way(&self) -> Option<Way> {
        self.network.as_ref().map(Network::way)
    }

    /// Promises that nothing runs in it any more and that nobody who ran in it could change it, so that another one
    /// may have it.
    pub fn is_clean(&mut self) {
        self.clean = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut idle = self.networks.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.lent -= 1;
        let gone = match self.network.take() {
            Some(network) if self.clean && idle.ready.len() < MOST_READY => {
                idle.ready.push(network);
                None
            }
            gone => gone,
        };
        drop(idle);
        drop(gone);
    }
}
