//! Netlink's own layer: messages of attributes, requests and their answers.
//!
//! ```text
//! message    length u32 · kind u16 · flags u16 · sequence u32 · port u32 · header of the family · attributes
//! attribute  length u16 · kind u16 · value, filled up to four bytes
//! ```
//! Numbers are in the machine's order, but for those of nftables, which say so where they are made.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const NEST: u16 = libc::NLA_F_NESTED as u16;
const HEADER: usize = 16;
/// From `linux/netlink.h`, which libc lacks: the list has changed while the kernel wrote it.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Ports from here on are numbers of no process (`PID_MAX_LIMIT` is 2^22), so that the kernel gives none of them first.
const FIRST_PORT: u32 = 1 << 30;

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// With the header of its family and no attributes yet.
    pub(crate) fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let flags = libc::NLM_F_REQUEST | flags;
        let flags = u16::try_from(flags).unwrap_or_default();
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        Self { bytes }
    }

    /// With another attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// With a number.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// With a number in the network's order.
    pub(crate) fn big(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// With a string, ended by a zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// With an attribute that is made of attributes, behind `header`.
    pub(crate) fn nest(self, kind: u16, header: &[u8], inside: impl FnOnce(Message) -> Message) -> Self {
        let inner = inside(Message { bytes: header.to_vec() });
        self.with(kind | NEST, &inner.bytes)
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// What a message of the kernel's is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    /// The header of the family and the attributes.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn all(mut bytes: &[u8]) -> Vec<Answer> {
        let mut all = Vec::new();
        while bytes.len() >= HEADER {
            let (length, kind, flags) = (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6));
            let sequence = u32_at(bytes, 8);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length < HEADER || length > bytes.len() {
                break;
            }
            all.push(Answer { kind, flags, sequence, body: bytes[HEADER..length].to_vec() });
            bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        }
        all
    }

    /// The attributes behind a header of `header` bytes.
    pub(crate) fn attributes(&self, header: usize) -> Vec<(u16, &[u8])> {
        attributes(self.body.get(header..).unwrap_or_default())
    }
}

/// Attributes one after the other.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while bytes.len() >= 4 {
        let (length, kind) = (usize::from(u16_at(bytes, 0)), u16_at(bytes, 2));
        if length < 4 || length > bytes.len() {
            break;
        }
        all.push((kind & !NEST, &bytes[4..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    all
}

/// Two bytes as a number; zero where there are none.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// Four bytes as a number; zero where there are none.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The kernel does not do a message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Which, counted from 1; 0 where there was no talking at all.
    pub(crate) at: u32,
    pub(crate) errno: Errno,
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { at: 0, errno }
    }
}

/// A way to talk with the kernel about the network namespace that it was opened in, wherever its user is later.
#[derive(Debug)]
pub(crate) struct Socket {
    /// One exchange at a time: answers of two would mix.
    fd: Mutex<OwnedFd>,
}

impl Socket {
    /// The descriptor.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` for links, addresses and routes.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let family = AddressFamily::NETLINK;
        let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { fd: Mutex::new(fd) })
    }

    /// With a port that no socket has had before.
    ///
    /// The kernel removes what a closed socket owns by its port, and it does so after others can have the port. The port
    /// that it gives by itself is the process's number: the next socket would have it, and lose its own things.
    pub(crate) fn owner(protocol: Protocol) -> Result<Self, Errno> {
        let socket = Self::open(Some(protocol))?;
        loop {
            let random = RandomState::new().build_hasher().finish() as u32;
            let address = SocketAddrNetlink::new(random | FIRST_PORT, 0);
            match rustix::net::bind(&*socket.fd.lock().unwrap_or_else(PoisonError::into_inner), &address) {
                Err(Errno::ADDRINUSE) => {}
                bound => {
                    bound?;
                    break;
                }
            }
        }
        Ok(socket)
    }

    /// Has something done.
    pub(crate) fn ask(&self, message: Message) -> Result<(), Errno> {
        self.batch(vec![message]).map_err(|refused| refused.errno)
    }

    /// Has several things done, in one datagram; the answer to each has to be good.
    pub(crate) fn batch(&self, messages: Vec<Message>) -> Result<(), Refused> {
        let ack = libc::NLM_F_ACK as u16;
        let wanted = messages.iter().filter(|message| u16_at(&message.bytes, 6) & ack != 0).count();
        let numbered = messages.into_iter().zip(1_u32..);
        let bytes: Vec<u8> = numbered.flat_map(|(message, sequence)| message.finish(sequence)).collect();
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        send(&fd, &bytes)?;
        let mut good = 0;
        while good < wanted {
            for answer in receive(&fd)? {
                if i32::from(answer.kind) == libc::NLMSG_ERROR {
                    error_of(&answer).map_err(|errno| Refused { at: answer.sequence, errno })?;
                    good += 1;
                }
            }
        }
        Ok(())
    }

    /// All objects of one kind that the kernel has at one moment.
    ///
    /// # Errors
    /// The kernel's. `EINTR` where the objects changed during each of many attempts.
    pub(crate) fn list(&self, message: Message) -> Result<Vec<Answer>, Errno> {
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        let request = message.finish(1);
        for _ in 0..LIST_ATTEMPTS {
            send(&fd, &request)?;
            if let Some(all) = receive_list(&fd)? {
                return Ok(all);
            }
        }
        Err(Errno::INTR)
    }
}

/// How often a list is requested that changes while the kernel writes it.
const LIST_ATTEMPTS: usize = 100;

/// The list that the kernel sends; nothing where the list has changed meanwhile (`NLM_F_DUMP_INTR`): such a list may lack
/// objects that were there all the time.
fn receive_list(fd: &OwnedFd) -> Result<Option<Vec<Answer>>, Errno> {
    let mut all = Vec::new();
    let mut is_torn = false;
    loop {
        for answer in receive(fd)? {
            is_torn |= answer.flags & NLM_F_DUMP_INTR != 0;
            match i32::from(answer.kind) {
                libc::NLMSG_ERROR => error_of(&answer)?,
                libc::NLMSG_DONE => {}
                _ => {
                    all.push(answer);
                    continue;
                }
            }
            return Ok((!is_torn).then_some(all));
        }
    }
}

fn send(fd: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let sent = rustix::io::retry_on_intr(|| rustix::net::send(fd, bytes, SendFlags::empty()))?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

fn receive(fd: &OwnedFd) -> Result<Vec<Answer>, Errno> {
    let mut room = vec![0; 64 << 10];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recv(fd, &mut room[..], RecvFlags::empty()).map(|(length, _)| length)
    })?;
    Ok(Answer::all(&room[..received]))
}

/// An error's number is negative; 0 is a confirmation.
fn error_of(answer: &Answer) -> Result<(), Errno> {
    match u32_at(&answer.body, 0).cast_signed() {
        0 => Ok(()),
        number => Err(Errno::from_raw_os_error(-number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_byte_by_byte() {
        let message = Message::new(0x10, libc::NLM_F_ACK, &[7; 4])
            .text(3, "lo")
            .nest(18, &[], |inside| inside.number(1, 0x0102_0304));
        let bytes = message.finish(9);
        let expected: Vec<u8> = [
            &44_u32.to_ne_bytes()[..],
            &[0x10, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7],
            &[7, 0, 3, 0, b'l', b'o', 0, 0],
            &[12, 0, 18, 0x80, 8, 0, 1, 0, 4, 3, 2, 1],
        ]
        .concat();
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[4..], expected[4..]);
        assert_eq!(bytes[0], 40);
        let read = Answer::all(&bytes);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].sequence, 9);
        let found = read[0].attributes(4);
        assert_eq!(found[0], (3, &b"lo\0"[..]));
        assert_eq!(attributes(found[1].1), [(1, &[4, 3, 2, 1][..])]);
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        assert_eq!(attributes(&[9, 0, 1, 0, 1]), []);
        assert_eq!(attributes(&[3, 0, 1, 0]), []);
        assert_eq!(Answer::all(&[1; 20]), []);
    }
}
