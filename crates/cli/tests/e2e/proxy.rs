//! A server between us and a registry that does to requests and answers what networks and bad registries do.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What happens to an exchange.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The connection ends after so many bytes of the answer's body.
    Cut(usize),
    /// The connection ends after so many bytes of the request's body.
    CutUpload(usize),
    /// One byte of the body is another one.
    Flip,
    /// The body is shorter, and says so.
    Short(usize),
    /// The answer is another one: its status line and its headers.
    Answer(String),
    /// The answer has another media type.
    Type(&'static str),
    /// The same request has to be made to this `SCHEME://HOST:PORT`.
    Redirect(String),
}

/// A fault for the next exchanges of a method whose path has a word in it.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) times: usize,
    pub(super) fault: Fault,
}

/// An exchange: the request's first line and all of its headers.
pub(super) type Log = Arc<Mutex<Vec<String>>>;

/// The server. Ends with this value.
pub(super) struct Proxy {
    /// `127.0.0.1:PORT`
    pub(super) address: String,
    log: Log,
    rules: Arc<Mutex<Vec<Rule>>>,
    carried: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of the server at `behind`.
    pub(super) fn start(behind: &str) -> Result<Proxy, String> {
        let (rules, behind): (Arc<Mutex<Vec<Rule>>>, _) = (Arc::default(), behind.to_owned());
        let own = rules.clone();
        let carried: Arc<AtomicUsize> = Arc::default();
        let counted = carried.clone();
        let handle = move |stream: TcpStream, log: &Log| exchange(stream, &behind, log, (&own, &counted));
        let mut proxy = Proxy::serve(handle)?;
        (proxy.rules, proxy.carried) = (rules, carried);
        Ok(proxy)
    }

    /// A server of its own.
    pub(super) fn serve(
        handle: impl Fn(TcpStream, &Log) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<Proxy, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?.to_string();
        let (log, over): (Log, Arc<AtomicBool>) = (Log::default(), Arc::default());
        let (its_log, is_over, handle) = (log.clone(), over.clone(), Arc::new(handle));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (log, handle) = (its_log.clone(), handle.clone());
                // A client that went away is what some tests are about.
                std::thread::spawn(move || handle(stream, &log).unwrap_or_default());
            }
        });
        let (rules, carried) = Default::default();
        Ok(Proxy { address, log, rules, carried, over, thread: Some(thread) })
    }

    /// From now on these rules hold, the log is empty and nothing was carried.
    pub(super) fn rules(&self, rules: &[Rule]) {
        *lock(&self.rules) = rules.to_vec();
        lock(&self.log).clear();
        self.carried.store(0, Ordering::Relaxed);
    }

    /// How many bytes of bodies were carried, either way.
    pub(super) fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    /// What was asked.
    pub(super) fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Up to the empty line.
pub(super) fn head(reader: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {
        if head.ends_with("\r\n\r\n") {
            break;
        }
    }
    Ok(head)
}

/// The value of a header.
pub(super) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let pair = |line: &'h str| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name));
    head.lines().find_map(pair).map(|(_, value)| value.trim())
}

/// The head with another value of a header.
fn with(head: &str, name: &str, value: &str) -> String {
    let other =
        |line: &&str| !line.to_ascii_lowercase().starts_with(&format!("{}:", name.to_ascii_lowercase()));
    let lines: Vec<&str> = head.trim_end().lines().filter(other).collect();
    format!("{}\r\n{name}: {value}\r\n\r\n", lines.join("\r\n"))
}

fn fault(rules: &Mutex<Vec<Rule>>, request: &str) -> Option<Fault> {
    let mut words = request.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let mut rules = lock(rules);
    let rule =
        rules.iter_mut().find(|rule| rule.times > 0 && rule.method == method && path.contains(rule.path))?;
    rule.times -= 1;
    Some(rule.fault.clone())
}

fn exchange(
    stream: TcpStream,
    behind: &str,
    log: &Log,
    (rules, carried): (&Mutex<Vec<Rule>>, &AtomicUsize),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let request = head(&mut reader)?;
    if request.is_empty() {
        return Ok(());
    }
    lock(log).push(request.clone());
    let fault = fault(rules, &request);
    let length: usize = header(&request, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    match &fault {
        Some(Fault::Answer(answer)) => {
            // All of the request is read: a client that is still sending would see a reset.
            std::io::copy(&mut reader.by_ref().take(length as u64), &mut std::io::sink())?;
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return stream.write_all(answer.as_bytes());
        }
        Some(Fault::Redirect(host)) => {
            let path = request.split_whitespace().nth(1).unwrap_or("/");
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: {host}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            return stream.write_all(answer.as_bytes());
        }
        _ => {}
    }
    let mut up = TcpStream::connect(behind)?;
    up.write_all(with(&request, "Connection", "close").as_bytes())?;
    if let Some(Fault::CutUpload(after)) = fault {
        std::io::copy(&mut reader.take(after.min(length) as u64), &mut up)?;
        up.shutdown(Shutdown::Both)?;
        return stream.shutdown(Shutdown::Both);
    }
    std::io::copy(&mut reader.take(length as u64), &mut up)?;
    carried.fetch_add(length, Ordering::Relaxed);
    let mut answer = BufReader::new(up);
    let top = with(&head(&mut answer)?, "Connection", "close");
    let mut body = Vec::new();
    // A HEAD's answer has a length and no body; the server behind closes after either.
    answer.read_to_end(&mut body)?;
    carried.fetch_add(body.len(), Ordering::Relaxed);
    answered(&mut stream, top, body, fault.as_ref())
}

fn answered(
    stream: &mut TcpStream,
    mut top: String,
    mut body: Vec<u8>,
    fault: Option<&Fault>,
) -> std::io::Result<()> {
    let mut cut = body.len();
    match fault {
        Some(Fault::Cut(after)) => cut = body.len().min(*after),
        Some(Fault::Flip) if !body.is_empty() => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Fault::Short(by)) => {
            cut = body.len().saturating_sub(*by);
            top = with(&top, "Content-Length", &cut.to_string());
        }
        Some(Fault::Type(name)) => top = with(&top, "Content-Type", name),
        _ => {}
    }
    stream.write_all(top.as_bytes())?;
    stream.write_all(&body[..cut])?;
    stream.flush()
}
