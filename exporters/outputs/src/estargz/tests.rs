//! Blobs read as those do who have not pulled them.

use std::io::Read as _;

use flate2::read::{GzDecoder, MultiGzDecoder};
use serde_json::Value;

use super::*;

/// A tar with a directory, a large file, an empty one, links, a device, long names and attributes.
fn tar(large: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_700_000_000);
        if kind == tar::EntryType::Char {
            header.set_device_major(5).unwrap();
            header.set_device_minor(1).unwrap();
        }
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, name, content).unwrap();
    };
    use ::tar::EntryType as Kind;
    let content: Vec<u8> = (0..large).map(|n| u8::try_from(n % 251).unwrap()).collect();
    add("d/", Kind::Directory, "", b"");
    add("d/large", Kind::Regular, "", &content);
    add("d/empty", Kind::Regular, "", b"");
    add(&format!("d/{}", "n".repeat(200)), Kind::Regular, "", b"long");
    add("d/sym", Kind::Symlink, "large", b"");
    add("d/hard", Kind::Link, "d/large", b"");
    add("d/tty", Kind::Char, "", b"");
    let records = [("SCHILY.xattr.user.a", &b"\x00\xff"[..]), ("mtime", b"1700000000.75")];
    tar.append_pax_extensions(records).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, "d/x", &b"x"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// Reads a blob as those do who have not pulled it: footer, TOC, single pieces.
fn check(tar: &[u8], blob: &[u8], inside: &Inside) -> Vec<Value> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(blob).read_to_end(&mut plain).unwrap();
    assert!(plain.starts_with(tar), "the tar is not as it was");
    assert_eq!((plain.len() as u64, DiffId(Digest::sha256(&plain))), (inside.size, inside.diff_id.clone()));
    let at = usize::try_from(toc_offset(&blob[blob.len() - FOOTER..]).unwrap()).unwrap();
    let mut toc = Vec::new();
    GzDecoder::new(&blob[at..]).read_to_end(&mut toc).unwrap();
    let mut archive = ::tar::Archive::new(&toc[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut json = Vec::new();
    entry.read_to_end(&mut json).unwrap();
    assert_eq!(Digest::sha256(&json), inside.toc);
    let toc: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(toc["version"], 1);
    let entries = toc["entries"].as_array().unwrap().clone();
    let mut whole = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let Some(digest) = entry["chunkDigest"].as_str() else { continue };
        let offset = usize::try_from(entry["offset"].as_u64().unwrap()).unwrap();
        if entry["type"] == "reg" {
            whole.clear();
        }
        let of = entries[..=number].iter().rev().find(|entry| entry["type"] == "reg").unwrap();
        let left = of["size"].as_u64().unwrap() - entry["chunkOffset"].as_u64().unwrap_or(0);
        let length = entry["chunkSize"].as_u64().unwrap_or(left);
        let mut piece = vec![0; usize::try_from(length).unwrap()];
        GzDecoder::new(&blob[offset..]).read_exact(&mut piece).unwrap();
        assert_eq!(Digest::sha256(&piece).to_string(), digest, "{entry}");
        whole.extend(piece);
        if whole.len() as u64 == of["size"].as_u64().unwrap() {
            assert_eq!(Digest::sha256(&whole).to_string(), of["digest"].as_str().unwrap(), "{of}");
        }
    }
    entries
}

#[test]
fn pieces_are_found_by_the_table_and_the_tar_stays() {
    let mib = 1 << 20;
    for large in [0, 1, 511, 512, 4 * mib - 1, 4 * mib, 4 * mib + 1, 45 * mib + 3] {
        let tar = tar(large);
        let (blob, inside) = write(&tar[..], Vec::new(), 4).unwrap();
        let entries = check(&tar, &blob, &inside);
        assert_eq!(entries.iter().filter(|entry| entry["type"] != "chunk").count(), 8);
        assert_eq!(entries.len(), 8 + large.div_ceil(4 * mib).saturating_sub(1), "{large}");
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(one.install(|| write(&tar[..], Vec::new(), 4).unwrap()).0 == blob, "{large}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &blob).unwrap();
        let seen = look(file.reopen().unwrap()).unwrap();
        assert_eq!(seen, Some((inside.toc, inside.size)));
    }
}

#[test]
fn the_table_says_what_headers_say() {
    let tar = tar(3);
    let (blob, inside) = write(&tar[..], Vec::new(), 4).unwrap();
    let entries = check(&tar, &blob, &inside);
    let find = |name: &str| entries.iter().find(|entry| entry["name"] == name).unwrap();
    let large = find("d/large");
    assert_eq!(
        (large["uid"].clone(), large["gid"].clone(), large["mode"].clone()),
        (7.into(), 8.into(), 0o4755.into())
    );
    assert_eq!(large["modtime"], "2023-11-14T22:13:20Z");
    assert_eq!(find("d/")["type"], "dir");
    assert!(find("d/empty").get("offset").is_none() && find("d/empty")["digest"].is_string());
    assert!(find(&format!("d/{}", "n".repeat(200)))["offset"].is_u64());
    assert_eq!((&find("d/sym")["type"], &find("d/sym")["linkName"]), (&"symlink".into(), &"large".into()));
    assert_eq!(
        (&find("d/hard")["type"], &find("d/hard")["linkName"]),
        (&"hardlink".into(), &"d/large".into())
    );
    assert_eq!((&find("d/tty")["devMajor"], &find("d/tty")["devMinor"]), (&5.into(), &1.into()));
    let x = find("d/x");
    assert_eq!((&x["xattrs"]["user.a"], &x["modtime"]), (&"AP8=".into(), &"2023-11-14T22:13:21Z".into()));
}

#[test]
fn what_cannot_be_said_is_refused() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_size(0);
    builder.append_data(&mut header, TOC_NAME, &b""[..]).unwrap();
    let named = builder.into_inner().unwrap();
    assert!(write(&named[..], Vec::new(), 4).err().unwrap().to_string().contains("keeps the name"));
    for cut in [100, 512, 1000, 5000] {
        assert!(write(&tar(9000)[..cut], Vec::new(), 4).is_err(), "{cut}");
    }
}
