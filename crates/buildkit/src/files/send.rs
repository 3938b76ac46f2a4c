//! The sending end: brings a directory of this machine to the client.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use lapstrake_proto::fsutil::types::Packet;
use lapstrake_proto::fsutil::types::packet::PacketType;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, channel, unbounded_channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::TransferError;
use super::entry::Entry;
use crate::session::Session;

/// Packets that wait for the connection, at most.
const QUEUE: usize = 64;
/// The bytes of one packet.
const PIECE: usize = 32 << 10;

/// Sends the tree below `root`. `metadata` says which of the client's outputs it is for.
///
/// # Errors
/// The client refuses the files or goes away, or a file cannot be read.
pub(crate) async fn send(
    session: &Session,
    metadata: MetadataMap,
    root: OwnedFd,
) -> Result<(), TransferError> {
    let (packets, outgoing) = channel(QUEUE);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    *request.metadata_mut() = metadata;
    let mut grpc = Grpc::new(session.channel());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/moby.filesync.v1.FileSend/DiffCopy");
    let (asked, answers) = unbounded_channel();
    // The list goes out before the client says anything, and the client may say something before it ends.
    let reader = tokio::task::spawn_blocking(move || read(&root, &packets, answers));
    let codec = ProstCodec::<Packet, Packet>::default();
    let incoming: Streaming<Packet> = grpc.streaming(request, path, codec).await?.into_inner();
    let listened = listen(incoming, asked).await;
    let read = reader.await.map_err(|_| Status::internal("the transfer panicked"))?;
    listened.and(read)
}

/// Passes on what the client asks for, until the client has everything.
async fn listen(
    mut incoming: Streaming<Packet>,
    asked: tokio::sync::mpsc::UnboundedSender<u32>,
) -> Result<(), TransferError> {
    let mut asked = Some(asked);
    let mut finished = false;
    while let Some(packet) = incoming.message().await? {
        match packet.r#type() {
            PacketType::PacketReq => {
                // The reader has ended with an error of its own, which counts.
                if let Some(asked) = &asked {
                    asked.send(packet.id).unwrap_or_default();
                }
            }
            PacketType::PacketFin => {
                finished = true;
                asked = None;
            }
            PacketType::PacketErr => {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(Status::unknown(format!("error from receiver: {text}")).into());
            }
            PacketType::PacketStat | PacketType::PacketData => {
                return Err(TransferError::Protocol("files where it receives some".to_owned()));
            }
        }
    }
    if finished { Ok(()) } else { Err(TransferError::Protocol("no end".to_owned())) }
}

/// Lists the tree, then reads the files that are asked for.
fn read(
    root: &OwnedFd,
    packets: &Sender<Packet>,
    mut asked: UnboundedReceiver<u32>,
) -> Result<(), TransferError> {
    let mut walk = Walk { root, packets, files: BTreeMap::new(), links: BTreeMap::new(), next: 0 };
    let done = walk.list("").and_then(|()| put(packets, PacketType::PacketStat, 0, Vec::new()));
    if let Err(error) = done {
        put(packets, PacketType::PacketErr, 0, error.to_string().into_bytes())?;
        return Err(error);
    }
    while let Some(id) = asked.blocking_recv() {
        let path = walk.files.remove(&id);
        let path = path
            .ok_or_else(|| TransferError::Protocol(format!("a question for entry {id}, which is no file")))?;
        content(root, packets, (id, &path))?;
    }
    put(packets, PacketType::PacketFin, 0, Vec::new())
}

fn content(root: &OwnedFd, packets: &Sender<Packet>, (id, path): (u32, &str)) -> Result<(), TransferError> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = openat2(root, path, flags, Mode::empty(), how);
    let mut file = File::from(file.map_err(|source| TransferError::io(path, source))?);
    loop {
        let mut data = vec![0; PIECE];
        let count = file.read(&mut data).map_err(|source| TransferError::io(path, source))?;
        data.truncate(count);
        put(packets, PacketType::PacketData, id, data)?;
        // An empty packet is the end of the file.
        if count == 0 {
            return Ok(());
        }
    }
}

fn put(packets: &Sender<Packet>, kind: PacketType, id: u32, data: Vec<u8>) -> Result<(), TransferError> {
    send_packet(packets, Packet { r#type: kind.into(), id, data: data.into(), stat: None })
}

fn send_packet(packets: &Sender<Packet>, packet: Packet) -> Result<(), TransferError> {
    packets.blocking_send(packet).map_err(|_| Status::cancelled("the client takes no more files").into())
}

/// A walk through a tree in the order of the wire.
struct Walk<'w> {
    root: &'w OwnedFd,
    packets: &'w Sender<Packet>,
    /// The regular files by their numbers.
    files: BTreeMap<u32, String>,
    /// The first path of each file with several names, by device and inode.
    links: BTreeMap<(u64, u64), String>,
    next: u32,
}

impl Walk<'_> {
    /// Lists the directory `path`, and what is below it. Directories that wait are kept in a list, so that no depth of a tree
    /// needs more stack or descriptors.
    fn list(&mut self, path: &str) -> Result<(), TransferError> {
        let mut waiting = self.names(path)?;
        while let Some(path) = waiting.pop() {
            if self.entry(&path)? {
                waiting.extend(self.names(&path)?);
            }
        }
        Ok(())
    }

    /// The paths in the directory `path`, the last one first.
    fn names(&self, path: &str) -> Result<Vec<String>, TransferError> {
        let io = |source: rustix::io::Errno| TransferError::io(path, source);
        let dir = self.open_dir(path)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            let text = String::from_utf8(name).map_err(|error| {
                let name = OsString::from_vec(error.into_bytes());
                let why = std::io::Error::other("the protocol has only names in UTF-8");
                TransferError::io(&format!("{path}/{}", name.display()), why)
            })?;
            names.push(text);
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let join = |name: String| if path.is_empty() { name } else { format!("{path}/{name}") };
        Ok(names.into_iter().map(join).collect())
    }

    fn open_dir(&self, path: &str) -> Result<OwnedFd, TransferError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = if path.is_empty() {
            openat(self.root, ".", flags, Mode::empty())
        } else {
            openat2(self.root, path, flags, Mode::empty(), how)
        };
        opened.map_err(|source| TransferError::io(path, source))
    }

    /// Sends one entry; says whether it is a directory.
    fn entry(&mut self, path: &str) -> Result<bool, TransferError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.open_dir(parent)?;
        let io = |source: rustix::io::Errno| TransferError::io(path, source);
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut link = String::new();
        if kind == FileType::Symlink {
            let target = readlinkat(dir.as_fd(), name, Vec::new()).map_err(io)?;
            link = target.into_string().map_err(|_| io(rustix::io::Errno::ILSEQ))?;
        } else if kind == FileType::RegularFile {
            if stat.st_nlink > 1 {
                let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_owned());
                if first != path {
                    link.clone_from(first);
                }
            }
            self.files.insert(self.next, path.to_owned());
        }
        self.next += 1;
        let stat = Some(Entry::stat(path.to_owned(), &stat, link));
        send_packet(
            self.packets,
            Packet { r#type: PacketType::PacketStat.into(), stat, ..Packet::default() },
        )?;
        Ok(kind == FileType::Directory)
    }
}
