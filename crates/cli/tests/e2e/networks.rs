//! Networks of a container's own, on a machine made for it: a namespace with a wire to the world, which is another one.
//!
//! ```text
//! world    203.0.113.9 :8080, 2001:db8:9::9 :8080, names by the machine
//!   │ 198.51.100.1
//!   │ 198.51.100.2
//! machine  :8082 on all addresses, 127.0.0.1:8081, 127.0.0.1:53
//! ```

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapstrake_testkit::skip;

use super::place::{
    Apart, Mode, dockerfile, expect, must, nothing_left, processes, script_through, state, stop, text,
};

pub(super) const CASES: &[super::Case] = &[
    ("isolated_network", isolated_network),
    ("isolated_network_by_pasta", isolated_network_by_pasta),
    ("isolated_network_behind_a_firewall", isolated_network_behind_a_firewall),
    ("isolated_steps", isolated_steps),
    ("isolated_names", isolated_names),
    ("isolated_network_is_closed", isolated_network_is_closed),
    ("isolated_network_leaves_nothing", isolated_network_leaves_nothing),
    ("isolated_network_not_there", isolated_network_not_there),
    ("isolated_network_is_the_default", isolated_network_is_the_default),
    ("services_on_loopback", services_on_loopback),
];

/// What is about ways out that ordinary users have.
const OF_USERS: &[&str] = &["isolated_network_by_pasta", "isolated_network_not_there"];
/// What is about root's.
const OF_ROOT: &[&str] = &["isolated_network_behind_a_firewall"];

/// Whether a case says anything of root, or of ordinary users.
pub(super) fn concerns(case: &str, root: bool) -> bool {
    !if root { OF_USERS } else { OF_ROOT }.contains(&case)
}

/// Answers every question for an address with that of the world.
const NAMES: &str = r#"
import socket, struct, threading
def answer(q):
    end = q.index(0, 12) + 5
    kind = struct.unpack('>H', q[end - 4:end - 2])[0]
    head = q[:2] + b'\x81\x80\x00\x01' + (b'\x00\x01' if kind == 1 else b'\x00\x00') + b'\x00' * 4
    address = b'\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04' + bytes([203, 0, 113, 9])
    return head + q[12:end] + (address if kind == 1 else b'')
def streams():
    server = socket.create_server(('127.0.0.1', 53))
    while True:
        client, _ = server.accept()
        question = client.recv(999)[2:]
        if question:
            said = answer(question)
            client.sendall(struct.pack('>H', len(said)) + said)
        client.close()
threading.Thread(target=streams, daemon=True).start()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('127.0.0.1', 53))
while True:
    question, asker = datagrams.recvfrom(999)
    datagrams.sendto(answer(question), asker)
"#;

const SETUP: &str = r#"
mkdir -p www.world www.own www.any && echo from the world > www.world/hello
echo from loopback > www.own/hello && echo from the machine > www.any/hello
mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add world
mkdir -p tun && mount -t tmpfs -o mode=755 none tun && mknod -m 666 tun/tun c 10 200 && mkdir -p /dev/net && mount --move tun /dev/net
ip link set lo up
ip link add up0 type veth peer name down0
ip link set down0 netns world
sysctl -qw net.ipv6.conf.all.forwarding=1
ip address add 198.51.100.2/24 dev up0 && ip address add 2001:db8::2/64 dev up0 nodad && ip link set up0 up
ip route add default via 198.51.100.1 && ip route add default via 2001:db8::1
ip netns exec world sh -ec '
  ip address add 198.51.100.1/24 dev down0 && ip address add 203.0.113.9/32 dev down0
  ip address add 2001:db8::1/64 dev down0 nodad && ip address add 2001:db8:9::9/128 dev down0 nodad
  ip link set lo up && ip link set down0 up && ip route add 10.209.0.0/16 via 198.51.100.2'
ip netns exec world python3 -m http.server --bind :: --directory www.world 8080 < /dev/null > world.log 2>&1 &
python3 -m http.server --bind 127.0.0.1 --directory www.own 8081 < /dev/null > /dev/null 2>&1 &
python3 -m http.server --bind :: --directory www.any 8082 < /dev/null > /dev/null 2>&1 &
python3 names.py < /dev/null > names.log 2>&1 &
echo nameserver 127.0.0.1 > resolv.conf && mount --bind resolv.conf /etc/resolv.conf
for port in 8081 8082 53; do
  until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))" 2> /dev/null; do sleep 0.1; done; done
until ip netns exec world python3 -c "import socket; socket.create_connection(('203.0.113.9', 8080))" 2> /dev/null
do sleep 0.1; done
"#;

/// The machine.
fn machine(mode: &Mode) -> Result<Apart<'_>, String> {
    if !super::place::is_root() {
        skip("only root can make a network with other machines");
    }
    for (name, content) in [("names.py", NAMES), ("machine.sh", SETUP)] {
        fs::write(mode.place.join(name), content).map_err(|error| error.to_string())?;
    }
    let flags = ["--mount", "--net", "--pid", "--fork", "--kill-child"];
    Apart::new(mode, &flags, "sh -e machine.sh >&2")
}

/// A request from inside a container.
fn get(from: &str) -> String {
    // The first process of a container cannot be ended by its own `timeout`.
    let get = format!("busybox timeout 5 busybox wget -q -O - http://{from}/hello");
    format!("run --network isolated busybox sh -c '{get}; exit $?'")
}

fn reaches(machine: &Apart<'_>) -> Result<(), String> {
    for (address, word) in [
        ("203.0.113.9:8080", "from the world"),
        ("[2001:db8:9::9]:8080", "from the world"),
        ("198.51.100.2:8082", "from the machine"),
    ] {
        let got = machine.lap(&get(address))?;
        expect(&got, 0, &[word]).map_err(|why| format!("{address}: {why}"))?;
    }
    for address in ["127.0.0.1:8081", "198.51.100.2:8081", "10.209.0.1:8081", "10.0.2.2:8081"] {
        let got = machine.lap(&get(address))?;
        if got.status.success() || text(&got).contains("from") {
            return Err(format!("{address} was reached: {}", text(&got)));
        }
    }
    // What must not be reached is there.
    let host = get("127.0.0.1:8081").replace("isolated", "host");
    expect(&machine.lap(&host)?, 0, &["from loopback"])
}

/// What the machine reaches can be reached by its address, and what listens on its loopback interface cannot.
fn isolated_network(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let doubtful = "pasta --version 2> /dev/null | grep -q 'unknown version'";
    let way = match (mode.user, must(doubtful)) {
        (None, _) => "isolated by address translation",
        (Some(_), Ok(())) => "isolated by slirp4netns",
        (Some(_), Err(_)) => "isolated by pasta",
    };
    expect(&machine.lap("doctor")?, 0, &[way])?;
    reaches(&machine)?;
    let log = fs::read_to_string(mode.place.join("world.log")).map_err(|error| error.to_string())?;
    if !log.contains("198.51.100.2 ") || log.contains("10.209.") || log.contains("10.0.2.") {
        return Err(format!("the world sees more than the machine: {log}"));
    }
    nothing_left(mode)
}

/// A user has `pasta`, whose version is known, or the other program where it does not work.
fn isolated_network_by_pasta(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let with = |dir: &str, args: &str| {
        machine.script(&format!("export PATH=\"$PWD/{dir}:$PATH\" && ./lapstrake {args}"))
    };
    // One that is told to be newer than it is, and somebody else's program, which does not work.
    must(&format!(
        "cd '{}' && mkdir known broken && printf '#!/bin/sh\\ntest \"$1\" != --version || exec echo pasta 1\\n\
         exec %s \"$@\"\\n' $(command -v pasta) > known/pasta && \
         printf '#!/bin/sh\\ntest \"$1\" != --version || exec echo pasta 1\\necho broken >&2; exit 1\\n' > broken/pasta && \
         chmod -R a+rx known broken",
        mode.place.display()
    ))?;
    for (dir, way) in [("known", "pasta"), ("broken", "slirp4netns")] {
        expect(&with(dir, "doctor")?, 0, &[&format!("isolated by {way}")])?;
        expect(&with(dir, &get("203.0.113.9:8080"))?, 0, &["from the world"])?;
        let got = with(dir, &get("10.0.2.2:8081"))?;
        if got.status.success() {
            return Err(text(&got));
        }
    }
    nothing_left(mode)
}

/// A machine that forwards nothing unless a rule says so, as Docker and ufw set it up, or that has a rule against it:
/// helpers are used, else the host's network; that is said in a line, and what helps helps.
fn isolated_network_behind_a_firewall(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let closed = "nft add table ip filter && \
                  nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'";
    expect(&machine.script(closed)?, 0, &[])?;
    let dropped = "what the machine forwards is dropped by ip filter FORWARD";
    behind_a_firewall(mode, &machine, dropped)?;
    // What helps does so: the switch is used again.
    let told = text(&machine.lap("doctor")?);
    let hint = told.lines().find_map(|line| line.split_once("hint: as root: ")).map(|(_, hint)| hint);
    let hint = hint.ok_or_else(|| format!("no hint: {told}"))?;
    expect(&machine.script(hint)?, 0, &[])?;
    let open = machine.lap(&get("203.0.113.9:8080"))?;
    expect(&open, 0, &["from the world"])?;
    if text(&open).contains("lapstrake:") {
        return Err(text(&open));
    }
    expect(&machine.lap("doctor")?, 0, &["isolated by address translation"])?;
    // Chains that let all pass but what a rule drops or rejects, as firewalld's do.
    for verdict in ["drop", "reject", "ip saddr 10.0.0.0/8 drop"] {
        let rule = format!(
            "nft flush ruleset && nft add table inet wall && \
             nft 'add chain inet wall across {{ type filter hook forward priority 5; }}' && nft 'add rule inet wall across {verdict}'"
        );
        expect(&machine.script(&rule)?, 0, &[])?;
        let dropped = "what the machine forwards is dropped by its packet rules";
        behind_a_firewall(mode, &machine, dropped).map_err(|why| format!("{verdict}: {why}"))?;
    }
    nothing_left(mode)
}

fn behind_a_firewall(mode: &Mode, machine: &Apart<'_>, dropped: &str) -> Result<(), String> {
    let (world, own) = ("203.0.113.9:8080", "127.0.0.1:8081");
    let by_default = |address: &str| get(address).replace("--network isolated", "");
    let by = format!("containers have networks by slirp4netns, as {dropped}");
    for args in [get(world), by_default(world)] {
        let got = machine.lap(&args)?;
        expect(&got, 0, &["from the world", &by])?;
        if text(&got).lines().filter(|line| line.contains("lapstrake:")).count() != 1 {
            return Err(text(&got));
        }
    }
    let got = machine.lap(&by_default(own))?;
    if got.status.success() {
        return Err(format!("loopback was reached: {}", text(&got)));
    }
    expect(&machine.lap("doctor")?, 0, &["isolated by slirp4netns", dropped])?;
    let step = by_default(world).replace("run  busybox sh -c", "");
    dockerfile(mode, "walled", &format!("FROM busybox\nRUN {}\n", step.trim().trim_matches('\'')))?;
    let built = machine.lap("build --no-cache --progress plain walled")?;
    expect(&built, 0, &["from the world", &by])?;
    // Without a helper there is the host's network, or what was asked for, which does not get out.
    let few = |args: &str| few_programs(machine, args);
    let without = format!("containers have the host's network, as {dropped}");
    expect(&few("build --no-cache --progress plain walled")?, 0, &["from the world", &without])?;
    expect(&few(&by_default(own))?, 0, &["from loopback", &without])?;
    let asked = few(&get(world))?;
    if asked.status.success() || !text(&asked).contains(&format!("{dropped}, so a container's own network")) {
        return Err(format!("a packet came through, or nothing is said: {}", text(&asked)));
    }
    expect(&few("doctor")?, 0, &["host and none only", dropped])
}

/// The binary where neither `pasta` nor `slirp4netns` can be found.
fn few_programs(machine: &Apart<'_>, args: &str) -> Result<std::process::Output, String> {
    machine.script(&format!(
        "mkdir -p few && for program in sh newuidmap newgidmap; do ln -sf $(command -v $program) few/$program; done; \
         PATH=$PWD/few ./lapstrake {args}"
    ))
}

/// Steps of builds: what is asked for by flag, setting and instruction, and what a cache makes of it.
fn isolated_steps(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let get = "busybox timeout 5 busybox wget -q -O - http://127.0.0.1:8081/hello";
    let tells = format!("{get} || echo unreached; ls /sys/class/net");
    let step = |flags: &str| dockerfile(mode, "net", &format!("FROM busybox\nRUN {flags} {tells}\n"));
    step("")?;
    expect(
        &machine.lap("build --progress plain --network isolated net")?,
        0,
        &[" unreached\n", " eth0\n", " lo\n"],
    )?;
    // What the default is is in no key, as in BuildKit.
    let cached = machine.lap("build --progress plain --network default net")?;
    expect(&cached, 0, &["CACHED"])?;
    let told = "build --progress plain --no-cache net";
    expect(&machine.lap(told)?, 0, &[" unreached\n", " eth0\n"])?;
    let host = machine.script(&format!("LAPSTRAKE_NETWORK=host ./lapstrake {told}"))?;
    expect(&host, 0, &[" from loopback\n"])?;
    let set = machine.script(&format!("LAPSTRAKE_NETWORK=isolated ./lapstrake {told}"))?;
    expect(&set, 0, &[" unreached\n", " eth0\n"])?;
    let wrong = machine.script(&format!("LAPSTRAKE_NETWORK=x ./lapstrake {told}"))?;
    expect(&wrong, 2, &["LAPSTRAKE_NETWORK=x: not one of host, isolated"])?;
    step("--network=none")?;
    let none = machine.lap(&format!("{told} --network isolated"))?;
    expect(&none, 0, &[" unreached\n", " lo\n"])?;
    if text(&none).contains("eth0") {
        return Err(text(&none));
    }
    step("--network=host")?;
    expect(&machine.lap(&format!("{told} --network isolated"))?, 1, &["network.host is not allowed"])?;
    let allowed = machine.lap(&format!("{told} --network isolated --allow network.host"))?;
    expect(&allowed, 0, &[" from loopback\n"])?;
    step("--security=insecure")?;
    let insecure = machine.lap(&format!("{told} --network isolated --allow security.insecure"))?;
    expect(&insecure, 0, &[" unreached\n", " eth0\n"])?;
    expect(
        &machine.lap("run --network x busybox true")?,
        125,
        &["not one of default, isolated, none, host"],
    )?;
    nothing_left(mode)
}

/// Names are asked of the machine's own resolver, which listens on loopback only.
fn isolated_names(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let ask = "run --network isolated busybox sh -c 'cat /etc/resolv.conf; busybox nslookup world.test'";
    expect(&machine.lap(ask)?, 0, &["nameserver 127.0.0.11", "203.0.113.9"])?;
    // A long answer's way.
    let question =
        r"\000\034\001\002\001\000\000\001\000\000\000\000\000\000\005world\004test\000\000\001\000\001";
    let stream = format!(
        "run --network isolated busybox sh -c \"printf '{question}' | busybox nc -w 3 127.0.0.11 53 | busybox hexdump -C\""
    );
    expect(&machine.lap(&stream)?, 0, &["cb 00 71 09"])?;
    nothing_left(mode)
}

/// Nobody gets in: not the step beside it, not the world, which has a route.
fn isolated_network_is_closed(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    // Each listens, waits until the other does, and then tries all addresses that it may have.
    let step = |own: u16, other: u16| {
        format!(
            "RUN --mount=type=cache,target=/c,id=meet busybox nc -l -p 7000 -e echo in{own} & touch /c/{own}; \
             i=0; until test -e /c/{other} -o $i = 300; do sleep 0.1; i=$((i+1)); done; \
             for at in 0 1 2 3; do busybox ip addr | grep -q 10.209.$at.2/ || \
             busybox timeout 2 busybox nc 10.209.$at.2 7000 < /dev/null; done; \
             echo {own} has tried; touch /c/{own}.done; i=0; until test -e /c/{other}.done -o $i = 300; do sleep 0.1; i=$((i+1)); done\n"
        )
    };
    let text_of = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n",
        step(1, 2),
        step(2, 1)
    );
    dockerfile(mode, "meet", &text_of)?;
    let met = machine.lap("build --progress plain --network isolated meet")?;
    expect(&met, 0, &[" 1 has tried", " 2 has tried"])?;
    if text(&met).contains(" in1\n") || text(&met).contains(" in2\n") {
        return Err(format!("a step reached another: {}", text(&met)));
    }
    if mode.user.is_none() {
        let knock = "./lapstrake run --network isolated busybox busybox timeout 6 busybox nc -l -p 7000 -e echo in & \
                     sleep 2; for at in 0 1 2; do ip netns exec world timeout 2 busybox nc 10.209.$at.2 7000 < /dev/null; done; \
                     for at in 0 1 2; do timeout 2 busybox nc 10.209.$at.2 7000 < /dev/null; done; wait";
        let knocked = machine.script(knock)?;
        // The machine itself gets in once; that shows that there was a door.
        if text(&knocked).matches("in\n").count() != 1 {
            return Err(format!("not the machine alone got in: {}", text(&knocked)));
        }
    }
    nothing_left(mode)
}

/// What the machine's network has of ours.
fn of_ours(machine: &Apart<'_>) -> Result<String, String> {
    let list = "ip -o link | grep -o 'lap[0-9]*@[^:]*'; nft list tables | grep lap; true";
    machine.script(list).map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// Interfaces, tables, namespaces and helpers go with whoever made them, also by `kill -9`.
fn isolated_network_leaves_nothing(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let root = mode.user.is_none();
    let pid = machine.pid();
    for signal in ["-TERM", "-KILL"] {
        let through = ["nsenter", "--mount", "--net", "--target", &pid];
        let mut running = script_through(
            &through,
            mode,
            "exec ./lapstrake run --network isolated busybox sh -c \
             'trap exit TERM; echo up; while :; do sleep 0.1; done'",
        );
        let mut running: std::process::Child =
            running.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let mut line = [0; 3];
        let told = running.stdout.as_mut().map(|out| std::io::Read::read_exact(out, &mut line));
        if !matches!(told, Some(Ok(()))) {
            stop(&mut running);
            return Err("the container did not start".to_owned());
        }
        let ours = of_ours(&machine)?;
        let running_now = processes(&state(mode))?;
        let helped = running_now.contains("pasta") || running_now.contains("slirp4netns");
        let shown = if root { ours.contains("lap0@") && ours.contains("table inet lap0") } else { helped };
        Command::new("kill")
            .args([signal, &running.id().to_string()])
            .status()
            .map_err(|error| error.to_string())?;
        drop(running.wait());
        if !shown {
            return Err(format!("nothing was seen while it ran: {ours}"));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = of_ours(&machine)? + &processes(&state(mode))?;
            match left.is_empty() {
                true => break,
                false if Instant::now() > deadline => return Err(format!("after kill {signal}: {left}")),
                false => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    let again = machine.lap(&get("203.0.113.9:8080"))?;
    expect(&again, 0, &["from the world"])?;
    nothing_left(mode)
}

/// Where there is no way, that is said, with what would help; nothing else is refused.
fn isolated_network_not_there(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    must(&format!(
        "cd '{}' && mkdir few && for one in sh newuidmap newgidmap git; do ln -s $(command -v $one) few/; done",
        mode.place.display()
    ))?;
    let few = |args: &str| machine.script(&format!("PATH=\"$PWD/few\" ./lapstrake {args}"));
    let words =
        ["cannot give the container a network of its own", "pasta", "hint: install the package passt"];
    expect(&few("run --network isolated busybox true")?, 125, &words)?;
    dockerfile(mode, "net", "FROM busybox\nRUN echo $(ls /sys/class/net)\n")?;
    expect(&few("build --network isolated --no-cache net")?, 3, &words)?;
    expect(&few("doctor")?, 0, &["limited  network", "host and none only", "install the package passt"])?;
    expect(&few("build --no-cache net")?, 0, &[])?;
    nothing_left(mode)
}

/// Nobody has to ask for it; the host's has no raw sockets.
fn isolated_network_is_the_default(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let ask = "busybox timeout 5 busybox wget -q -O - http://127.0.0.1:8081/hello || echo unreached; \
               busybox timeout 5 busybox wget -q -O - http://203.0.113.9:8080/hello; \
               grep -q @test /proc/net/unix && echo sees sockets; grep CapEff /proc/self/status; exit 0";
    dockerfile(mode, "plain-net", &format!("FROM busybox\nRUN {ask}\n"))?;
    let listens = "true; python3 -c 'import socket, time; s = socket.socket(1); s.bind(b\"\\0test\"); s.listen(); time.sleep(60)' & until grep -q @test /proc/net/unix; do sleep 0.1; done; ";
    let build = "./lapstrake build --progress plain --no-cache plain-net";
    let run = format!("./lapstrake run busybox sh -c '{}'", ask.replace('\'', "\""));
    for command in [build.to_owned(), run] {
        let own = machine.script(&format!("{listens} {command}; status=$?; kill $!; exit $status"))?;
        expect(&own, 0, &["unreached\n", "from the world\n", "a80425fb\n"])?;
        if text(&own).contains("sees sockets\n") || text(&own).contains("lapstrake:") {
            return Err(text(&own));
        }
        let host = machine.script(&format!(
            "{listens} LAPSTRAKE_NETWORK=host {command}; status=$?; kill $!; exit $status"
        ))?;
        expect(&host, 0, &["from loopback\n", "from the world\n", "sees sockets\n", "a80405fb\n"])?;
    }
    let asked =
        machine.lap("build --progress plain --no-cache --network host --allow network.host plain-net")?;
    expect(&asked, 0, &["from loopback\n", "a80405fb\n"])?;
    nothing_left(mode)
}

/// A step that does not reach what listens on the machine's loopback interface is told why, and what helps; one that fails
/// for another reason is not.
fn services_on_loopback(mode: &Mode) -> Result<(), String> {
    let machine = machine(mode)?;
    let flag = "`--network host --allow network.host` (or LAPSTRAKE_NETWORK=host)";
    let get = "busybox timeout 5 busybox wget -q -O -";
    for (flags, step, service) in [
        // A proxy that a variable names, in the step and by the command line.
        (
            "",
            format!("http_proxy=http://127.0.0.1:8081 {get} http://203.0.113.9:8080/hello"),
            Some("127.0.0.1:8081"),
        ),
        (
            "--build-arg http_proxy=http://localhost:8081",
            format!("{get} http://203.0.113.9:8080/hello"),
            Some("localhost:8081"),
        ),
        // A mirror in the command, in the environment, and in a file that nobody sees.
        ("", format!("{get} http://127.0.0.1:8081/hello"), Some("127.0.0.1:8081")),
        ("--build-arg MIRROR=http://127.0.0.1:8081", format!("{get} $MIRROR/hello"), Some("127.0.0.1:8081")),
        ("", "echo could not connect to localhost port 8081 >&2; exit 7".to_owned(), Some("localhost:8081")),
        // Nobody listens there, on the machine neither.
        ("", format!("{get} http://127.0.0.1:8089/hello"), None),
        ("", "echo no; false".to_owned(), None),
    ] {
        dockerfile(mode, "loopback", &format!("FROM busybox\nARG MIRROR\nRUN {step}\n"))?;
        let built = machine.lap(&format!("build --no-cache {flags} loopback"))?;
        let told = text(&built);
        let expected = service.map(|service| format!("`{service}` is not the machine's: {flag}"));
        let is_told = expected.as_ref().is_some_and(|hint| told.contains(hint.as_str()));
        if built.status.success()
            || is_told != service.is_some()
            || (service.is_none() && told.contains("--network host"))
        {
            return Err(format!("{step}: {told}"));
        }
        // The server is no proxy.
        if service.is_some() && !step.starts_with("echo") && !format!("{flags}{step}").contains("http_proxy")
        {
            let host = format!("LAPSTRAKE_NETWORK=host ./lapstrake build --no-cache {flags} loopback");
            expect(&machine.script(&host)?, 0, &[])?;
        }
    }
    let ran = machine.lap(&format!(
        "run -e http_proxy=http://127.0.0.1:8081 busybox {get} http://203.0.113.9:8080/hello"
    ))?;
    expect(&ran, 1, &["`127.0.0.1:8081` is not the machine's: `--network host`"])?;
    nothing_left(mode)
}
