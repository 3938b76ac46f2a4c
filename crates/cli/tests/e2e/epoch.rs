//! `SOURCE_DATE_EPOCH` that names a source: its time is that of a commit, of a file of the web or of an archive.

use std::fs;
use std::process::Output;

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};
use super::remote::{repository, web};
use lapstrake_testkit::{Files, Registry, WebServer};

pub(super) const CASES: &[super::Case] =
    &[("rewritten_and_stored", rewritten_and_stored), ("epoch", epoch), ("epoch_git", epoch_git)];

/// Tells the epoch, and the time of what was copied if that is there.
const TELL: &str = "ARG SOURCE_DATE_EPOCH\\nRUN echo epoch=$SOURCE_DATE_EPOCH.\\n";

/// Builds the text, `\n` for new lines, with these arguments, and shows the image's own time.
fn built(mode: &Mode, text: &str, args: &str) -> Result<Output, String> {
    let build = format!(
        "printf '{text}' | ./lapstrake build --no-cache -t epoch -f - {args} && ./lapstrake inspect epoch"
    );
    script(mode, &build)
}

/// What is told without building knows the source's time too.
fn told(mode: &Mode, text: &str, args: &str) -> Result<(), String> {
    let text = format!("{text}ARG stamp=at-$SOURCE_DATE_EPOCH\\nRUN echo $stamp\\n");
    let tell = |how: &str| script(mode, &format!("printf '{text}' | ./lapstrake {how} -f - {args} here"));
    expect(&tell("build --call outline")?, 0, &["at-1000000000"])?;
    expect(&tell("check")?, 0, &["no warnings found"])
}

/// Serves `web` without telling when files are from.
fn timeless(mode: &Mode) -> Result<WebServer, String> {
    WebServer::files(Files::of(&mode.place.join("web")).without_dates())
}

fn epoch(mode: &Mode) -> Result<(), String> {
    let made = "rm -rf web t && mkdir -p web t/dir && echo served > web/file && touch -d @1000000000 web/file && \
                echo x > t/old && echo y > t/new && touch -d @1100000000 t/old && touch -d @1200000000 t/new && \
                touch -d @1300000000 t/dir && tar -C t -czf web/pack.tgz dir old new";
    expect(&script(mode, made)?, 0, &[])?;
    let server = web(mode)?;
    let url = format!("http://127.0.0.1:{}", server.port);
    let stage = format!(
        "ARG SOURCE_DATE_EPOCH=src\\nARG at=/file\\nFROM scratch AS src\\nARG at\\nADD {url}$at /\\nFROM busybox\\n{TELL}"
    );
    dockerfile(mode, "here", "FROM busybox\n")?;
    let of_file = ["epoch=1000000000.", "2001-09-09T01:46:40Z"];
    expect(&built(mode, &stage, "here")?, 0, &of_file)?;
    told(mode, &stage, "")?;
    let number = "--build-arg SOURCE_DATE_EPOCH=5 here";
    expect(&built(mode, &stage, number)?, 0, &["epoch=5.", "1970-01-01T00:00:05Z"])?;
    let named = format!("ARG SOURCE_DATE_EPOCH=named\\nFROM busybox\\n{TELL}");
    let context = format!("--build-context named={url}/file here");
    expect(&built(mode, &named, &context)?, 0, &of_file)?;
    told(mode, &named, &format!("--build-context named={url}/file"))?;
    let main = format!("FROM busybox\\n{TELL}");
    let of_main = "--build-arg SOURCE_DATE_EPOCH=context";
    expect(&built(mode, &main, &format!("{of_main} {url}/file"))?, 0, &of_file)?;
    // A directory has no time, and an argument without a value is not set.
    expect(&built(mode, &main, &format!("{of_main} here"))?, 0, &["epoch=.\n"])?;
    drop(server);
    // Of an archive that comes without a time the newest file counts, not the newest directory.
    let server = timeless(mode)?;
    let url = format!("http://127.0.0.1:{}", server.port);
    let of_archive = ["epoch=1200000000.", "2008-01-10T21:20:00Z"];
    expect(&built(mode, &main, &format!("{of_main} {url}/pack.tgz"))?, 0, &of_archive)?;
    let context = format!("--build-context named={url}/pack.tgz here");
    expect(&built(mode, &named, &context)?, 0, &of_archive)?;
    expect(&built(mode, &main, &format!("{of_main} {url}/file"))?, 0, &["epoch=.\n"])?;
    let unanswered = format!("printf '{stage}' | ./lapstrake check -f - here");
    expect(
        &script(mode, &unanswered.replace(&url, "http://127.0.0.1:1"))?,
        0,
        &["its time is unknown", "no warnings"],
    )?;
    let stdin = "printf 'FROM busybox\\nARG SOURCE_DATE_EPOCH\\nRUN echo epoch=$SOURCE_DATE_EPOCH.\\n' > t/Dockerfile && \
                 touch -d @1100000000 t/Dockerfile && tar -C t -c . | ./lapstrake build --build-arg SOURCE_DATE_EPOCH=context -";
    expect(&script(mode, stdin)?, 0, &["epoch=1200000000."])?;
    nothing_left(mode)
}

fn epoch_git(mode: &Mode) -> Result<(), String> {
    let server = repository(mode)?;
    let url = format!("git://127.0.0.1:{}/app", server.port);
    let time = script(mode, "git -c safe.directory='*' -C repos/app show -q --format=%ct v1^{}")?;
    expect(&time, 0, &[])?;
    let time = String::from_utf8_lossy(&time.stdout).trim().to_owned();
    let told = format!("epoch={time}.");
    let main = format!("FROM busybox\\nCOPY dir/f /f\\nRUN stat -c mtime=%%Y. /f\\n{TELL}");
    // Whoever gives an epoch gets files with their commit's time.
    let of_main = format!("--build-arg SOURCE_DATE_EPOCH=context '{url}#v1'");
    expect(&built(mode, &main, &of_main)?, 0, &[&told, &format!("mtime={time}.")])?;
    dockerfile(mode, "here", "FROM busybox\n")?;
    let named = format!("ARG SOURCE_DATE_EPOCH=named\\nFROM busybox\\n{TELL}");
    expect(&built(mode, &named, &format!("--build-context 'named={url}#v1' here"))?, 0, &[&told])?;
    let stage =
        format!("ARG SOURCE_DATE_EPOCH=src\\nFROM scratch AS src\\nADD {url}#v1 /\\nFROM busybox\\n{TELL}");
    expect(&built(mode, &stage, "here")?, 0, &[&told])?;
    fs::remove_dir_all(mode.place.join("here")).map_err(|error| error.to_string())?;
    nothing_left(mode)
}

/// Times rewritten for the store: whatever leaves later has layers with the digests that the config says.
fn rewritten_and_stored(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/epoch/app", server.address);
    let check = "import hashlib, gzip, json, sys, tarfile\n\
                 t = tarfile.open(sys.argv[1])\n\
                 read = lambda name: t.extractfile(name).read()\n\
                 blob = lambda d: read('blobs/' + d['digest'].replace(':', '/'))\n\
                 m = json.loads(blob(json.loads(read('index.json'))['manifests'][0]))\n\
                 c = json.loads(blob(m['config']))\n\
                 plain = [gzip.decompress(b) if b[:2] == b'\\x1f\\x8b' else b for b in map(blob, m['layers'])]\n\
                 found = ['sha256:' + hashlib.sha256(b).hexdigest() for b in plain]\n\
                 assert found == c['rootfs']['diff_ids'], (found, c['rootfs'])\n\
                 print('times', max(i.mtime for b in plain[1:] for i in tarfile.open(fileobj=__import__('io').BytesIO(b))))\n";
    std::fs::write(mode.place.join("check-diffs.py"), check).map_err(|error| error.to_string())?;
    dockerfile(mode, "epoch-stored", "FROM busybox\nRUN echo new > /new\nCOPY Dockerfile /d/\n")?;
    dockerfile(mode, "epoch-child", &format!("FROM {name}:1\nRUN echo child > /child\n"))?;
    let flags = "-q --build-arg SOURCE_DATE_EPOCH=1000000000";
    let stored = format!("build {flags} -o type=image,name={name}:1,rewrite-timestamp=true epoch-stored");
    expect(&lap(mode, &stored)?, 0, &["sha256:"])?;
    let saves = |name: &str| -> Result<(), String> {
        let saved = script(
            mode,
            &format!("./lapstrake save -o epoch.tar {name} && python3 check-diffs.py epoch.tar"),
        )?;
        expect(&saved, 0, &["times 1000000000\n"]).map_err(|why| format!("save {name}: {why}"))
    };
    saves(&format!("{name}:1"))?;
    // Blobs that were made are found again; made anew they are the same.
    expect(&lap(mode, "prune -f")?, 0, &[])?;
    saves(&format!("{name}:1"))?;
    let copied = |tag: &str| {
        let copy = format!(
            "rm -f copied.tar && skopeo copy --src-tls-verify=false docker://{name}:{tag} oci-archive:copied.tar:x && python3 check-diffs.py copied.tar"
        );
        let done = script(mode, &copy)?;
        expect(&done, 0, &["times 1"]).map_err(|why| format!("push {tag}: {why}"))
    };
    expect(&lap(mode, &format!("push {name}:1"))?, 0, &["digest: sha256:"])?;
    copied("1")?;
    // What stands on it has the same layers below, whether times are rewritten there or not.
    expect(&lap(mode, &format!("build -q -t {name}:2 epoch-child"))?, 0, &["sha256:"])?;
    expect(&lap(mode, &format!("push {name}:2"))?, 0, &["digest: sha256:"])?;
    copied("2")?;
    let again = format!(
        "build -q --build-arg SOURCE_DATE_EPOCH=1000000000 -o type=image,name={name}:3,push=true,rewrite-timestamp=true epoch-child"
    );
    expect(&lap(mode, &again)?, 0, &["sha256:"])?;
    copied("3")?;
    saves(&format!("{name}:3"))?;
    for tag in ["1", "2", "3"] {
        expect(&lap(mode, &format!("rmi {name}:{tag}"))?, 0, &[])?;
    }
    expect(&lap(mode, &format!("pull {name}:3"))?, 0, &[])?;
    saves(&format!("{name}:3"))
}
