//! Notes about what steps have seen: only for explaining later why they were done again.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use lapstrake_sys::persist::replace;

use crate::error::{StoreError, io_error};
use crate::files;
use crate::layout::Store;

/// How the names of notes begin, in `contexts/`.
const PREFIX: &str = "v2-seen-";
/// How many notes are kept: one of 50 000 files is about two megabytes.
const KEPT: usize = 32;

impl Store {
    /// Keeps `note` under `name` (letters and digits), unless there is one, and lets go of those that are too many.
    pub fn put_trace(&self, name: &str, note: impl FnOnce() -> Option<Vec<u8>>) -> Result<(), StoreError> {
        let path = self.note(name);
        if path.exists() {
            return Ok(());
        }
        let Some(bytes) = note() else { return Ok(()) };
        replace(&path, &self.root().join("contexts"), &bytes).map_err(io_error("write", &path))?;
        self.drop_old_notes();
        Ok(())
    }

    /// What was kept under `name`, if it is still there.
    pub fn trace(&self, name: &str) -> Option<Vec<u8>> {
        files::read(&self.note(name)).ok()
    }

    fn note(&self, name: &str) -> PathBuf {
        self.root().join("contexts").join(format!("{PREFIX}{name}"))
    }

    /// Only ever a help, so nothing that goes wrong matters.
    fn drop_old_notes(&self) {
        let Ok(entries) = fs::read_dir(self.root().join("contexts")) else { return };
        let notes = entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        let dated = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
        let mut notes: Vec<(SystemTime, PathBuf)> = notes.filter_map(dated).collect();
        notes.sort();
        for (_, path) in notes.iter().take(notes.len().saturating_sub(KEPT)) {
            fs::remove_file(path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_notes_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        store.put_trace("a", || None).unwrap();
        assert_eq!(store.trace("a"), None);
        for number in 0..KEPT + 2 {
            store.put_trace(&number.to_string(), || Some(vec![7])).unwrap();
            let file = fs::File::open(store.note(&number.to_string())).unwrap();
            let age = u64::try_from(KEPT + 2 - number).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
        }
        store.put_trace("5", || unreachable!("it is there")).unwrap();
        let there: Vec<bool> =
            (0..KEPT + 2).map(|number| store.trace(&number.to_string()).is_some()).collect();
        assert!(!there[0] && !there[1] && there[2..].iter().all(|there| *there), "{there:?}");
    }
}
