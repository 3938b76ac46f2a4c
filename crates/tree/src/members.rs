//! The files of an archive that is no file tree: of images, say. Bounded in every direction, like all reading of archives.

use std::io::Read;

use tar::EntryType;

use crate::error::TreeError;
use crate::tar_read::entries;

/// What an archive has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A file; its content can be read.
    File {
        /// Its name, as it stands there.
        name: Vec<u8>,
    },
    /// A link, hard or symbolic.
    Link {
        /// Its name.
        name: Vec<u8>,
        /// What it stands for, as it stands there.
        target: Vec<u8>,
    },
}

/// Gives each file and link of a tar, plain or compressed, to `each`, with the content of a file to be read. More entries
/// or bytes than `limits` has are refused.
///
/// # Errors
/// [`TreeError`] for what is wrong with the archive, and what `each` returns.
pub fn members<E: From<TreeError>>(
    input: impl Read + Send,
    limits: (u64, u64),
    mut each: impl FnMut(&Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = entries(input, limits)?;
    while let Some(entry) = reader.next_entry()? {
        let member = match entry.kind {
            EntryType::Regular | EntryType::Continuous => Member::File { name: entry.name },
            EntryType::Link | EntryType::Symlink => Member::Link { name: entry.name, target: entry.link },
            _ => continue,
        };
        each(&member, &mut reader)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(count: usize) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for number in 0..count {
            let mut header = tar::Header::new_ustar();
            header.set_size(1);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            builder.append_data(&mut header, format!("{number}"), &b"x"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_come_in_order_and_not_too_many() {
        let mut names = Vec::new();
        let mut note = |member: &Member, content: &mut dyn Read| {
            let mut text = String::new();
            content.read_to_string(&mut text).unwrap();
            names.push((member.clone(), text));
            Ok::<_, TreeError>(())
        };
        members(&tar(2)[..], (2, 1 << 20), &mut note).unwrap();
        assert_eq!(names[1], (Member::File { name: b"1".to_vec() }, "x".to_owned()));
        let many = members(&tar(3)[..], (2, 1 << 20), |_, _| Ok(()));
        assert!(matches!(many, Err(TreeError::TooBig { .. })));
        let long = members(&tar(3)[..], (9, 1100), |_, _| Ok::<_, TreeError>(()));
        assert!(long.is_err());
    }
}
