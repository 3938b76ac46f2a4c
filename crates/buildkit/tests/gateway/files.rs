//! Files of references.

use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_testkit::buildkit::{Shelf, entry, of_build, shelf};
use lapstrake_testkit::{ALL, Mode, Test};
use tonic::{Code, Status};

use crate::place::{BUILD, Place, with};

pub(crate) const TESTS: &[Test] = &[
    ("files_are_read", ALL, files_are_read),
    ("directories_are_listed", ALL, directories_are_listed),
    ("links_stay_inside", ALL, links_stay_inside),
];

/// A result with a few files and links, of which some lead outwards.
fn links() -> Shelf {
    let link = |path: &str, to: &str| {
        let mut link = entry(path, "");
        (link.0.mode, link.0.linkname) = (1 << 27 | 0o777, to.to_owned());
        link
    };
    let tree = vec![
        entry("a", "0123456789"),
        entry("d/", ""),
        entry("d/e/", ""),
        entry("d/e/deep.txt", "deep"),
        entry("d/x.txt", "x"),
        entry("f.txt", "f"),
        link("in", "/d/x.txt"),
        link("nowhere", "nothing"),
        link("out", "/etc/hostname"),
        link("up", "../../../../../../etc"),
    ];
    shelf("FROM scratch\nCOPY . /\n", tree)
}

async fn read(place: &mut Place, id: &str, path: &str, range: Option<(i64, i64)>) -> Result<String, Status> {
    let range = range.map(|(offset, length)| frontend::FileRange { offset, length });
    let request =
        frontend::ReadFileRequest { r#ref: id.to_owned(), file_path: path.to_owned(), range, mount_index: 0 };
    let answer = place.bridge.read_file(of_build(BUILD, request)).await?;
    Ok(String::from_utf8_lossy(&answer.into_inner().data).into_owned())
}

async fn list(place: &mut Place, id: &str, path: &str, pattern: &str) -> Result<Vec<String>, Status> {
    let request = frontend::ReadDirRequest {
        r#ref: id.to_owned(),
        dir_path: path.to_owned(),
        include_pattern: pattern.to_owned(),
        mount_index: 0,
    };
    let answer = place.bridge.read_dir(of_build(BUILD, request)).await?;
    Ok(answer.into_inner().entries.into_iter().map(|entry| entry.path).collect())
}

fn files_are_read(mode: Mode) {
    with(mode, links(), |mut place| async move {
        let id = place.solve().await;
        assert_eq!(read(&mut place, &id, "/a", None).await.unwrap(), "0123456789");
        assert_eq!(read(&mut place, &id, "d/../a", Some((2, 3))).await.unwrap(), "234");
        assert_eq!(read(&mut place, &id, "a", Some((8, 100))).await.unwrap(), "89");
        assert_eq!(read(&mut place, &id, "a", Some((20, 1))).await.unwrap(), "");
        let error = read(&mut place, &id, "a", Some((-1, 1))).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let error = read(&mut place, &id, "/nothing", None).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::NotFound, "open /nothing: no such file or directory")
        );
        let error = read(&mut place, &id, "/d", None).await.unwrap_err();
        assert_eq!(error.message(), "/d is not a regular file");
        for wrong in ["", "b:9/", "nosuch", "../../etc"] {
            assert_eq!(
                read(&mut place, wrong, "/a", None).await.unwrap_err().code(),
                Code::NotFound,
                "{wrong}"
            );
        }
    });
}

fn directories_are_listed(mode: Mode) {
    with(mode, links(), |mut place| async move {
        let id = place.solve().await;
        let all = ["a", "d", "f.txt", "in", "nowhere", "out", "up"];
        assert_eq!(list(&mut place, &id, "/", "").await.unwrap(), all);
        assert_eq!(list(&mut place, &id, "/", "*.txt").await.unwrap(), ["f.txt"]);
        assert_eq!(list(&mut place, &id, "/", "**/deep.txt").await.unwrap(), ["d"]);
        assert_eq!(list(&mut place, &id, "/", "d/e/deep.txt").await.unwrap(), ["d"]);
        assert_eq!(list(&mut place, &id, "/", "*/*.txt").await.unwrap(), ["d"]);
        assert_eq!(list(&mut place, &id, "/", "*/*/*.md").await.unwrap(), [""; 0]);
        assert_eq!(list(&mut place, &id, "/d", "").await.unwrap(), ["e", "x.txt"]);
        assert_eq!(list(&mut place, &id, "/nothing", "").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(list(&mut place, &id, "/a", "").await.unwrap_err().message(), "open /a: not a directory");
        assert_eq!(list(&mut place, &id, "/", "[").await.unwrap_err().code(), Code::InvalidArgument);
    });
}

fn links_stay_inside(mode: Mode) {
    with(mode, links(), |mut place| async move {
        let id = place.solve().await;
        assert_eq!(read(&mut place, &id, "in", None).await.unwrap(), "x");
        for path in ["out", "up/hostname", "up/passwd", "/../../../../etc/hostname", "nowhere"] {
            assert_eq!(read(&mut place, &id, path, None).await.unwrap_err().code(), Code::NotFound, "{path}");
        }
        let stat = |path: &str| {
            let request =
                frontend::StatFileRequest { r#ref: id.clone(), path: path.to_owned(), mount_index: 0 };
            let mut bridge = place.bridge.clone();
            async move { bridge.stat_file(of_build(BUILD, request)).await.map(|s| s.into_inner().stat.unwrap()) }
        };
        let a = stat("/a").await.unwrap();
        assert_eq!((a.path.as_str(), a.size, a.mode, a.uid), ("a", 10, 0o644, 0));
        assert_eq!(a.mod_time, 1_700_000_000_000_000_000);
        assert!(a.xattrs.is_empty(), "{a:?}");
        let d = stat("/d/").await.unwrap();
        assert_eq!((d.path.as_str(), d.mode), ("d", 1 << 31 | 0o755));
        // A last link is followed, and the name is that of its end.
        assert_eq!(stat("in").await.unwrap().path, "x.txt");
        let error = stat("/nowhere").await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::NotFound, "lstat /nowhere: no such file or directory")
        );
    });
}
