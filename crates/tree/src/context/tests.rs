//! Contexts on a real disk.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;

use super::*;
use crate::inroot::open_host_dir;

struct Context {
    temp: tempfile::TempDir,
    root: OwnedFd,
}

impl Context {
    fn new(files: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("ctx");
        for file in files {
            std::fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            std::fs::write(dir.join(file), file).unwrap();
        }
        let root = open_host_dir(&dir).unwrap();
        Self { temp, root }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.temp.path().join("ctx").join(path)
    }

    fn load(&self, ignore: &str, started: i64) -> ContextIndex {
        self.load_trusting(Trust::Times, ignore, started)
    }

    fn load_trusting(&self, trust: Trust, ignore: &str, started: i64) -> ContextIndex {
        let (index, ignore) = (self.temp.path().join("index"), Patterns::parse(ignore).unwrap());
        ContextIndex::load(self.root.as_fd(), &index, &ignore, started, trust).unwrap()
    }

    fn digest(&self, index: &ContextIndex, source: &str) -> String {
        let selection = index.select(self.root.as_fd(), &Selector::new(source)).unwrap();
        index.save(&self.temp.path().join("index")).unwrap();
        selection.k_digest().to_string()
    }
}

const LATER: i64 = i64::MAX;

#[test]
fn only_what_is_asked_for_is_hashed_and_only_once() {
    let ctx = Context::new(&["a/x", "a/y", "b"]);
    let cold = ctx.load("", LATER);
    let first = ctx.digest(&cold, "a");
    assert_eq!(cold.hashed(), 2);
    let warm = ctx.load("", LATER);
    assert_eq!(ctx.digest(&warm, "a"), first);
    assert_eq!(warm.hashed(), 0);
    std::fs::write(ctx.at("b"), "other").unwrap();
    let other = ctx.load("", LATER);
    assert_eq!(ctx.digest(&other, "a"), first, "what is not selected does not count");
    std::fs::write(ctx.at("a/x"), "a/z").unwrap();
    let changed = ctx.load("", LATER);
    assert_ne!(ctx.digest(&changed, "a"), first);
    assert_eq!(changed.hashed(), 1);
}

#[test]
fn who_trusts_nothing_reads_everything() {
    let ctx = Context::new(&["a", "b"]);
    let first = ctx.load("", LATER);
    let digest = ctx.digest(&first, "/");
    let again = ctx.load_trusting(Trust::Nothing, "", LATER);
    assert_eq!((ctx.digest(&again, "/"), again.hashed()), (digest, 2));
}

/// Same size, same times, same inode: only the time of the load tells.
#[test]
fn racy_entries_are_hashed_again() {
    let ctx = Context::new(&["f"]);
    let stat = rustix::fs::stat(ctx.at("f")).unwrap();
    let tick = stat.st_ctime * 1_000_000_000 + stat.st_ctime_nsec.cast_signed();
    for (started, hashed) in [(tick, 1), (tick - 1, 1), (tick + 1, 0)] {
        drop(std::fs::remove_file(ctx.temp.path().join("index")));
        let one = ctx.load("", started);
        ctx.digest(&one, "f");
        let two = ctx.load("", started);
        ctx.digest(&two, "f");
        assert_eq!(two.hashed(), hashed, "{}", started - tick);
    }
}

#[test]
fn a_damaged_index_is_no_index() {
    let ctx = Context::new(&["f"]);
    let good = ctx.load("", LATER);
    let digest = ctx.digest(&good, "f");
    let file = ctx.temp.path().join("index");
    let bytes = std::fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x55;
        std::fs::write(&file, &bad).unwrap();
        assert_eq!(ctx.digest(&ctx.load("", LATER), "f"), digest);
    }
}

#[test]
fn ignored_paths() {
    let ctx = Context::new(&["a/keep/x", "a/drop", "b/c/d", "log"]);
    symlink("/nowhere", ctx.at("link")).unwrap();
    let index = ctx.load("a\n!a/keep\nb\nlog", LATER);
    let names: Vec<String> = index.view().tree().entries().iter().map(|e| e.path.to_string()).collect();
    assert_eq!(names, ["/a", "/a/keep", "/a/keep/x", "/link"]);
    let error = index.select(ctx.root.as_fd(), &Selector::new("b/c")).unwrap_err();
    let TreeError::NotFound { path, hidden_by, nearest } = error else { panic!() };
    assert_eq!((path.as_str(), nearest.as_str()), ("/b/c", "/"));
    assert_eq!(hidden_by, Some(("b".into(), 3)));
}

#[test]
fn owners_and_sockets() {
    let ctx = Context::new(&["f"]);
    let socket = std::os::unix::net::UnixListener::bind(ctx.at("s")).unwrap();
    let index = ctx.load("", LATER);
    let selection = index.select(ctx.root.as_fd(), &Selector::new("s")).unwrap();
    drop(socket);
    assert_eq!(selection.roots[0].entries[0].kind, Kind::File { size: 0, content: ContentDigest::of(b"") });
    assert!(index.view().tree().entries().iter().all(|e| (e.meta.uid, e.meta.gid) == (0, 0)));
}

#[test]
fn contexts_of_more_directories_than_one_thread_lists_are_whole() {
    let names: Vec<String> =
        (0..60).flat_map(|dir| (0..20).map(move |file| format!("d{dir}/below/f{file}"))).collect();
    let ctx = Context::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let index = ctx.load("d1/below/f3", LATER);
    let paths: Vec<_> = index.view().tree().entries().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths.len(), 60 + 60 + 60 * 20 - 1);
    assert!(index.view().tree().entries().is_sorted_by(|a, b| a.path < b.path));
    ctx.digest(&index, "/");
    assert_eq!(index.hashed(), 60 * 20 - 1);
}

/// A file that grows without a pause is taken up to the size that it had, and what was taken is what is known of it.
#[test]
fn a_file_that_never_holds_still() {
    let ctx = Context::new(&["log", "other"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = std::fs::OpenOptions::new().append(true).open(ctx.at("log")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut log, b"line\n").unwrap();
            }
        });
        for _ in 0..50 {
            let index = ctx.load("", file_clock());
            let first = index.select(ctx.root.as_fd(), &Selector::new("/")).unwrap();
            let again = index.select(ctx.root.as_fd(), &Selector::new("/")).unwrap();
            assert_eq!(first, again);
            assert_eq!(first.len(), 2);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// What vanished, or became something else, between listing and reading is not there; what was replaced is what it is now.
#[test]
fn files_that_went_after_the_walk() {
    let ctx = Context::new(&["a/gone", "a/dir", "a/link", "a/fifo", "a/new", "b"]);
    let index = ctx.load("", LATER);
    std::fs::remove_file(ctx.at("a/gone")).unwrap();
    for name in ["a/dir", "a/link", "a/fifo"] {
        std::fs::remove_file(ctx.at(name)).unwrap();
    }
    std::fs::create_dir(ctx.at("a/dir")).unwrap();
    symlink("/etc/passwd", ctx.at("a/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        ctx.at("a/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::fs::write(ctx.at("a/new"), "longer than before").unwrap();
    let selection = index.select(ctx.root.as_fd(), &Selector::new("a")).unwrap();
    let found: Vec<_> =
        selection.roots[0].entries.iter().map(|e| (e.to.to_string(), e.kind.clone())).collect();
    let content = ContentDigest::of(b"longer than before");
    assert_eq!(found, [("/new".to_owned(), Kind::File { size: 18, content })]);
    assert!(matches!(
        index.select(ctx.root.as_fd(), &Selector::new("a/gone")),
        Err(TreeError::NotFound { .. })
    ));
}
