//! The receiving end: brings a client's directory into a copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lapstrake_engine::Step;
use lapstrake_proto::fsutil::types::Packet;
use lapstrake_proto::fsutil::types::packet::PacketType;
use lapstrake_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use prost::Message as _;
use tokio::sync::mpsc::{Receiver, UnboundedSender, channel, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use super::mirror::Change;
use super::{Mirror, TransferError};
use crate::session::Session;
use crate::status::TRANSFERRING;

/// Packets that have come and are not written yet, at most.
const QUEUE: usize = 64;
/// Files that are written at once, at most. Clients send four.
const OPEN_FILES: usize = 64;
/// The time between two reports of a transfer.
const EACH: Duration = Duration::from_millis(100);
/// The largest message, in bytes.
const LARGEST: usize = 16 << 20;

/// The part of a client's directory that is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The name of the directory.
    pub(crate) name: String,
    /// Paths and patterns; where there are some, nothing else comes. Links on the way come too.
    pub(crate) follow: Vec<String>,
    /// Patterns; where there are some, nothing else comes.
    pub(crate) include: Vec<String>,
    /// Patterns of an ignore file: what they hide does not come.
    pub(crate) exclude: Vec<String>,
}

/// Brings `wanted` into the directory `place`, where an earlier transfer may have left its copy. The transfer is reported as a part
/// of `step`.
///
/// # Errors
/// The client has no such directory, breaks the protocol, or goes away; or the copy cannot be written.
pub(crate) async fn receive(
    session: &Session,
    wanted: &Wanted,
    (place, step): (PathBuf, Option<Step>),
) -> Result<(), TransferError> {
    if !session.offers("/moby.filesync.v1.FileSync/DiffCopy") {
        return Err(Status::failed_precondition("the client gives no access to directories").into());
    }
    let (requests, outgoing) = unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    add_wanted(request.metadata_mut(), wanted)?;
    let mut client = FileSyncClient::new(session.channel()).max_decoding_message_size(LARGEST);
    let mut incoming = client.diff_copy(request).await?.into_inner();
    let (packets, queue) = channel(QUEUE);
    let writer = tokio::task::spawn_blocking(move || write(&place, queue, requests));
    let (mut broken, mut count) = (None, Count::new(wanted, step));
    loop {
        match incoming.message().await {
            Ok(Some(packet)) => {
                count.add(&packet);
                if packets.send(packet).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(status) => {
                broken = Some(status);
                break;
            }
        }
    }
    count.end();
    drop(packets);
    let written = writer.await.map_err(|_| Status::internal("the transfer panicked"))?;
    match (written, broken) {
        (Err(TransferError::Protocol(_)), Some(status)) => Err(status.into()),
        (written, _) => written,
    }
}

/// The bytes that have come, for the progress of the build.
struct Count {
    id: String,
    step: Option<Step>,
    bytes: u64,
    told: Instant,
}

impl Count {
    fn new(wanted: &Wanted, step: Option<Step>) -> Count {
        Count { id: format!("{TRANSFERRING} {}:", wanted.name), step, bytes: 0, told: Instant::now() }
    }

    fn add(&mut self, packet: &Packet) {
        self.bytes += packet.encoded_len() as u64;
        if let Some(step) = &self.step
            && self.told.elapsed() >= EACH
        {
            step.status(&self.id, self.bytes, 0, false);
            self.told = Instant::now();
        }
    }

    fn end(&self) {
        if let Some(step) = &self.step {
            step.status(&self.id, self.bytes, 0, true);
        }
    }
}

/// The words of the request. Values that are not plain ASCII are escaped, which a second word says.
fn add_wanted(metadata: &mut MetadataMap, wanted: &Wanted) -> Result<(), TransferError> {
    let one = std::slice::from_ref(&wanted.name);
    for (key, values) in [
        ("dir-name", one),
        ("followpaths", &wanted.follow),
        ("include-patterns", &wanted.include),
        ("exclude-patterns", &wanted.exclude),
    ] {
        let plain = |value: &String| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let escaped = !values.iter().all(plain);
        let bad = |_| TransferError::Protocol(format!("a value of `{key}` that cannot be sent"));
        for value in values {
            let value = if escaped { escape(value) } else { value.clone() };
            metadata.append(key, MetadataValue::try_from(value).map_err(bad)?);
        }
        if escaped {
            let name = match key {
                "dir-name" => "dir-name-encoded",
                "followpaths" => "followpaths-encoded",
                "include-patterns" => "include-patterns-encoded",
                _ => "exclude-patterns-encoded",
            };
            metadata.insert(name, MetadataValue::from_static("1"));
        }
    }
    Ok(())
}

/// As Go's `url.QueryEscape`, but for the space.
fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A transfer from the point of view of the disk.
struct Writing {
    mirror: Mirror,
    requests: UnboundedSender<Packet>,
    /// Files whose content is still to come or to end.
    wanted: BTreeMap<u32, Option<File>>,
    open: usize,
    entries: u32,
    listed: bool,
    done: bool,
}

fn write(
    place: &std::path::Path,
    mut queue: Receiver<Packet>,
    requests: UnboundedSender<Packet>,
) -> Result<(), TransferError> {
    let mirror = Mirror::open(place)?;
    let wanted = BTreeMap::new();
    let mut this = Writing { mirror, requests, wanted, open: 0, entries: 0, listed: false, done: false };
    while let Some(packet) = queue.blocking_recv() {
        if let Err(error) = this.take(packet) {
            let (kind, data) = (PacketType::PacketErr, error.to_string().into_bytes().into());
            // The client may have gone already.
            this.requests.send(Packet { r#type: kind.into(), data, ..Packet::default() }).unwrap_or_default();
            return Err(error);
        }
    }
    if !this.done {
        return Err(TransferError::Protocol("less than it has announced".to_owned()));
    }
    this.mirror.finish()
}

impl Writing {
    fn take(&mut self, packet: Packet) -> Result<(), TransferError> {
        match packet.r#type() {
            PacketType::PacketStat if self.listed => Err(protocol("entries after the end of the list")),
            PacketType::PacketStat => match packet.stat {
                Some(stat) => {
                    if matches!(self.mirror.next(stat)?, Change::Content) {
                        self.wanted.insert(self.entries, None);
                        self.ask(PacketType::PacketReq, self.entries);
                    }
                    self.entries = self.entries.checked_add(1).ok_or_else(|| protocol("too many entries"))?;
                    Ok(())
                }
                None => {
                    self.listed = true;
                    self.end();
                    Ok(())
                }
            },
            PacketType::PacketData => self.content(packet.id, &packet.data),
            PacketType::PacketErr => {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                Err(TransferError::Remote(Status::unknown(format!("error from sender: {text}"))))
            }
            PacketType::PacketFin | PacketType::PacketReq => Ok(()),
        }
    }

    fn content(&mut self, id: u32, data: &[u8]) -> Result<(), TransferError> {
        let unknown = || protocol(&format!("the content of entry {id}, for which nobody asked"));
        let entry = self.mirror.entry(id).ok_or_else(unknown)?;
        let slot = self.wanted.get_mut(&id).ok_or_else(unknown)?;
        if slot.is_none() {
            if self.open >= OPEN_FILES {
                return Err(protocol("too many files at once"));
            }
            *slot = Some(self.mirror.writer(&entry.path)?);
            self.open += 1;
        }
        let Some(file) = slot else { return Err(unknown()) };
        if data.is_empty() {
            self.mirror.written(file, &entry)?;
            self.wanted.remove(&id);
            self.open -= 1;
            self.end();
            return Ok(());
        }
        file.write_all(data).map_err(|source| TransferError::io(&entry.path, source))
    }

    /// Says that all is here, once it is.
    fn end(&mut self) {
        if self.listed && self.wanted.is_empty() && !self.done {
            self.done = true;
            self.ask(PacketType::PacketFin, 0);
        }
    }

    fn ask(&self, kind: PacketType, id: u32) {
        // A client that has gone is noticed where its packets end.
        self.requests.send(Packet { r#type: kind.into(), id, ..Packet::default() }).unwrap_or_default();
    }
}

fn protocol(what: &str) -> TransferError {
    TransferError::Protocol(what.to_owned())
}
