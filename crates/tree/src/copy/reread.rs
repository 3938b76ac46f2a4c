//! Files of a source that somebody writes meanwhile.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, SeekFrom};

use super::entries::{Between, CopiedFile, EntryCopier};
use super::file::by_hand;
use crate::context::live::{self, Taken};
use crate::context::{Content, Reread, Stamp};
use crate::error::TreeError;
use crate::inroot::open_child;
use crate::select::Picked;
use crate::tree::Inode;

impl EntryCopier<'_> {
    /// A file that is not there any more, and so is not in the copy.
    pub(super) fn gone(&self, entry: &Picked) -> Result<CopiedFile, TreeError> {
        if self.patching {
            return Err(TreeError::Changed { path: entry.source.clone() });
        }
        let found = Reread { path: entry.source.clone(), now: None };
        Ok(CopiedFile { put: None, found: Some((found, false)) })
    }

    /// Copies a file once more, as it is now, to `to`, where something of it already is.
    pub(super) fn take_again(
        &self,
        between: &Between<'_>,
        entry: &Picked,
        inode: Option<Inode>,
        to: &OwnedFd,
    ) -> Result<CopiedFile, TreeError> {
        let mut left = live::READS;
        let (taken, cut) = loop {
            let Some((taken, whole)) = self.copy_now(between, entry, to)? else {
                fs::unlinkat(between.to, entry.to.name(), AtFlags::empty())
                    .map_err(TreeError::io("remove", &self.at(entry)))?;
                return self.gone(entry);
            };
            left -= 1;
            if whole || left == 0 {
                break (taken, !whole);
            }
        };
        let picked = taken.entry(entry);
        let new = self.entry(&picked, &[]);
        // It was made with the mode that the file had before.
        let mode = Mode::from_raw_mode(new.meta.mode);
        self.finish_file(to, between.maker, &new.meta)
            .and_then(|()| fs::fchmod(to, mode))
            .map_err(TreeError::owning("finish", &new.path, (new.meta.uid, new.meta.gid)))?;
        let found = Reread { path: entry.source.clone(), now: Some(taken) };
        Ok(CopiedFile { put: Some((new, inode)), found: Some((found, cut)) })
    }

    /// Copies what the file holds up to the size that it has now, and says whether it was the same all the while; `None`
    /// if there is no such file.
    fn copy_now(
        &self,
        between: &Between<'_>,
        entry: &Picked,
        to: &OwnedFd,
    ) -> Result<Option<(Taken, bool)>, TreeError> {
        let path = &entry.source;
        let from = match open_child(between.from.as_fd(), path.name(), live::FLAGS) {
            Err(error) if live::is_gone(error) => return Ok(None),
            other => other.map_err(TreeError::io("open", path))?,
        };
        let stamp = || live::stamp_of(from.as_fd()).map_err(TreeError::io("stat", path));
        let Some(before) = stamp()? else { return Ok(None) };
        fs::ftruncate(to, 0)
            .and_then(|()| fs::seek(to, SeekFrom::Start(0)).map(drop))
            .map_err(TreeError::io("empty", &self.at(entry)))?;
        let copied = by_hand(from.as_fd(), to.as_fd(), before.size);
        let (size, digest) = copied.map_err(TreeError::io("copy", path))?;
        let xattrs = live::xattrs_of(from.as_fd()).map_err(TreeError::io("read attributes of", path))?;
        let whole = stamp()? == Some(before) && size == before.size;
        let stamp = Stamp { size, ..before };
        Ok(Some((Taken { stamp, content: Content { digest, xattrs } }, whole)))
    }
}
