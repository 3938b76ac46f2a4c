//! The ports of EXPOSE.

use std::net::IpAddr;

use lapstrake_go::quoted;

/// One item of EXPOSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The first port.
    pub first: u16,
    /// The last port; the same for a single one.
    pub last: u16,
    /// The protocol as written: `tcp`, `udp` or `sctp` in any case.
    pub protocol: String,
    /// Whether an address or a host port was written before it; EXPOSE ignores both.
    pub has_host_part: bool,
}

impl Port {
    /// `port/protocol` for each port of the range.
    pub fn entries(&self) -> impl Iterator<Item = String> + '_ {
        let protocol = self.protocol.to_lowercase();
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

/// An item of EXPOSE in its parts.
struct Parts<'t> {
    address: &'t str,
    host: &'t str,
    port: &'t str,
    protocol: &'t str,
}

impl Parts<'_> {
    fn of(text: &str) -> Result<Parts<'_>, String> {
        let mut parts = text.rsplitn(3, ':');
        let container = parts.next().unwrap_or_default();
        let host = parts.next().unwrap_or_default();
        let address = parts.next().unwrap_or_default();
        let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
        if port.is_empty() {
            return Err(format!("invalid port: {}: no port specified", quoted(text)));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !["tcp", "udp", "sctp"].contains(&protocol.to_lowercase().as_str()) {
            return Err(format!("invalid port: {}: invalid proto: {protocol}", quoted(text)));
        }
        Ok(Parts { address, host, port, protocol })
    }
}

/// What can be said of the style of an item before it is known whether its numbers and address are any good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStyle {
    /// The protocol has capital letters.
    pub shouted: bool,
    /// An address or a host port is written before it.
    pub has_host_part: bool,
}

/// The style of an item, if it has a port and a known protocol.
pub fn port_style(text: &str) -> Option<PortStyle> {
    let parts = Parts::of(text).ok()?;
    Some(PortStyle {
        shouted: parts.protocol != parts.protocol.to_lowercase(),
        has_host_part: !parts.host.is_empty() || !parts.address.is_empty(),
    })
}

/// Parses `[ip:][host:]container[/protocol]`; both ports may be ranges `a-b`. Errors are BuildKit's texts.
pub fn parse_port(text: &str) -> Result<Port, String> {
    let Parts { address, host, port, protocol } = Parts::of(text)?;
    check_address(address)?;
    let (first, last) = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if last - first != host_last - host_first && first != last {
            return Err(format!("invalid ranges specified for container and host Ports: {port} and {host}"));
        }
    }
    let has_host_part = !host.is_empty() || !address.is_empty();
    Ok(Port { first, last, protocol: protocol.to_owned(), has_host_part })
}

fn check_address(address: &str) -> Result<(), String> {
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address: {bare}"))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let table: [(&str, Result<&[&str], &str>); 17] = [
            ("80", Ok(&["80/tcp"])),
            ("80/UDP", Ok(&["80/udp"])),
            ("80/", Ok(&["80/tcp"])),
            ("8000-8002/sctp", Ok(&["8000/sctp", "8001/sctp", "8002/sctp"])),
            ("8080:80", Ok(&["80/tcp"])),
            ("127.0.0.1:8080:80", Ok(&["80/tcp"])),
            ("[::1]:8080:80", Ok(&["80/tcp"])),
            ("::1:8080:80", Ok(&["80/tcp"])),
            ("0", Ok(&["0/tcp"])),
            ("8000-8001:80", Ok(&["80/tcp"])),
            ("", Err("invalid port: \"\": no port specified")),
            ("/tcp", Err("invalid port: \"/tcp\": no port specified")),
            ("80/x", Err("invalid port: \"80/x\": invalid proto: x")),
            ("65536", Err("invalid containerPort: 65536")),
            ("9-8", Err("invalid containerPort: 9-8")),
            ("a:1:80", Err("invalid IP address: a")),
            ("1-3:80-81", Err("invalid ranges specified for container and host Ports: 80-81 and 1-3")),
        ];
        for (text, expected) in table {
            let found = parse_port(text).map(|port| port.entries().collect::<Vec<_>>());
            let expected =
                expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect()).map_err(str::to_owned);
            assert_eq!(found, expected, "{text}");
        }
    }
}
