//! A web server on loopback, for tests: threads and real sockets, one request for each connection.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::strtime;

/// The form of dates in HTTP: RFC 9110, section 5.6.7.
const DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// The longest wait for a client that says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, `POST`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The text behind `?`; empty if there is none.
    pub query: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, by its `Content-Length` or in chunks.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// An answer. `Content-Length` is added, unless a header has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body; not sent for `HEAD`.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { status, headers: Vec::new(), body: body.into() }
    }

    /// The answer with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// The files of a directory.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    dates: bool,
}

impl Files {
    /// Files with `Last-Modified`. A request with `If-Modified-Since` may get 304.
    pub fn of(dir: &Path) -> Files {
        Files { dir: dir.to_owned(), dates: true }
    }

    /// Without `Last-Modified`.
    #[must_use]
    pub fn without_dates(self) -> Files {
        Files { dates: false, ..self }
    }

    /// The file that a request asks for: `index.html` for a path that ends with `/`, 404 for everything else.
    pub fn answer(&self, request: &Request) -> Response {
        let index = if request.path.ends_with('/') { "index.html" } else { "" };
        let path = format!("{}{index}", request.path.trim_start_matches('/'));
        let missing = || Response::new(404, "not found\n");
        if path.split('/').any(|name| name == "..") {
            return missing();
        }
        let Ok(mut file) = File::open(self.dir.join(&path)) else { return missing() };
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file);
        let Some(modified) = metadata.as_ref().map(seconds) else {
            return missing();
        };
        let since = request.header("if-modified-since").filter(|_| self.dates).and_then(parse_date);
        if since.is_some_and(|since| modified <= since) {
            return Response::new(304, "");
        }
        let mut body = Vec::new();
        if file.read_to_end(&mut body).is_err() {
            return Response::new(500, "cannot read the file\n");
        }
        let answer = Response::new(200, body).with("Content-Type", "application/octet-stream");
        match date(modified).filter(|_| self.dates) {
            Some(date) => answer.with("Last-Modified", date),
            None => answer,
        }
    }
}

fn seconds(metadata: &std::fs::Metadata) -> i64 {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok();
    let modified = metadata.modified().ok().and_then(since).unwrap_or_default();
    i64::try_from(modified.as_secs()).unwrap_or_default()
}

fn date(seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    strtime::format(DATE, &time.to_zoned(jiff::tz::TimeZone::UTC)).ok()
}

fn parse_date(text: &str) -> Option<i64> {
    let time = strtime::parse(DATE, text).ok()?.to_datetime().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// A server on a port of loopback. It ends with this value.
pub struct WebServer {
    /// The port of `127.0.0.1`.
    pub port: u16,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WebServer {
    /// Starts a server that answers with `answer`, which several threads call at once.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Result<WebServer, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, answer) = (Arc::clone(&ended), Arc::new(answer));
        let accept = move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let answer = Arc::clone(&answer);
                // A client that breaks off is its own affair.
                let serve = |stream| std::thread::spawn(move || drop(serve(stream, &*answer)));
                stream.map(serve).map(drop).unwrap_or_default();
            }
        };
        Ok(WebServer { port, ended, thread: Some(std::thread::spawn(accept)) })
    }

    /// Serves the files of a directory.
    ///
    /// # Errors
    /// As [`WebServer::start`].
    pub fn files(files: Files) -> Result<WebServer, String> {
        WebServer::start(move |request| files.answer(request))
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The connection wakes the thread up.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let woken = TcpStream::connect_timeout(&address, PATIENCE).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            thread.join().unwrap_or_default();
        }
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Request) -> Response) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader)? else { return Ok(()) };
    let Response { status, headers, body } = answer(&request);
    let mut stream = reader.into_inner();
    let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.shutdown(Shutdown::Write)
}

/// The next request of a connection; `None` if the client closed it.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).unwrap_or_default();
            let start = request.body.len();
            request.body.resize(start + size, 0);
            reader.read_exact(&mut request.body[start..])?;
            line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else {
        let size = request.header("content-length").and_then(|size| size.parse().ok()).unwrap_or(0);
        request.body.resize(size, 0);
        reader.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

fn line(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn files_have_dates() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        (&file).write_all(b"content").unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let server = WebServer::files(Files::of(dir.path())).unwrap();
        let got = exchange(server.port, "GET /f?x HTTP/1.1\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\ncontent"), "{got}");
        assert!(got.contains("Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n"), "{got}");
        let again = "GET /f HTTP/1.1\r\nIf-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\n\r\n";
        assert!(exchange(server.port, again).starts_with("HTTP/1.1 304 "));
        let head = exchange(server.port, "HEAD /f HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 7\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for missing in ["/g", "/", "/../f"] {
            let got = exchange(server.port, &format!("GET {missing} HTTP/1.1\r\n\r\n"));
            assert!(got.starts_with("HTTP/1.1 404 "), "{got}");
        }
        let undated = Files::of(dir.path()).without_dates();
        let answer = undated.answer(&Request { path: "/f".to_owned(), ..Request::default() });
        assert_eq!(answer.headers, [("Content-Type".to_owned(), "application/octet-stream".to_owned())]);
    }

    #[test]
    fn bodies_are_read_by_length_and_in_chunks() {
        let server = WebServer::start(|request| Response::new(200, request.body.clone())).unwrap();
        let by_length = exchange(server.port, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        assert!(by_length.ends_with("\r\n\r\nabc"), "{by_length}");
        let chunks = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert!(exchange(server.port, chunks).ends_with("\r\n\r\nabc"));
        let port = server.port;
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
