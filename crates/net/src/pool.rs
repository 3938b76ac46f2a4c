//! Networks that are made ahead, lent, and lent again.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::NetError;
use crate::helper::{self, Helper};
use crate::namespace::Namespace;
use crate::nat::{self, Forwarding, Port, Switch};
use crate::relay::Relay;

/// Networks of one process. One that was given back clean is lent again: nothing that its last user has left can still
/// be alive.
#[derive(Debug)]
pub struct Networks {
    /// Whom questions for names go to that a container asks itself.
    names: Vec<SocketAddr>,
    switch: Mutex<Option<Out>>,
    idle: Mutex<Idle>,
    /// Goes last, when our interfaces and rules have gone.
    forwarding: Mutex<Option<Forwarding>>,
}

/// How containers get out, once that is known.
#[derive(Clone, Debug)]
enum Out {
    Switch(Arc<Switch>),
    Helpers,
}

#[derive(Debug, Default)]
struct Idle {
    ready: Vec<Network>,
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
    Port { _port: Port },
    Helper(Helper),
}

/// How containers get out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through a switch and the machine's packet filter.
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
        Arc::new(Self {
            names,
            switch: Mutex::default(),
            idle: Mutex::default(),
            forwarding: Mutex::default(),
        })
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
        drop(idle);
        let network = match (ready, coming.map(JoinHandle::join)) {
            (Some(ready), _) => ready,
            (None, Some(Ok(made))) => made?,
            (None, _) => self.make()?,
        };
        if matches!(network.carrier, Carrier::Port { .. }) {
            let mut forwarding = self.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(begun) = nat::forward()? {
                *forwarding = Some(begun);
            }
        }
        Ok(Lease { networks: self.clone(), network: Some(network), clean: false })
    }

    /// How containers would get out. Nothing of the machine is other afterwards.
    ///
    /// # Errors
    /// As [`Networks::take`].
    pub fn way(&self) -> Result<Way, NetError> {
        self.make().map(|network| network.way())
    }

    fn make(&self) -> Result<Network, NetError> {
        let (namespace, carrier) = match self.out()? {
            Out::Switch(switch) => {
                let (namespace, port) = switch.plug()?;
                (namespace, Carrier::Port { _port: port })
            }
            Out::Helpers => {
                let namespace = Namespace::new().map_err(crate::error::cannot("make a network namespace"))?;
                let helper = helper::start(&namespace)?;
                (namespace, Carrier::Helper(helper))
            }
        };
        let relay = match self.names.as_slice() {
            [] => None,
            names => Some(Relay::start(&namespace, names)?),
        };
        Ok(Network { _relay: relay, carrier, namespace })
    }

    /// The switch, made when it is first needed; helpers where we have no right to one.
    fn out(&self) -> Result<Out, NetError> {
        let mut out = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(out) = &*out {
            return Ok(out.clone());
        }
        let found = match Switch::new() {
            Ok(switch) => Out::Switch(Arc::new(switch)),
            Err(error) if error.is_of_rights() => Out::Helpers,
            Err(error) => return Err(error),
        };
        Ok(out.insert(found).clone())
    }
}

impl Network {
    fn way(&self) -> Way {
        match &self.carrier {
            Carrier::Port { .. } => Way::Nat,
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
        if let Some(network) = self.network.take().filter(|_| self.clean) {
            self.networks.idle.lock().unwrap_or_else(PoisonError::into_inner).ready.push(network);
        }
    }
}
