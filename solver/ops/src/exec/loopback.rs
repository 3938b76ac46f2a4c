//! Services of the machine's loopback interface, which a container with a network of its own does not reach.

use std::fs;

/// What a container's network is asked for: how the kernel says that something listens.
const LISTENS: &str = "0A";

/// A service on the machine's loopback interface that one of `texts` names, as `HOST:PORT`: a proxy's variable, the address
/// in a command, or what a program says that could not connect.
pub fn unreached_service<'t>(texts: impl IntoIterator<Item = &'t str>) -> Option<String> {
    let mut named = texts.into_iter().flat_map(named).peekable();
    // Nothing is read where nothing is named.
    named.peek()?;
    let ports = listening();
    named.find(|(_, port)| ports.contains(port)).map(|(host, port)| format!("{host}:{port}"))
}

/// Loopback addresses with a port.
fn named(text: &str) -> Vec<(String, u16)> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for start in ["localhost", "127.", "[::1]"] {
        for (at, _) in lower.match_indices(start) {
            // Part of another name or number.
            let before = lower[..at].chars().next_back();
            if before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
                continue;
            }
            let rest = &lower[at + start.len()..];
            let more = if start == "127." {
                rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len())
            } else {
                0
            };
            let host = lower[at..at + start.len() + more].trim_end_matches('.');
            if let Some(port) = port(&rest[more..]) {
                found.push((host.to_owned(), port));
            }
        }
    }
    found
}

/// The port that follows a host: `:80`, ` port 80`, `', port=80`.
fn port(after: &str) -> Option<u16> {
    /// As far as words go between a host and its port.
    const NEAR: usize = 10;
    let digits = match after.strip_prefix(':') {
        Some(digits) => digits,
        None => {
            let (between, digits) = after.split_once("port")?;
            if between.len() > NEAR || between.contains('\n') {
                return None;
            }
            digits.trim_start_matches([' ', '=', ':', '"', '\''])
        }
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().filter(|port| *port > 0)
}

/// The ports at which something listens that can be reached by a loopback address.
fn listening() -> Vec<u16> {
    let files = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let texts = files.map(|file| fs::read_to_string(file).unwrap_or_default());
    texts.iter().flat_map(|text| text.lines().filter_map(listener)).collect()
}

/// `sl local_address rem_address st …`, in hexadecimal, the address in the machine's order.
fn listener(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let state = words.nth(1)?;
    let any = address.bytes().all(|byte| byte == b'0');
    let loopback = match address.len() {
        8 => address.ends_with("7F"),
        _ => address == "00000000000000000000000001000000" || address.ends_with("7F"),
    };
    let reached = state == LISTENS && (any || loopback);
    reached.then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say() {
        for (text, expected) in [
            ("http_proxy=http://127.0.0.1:3128", Some(("127.0.0.1", 3128))),
            ("GOPROXY=http://localhost:3000,direct", Some(("localhost", 3000))),
            ("curl: (7) Failed to connect to localhost port 8081 after 0 ms", Some(("localhost", 8081))),
            ("HTTPConnectionPool(host='localhost', port=8081): Max retries", Some(("localhost", 8081))),
            ("dial tcp [::1]:5000: connect: connection refused", Some(("[::1]", 5000))),
            ("connect ECONNREFUSED 127.0.0.1:4873", Some(("127.0.0.1", 4873))),
            ("Could not connect to 127.0.0.53:3142 (127.0.0.53).", Some(("127.0.0.53", 3142))),
            ("Connecting to LOCALHOST:80", Some(("localhost", 80))),
            ("can't connect to remote host (127.0.0.1): Connection refused", None),
            ("http://example-localhost:80", None),
            ("10.127.0.1:80", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:99999", None),
            ("localhost\nport 80", None),
        ] {
            let expected: Vec<_> = expected.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
            assert_eq!(named(text), expected, "{text}");
        }
    }

    #[test]
    fn what_listens() {
        for (line, expected) in [
            ("   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000", Some(8081)),
            ("   0: 3500007F:0035 00000000:0000 0A 00000000:00000000", Some(53)),
            ("   1: 00000000:1F91 00000000:0000 0A 00000000:00000000", Some(8081)),
            ("   1: 0100007F:1F91 0100007F:0050 01 00000000:00000000", None),
            ("   1: 026433C6:1F91 00000000:0000 0A 00000000:00000000", None),
            (
                "   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A",
                Some(8081),
            ),
            (
                "   0: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A",
                Some(8081),
            ),
            (
                "   0: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A",
                Some(8081),
            ),
            ("  sl  local_address rem_address   st tx_queue", None),
        ] {
            assert_eq!(listener(line), expected, "{line}");
        }
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        assert_eq!(unreached_service(["nothing", &address]), Some(address.clone()));
        drop(server);
        assert_eq!(unreached_service([address.as_str()]), None);
    }
}
