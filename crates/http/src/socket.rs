//! HTTP to a program that listens on a Unix socket, such as Docker's engine. Callers are threads that may wait.

use std::io::{self, Write};
use std::path::Path;

use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use reqwest::{Body, Client};
use tokio::sync::mpsc::{Sender, channel};

use crate::{Proxies, builder};

/// Pieces that are under way at once.
const PIECES: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the body, as far as it came. Bytes that are no text are replaced.
    pub text: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SocketError {
    /// Nothing listens there.
    Absent(io::Error),
    /// The connection ended before there was an answer.
    Broken(reqwest::Error),
    /// The client could not be set up.
    Setup(io::Error),
}

/// A program that listens on a Unix socket.
#[derive(Debug)]
pub struct Socket<'p> {
    path: &'p Path,
    /// Bytes of an answer that are read.
    longest: u64,
}

impl<'p> Socket<'p> {
    /// The program at `path`; of its answers, the first `longest` bytes are read.
    #[must_use]
    pub fn new(path: &'p Path, longest: u64) -> Socket<'p> {
        Socket { path, longest }
    }

    /// The answer to `GET target`.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn get(&self, target: &str) -> Result<Answer, SocketError> {
        let client = self.client()?;
        let url = format!("http://docker{target}");
        // A thread of its own: the caller's may belong to a runtime, which nothing may block twice.
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| self.run(async { client.get(url).send().await }));
            asked.join().unwrap_or_else(|_| Err(SocketError::Setup(io::Error::other("a thread panicked"))))
        })
    }

    /// The answer to `POST target` with a body that `write` writes, and what `write` gives. A program that has had enough
    /// answers before the end; then `write` fails, and the answer is the reason.
    pub fn post<T, E: From<io::Error>>(
        &self,
        target: &str,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> (Result<Answer, SocketError>, Option<Result<T, E>>) {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return (Err(error), None),
        };
        let (sender, receiver) = channel::<Result<Vec<u8>, io::Error>>(PIECES);
        let pieces = unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let request = client
            .post(format!("http://docker{target}"))
            .header(reqwest::header::CONTENT_TYPE, media_type)
            .body(Body::wrap_stream(pieces));
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| self.run(async { request.send().await }));
            let mut pieces = Pieces { sender: Some(sender), piece: Vec::with_capacity(PIECE) };
            let written = write(&mut pieces).and_then(|value| {
                pieces.end()?;
                Ok(value)
            });
            if written.is_err() {
                // Without this, half a body would count as a whole one.
                pieces.break_off();
            }
            drop(pieces);
            let answer = asked
                .join()
                .unwrap_or_else(|_| Err(SocketError::Setup(io::Error::other("a thread panicked"))));
            (answer, Some(written))
        })
    }

    fn client(&self) -> Result<Client, SocketError> {
        builder(&Proxies::default())
            .tls_certs_only([])
            .unix_socket(self.path)
            .build()
            .map_err(|error| SocketError::Setup(io::Error::other(error)))
    }

    fn run(
        &self,
        sent: impl Future<Output = reqwest::Result<reqwest::Response>>,
    ) -> Result<Answer, SocketError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SocketError::Setup)?;
        runtime.block_on(async {
            let response = sent.await.map_err(|error| match absence(&error) {
                Some(source) => SocketError::Absent(source),
                None => SocketError::Broken(error),
            })?;
            let (status, mut bytes) = (response.status().as_u16(), Vec::new());
            let mut body = response.bytes_stream();
            // What is cut off is judged as far as it came.
            while let Some(Ok(piece)) = body.next().await {
                let room = usize::try_from(self.longest).unwrap_or(usize::MAX) - bytes.len();
                bytes.extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.len() >= room {
                    break;
                }
            }
            Ok(Answer { status, text: String::from_utf8_lossy(&bytes).into_owned() })
        })
    }
}

/// The system's reason why nothing could be connected to.
fn absence(error: &reqwest::Error) -> Option<io::Error> {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let mut of_system = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    let number = of_system.find_map(io::Error::raw_os_error).filter(|_| error.is_connect())?;
    Some(io::Error::from_raw_os_error(number))
}

/// Collects bytes and hands them over in pieces.
struct Pieces {
    sender: Option<Sender<Result<Vec<u8>, io::Error>>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let ended = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.as_ref().ok_or_else(ended)?.blocking_send(Ok(piece)).map_err(|_| ended())
    }

    /// Hands over the rest.
    fn end(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.sender = None;
        Ok(())
    }

    fn break_off(&mut self) {
        if let Some(sender) = self.sender.take() {
            // If nobody listens any more, there is nothing to break off.
            sender.blocking_send(Err(io::Error::other("broken off"))).unwrap_or_default();
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Asks a server that gives `answer` and keeps the connection, or hangs up.
    fn asked(answer: &'static str, keeps: bool) -> Result<Answer, SocketError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !line.ends_with("\r\n\r\n") && reader.read_line(&mut line).unwrap() > 0 {}
            stream.write_all(answer.as_bytes()).unwrap();
            // Kept alive: the answer says where it ends.
            if keeps {
                reader.read_to_end(&mut Vec::new()).unwrap_or_default();
            }
        });
        Socket::new(&path, 20).get("/x")
    }

    #[test]
    fn answers_in_pieces_kept_alive_and_long_ones() {
        let text = |answer, keeps| asked(answer, keeps).map(|answer| (answer.status, answer.text)).unwrap();
        assert_eq!(text("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true), (200, "ok".to_owned()));
        let chunked =
            "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(text(chunked, true), (500, "abcde".to_owned()));
        assert_eq!(text("HTTP/1.0 200 OK\r\n\r\nto the end", false), (200, "to the end".to_owned()));
        let long = "HTTP/1.0 200 OK\r\n\r\n0123456789012345678901234567890123456789";
        assert_eq!(text(long, false), (200, "01234567890123456789".to_owned()));
        assert_eq!(text("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbroken", false).0, 200);
        assert!(matches!(asked("", false), Err(SocketError::Broken(_))));
        assert!(matches!(asked("SSH-2.0-x\r\n", false), Err(SocketError::Broken(_))));
        let nobody = Socket::new(Path::new("/nonexistent/s"), 20).get("/x");
        assert!(matches!(nobody, Err(SocketError::Absent(error)) if error.kind() == io::ErrorKind::NotFound));
    }
}
