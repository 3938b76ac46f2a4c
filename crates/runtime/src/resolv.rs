//! The resolver configuration that a container is given, and who answers where that is ourselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lapstrake_net::RELAY;

use crate::spec::Network;

/// Settings that take the place of those in the host's resolver configuration. An empty list leaves the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Addresses of name servers.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are looked up in.
    pub search: Vec<String>,
    /// Options of the resolver, such as `ndots:2`.
    pub options: Vec<String>,
}

impl DnsSettings {
    /// As [`resolv_conf`], with these settings.
    pub fn resolv_conf(&self, network: Network) -> Vec<u8> {
        let (host, upstream) = self.files();
        content(&host, upstream.as_deref(), network)
    }

    /// Whom we ask for a container in an isolated network; nobody where it asks for itself.
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        let (host, upstream) = self.files();
        asked(&host, upstream.as_deref())
    }

    /// The host's file, and that of systemd-resolved, with the settings in both.
    fn files(&self) -> (String, Option<String>) {
        let (host, upstream) = files();
        (self.put_into(&host), upstream.map(|text| self.put_into(&text)))
    }

    fn put_into(&self, text: &str) -> String {
        let servers: Vec<String> = self.servers.iter().map(|server| format!("nameserver {server}")).collect();
        let list = |name: &str, values: &[String]| match values {
            [] => Vec::new(),
            values => vec![format!("{name} {}", values.join(" "))],
        };
        let settings = [
            (&["nameserver"][..], servers),
            (&["search", "domain"], list("search", &self.search)),
            (&["options"], list("options", &self.options)),
        ];
        let replaced = |line: &&str| {
            let word = line.split_whitespace().next().unwrap_or("");
            settings.iter().any(|(names, lines)| !lines.is_empty() && names.contains(&word))
        };
        let mut made: String =
            text.lines().filter(|line| !replaced(line)).flat_map(|line| [line, "\n"]).collect();
        for line in settings.iter().flat_map(|(_, lines)| lines) {
            made.push_str(line);
            made.push('\n');
        }
        made
    }
}

/// What to read for `/etc/resolv.conf` in a container on this machine.
///
/// With the host's network it is the host's file, or that of systemd-resolved where the host's names nothing but its stub.
/// With another, servers on the loopback interface are left out, as nobody listens there. Where none is left for an
/// isolated network, the container asks us.
pub fn resolv_conf(network: Network) -> Vec<u8> {
    DnsSettings::default().resolv_conf(network)
}

/// The host's file, and that of systemd-resolved.
fn files() -> (String, Option<String>) {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    (host, std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok())
}

/// Of the two files, the one that counts.
fn counts<'a>(host: &'a str, upstream: Option<&'a str>) -> &'a str {
    let mut own = host.lines().filter_map(server).peekable();
    match (own.peek().is_some() && own.all(|server| server == "127.0.0.53"), upstream) {
        (true, Some(upstream)) => upstream,
        _ => host,
    }
}

fn content(host: &str, upstream: Option<&str>, network: Network) -> Vec<u8> {
    let text = counts(host, upstream);
    if network == Network::Host {
        return text.as_bytes().to_vec();
    }
    let kept = text.lines().filter(|line| !server(line).is_some_and(is_loopback));
    let mut kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    if network == Network::Isolated && !asked(host, upstream).is_empty() {
        kept.push_str(&format!("nameserver {RELAY}\n"));
    }
    kept.into_bytes()
}

fn asked(host: &str, upstream: Option<&str>) -> Vec<SocketAddr> {
    let servers: Vec<&str> = counts(host, upstream).lines().filter_map(server).collect();
    if servers.iter().any(|server| !is_loopback(server)) {
        return Vec::new();
    }
    let asked: Vec<IpAddr> = servers.iter().filter_map(|server| server.parse().ok()).collect();
    // What the C library asks without a configuration.
    let asked = if asked.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { asked };
    asked.into_iter().map(|address| SocketAddr::new(address, 53)).collect()
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
        let mountpoint = "nameserver 127.0.0.53\noptions edns0\n";
        for (host, upstream, network, expected) in [
            (real, None, Network::Host, real),
            (real, None, Network::None, "search lan\nnameserver 192.0.2.1\n"),
            (mountpoint, Some(real), Network::Host, real),
            (mountpoint, None, Network::Host, mountpoint),
            (mountpoint, None, Network::None, "options edns0\n"),
            ("", Some(real), Network::Host, ""),
            (real, None, Network::Isolated, "search lan\nnameserver 192.0.2.1\n"),
            (mountpoint, Some(real), Network::Isolated, "search lan\nnameserver 192.0.2.1\n"),
            (mountpoint, None, Network::Isolated, "options edns0\nnameserver 127.0.0.11\n"),
            ("", None, Network::Isolated, "nameserver 127.0.0.11\n"),
        ] {
            assert_eq!(String::from_utf8(content(host, upstream, network)).unwrap(), expected);
        }
    }

    #[test]
    fn settings_take_the_place_of_the_hosts() {
        let host = "domain lan\nnameserver 192.0.2.1\noptions edns0\n# end\n";
        assert_eq!(DnsSettings::default().put_into(host), host);
        let settings = DnsSettings {
            servers: vec!["192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            search: vec!["a.example".to_owned(), "b.example".to_owned()],
            options: Vec::new(),
        };
        let expected = "options edns0\n# end\nnameserver 192.0.2.7\nnameserver 2001:db8::1\nsearch a.example b.example\n";
        assert_eq!(settings.put_into(host), expected);
        let options = DnsSettings { options: vec!["ndots:2".to_owned()], ..DnsSettings::default() };
        assert_eq!(options.put_into("nameserver 192.0.2.1"), "nameserver 192.0.2.1\noptions ndots:2\n");
    }

    #[test]
    fn whom_we_ask() {
        let real = "nameserver 192.0.2.1\nnameserver 127.0.0.1\n";
        for (host, upstream, expected) in [
            (real, None, ""),
            ("nameserver 127.0.0.53\n", Some(real), ""),
            ("nameserver 127.0.0.53\n", None, "127.0.0.53:53"),
            ("nameserver 127.0.0.1\nnameserver ::1\n", None, "127.0.0.1:53 [::1]:53"),
            ("", None, "127.0.0.1:53"),
        ] {
            let asked: Vec<String> = asked(host, upstream).iter().map(ToString::to_string).collect();
            assert_eq!(asked.join(" "), expected, "{host}");
        }
    }
}
