//! ADD of archives: what is in them lands where, and as what, BuildKit puts it.

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};
use super::remote::web;

pub(super) const CASES: &[super::Case] = &[
    ("unpacked_onto_trees", onto_trees),
    ("unpacked_inside", inside),
    ("unpacked_in_order", in_order),
    ("unpacked_from_the_web", from_the_web),
    ("unpacked_sparse", sparse),
];

/// Makes archives of lines of `kind name mode owner:group time [link or text]`, and lists them again.
const PROGRAM: &str = r#"import io, json, sys, tarfile
KINDS = {'F': tarfile.REGTYPE, 'D': tarfile.DIRTYPE, 'S': tarfile.SYMTYPE, 'H': tarfile.LNKTYPE, 'P': tarfile.FIFOTYPE,
         'C': tarfile.CHRTYPE, 'B': tarfile.BLKTYPE}
def make(path, format):
    with tarfile.open(path, 'w', format=format) as out:
        for line in sys.stdin.read().splitlines():
            kind, name, mode, owner, time, *text = line.split(maxsplit=5)
            i = tarfile.TarInfo(name.replace('LONG', 'n' * 120 + '/' + 'm' * 130))
            i.type, i.mode, i.mtime = KINDS[kind], int(mode, 8), float(time)
            i.uid, i.gid = map(int, owner.split(':'))
            text = text[0] if text else ''
            data = b''
            if kind in 'SH': i.linkname = text.replace('LONG', 'n' * 120 + '/' + 'm' * 130)
            elif kind in 'CB': i.devmajor, i.devminor = map(int, text.split(','))
            elif kind == 'F': data = text.replace('|', '\n').encode()
            i.size = len(data)
            out.addfile(i, io.BytesIO(data))
def layers(path):
    read = lambda digest: open(f'{path}/blobs/' + digest.replace(':', '/'), 'rb').read()
    manifest = json.loads(read(json.load(open(f'{path}/index.json'))['manifests'][0]['digest']))
    for layer in manifest['layers']:
        yield tarfile.open(fileobj=io.BytesIO(read(layer['digest'])))
def show(path, under):
    kinds = {kind: letter for letter, kind in KINDS.items()}
    short = lambda name: name.removeprefix('./').removeprefix(under).replace('n' * 120 + '/' + 'm' * 130, 'LONG')
    found = {}
    for layer in layers(path):
        below, found_here = found, {}
        for i in layer.getmembers():
            name = i.name.removeprefix('./')
            dir, _, base = name.rpartition('/')
            gone = f'{dir}/{base[4:]}' if base.startswith('.wh.') else name if not i.isdir() else None
            if base == '.wh..wh..opq': below = {n: t for n, t in below.items() if not n.startswith(dir + '/')}
            elif gone: below = {n: t for n, t in below.items() if n != gone and not n.startswith(gone + '/')}
            if base.startswith('.wh.'): continue
            text = layer.extractfile(i).read().decode() if i.isreg() else i.linkname if i.issym() else ''
            if i.islnk(): text = 'with ' + short(i.linkname)
            time = int(i.mtime) if i.mtime < 1e9 else 'now'
            found_here[name] = f'{kinds[i.type]} {short(name)} {i.mode:o} {i.uid}:{i.gid} {time} {short(text)}'
        found = below | found_here
    for name, text in sorted(found.items()):
        if name.startswith(under) and not name.endswith('/' + 'n' * 120): print(text)
if sys.argv[1] == 'show': show(*sys.argv[2:])
else: make(sys.argv[2], tarfile.PAX_FORMAT if sys.argv[1] == 'pax' else tarfile.GNU_FORMAT)
"#;

const BEFORE: &str = "D d 755 1:1 100\nF d/in/x 644 1:1 100 x\nD e 755 1:1 100\nF e/y 644 1:1 100 y\nF f 644 1:1 100 f\n\
                      S s 777 1:1 100 d\nD kept 700 1:1 100\nF kept/z 644 1:1 100 z\nF g 644 1:1 100 g\n";

const AFTER: &str = "F d 600 2:2 200 file\nS e 777 2:2 200 gone\nD f 711 2:2 200\nD s 700 2:2 200\nD kept 750 2:2 200\n\
                     F ../up 644 2:2 200 up\nS l 777 2:2 200 ..\nF l/landed 640 2:2 200 landed\nF l/sub/deep 640 2:2 200 deep\n\
                     F h0 600 2:2 200 shared\nH h1 4755 3:4 300 h0\nH h2 4711 5:6 400 h1\nS t 777 2:2 200 h0\nH t2 644 7:8 300 t\n\
                     F imp/lied/x 644 2:2 200 x\nF dup 600 2:2 200 1\nF dup 644 2:3 250 22\nD twice 700 2:2 200\nD twice 751 2:3 250\n\
                     F LONG 644 2:2 200 long\nS longlink 777 2:2 200 LONG\nH g 640 2:2 200 /h0\nP pipe 620 2:2 200\nD late 755 2:2 200\n\
                     F late/x 644 2:2 200 x\nF old 644 2:2 -5 old\n";

/// What there is then, but for times of directories that no entry names: those are now, or the epoch.
const SHOWN: &str = "F d 600 2:2 200 file\nF dup 644 2:3 250 22\nS e 777 2:2 200 gone\nD f 711 2:2 200 \n\
                     F g 640 2:2 200 shared\nH h0 640 2:2 200 with g\nH h1 640 2:2 200 with g\nH h2 640 2:2 200 with g\n\
                     D imp 755 0:0 7000 \nD imp/lied 755 0:0 7000 \nF imp/lied/x 644 2:2 200 x\nD kept 750 2:2 200 \n\
                     F kept/z 644 1:1 100 z\nS l 777 2:2 200 ..\nF landed 640 2:2 200 landed\nD late 755 2:2 200 \n\
                     F late/x 644 2:2 200 x\nS longlink 777 2:2 200 LONG\nF LONG 644 2:2 200 long\nF old 644 2:2 0 old\n\
                     P pipe 620 2:2 200 \nD s 700 2:2 200 \nD sub 755 0:0 7000 \nF sub/deep 640 2:2 200 deep\n\
                     S t 777 7:8 200 h0\nS t2 777 7:8 200 h0\nD twice 751 2:3 250 \nF up 644 2:2 200 up\n";

/// Puts the program and a context there.
fn context(mode: &Mode, name: &str, text: &str, archives: &[(&str, &str, &str)]) -> Result<(), String> {
    dockerfile(mode, &format!("{name}-file"), text)?;
    let program = mode.place.join(format!("{name}-file/tars.py"));
    std::fs::write(program, PROGRAM).map_err(|error| error.to_string())?;
    let mut commands = format!("rm -rf {name} && mkdir {name} && cp {name}-file/Dockerfile {name}");
    for (file, format, entries) in archives {
        commands.push_str(&format!(
            " && python3 {name}-file/tars.py {format} {name}/{file} <<'E'\n{}\nE\ntrue",
            entries.trim_end()
        ));
    }
    expect(&script(mode, &commands)?, 0, &[])
}

/// Everything over everything, in one layer and in several, with and without the lower layers' files, and with `--link`.
fn onto_trees(mode: &Mode) -> Result<(), String> {
    let text = "ARG BASE=scratch\nFROM scratch AS lower\nADD before.tar /a/t/\nFROM $BASE AS upper\nADD after.tar /a/t/\n\
                FROM scratch AS linked\nADD --chown=9:9 after.tar /a/t/\nADD --link --chown=10:20 after.tar /new/t/\n\
                FROM lower AS both\nADD before.tar after.tar /a/t/\n";
    let archives = [("before.tar", "gnu", BEFORE), ("after.tar", "gnu", AFTER), ("pax.tar", "pax", AFTER)];
    context(mode, "ctx-unpacked", text, &archives)?;
    let shown = |before: &str, flags: &str| -> Result<String, String> {
        let commands = format!(
            "rm -rf unpacked && {before} && export SOURCE_DATE_EPOCH=7000 && ./lapstrake build -q --no-cache {flags} -o type=oci,tar=false,dest=unpacked ctx-unpacked > /dev/null && \
             python3 ctx-unpacked-file/tars.py show unpacked a/t/"
        );
        let output = script(mode, &commands)?;
        expect(&output, 0, &[]).map_err(|why| format!("{flags}: {why}"))?;
        Ok(sorted(&String::from_utf8_lossy(&output.stdout)))
    };
    let same = |before: &str, flags: &str, want: &str| -> Result<(), String> {
        let (found, want) = (shown(before, flags)?, sorted(want));
        if found == want { Ok(()) } else { Err(format!("{flags}:\n{found}instead of\n{want}")) }
    };
    same("true", "--target both", SHOWN)?;
    expect(&lap(mode, "build -q -t unpacked-lower --target lower ctx-unpacked")?, 0, &[])?;
    same("true", "--target upper --build-arg BASE=unpacked-lower", SHOWN)?;
    // In a store of its own a base that was loaded stays packed.
    let fresh = "export LAPSTRAKE_ROOT=$PWD/unpacked-state";
    let packed = format!(
        "./lapstrake save -o lower.tar unpacked-lower && {fresh} && ./lapstrake load -q -i lower.tar"
    );
    expect(&script(mode, &packed)?, 0, &[])?;
    same(fresh, "--target upper --build-arg BASE=unpacked-lower", SHOWN)?;
    expect(&script(mode, "cp ctx-unpacked/pax.tar ctx-unpacked/after.tar")?, 0, &[])?;
    // PAX tells a time before 1970 as it is.
    same("true", "--target upper --build-arg BASE=unpacked-lower", SHOWN)?;
    let owned: String = SHOWN
        .lines()
        .filter(|line| !line.starts_with("F kept/z"))
        .map(|line| {
            let mut words: Vec<&str> = line.split(' ').collect();
            if words.get(3) != Some(&"0:0") {
                words[3] = "9:9";
            }
            words.join(" ") + "\n"
        })
        .collect();
    same("true", "--target linked", &owned)?;
    let linked = "python3 ctx-unpacked-file/tars.py show unpacked new/";
    expect(
        &script(mode, linked)?,
        0,
        &["D t 755 10:20", "D t/imp 755 0:0", "F t/up 644 10:20", "S t/t 777 10:20"],
    )?;
    nothing_left(mode)
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

/// Links of an archive lead to where they would if the destination were the root; device nodes that go are named.
fn inside(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nRUN mkdir -p /abs /t/sub && busybox ln -s /abs /t/of-base && busybox ln -s /t/sub /way\n\
                ARG FILE\nARG DEST=/t\nADD $FILE $DEST\n\
                RUN busybox find /t /abs /.wh.x -xdev 2> /dev/null | busybox sort | busybox tr '\\n' ' '\n";
    let archives = [
        ("up.tar", "gnu", "S l 777 0:0 1 ..\nF l/f 644 0:0 1 f\nF ../g 644 0:0 1 g\nF /h 644 0:0 1 h\n"),
        ("abs.tar", "gnu", "S l 777 0:0 1 /abs\nF l/f 644 0:0 1 f\n"),
        ("of-base.tar", "gnu", "F of-base/f 644 0:0 1 f\n"),
        ("no-link.tar", "gnu", "H h 644 0:0 1 nowhere\n"),
        ("to-dir.tar", "gnu", "D d 755 0:0 1\nH h 644 0:0 1 d\n"),
        ("marks.tar", "gnu", "F .wh.x 644 0:0 1 x\nF .wh..wh..opq 644 0:0 1\n"),
        (
            "nodes.tar",
            "gnu",
            "C null 666 0:0 1 1,3\nB disk 660 0:0 1 7,0\nC gone 600 0:0 1 0,0\nH again 666 0:0 1 null\n",
        ),
    ];
    context(mode, "ctx-inside", text, &archives)?;
    let built = |file: &str, dest: &str| {
        lap(
            mode,
            &format!("build --progress plain --build-arg FILE={file} --build-arg DEST={dest} ctx-inside"),
        )
    };
    expect(&built("up.tar", "/t")?, 0, &["/abs /t /t/f /t/g /t/h /t/l /t/of-base /t/sub "])?;
    expect(
        &built("up.tar", "/way/new/")?,
        0,
        &["/t/sub /t/sub/new /t/sub/new/f /t/sub/new/g /t/sub/new/h /t/sub/new/l "],
    )?;
    expect(
        &built("abs.tar", "/t")?,
        1,
        &["/t/l leads over a symbolic link to /t/abs, which does not exist"],
    )?;
    expect(&built("abs.tar", "/")?, 0, &["/abs /abs/f /t "])?;
    expect(&built("of-base.tar", "/t")?, 1, &["/t/of-base leads over a symbolic link to /t/abs"])?;
    expect(&built("no-link.tar", "/t")?, 1, &["hard link /t/h points to /t/nowhere, which is neither"])?;
    expect(&built("to-dir.tar", "/t")?, 1, &["cannot link /t/h"])?;
    expect(&built("marks.tar", "/")?, 0, &["/.wh.x /abs /t "])?;
    let nodes = built("nodes.tar", "/t")?;
    let left_out = "warning: device nodes cannot be made here and were left out: ";
    if mode.user.is_none() {
        expect(&nodes, 0, &[&format!("{left_out}/t/gone\n"), "/t/again /t/disk /t/null "])?;
    } else {
        expect(
            &nodes,
            0,
            &[&format!("{left_out}/t/again, /t/disk, /t/gone, /t/null\n"), "/abs /t /t/of-base /t/sub "],
        )?;
    }
    nothing_left(mode)
}

/// Sources are put in their order, archives and files alike.
fn in_order(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nADD 1-f 2.tar 3-g /t/\nADD [0-9]* /u/\nADD --chmod=700 2.tar /v/\n\
                RUN for d in t u; do grep packed /$d/1-f && grep loose /$d/3-g; done && test $(busybox stat -c %a /v/1-f) = 644\n";
    let archives = [("2.tar", "gnu", "F 1-f 644 0:0 1 packed\nF 3-g 644 0:0 1 packed\n")];
    context(mode, "ctx-in-order", text, &archives)?;
    let loose = "echo loose > ctx-in-order/1-f && echo loose > ctx-in-order/3-g";
    expect(&script(mode, loose)?, 0, &[])?;
    expect(&lap(mode, "build ctx-in-order")?, 0, &[])?;
    nothing_left(mode)
}

/// `--unpack` of an address, and an address as a context.
fn from_the_web(mode: &Mode) -> Result<(), String> {
    let entries = "D d 700 0:0 1\nD d 755 0:0 1\nF d/f 644 3:4 1 f\nF d 644 5:6 1 file\nC null 666 0:0 1 1,3\nF ../up 644 0:0 1 up\n\
                   F Dockerfile 644 0:0 1 FROM busybox|COPY . /t|RUN test $(cat /t/d) = file && test -f /t/up|\n";
    context(mode, "ctx-from-web", "FROM busybox\n", &[("it.tar", "gnu", entries)])?;
    expect(&script(mode, "mkdir -p web && cp ctx-from-web/it.tar web/unpacked.tar")?, 0, &[])?;
    let server = web(mode)?;
    let url = format!("http://127.0.0.1:{}/unpacked.tar", server.port);
    let text = format!(
        "FROM busybox\nRUN mkdir -p /t/d/in\nADD --unpack {url} /t\nRUN test $(cat /t/d) = file && test -f /t/up\n"
    );
    dockerfile(mode, "ctx-from-web-file", &text)?;
    expect(&lap(mode, "build --no-cache ctx-from-web-file")?, 0, &[])?;
    expect(&lap(mode, &format!("build --no-cache {url}"))?, 0, &[])?;
    nothing_left(mode)
}

/// Archives of files with holes, in each form that GNU tar has, are archives, and the files have their whole content.
fn sparse(mode: &Mode) -> Result<(), String> {
    let made = "rm -rf ctx-sparse && mkdir ctx-sparse && cd ctx-sparse && echo begin > f && truncate -s 3M f && echo end >> f && \
                truncate -s 4M f && make() { tar --sparse -cf $1.tar --owner=:0 --group=:0 --format=$2 f; } && make gnu gnu && \
                make a 'posix --sparse-version=0.0' && make b 'posix --sparse-version=0.1' && make c posix && \
                gzip -k gnu.tar && test $(stat -c %s gnu.tar) -lt 100000";
    expect(&script(mode, made)?, 0, &[])?;
    dockerfile(
        mode,
        "ctx-sparse",
        "FROM busybox\nCOPY f /f\nADD gnu.tar /gnu/\nADD gnu.tar.gz /gz/\nADD a.tar /a/\nADD b.tar /b/\nADD c.tar /c/\n\
         RUN for d in gnu gz a b c; do cmp /f /$d/f || exit 1; done; echo all the same\n",
    )?;
    expect(&lap(mode, "build --no-cache --progress plain ctx-sparse")?, 0, &["all the same"])
}
