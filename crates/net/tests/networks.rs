//! Networks on a machine of their own: a network namespace in which nothing else is, as root and as ordinary users (who
//! have all rights there).

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, but with a main of its own clippy cannot know"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lapstrake_net::{Lease, Networks, RELAY, Way};
use lapstrake_testkit::{ALL, Mode, Test};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

const TESTS: &[Test] = &[
    ("lent_again_if_clean", ALL, lent_again_if_clean),
    ("many_at_once", ALL, many_at_once),
    ("beside_another_process", ALL, beside_another_process),
    ("names_are_carried", ALL, names_are_carried),
    ("nothing_stays", ALL, nothing_stays),
    ("sockets_go_by_themselves", ALL, sockets_go_by_themselves),
    ("forwarding_ends", ALL, forwarding_ends),
];

fn main() -> ExitCode {
    lapstrake_testkit::main(TESTS)
}

/// The process is alone in a machine that is connected with nothing.
fn machine() {
    lapstrake_sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
    lapstrake_sys::net::loopback_up().unwrap();
}

fn inside<T: Send>(lease: &Lease, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let enter = || {
            move_into_link_name_space(lease.namespace().unwrap(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        scope.spawn(enter).join().unwrap()
    })
}

/// Addresses as of `/proc/net/fib_trie`, which has no privilege to ask for.
fn own_address(lease: &Lease) -> String {
    let text = inside(lease, || std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(address) = line.trim().strip_prefix("|-- ")
            && address.starts_with("10.209.")
            && lines.peek().is_some_and(|next| next.contains("host LOCAL"))
        {
            return address.to_owned();
        }
    }
    panic!("no address in {text}");
}

fn interfaces() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn lent_again_if_clean(_: Mode) {
    machine();
    let networks = Networks::new(Vec::new());
    networks.prepare();
    let mut first = networks.take().unwrap();
    assert_eq!(first.way(), Some(Way::Nat));
    let inode = |lease: &Lease| rustix::fs::fstat(lease.namespace().unwrap()).unwrap().st_ino;
    let known = inode(&first);
    first.is_clean();
    drop(first);
    let again = networks.take().unwrap();
    assert_eq!(inode(&again), known);
    let held: OwnedFd = again.namespace().unwrap().try_clone_to_owned().unwrap();
    drop(again);
    let other = networks.take().unwrap();
    assert_ne!(inode(&other), known, "what was not given back clean is not lent again");
    drop(held);
}

/// Threads take networks side by side; none sees another, and all see the machine.
fn many_at_once(_: Mode) {
    machine();
    let networks = Networks::new(Vec::new());
    let begun = Instant::now();
    let leases: Vec<Lease> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| networks.take().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("eight networks took {:?}", begun.elapsed());
    let mut addresses: Vec<String> = leases.iter().map(own_address).collect();
    let server = TcpListener::bind("10.209.0.1:7000").unwrap();
    let listeners: Vec<TcpListener> =
        leases.iter().map(|lease| inside(lease, || TcpListener::bind("0.0.0.0:7000").unwrap())).collect();
    let reach = |lease: &Lease, address: &str, wait: u64| {
        let address: SocketAddr = format!("{address}:7000").parse().unwrap();
        inside(lease, || TcpStream::connect_timeout(&address, Duration::from_millis(wait))).map(drop)
    };
    for lease in &leases {
        let begun = Instant::now();
        reach(lease, "10.209.0.1", 5000).unwrap();
        println!("the machine was reached after {:?}", begun.elapsed());
    }
    reach(&leases[0], &addresses[0], 5000).unwrap();
    for other in &addresses[1..] {
        reach(&leases[0], other, 300).expect_err("another one was reached");
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 8);
    drop((server, listeners));
}

/// What another process has is left to it; the networks differ.
fn beside_another_process(_: Mode) {
    machine();
    let (one, two) = (Networks::new(Vec::new()), Networks::new(Vec::new()));
    let (first, second) = (one.take().unwrap(), two.take().unwrap());
    assert_eq!((own_address(&first).as_str(), own_address(&second).as_str()), ("10.209.0.2", "10.209.1.2"));
    let listener = inside(&second, || TcpListener::bind("0.0.0.0:7000").unwrap());
    let there: SocketAddr = "10.209.1.2:7000".parse().unwrap();
    let soon = Duration::from_millis(300);
    assert!(inside(&first, || TcpStream::connect_timeout(&there, soon)).is_err());
    assert!(TcpStream::connect_timeout(&there, soon).is_ok(), "the machine itself gets in");
    drop(listener);
}

fn names_are_carried(_: Mode) {
    machine();
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let streams = TcpListener::bind(datagrams.local_addr().unwrap()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 512];
            let (length, asker) = datagrams.recv_from(&mut buffer).unwrap();
            datagrams.send_to(&[b"said ", &buffer[..length]].concat(), asker).unwrap();
            let (mut stream, _) = streams.accept().unwrap();
            let mut question = String::new();
            stream.read_to_string(&mut question).unwrap();
            stream.write_all(format!("said {question}").as_bytes()).unwrap();
        });
        // One of the two never answers: whoever asks again comes to the other.
        let networks = Networks::new(vec![deaf.local_addr().unwrap(), datagrams.local_addr().unwrap()]);
        let lease = networks.take().unwrap();
        inside(&lease, || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut answer = [0; 512];
            let mut tries = (0..20).map(|_| {
                socket.send_to(b"name", (RELAY, 53)).unwrap();
                socket.recv(&mut answer)
            });
            let length = tries.find_map(Result::ok).unwrap();
            drop(tries);
            assert_eq!(&answer[..length], b"said name");
        });
        let said = (0..20).find_map(|_| {
            inside(&lease, || {
                let mut stream = TcpStream::connect((RELAY, 53)).unwrap();
                stream.write_all(b"long name").unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                (!answer.is_empty()).then_some(answer)
            })
        });
        assert_eq!(said.as_deref(), Some("said long name"));
    });
}

/// The kernel takes networks down by itself, and nobody waits for it.
fn nothing_stays(_: Mode) {
    machine();
    let before = interfaces();
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let networks = Networks::new(vec![([127, 0, 0, 1], 9).into()]);
        let mut lease = networks.take().unwrap();
        assert!(interfaces().iter().any(|name| name.starts_with("lap")));
        lease.is_clean();
        let begun = Instant::now();
        drop((lease, networks));
        longest = longest.max(begun.elapsed());
    }
    println!("to let go of a network took {longest:?} at most");
    let tables = || {
        let said = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let begun = Instant::now();
    while interfaces() != before || !tables().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?} and {} stay", interfaces(), tables());
        std::thread::sleep(Duration::from_millis(10));
    }
    let networks = Networks::new(Vec::new());
    assert_eq!(own_address(&networks.take().unwrap()), "10.209.0.2", "numbers are used again");
}

/// Sockets that tables belong to are closed by the kernel, not by whoever drops a network.
fn sockets_go_by_themselves(_: Mode) {
    machine();
    let sockets = || {
        // The protocol is the second column: 12 is that of packet rules.
        let text = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        text.lines().filter(|line| line.split_whitespace().nth(1) == Some("12")).count()
    };
    let before = sockets();
    let leases: Vec<Lease> = (0..8).map(|_| Networks::new(Vec::new()).take().unwrap()).collect();
    assert_eq!(sockets(), before + 8);
    drop(leases);
    let begun = Instant::now();
    while sockets() != before {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} sockets stay", sockets());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The machine passes packets on for as long as one of us needs it, unless it did before or somebody else may count on it.
fn forwarding_ends(_: Mode) {
    const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    machine();
    let set = |value: &str| std::fs::write(FORWARD, value).unwrap();
    let is = || std::fs::read_to_string(FORWARD).unwrap().trim().to_owned();
    let network = || {
        let networks = Networks::new(Vec::new());
        let lease = networks.take().unwrap();
        assert_eq!(is(), "1", "there is a network");
        (networks, lease)
    };
    set("0");
    drop(network());
    assert_eq!(is(), "0");
    set("1");
    drop(network());
    assert_eq!(is(), "1", "it was on before");
    set("0");
    let (first, second) = (network(), network());
    drop(first);
    assert_eq!(is(), "1", "the second one needs it");
    drop(second);
    assert_eq!(is(), "0", "whoever goes last switches it off");
    // Many that come and go side by side.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    drop(network());
                }
            });
        }
    });
    assert_eq!(is(), "0");
    let first = network();
    let made =
        std::process::Command::new("ip").args(["link", "add", "br9", "type", "bridge"]).status().unwrap();
    assert!(made.success());
    drop(first);
    assert_eq!(is(), "1", "whose bridge that is may count on it");
}
