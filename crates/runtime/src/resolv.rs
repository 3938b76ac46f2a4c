//! The resolver configuration that a container is given. Pure.

use crate::spec::Network;

/// What to read for `/etc/resolv.conf` in a container: `host` is the host's file, `upstream` that of systemd-resolved
/// (`/run/systemd/resolve/resolv.conf`), which takes the place of a file that names nothing but its stub.
///
/// With the host's network the result is otherwise the host's. With none, servers on the loopback interface are left
/// out, as nobody listens there.
pub fn resolv_conf(host: &str, upstream: Option<&str>, network: Network) -> Vec<u8> {
    let servers =
        |text: &str| -> Vec<String> { text.lines().filter_map(server).map(str::to_owned).collect() };
    let own = servers(host);
    let text = if !own.is_empty() && own.iter().all(|server| server == "127.0.0.53") {
        upstream.unwrap_or(host)
    } else {
        host
    };
    if network == Network::Host {
        return text.as_bytes().to_vec();
    }
    let kept = text.lines().filter(|line| !server(line).is_some_and(is_loopback));
    kept.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    if words.next() == Some("nameserver") { words.next() } else { None }
}

fn is_loopback(server: &str) -> bool {
    let address = server.split('%').next().unwrap_or(server);
    address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let real = "search lan\nnameserver 192.0.2.1\nnameserver ::1\n";
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        for (host, upstream, network, expected) in [
            (real, None, Network::Host, real),
            (real, None, Network::None, "search lan\nnameserver 192.0.2.1\n"),
            (stub, Some(real), Network::Host, real),
            (stub, None, Network::Host, stub),
            (stub, None, Network::None, "options edns0\n"),
            ("", Some(real), Network::Host, ""),
        ] {
            assert_eq!(String::from_utf8(resolv_conf(host, upstream, network)).unwrap(), expected);
        }
    }
}
