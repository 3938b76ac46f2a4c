//! Questions for names, carried from inside a container to resolvers that only the machine's loopback interface has.
//!
//! The sockets that listen are the container's, those that ask are the machine's; between them go the questions and
//! answers as they are.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::{NetError, cannot};
use crate::namespace::Namespace;

/// Where a container finds its resolver.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that wait for an answer at a time; further ones are lost, as datagrams may be.
const MAX_WAITING: usize = 256;
/// Connections at a time.
const MAX_STREAMS: usize = 16;
/// The longest datagram.
const LONGEST: usize = 64 << 10;

/// Carries questions until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// A question that waits for its answer.
struct Waiting {
    /// Connected to the resolver.
    socket: UdpSocket,
    /// Who has asked.
    asker: SocketAddr,
    since: Instant,
}

impl Relay {
    pub(crate) fn start(namespace: &Namespace, names: &[SocketAddr]) -> Result<Self, NetError> {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let here = SocketAddr::new(IpAddr::V4(RELAY), 53);
        let (datagrams, streams) = namespace
            .within(|| Ok((UdpSocket::bind(here).map_err(errno)?, TcpListener::bind(here).map_err(errno)?)))
            .map_err(cannot("listen for questions for names"))?;
        let (hear, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(cannot("make a pipe"))?;
        let names = names.to_vec();
        let run = move || {
            // Ends with the pipe; an error of the sockets' ends it too, and names are not answered any more.
            drop(serve(&hear, &datagrams, &streams, &names));
        };
        let thread = std::thread::Builder::new().name("names".to_owned()).spawn(run);
        let thread = thread.map_err(|source| NetError::Kernel { action: "start a thread", source })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(
    stop: &OwnedFd,
    datagrams: &UdpSocket,
    streams: &TcpListener,
    names: &[SocketAddr],
) -> io::Result<()> {
    datagrams.set_nonblocking(true)?;
    streams.set_nonblocking(true)?;
    let connections = Arc::new(AtomicUsize::new(0));
    let mut waiting: BTreeMap<usize, Waiting> = BTreeMap::new();
    let mut buffer = vec![0; LONGEST];
    for turn in 0_usize.. {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut fds = vec![
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(datagrams, PollFlags::IN),
            PollFd::new(streams, PollFlags::IN),
        ];
        let keys: Vec<usize> = waiting.keys().copied().collect();
        fds.extend(waiting.values().map(|one| PollFd::new(&one.socket, PollFlags::IN)));
        match rustix::event::poll(&mut fds, Some(&second)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            return Ok(());
        }
        for (key, _) in keys.iter().zip(&ready[3..]).filter(|(_, ready)| **ready) {
            // A resolver that is not there is an error here, and silence for whoever has asked.
            if let Some(one) = waiting.remove(key)
                && let Ok(length) = one.socket.recv(&mut buffer)
            {
                drop(datagrams.send_to(&buffer[..length], one.asker));
            }
        }
        waiting.retain(|_, one| one.since.elapsed() < PATIENCE);
        if ready[1]
            && let Ok((length, asker)) = datagrams.recv_from(&mut buffer)
            && waiting.len() < MAX_WAITING
            // Who asks again is sent to the next.
            && let Some(resolver) = names.get(turn % names.len().max(1))
            && let Ok(socket) = ask(*resolver, &buffer[..length])
        {
            waiting.insert(turn, Waiting { socket, asker, since: Instant::now() });
        }
        if ready[2]
            && let Ok((stream, _)) = streams.accept()
            && let Some(resolver) = names.get(turn % names.len().max(1))
        {
            carry(stream, *resolver, &connections);
        }
    }
    Ok(())
}

fn ask(resolver: SocketAddr, question: &[u8]) -> io::Result<UdpSocket> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(resolver)?;
    socket.send(question)?;
    Ok(socket)
}

/// Carries a connection, on threads of its own.
fn carry(stream: TcpStream, resolver: SocketAddr, connections: &Arc<AtomicUsize>) {
    if connections.fetch_add(1, Ordering::Relaxed) >= MAX_STREAMS {
        connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let connections = connections.clone();
    let both = move || -> io::Result<()> {
        stream.set_nonblocking(false)?;
        let resolver = TcpStream::connect_timeout(&resolver, PATIENCE)?;
        for end in [&stream, &resolver] {
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| pour(&stream, &resolver));
            pour(&resolver, &stream);
        });
        Ok(())
    };
    let run = move || {
        // A connection that breaks is seen by whoever has made it.
        drop(both());
        connections.fetch_sub(1, Ordering::Relaxed);
    };
    drop(std::thread::Builder::new().spawn(run));
}

fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other direction ends by itself.
    to.shutdown(std::net::Shutdown::Write).unwrap_or_default();
}
