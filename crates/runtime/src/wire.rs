//! What the three parties say to each other, and how: one JSON value per datagram of a `SOCK_SEQPACKET` pair, with
//! descriptors beside it.
//!
//! ```text
//! parent → child    (run)      Request       before anything else; where it is long, fd: memfd of it
//! parent → zygote   (control)  Kind          fds: run, stdin, stdout, stderr, root, mounts…
//! parent → zygote   (control)  enter         fds: run, stdin, stdout, stderr, pidfd of the container
//! zygote → child    (setup)    go            the same: a blank becomes a container
//! zygote → parent   (control)  Hello         once
//! child  → zygote   (setup)    Report…       fd with Stub: its parent; with Terminal: the master, with Listener and Shm: it. EOF: exec or death
//! zygote → parent   (run)      Update…       fds with Started: pidfd [, terminal master]
//!                                            with Exited: [memfd of the OwnedInodes]
//! ```
//! The zygote passes a request on without having read it: no secret of one container is in the memory that others start
//! as copies of. Both ends are always the same executable, hence no version.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plan::SetupOp;
use crate::spec::MAX_FDS;

/// The longest request that is sent as it is: half of what the smallest socket buffer of any machine takes.
const MAX_BYTES: usize = 32 << 10;

/// Asks for one more process of a container that runs, instead of a [`Kind`].
pub(crate) const ENTER: &[u8] = b"enter";

/// Stands for a request that comes in memory.
const IN_MEMORY: &[u8] = b"memory";

/// What containers have in common that can be made of the same blanks.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kind {
    pub(crate) private_network: bool,
    /// Done ahead.
    pub(crate) ops: Vec<SetupOp>,
}

/// What one container has besides.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) ops: Vec<SetupOp>,
}

/// The zygote's first words.
#[derive(Serialize, Deserialize)]
pub(crate) enum Hello {
    Ready,
    Failed(StartError),
}

/// Why the zygote itself could not start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartError {
    pub(crate) action: String,
    pub(crate) errno: i32,
}

/// From a container under construction.
#[derive(Serialize, Deserialize)]
pub(crate) enum Report {
    /// Something was made in the root to mount over.
    Mountpoint {
        #[serde(with = "crate::text")]
        name: Vec<u8>,
        directory: bool,
        ino: u64,
    },
    /// The terminal's master.
    Terminal,
    /// What calls about owners are answered through.
    Listener,
    /// The mount of `/dev/shm`, to be asked at the end whether there is room on it.
    Shm,
    Failed(Failure),
}

/// An operation that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Index into the operations of the kind and then those of the request; beyond them where it was before the first.
    pub(crate) op: usize,
    pub(crate) errno: i32,
    pub(crate) path: String,
}

/// About a running container.
#[derive(Serialize, Deserialize)]
pub(crate) enum Update {
    Started {
        terminal: bool,
    },
    Failed(Failure),
    Exited {
        signal: bool,
        status: i32,
        user_us: u64,
        system_us: u64,
        max_rss: u64,
        read: u64,
        written: u64,
        shm_full: bool,
    },
}

/// Bytes and the descriptors beside them.
type Datagram = (Vec<u8>, Vec<OwnedFd>);

/// A connected pair.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one value.
pub(crate) fn send<T: Serialize>(socket: impl AsFd, value: &T, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let bytes = to_bytes(value)?;
    send_bytes(socket, &bytes, fds)
}

/// Sends one datagram.
pub(crate) fn send_bytes(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })
    .map(drop)
}

/// Receives one value; `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let Some((bytes, fds)) = receive_bytes(socket)? else { return Ok(None) };
    let value = from_bytes(&bytes)?;
    Ok(Some((value, fds)))
}

/// Receives one datagram; `None` at the end. Datagrams are never empty.
pub(crate) fn receive_bytes(socket: impl AsFd) -> Result<Option<Datagram>, Errno> {
    // A buffer for the longest would be eight pages, each of which costs a process that has just forked a copy.
    let length = rustix::io::retry_on_intr(|| {
        rustix::net::recv(&socket, &mut [0_u8; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC)
    });
    let length = match length {
        Ok((_, length)) => length,
        Err(Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut bytes = vec![0; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let received = match received {
        // A peer that was killed with something of ours unread resets the connection: an end like any other.
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, fds)))
}

/// Throws a datagram away unread. A socket that is closed over one breaks the connection, and the other side may not hear
/// what was said last.
pub(crate) fn skip(socket: impl AsFd) {
    // There is none.
    let _ = rustix::net::recv(&socket, &mut [0_u8; 0][..], RecvFlags::DONTWAIT);
}

/// One value as it is sent.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, Errno> {
    serde_json::to_vec(value).map_err(|_| Errno::INVAL)
}

/// The inverse of [`to_bytes`].
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Errno> {
    serde_json::from_slice(bytes).map_err(|_| Errno::BADMSG)
}

/// Sends a request, which may carry megabytes of secrets: then in anonymous memory.
pub(crate) fn send_request(socket: impl AsFd, request: &Request) -> Result<(), Errno> {
    let bytes = to_bytes(request)?;
    if bytes.len() <= MAX_BYTES {
        return send_bytes(socket, &bytes, &[]);
    }
    let memory = rustix::fs::memfd_create(c"request", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    send_bytes(socket, IN_MEMORY, &[file.as_fd()])
}

/// The inverse of [`send_request`].
pub(crate) fn receive_request(socket: impl AsFd) -> Result<Request, Errno> {
    let (bytes, fds) = receive_bytes(socket)?.ok_or(Errno::PIPE)?;
    match fds.into_iter().next() {
        Some(memory) if bytes == IN_MEMORY => from_memory(memory),
        _ => from_bytes(&bytes),
    }
}

/// Reads a value out of anonymous memory, from its beginning.
pub(crate) fn from_memory<T: DeserializeOwned>(memory: OwnedFd) -> Result<T, Errno> {
    rustix::fs::seek(&memory, rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(memory);
    file.read_to_end(&mut bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_travels() {
        let name: Vec<u8> = (0..=255).collect();
        let (a, b) = pair().unwrap();
        send(&a, &Report::Mountpoint { name: name.clone(), directory: true, ino: 7 }, &[a.as_fd()]).unwrap();
        drop(a);
        let (report, fds) = receive::<Report>(&b).unwrap().unwrap();
        assert!(matches!(report, Report::Mountpoint { name: back, directory: true, ino: 7 } if back == name));
        assert_eq!(fds.len(), 1);
        drop(fds);
        assert!(receive::<Report>(&b).unwrap().is_none());
    }

    #[test]
    fn requests_of_any_length_arrive() {
        let long = SetupOp::Hostname { name: "x".repeat(3 << 20) };
        for ops in [vec![SetupOp::Umask { mask: 0o22 }, SetupOp::Loopback], vec![long]] {
            let (a, b) = pair().unwrap();
            send_request(&a, &Request { ops: ops.clone() }).unwrap();
            assert_eq!(receive_request(&b).unwrap().ops, ops);
            drop(a);
            assert!(receive_request(&b).is_err());
        }
    }
}
