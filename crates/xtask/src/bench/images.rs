//! Images on their way: into the store, into archives, to a registry on loopback and back, in MB/s, beside what reads,
//! hashes and compresses the same bytes.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process;

use lapstrake_testkit::Registry;

use super::measure::{Command, measure, on_path};
use super::peers::Peer;

/// Megabytes of the layer.
const MEGABYTES: usize = 500;
const ROUNDS: usize = 3;

/// Measures all of it with the binary at `lapstrake`, below `place`, beside BuildKit if it is one of the peers.
pub(super) fn bench(lapstrake: &Path, place: &Path, peers: &[Peer]) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let context = place.join("image");
    fs::create_dir_all(&context).map_err(failed)?;
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY big /big\n").map_err(failed)?;
    fill(&context.join("big")).map_err(failed)?;
    let registry = Registry::start(place, "registry", "")?;
    let (state, at) = (place.join("image-state"), place.display());
    let name = format!("{}/bench/app:1", registry.address);
    let lap = |args: &str| {
        let script =
            format!("cd '{at}' && LAPSTRAKE_ROOT='{}' '{}' {args}", state.display(), lapstrake.display());
        Command::new("sh").args(&["-c", &script])
    };
    let sh = |script: &str| Command::new("sh").args(&["-c", &format!("cd '{at}' && {script}")]);
    let big = "image/big";
    let no_blobs = format!("find '{}/blobs' -size +1M -delete", state.display());
    let fresh = format!("rm -rf '{}'", state.display());
    let first = lap(&format!("build -q -t {name} image")).before(&fresh);
    let copied = "cp -a image copy && sync -f copy && rm -rf copy";
    let mut rows = vec![
        ("lapstrake", first),
        ("cp -a and sync", sh(copied)),
        ("sha256sum", sh(&format!("sha256sum {big}"))),
    ];
    for peer in peers {
        let built = peer.output(&context, "type=image,name=bench");
        rows.extend(built.zip(peer.emptied()).map(|(build, empty)| (peer.name(), build.before(&empty))));
    }
    table("build -t", rows)?;
    let written = bytes_of(&state.join("blobs"))?;
    println!("build -t: {written} bytes of blobs were written (config and manifest; no layer)");
    let export = |keys: &str| {
        lap(&format!("build -q -o type=oci,dest=out.tar,force-compression=true,{keys} image"))
            .before(&no_blobs)
    };
    let mut rows = vec![("lapstrake, gzip", export("compression=gzip"))];
    rows.extend(on_path("pigz").then(|| ("pigz", sh(&format!("pigz -c {big} > out.gz")))));
    rows.push(("lapstrake, zstd", export("compression=zstd")));
    rows.extend(on_path("zstd").then(|| ("zstd -T0", sh(&format!("zstd -qf -T0 {big} -o out.zst")))));
    rows.push(("lapstrake, uncompressed", export("compression=uncompressed")));
    table("export to an OCI archive", rows)?;
    export("compression=gzip").run()?;
    let compressed = fs::metadata(place.join("out.tar")).map_err(failed)?.len();
    println!("gzip makes {:.2} of it", compressed as f64 / (MEGABYTES as f64 * 1e6));
    wire((&lap, &sh), (&name, &registry.address), (&at.to_string(), &fresh))?;
    let to = Wire { lap: &lap, registry: &registry.address, place, fresh: &fresh };
    beside_buildkit(&to, &name, peers)
}

/// What both builders send to and fetch from.
struct Wire<'a> {
    lap: Make<'a>,
    registry: &'a str,
    place: &'a Path,
    /// A shell command after which our state directory is empty.
    fresh: &'a str,
}

/// From nothing to an image in the registry, and from the registry to a step's root. BuildKit compresses when it stores.
fn beside_buildkit(to: &Wire<'_>, name: &str, peers: &[Peer]) -> Result<(), String> {
    let Wire { lap, registry, place, fresh } = to;
    let (image, based) = (place.join("image"), place.join("based"));
    let emptied = format!("rm -rf '{}/registry/docker'", place.display());
    let theirs = format!("{registry}/bench/theirs:1");
    let ours = lap(&format!("build -q --push -t {name} image")).before(&format!("{emptied}; {fresh}"));
    let mut rows = vec![("lapstrake", ours)];
    for peer in peers {
        let output = format!("type=image,name={theirs},push=true,registry.insecure=true");
        let (Some(pushed), Some(empty)) = (peer.output(&image, &output), peer.emptied()) else { continue };
        rows.push((peer.name(), pushed.before(&format!("{emptied}; {empty}"))));
    }
    let measured = rows.len();
    table("build and push, gzip", rows)?;
    if measured == 1 {
        return Ok(());
    }
    let made = || {
        fs::create_dir_all(&based)?;
        fs::write(based.join("Dockerfile"), format!("FROM {theirs}\nWORKDIR /made\n"))
    };
    made().map_err(|error: std::io::Error| error.to_string())?;
    let mut rows = vec![("lapstrake", lap("build -q -o type=image,unpack=true based").before(fresh))];
    for peer in peers {
        let built = peer.output(&based, "type=image,name=bench");
        rows.extend(built.zip(peer.emptied()).map(|(build, empty)| (peer.name(), build.before(&empty))));
    }
    table("pull and unpack what BuildKit made", rows)
}

/// Makes a command of a text.
type Make<'a> = &'a dyn Fn(&str) -> Command;

/// Through a registry on loopback: away, and back.
fn wire(
    (lap, sh): (Make<'_>, Make<'_>),
    (name, registry): (&str, &str),
    (at, fresh): (&str, &str),
) -> Result<(), String> {
    let big = "image/big";
    let emptied = format!("rm -rf '{at}/registry/docker'");
    let mut rows = vec![("lapstrake push", lap(&format!("push -q {name}")).before(&emptied))];
    if on_path("skopeo") {
        let copy = format!(
            "skopeo --insecure-policy copy -q --dest-tls-verify=false oci-archive:out.tar docker://{registry}/bench/other:1"
        );
        rows.push(("skopeo copy", sh(&copy).before(&emptied)));
    }
    rows.push(("cp of the blob", sh("cp out.tar copy && rm copy")));
    table("push to loopback, compressed before", rows)?;
    lap(&format!("push -q {name}")).run()?;
    // A pull checks everything and leaves the layer packed.
    let unpacking = "build -q -o type=image,unpack=true unpacking";
    sh(&format!("mkdir -p unpacking && echo FROM {name} > unpacking/Dockerfile")).run()?;
    let mut rows = vec![
        ("lapstrake pull", lap(&format!("pull -q {name}")).before(fresh)),
        ("lapstrake pull, unpacked", lap(unpacking).before(fresh)),
    ];
    if on_path("skopeo") {
        // It unpacks nothing.
        let copy = format!(
            "rm -rf pulled && skopeo --insecure-policy copy -q --src-tls-verify=false docker://{name} dir:pulled"
        );
        rows.push(("skopeo copy to a directory", sh(&copy)));
    }
    rows.push(("cp", sh(&format!("cp {big} copy && rm copy"))));
    rows.push(("sha256sum", sh(&format!("sha256sum {big}"))));
    table("pull from loopback", rows)
}

/// Measures and prints in MB/s of the layer as it is when unpacked.
fn table(name: &str, rows: Vec<(&str, Command)>) -> Result<(), String> {
    let rows: Vec<(String, Command)> =
        rows.into_iter().map(|(who, command)| (who.to_owned(), command)).collect();
    let figures = measure(&rows, ROUNDS)?;
    for ((who, _), figures) in rows.iter().zip(figures) {
        let speed = MEGABYTES as f64 / figures.median;
        println!("{:<60} {:>8.2} s {speed:>8.0} MB/s", format!("{name}: {who}"), figures.median);
    }
    Ok(())
}

/// Half of it compresses well, half does not: like binaries.
fn fill(path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for number in 0..MEGABYTES * 1000 / 8 {
        let mut block = vec![0; 8000];
        if number % 2 == 0 {
            block.chunks_mut(8).for_each(|piece| piece.copy_from_slice(&next().to_le_bytes()));
        } else {
            let text = format!("{number} the quick brown fox jumps over the lazy dog {}\n", next() % 1000);
            block.iter_mut().zip(text.bytes().cycle()).for_each(|(to, from)| *to = from);
        }
        out.write_all(&block)?;
    }
    out.flush()
}

fn bytes_of(dir: &Path) -> Result<u64, String> {
    let output = process::Command::new("du").arg("-sb").arg(dir.join("sha256")).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: u64 = text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
    // The directory itself counts as a block.
    Ok(all.saturating_sub(4096))
}
