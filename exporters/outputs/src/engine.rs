//! Into a running Docker: its API's `POST /images/load` over a Unix socket.

use std::io::Write;
use std::path::Path;

use lapstrake_http::socket::{Answer, Socket, SocketError};

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
    let write = |out: &mut dyn Write| write(out).map_err(Failed::Write);
    let engine = Socket::new(socket, LONGEST_ANSWER);
    let (answer, written) = engine.post("/images/load?quiet=1", "application/x-tar", write);
    let answer = match answer {
        Err(SocketError::Absent(source) | SocketError::Setup(source)) => {
            return Err(OutputError::NoEngine { socket: socket.to_owned(), source });
        }
        Err(SocketError::Broken(_)) => None,
        Ok(answer) => Some(answer),
    };
    // An engine that has had enough answers before all was sent: then its answer is the reason.
    if let Some(why) = answer.as_ref().and_then(refusal) {
        return Err(OutputError::Engine { why });
    }
    match (written, answer) {
        (Some(Err(Failed::Write(error))), _) => Err(error),
        (Some(Err(Failed::Send(source))), _) => {
            Err(OutputError::Write { what: "archive to the engine", source })
        }
        (Some(Ok(value)), Some(_)) => Ok(value),
        (_, None) | (None, _) => Err(OutputError::Engine { why: "it closed the connection".to_owned() }),
    }
}

/// Why an archive could not be sent.
enum Failed {
    /// It could not be written.
    Write(OutputError),
    /// The engine takes no more.
    Send(std::io::Error),
}

impl From<std::io::Error> for Failed {
    fn from(source: std::io::Error) -> Failed {
        Failed::Send(source)
    }
}

/// Whether the engine at `socket` keeps images in containerd's store, which knows indexes. One that does not answer does not.
pub fn takes_indexes(socket: &Path) -> bool {
    let answer = Socket::new(socket, LONGEST_ANSWER).get("/info").ok();
    let told: serde_json::Value =
        answer.and_then(|answer| serde_json::from_str(&answer.text).ok()).unwrap_or_default();
    let status = told["DriverStatus"].as_array().map(Vec::as_slice).unwrap_or_default();
    status.iter().any(|pair| pair[0] == "driver-type" && pair[1] == "io.containerd.snapshotter.v1")
}

/// The error that an answer names.
fn refusal(answer: &Answer) -> Option<String> {
    for line in answer.text.lines().filter(|line| line.starts_with('{')) {
        let said: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(why) = said["error"].as_str().or(said["message"].as_str()) {
            return Some(why.to_owned());
        }
    }
    (answer.status != 200).then(|| format!("it answered {}", answer.status))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
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
            assert_eq!(engine.join().unwrap(), "GET /info HTTP/1.1\r\n");
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
