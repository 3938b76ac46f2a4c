//! Archives and layers that want to harm: what is outside stays as it is, memory stays small, and the reason is told.

use std::fs;

use super::place::{Mode, expect, must_say, nothing_left, script, text};

pub(super) const CASES: &[super::Case] = &[("hostile_layers", layers)];

/// Makes an image of an evil layer, loads it, and says what came of it and how much memory it took.
const DRIVER: &str = r#"
import gzip as gz, hashlib, io, json, os, resource, subprocess, sys, tarfile, threading
canary, name = sys.argv[1], sys.argv[2]

def entry(name, kind=tarfile.REGTYPE, link="", data=b"", **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)

L, H, D, C, B = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE
up = "../" * 40 + canary.lstrip("/")
pax = tarfile.TarInfo("pax"); pax.type = tarfile.XHDTYPE; pax.size = 1 << 30
long = tarfile.TarInfo("././@LongLink"); long.type = tarfile.GNUTYPE_LONGNAME; long.size = 1 << 31
def gzip(write):
    out = io.BytesIO()
    with gz.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        write(packed)
        packed.write(b"\0" * 1024)
    return out.getvalue()

def zstd(write):
    # A frame of a few kilobytes: more than a hundred thousand to one.
    run = subprocess.Popen(["zstd", "-q", "-3", "-c"], stdin=-1, stdout=-1)
    done = []
    reader = threading.Thread(target=lambda: done.append(run.stdout.read()))
    reader.start()
    write(run.stdin); run.stdin.write(b"\0" * 1024); run.stdin.close()
    reader.join(); run.wait()
    return done[0]

def plain(layer):
    if layer[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-qdc"], input=layer, stdout=-1, check=True).stdout
    return gz.decompress(layer)

def zeros(out, size):
    big = tarfile.TarInfo("zeros"); big.size = size
    out.write(big.tobuf(tarfile.GNU_FORMAT))
    for _ in range(size >> 20):
        out.write(b"\0" * (1 << 20))

def paxed(records, name="f"):
    info = tarfile.TarInfo(name); info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT)

proto = entry("x")
def short(n):
    # As `entry`, but quick.
    head = bytearray(proto); name = b"%x" % n; head[:len(name)] = name; head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return head

def far(n):
    # In a directory of its own that nothing names.
    head = bytearray(proto); name = b"%x/%x" % (n, n); head[:len(name)] = name; head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return head

def attribute(n):
    return paxed({"SCHILY.xattr.user.a": "x" * 1000000}, f"f{n}")

layers = {
    "traversal": entry(up + "/f", data=b"evil"),
    "dots": entry("a/../../../f", data=b"evil"),
    "absolute": entry(canary + "/f", data=b"evil"),
    "symlink": entry("a", L, canary) + entry("a/f", data=b"evil"),
    "symlink-up": entry("a", L, up) + entry("a/f", data=b"evil"),
    "symlink-chain": entry("a", L, "b") + entry("b", L, up) + entry("a/new", D) + entry("a/f", data=b"evil"),
    "symlink-loop": entry("a", L, "b") + entry("b", L, "a") + entry("a/f", data=b"evil"),
    "hardlink": entry("h", H, canary + "/f") + entry("h", data=b"evil"),
    "hardlink-up": entry("h", H, up + "/f") + entry("h", data=b"evil"),
    "hardlink-by-symlink": entry("a", L, canary) + entry("h", H, "a/f") + entry("h", data=b"evil"),
    "whiteout-by-symlink": entry("a", L, canary) + entry("a/.wh.f"),
    "opaque-by-symlink": entry("a", L, canary) + entry("a/.wh..wh..opq"),
    "whiteout-of-dots": entry(".wh..."),
    "device": entry("disk", B, devmajor=8, devminor=0) + entry("null", C, devmajor=1, devminor=3),
    "whiteout-device": entry("gone", C, devmajor=0, devminor=0),
    "root": entry("/", L, canary),
    "pax": pax.tobuf(tarfile.GNU_FORMAT) + b"1000 a=" + b"b" * 2000,
    "longname": long.tobuf(tarfile.GNU_FORMAT) + b"a" * 4096,
    "size": entry("big")[:124] + b"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff" + entry("big")[136:],
    "negative": entry("big")[:124] + b"\xff" * 12 + entry("big")[136:],
    "window": None,
    "no-tar": b"this is text, and no archive\n" * 100,
    # Bombs: what little of them there is would become much.
    "zeros": lambda: gzip(lambda out: zeros(out, 1 << 30)),
    "zeros-zstd": lambda: zstd(lambda out: zeros(out, 1 << 30)),
    "many": lambda: gzip(lambda out: [out.write(entry(f"{n}")) for n in range(100000)]),
    # A quarter of what is taken of them: what each entry costs is told by the whole.
    "headers": lambda: gzip(lambda out: [out.write(short(n)) for n in range(250000)]),
    "implied": lambda: gzip(lambda out: [out.write(far(n)) for n in range(60000)]),
    "attributes": lambda: gzip(lambda out: [out.write(attribute(n)) for n in range(400)]),
    "sparse": entry("holes", b"S", realsize=1 << 40),
    "sparse-pax": paxed({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1099511627776"}),
}

def patched(layer):
    # The checksum of the first header, made right again.
    head = bytearray(layer[:512]); head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + layer[512:]

if name == "list":
    print(" ".join(layers)); sys.exit()
path = "evil-layer"
digest = hashlib.sha256()
with open(path, "wb") as out:
    if name == "window":
        out.write(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00")
    else:
        layer = layers[name]
        if callable(layer):
            layer = layer()
            digest.update(plain(layer) if name != "attributes" else b"")
        elif name != "no-tar":
            layer = (patched(layer) if name in ("size", "negative") else layer) + b"\0" * 1024
            digest.update(layer)
        out.write(layer)
config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]}})
with tarfile.open("evil.tar", "w") as tar:
    def add(name, data):
        info = tarfile.TarInfo(name); info.size = len(data); tar.addfile(info, io.BytesIO(data))
    add("config.json", config.encode())
    add("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": ["evil:1"], "Layers": ["layer.tar"]}]).encode())
    tar.add(path, "layer.tar")
# More than this nobody gets, whatever he does with it: who wants more ends at once, and not with a reason.
bound = lambda: resource.setrlimit(resource.RLIMIT_DATA, (448 << 20, 448 << 20))
done = subprocess.run(["./lapstrake", "load", "-i", "evil.tar"], capture_output=True, text=True, preexec_fn=bound)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(f"{name}: status {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}")
most_of = {"headers": 100, "implied": 100}.get(name, 280)
print(f"memory {'small' if most < most_of else most}")
"#;

/// What is told; the others are taken, and their links lead nowhere but within the image.
const REFUSED: &[(&str, &str)] = &[
    ("traversal", "evil"),
    ("dots", ""),
    ("symlink-loop", ""),
    ("hardlink", ""),
    ("hardlink-up", ""),
    ("hardlink-by-symlink", ""),
    ("whiteout-of-dots", "it deletes no name"),
    ("whiteout-device", "would be taken for a deletion"),
    ("root", "it would replace the root"),
    ("pax", "bytes in an extended header"),
    ("longname", "bytes in an extended header"),
    ("size", ""),
    ("negative", ""),
    ("window", ""),
    ("no-tar", "it is no tar archive"),
    ("attributes", "bytes of entries, names and attributes"),
    ("sparse", "sparse files are not supported"),
    ("sparse-pax", "sparse files are not supported"),
];

fn layers(mode: &Mode) -> Result<(), String> {
    let place = mode.place.display();
    fs::write(mode.place.join("hostile.py"), DRIVER).map_err(|error| error.to_string())?;
    let canary = mode.place.join("canary");
    fs::create_dir_all(&canary).map_err(|error| error.to_string())?;
    fs::write(canary.join("f"), "host").map_err(|error| error.to_string())?;
    let look = || {
        must_say(&format!(
            "cd '{place}/canary' && chmod 777 . && chmod 666 f && ls -lR --time-style=full-iso f && cat f && ls -a"
        ))
    };
    let before = look()?;
    let run = |name: &str| script(mode, &format!("python3 hostile.py '{place}/canary' {name}"));
    let stored =
        || script(mode, "ls $LAPSTRAKE_ROOT/layers $LAPSTRAKE_ROOT/blobs/sha256").map(|output| output.stdout);
    let names = String::from_utf8_lossy(&run("list")?.stdout).trim().to_owned();
    for name in names.split_whitespace() {
        let there = stored()?;
        let done = run(name)?;
        let all = text(&done);
        if REFUSED.iter().any(|(refused, _)| *refused == name) && stored()? != there {
            return Err(format!("{name} was refused, and something of it is stored: {all}"));
        }
        let told = match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((_, "evil")) => vec!["status 1: ERROR:".to_owned()],
            Some((_, why)) => vec!["status 1: ERROR:".to_owned(), (*why).to_owned()],
            None => vec!["status 0:".to_owned()],
        };
        let words: Vec<&str> = told.iter().map(String::as_str).chain(["memory small"]).collect();
        expect(&done, 0, &words).map_err(|why| format!("{name}: {why}"))?;
        if all.contains("panicked") {
            return Err(format!("{name}: {all}"));
        }
        let after = look()?;
        if after != before {
            return Err(format!("{name} changed what is outside: {before} {after}"));
        }
        expect(&script(mode, "./lapstrake rmi -f evil:1 2> /dev/null; true")?, 0, &[])?;
        nothing_left(mode).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}
