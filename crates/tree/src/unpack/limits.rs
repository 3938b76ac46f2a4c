//! What an archive may say, and what it may cost.

use tar::{EntryType, Header};

use super::*;

/// An archive whose names and link texts may have any length.
#[derive(Default)]
struct Long(Vec<u8>);

impl Long {
    fn entry(&mut self, kind: EntryType, name: &[u8], link: &[u8]) {
        self.extension(EntryType::GNULongName, name);
        if !link.is_empty() {
            self.extension(EntryType::GNULongLink, link);
        }
        self.header(kind, 0);
    }

    fn extension(&mut self, kind: EntryType, text: &[u8]) {
        self.header(kind, text.len());
        self.0.extend_from_slice(text);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn header(&mut self, kind: EntryType, size: usize) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_old_mut().name[0] = b'x';
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn read(&self) -> Result<Unpacked, TreeError> {
        read_layer(&self.0[..], &UnpackOptions::default())
    }

    /// How many bytes of names were followed, within limits that are quick to reach.
    fn followed(&self) -> Result<u64, TreeError> {
        let mut reader = TarReader::new(&self.0[..], MAX_ENTRIES);
        let mut unpacker = Unpacker::new(Disk::none(), Limits { memory: 6 << 20, followed: 4 << 20 });
        while let Some(entry) = reader.next_entry()? {
            unpacker.entry(&entry, &mut reader)?;
        }
        Ok(unpacker.followed)
    }
}

fn is_too_big(result: &Result<u64, TreeError>, counted: &str) {
    assert!(matches!(result, Err(TreeError::TooBig { what, .. }) if *what == counted), "{result:?}");
}

fn one(kind: EntryType, name: &[u8], link: &[u8]) -> Result<Unpacked, TreeError> {
    let mut archive = Long::default();
    archive.entry(EntryType::Regular, b"target", b"");
    archive.entry(kind, name, link);
    archive.read()
}

fn deep(length: usize) -> Vec<u8> {
    let mut path = b"a/".repeat(length / 2);
    path.resize(length, b'b');
    path
}

#[test]
fn what_no_kernel_takes_is_refused() {
    use EntryType::{Directory as D, Link as H, Regular as F, Symlink as S};
    assert_eq!(one(D, &deep(4095), b"").unwrap().tree.len(), 2049);
    one(D, &[&deep(4095)[..], b"/"].concat(), b"").unwrap();
    one(F, &[b'n'; 255], b"").unwrap();
    one(F, &[&b"d/.wh."[..], &[b'n'; 255]].concat(), b"").unwrap();
    one(S, b"l", &deep(4095)).unwrap();
    let name = [b'n'; 256];
    for (kind, path, link) in [
        (D, &deep(4097)[..], &b""[..]),
        (F, &deep(20_000), b""),
        (F, &deep(100_000), b""),
        (D, &[&b"d/"[..], &name, b"/e"].concat(), b""),
        (F, &name, b""),
        (F, &[&b".wh."[..], &name].concat(), b""),
        (S, b"l", &deep(4096)),
        (S, b"l", &deep(1 << 20)),
        (H, b"h", &deep(4096)),
    ] {
        let refused = one(kind, path, link).unwrap_err();
        assert!(matches!(refused, TreeError::TooLong { .. }), "{refused:?}");
        assert!(refused.to_string().len() < 200, "{refused}");
    }
}

#[test]
fn real_paths_have_the_same_limit() {
    let mut archive = Long::default();
    archive.entry(EntryType::Directory, &deep(3000), b"");
    archive.entry(EntryType::Symlink, b"l", &deep(3000));
    archive.entry(EntryType::Directory, &[b"l/", &deep(1000)[..]].concat(), b"");
    archive.read().unwrap();
    archive.entry(EntryType::Directory, &[b"l/", &deep(1100)[..]].concat(), b"");
    assert!(matches!(archive.read(), Err(TreeError::TooLong { what: "its real path", .. })));
}

#[test]
fn implied_directories_count() {
    let chain = |number: u32| [&number.to_string().into_bytes()[..], b"/", &deep(2000)].concat();
    let mut archive = Long::default();
    archive.entry(EntryType::Regular, &chain(0), b"");
    assert_eq!(archive.read().unwrap().implied_dirs.len(), 1000);
    archive.followed().unwrap();
    (1..8).for_each(|number| archive.entry(EntryType::Regular, &chain(number), b""));
    is_too_big(&archive.followed(), "bytes of entries, names and attributes");
}

#[test]
fn names_that_go_over_links_count_as_where_they_lead() {
    let mut archive = Long::default();
    archive.entry(EntryType::Directory, &deep(2000), b"");
    archive.entry(EntryType::Symlink, b"l", &deep(2000));
    archive.followed().unwrap();
    for number in 0..4000 {
        archive.entry(EntryType::Regular, format!("l/{number}").as_bytes(), b"");
    }
    is_too_big(&archive.followed(), "bytes of entries, names and attributes");
}

/// Twice the entries take twice the work, whatever they are: in one deep directory by turns with another, or over a chain of
/// links whose texts are long.
#[test]
fn work_grows_with_the_archive() {
    let turns = |count: u32| {
        let mut archive = Long::default();
        for number in 0..count {
            let name = [&deep(1000)[..], format!("/{number}").as_bytes()].concat();
            archive.entry(EntryType::Regular, &name, b"");
            archive.entry(EntryType::Regular, format!("other/{number}").as_bytes(), b"");
        }
        archive.followed().unwrap()
    };
    let chain = |count: u32| {
        let mut archive = Long::default();
        for link in 0..60 {
            let text = [&b"./".repeat(400)[..], format!("l{}", link + 1).as_bytes()].concat();
            archive.entry(EntryType::Symlink, format!("l{link}").as_bytes(), &text);
        }
        archive.entry(EntryType::Directory, b"l60", b"");
        for number in 0..count {
            archive.entry(EntryType::Regular, format!("l0/{number}").as_bytes(), b"");
            archive.entry(EntryType::Regular, format!("other/{number}").as_bytes(), b"");
        }
        archive.followed().unwrap()
    };
    for (name, work) in [("turns", &turns as &dyn Fn(u32) -> u64), ("chain", &chain)] {
        let (less, more) = (work(20), work(40));
        assert!(more <= less * 2, "{name}: {less} and {more}");
    }
    // Nobody waits for those who go on with it.
    let mut archive = Long::default();
    for link in 0..250 {
        let text = [&b"a/../".repeat(800)[..], format!("l{}", link + 1).as_bytes()].concat();
        archive.entry(EntryType::Symlink, format!("l{link}").as_bytes(), &text);
    }
    archive.entry(EntryType::Directory, b"l250", b"");
    for number in 0..100 {
        archive.entry(EntryType::Regular, format!("l0/{number}").as_bytes(), b"");
        archive.entry(EntryType::Regular, format!("other/{number}").as_bytes(), b"");
    }
    is_too_big(&archive.followed(), "bytes of links to follow");
}

#[test]
fn attributes_that_no_kernel_takes_are_refused() {
    for (name, length) in [("user.a".to_owned(), 65_537), (format!("user.{}", "a".repeat(251)), 1)] {
        let mut pax = crate::layer_tar::Pax::default();
        pax.add(format!("SCHILY.xattr.{name}").as_bytes(), &vec![b'v'; length]);
        let mut archive = Long::default();
        archive.extension(EntryType::XHeader, &pax.encode());
        archive.header(EntryType::Regular, 0);
        assert!(archive.read().is_err());
    }
}
