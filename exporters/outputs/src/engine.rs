//! Into a running Docker: its API's `POST /images/load` over a Unix socket.

use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::OutputError;

/// What an engine may answer at most: some lines of JSON.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Sends the archive that `write` writes to the engine at `socket`.
///
/// # Errors
/// [`OutputError::NoEngine`] if nobody listens there, [`OutputError::Engine`] if it refuses, and what `write` gives.
pub fn load<T>(
    socket: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, OutputError>,
) -> Result<T, OutputError> {
    let absent = |source| OutputError::NoEngine { socket: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).map_err(absent)?;
    let sent = send(&stream, write);
    if sent.is_err() {
        // It waits for more: without an end it would never answer. If this fails, it is gone already.
        stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    }
    // An engine that has had enough answers before all was sent: then its answer is the reason.
    match (answer(&stream), sent) {
        (Ok(()), sent) => sent,
        (Err(Some(why)), _) => Err(OutputError::Engine { why }),
        (Err(None), Err(error)) => Err(error),
        (Err(None), Ok(_)) => Err(OutputError::Engine { why: "it closed the connection".to_owned() }),
    }
}

fn send<T>(
    stream: &UnixStream,
    write: impl FnOnce(&mut dyn Write) -> Result<T, OutputError>,
) -> Result<T, OutputError> {
    let failed = |source| OutputError::Write { what: "archive to the engine", source };
    let mut stream = stream;
    let head = "POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).map_err(failed)?;
    let mut out = BufWriter::with_capacity(256 << 10, Chunks(stream));
    let result = write(&mut out)?;
    out.flush().map_err(failed)?;
    drop(out);
    stream.write_all(b"0\r\n\r\n").map_err(failed)?;
    Ok(result)
}

/// Writes each piece as a chunk.
struct Chunks<'s>(&'s UnixStream);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the engine at `socket` keeps images in containerd's store, which knows indexes. One that does not answer does not.
pub fn takes_indexes(socket: &Path) -> bool {
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        // The older form is answered in one piece.
        stream.write_all(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        Ok(read(&stream))
    });
    let body = asked.ok().and_then(|answer| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()));
    let told: serde_json::Value = body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
    let status = told["DriverStatus"].as_array().map(Vec::as_slice).unwrap_or_default();
    status.iter().any(|pair| pair[0] == "driver-type" && pair[1] == "io.containerd.snapshotter.v1")
}

/// What an engine says until it ends. What is cut off or is no text is judged as far as it came.
fn read(stream: &UnixStream) -> String {
    let mut reader = BufReader::new(stream).take(LONGEST_ANSWER);
    let mut text = String::new();
    while reader.read_line(&mut text).is_ok_and(|length| length > 0) {}
    text
}

/// Reads the answer. An error that the engine names is `Some`.
fn answer(stream: &UnixStream) -> Result<(), Option<String>> {
    let text = read(stream);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).ok_or(None)?;
    for line in body.lines().filter(|line| line.starts_with('{')) {
        let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(why) = said["error"].as_str().or(said["message"].as_str()) {
            return Err(Some(why.to_owned()));
        }
    }
    if status == "200" { Ok(()) } else { Err(Some(format!("it answered {status}"))) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What an engine that answers like this makes of an archive, and what came to it.
    fn loaded(answer: &'static str) -> (Result<(), String>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let engine = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !all.ends_with("\r\n0\r\n\r\n") && reader.read_line(&mut all).unwrap() > 0 {}
            stream.write_all(answer.as_bytes()).unwrap();
            all
        });
        let result = load(&socket, |out| {
            out.write_all(b"archive\n").map_err(|source| OutputError::Write { what: "x", source })
        });
        (result.map_err(|error| error.to_string()), engine.join().unwrap())
    }

    #[test]
    fn engines_with_containerds_store_take_indexes() {
        let asked = |answer: &'static str| {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("docker.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let engine = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                line
            });
            let takes = takes_indexes(&socket);
            assert_eq!(engine.join().unwrap(), "GET /info HTTP/1.0\r\n");
            takes
        };
        assert!(asked(
            "HTTP/1.0 200 OK\r\n\r\n{\"DriverStatus\":[[\"driver-type\",\"io.containerd.snapshotter.v1\"]]}"
        ));
        assert!(!asked("HTTP/1.0 200 OK\r\n\r\n{\"DriverStatus\":[[\"Backing Filesystem\",\"extfs\"]]}"));
        assert!(!asked("HTTP/1.0 500 Oh\r\n\r\n{\"message\":\"x\"}") && !asked(""));
        assert!(!takes_indexes(Path::new("/nonexistent/docker.sock")));
    }

    #[test]
    fn engines_take_or_say_why_not() {
        let (taken, sent) = loaded("HTTP/1.1 200 OK\r\n\r\n{\"stream\":\"Loaded image: x\"}\n");
        assert_eq!(taken, Ok(()));
        assert!(
            sent.starts_with("POST /images/load") && sent.ends_with("8\r\narchive\n\r\n0\r\n\r\n"),
            "{sent}"
        );
        let refused = loaded("HTTP/1.1 200 OK\r\n\r\n{\"error\":\"no space\"}\n").0;
        assert!(refused.unwrap_err().contains("no space"));
        assert!(loaded("HTTP/1.1 500 Oh\r\n\r\n").0.unwrap_err().contains("500"));
        assert!(loaded("").0.unwrap_err().contains("closed"));
        let nobody = load(Path::new("/nonexistent/docker.sock"), |_| Ok(())).unwrap_err();
        assert!(matches!(nobody, OutputError::NoEngine { .. }));
    }
}
