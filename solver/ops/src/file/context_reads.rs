//! What a step goes by while local contexts change, and what it read of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_engine::{CacheMap, Dep, Key, Step, Stream};
use lapstrake_graph::Source;
use lapstrake_tree::TreePath;
use lapstrake_tree::context::{Reread, View};
use lapstrake_tree::copy::Copied;

use crate::error::OpsError;
use crate::file::copy_source::{CopySource, LoadedContext, context_key, selector};
use crate::job::context::BuildContext;
use crate::stack::{SharedStack, Stack};

/// What one step goes by, and what it found instead.
pub(crate) struct ContextReads<'a> {
    pub(crate) job: &'a BuildContext,
    step: &'a Step,
    contexts: Mutex<BTreeMap<String, Seen>>,
}

/// Names device nodes that could not be made.
pub(crate) fn warn_skipped_devices(step: &Step, skipped: &[TreePath]) {
    const NAMED: usize = 5;
    if skipped.is_empty() {
        return;
    }
    skipped.iter().for_each(|path| tracing::debug!(%path, "a device node is left out"));
    let mut text = String::from("warning: device nodes cannot be made here and were left out: ");
    let named: Vec<String> = skipped.iter().take(NAMED).map(ToString::to_string).collect();
    text.push_str(&named.join(", "));
    if skipped.len() > NAMED {
        text.push_str(&format!(" and {} more", skipped.len() - NAMED));
    }
    text.push('\n');
    step.log(Stream::Stderr, text.into_bytes());
}

/// A context in the eyes of one step.
struct Seen {
    loaded: Arc<LoadedContext>,
    view: View,
    retaken: Vec<Reread>,
}

impl<'a> ContextReads<'a> {
    /// Does `work` by what is known now, and once more by what is known then if it says that this does not hold. `map` and
    /// `inputs` are the step's. Gives what it read, too.
    pub(crate) fn during<T>(
        job: &'a BuildContext,
        step: &'a Step,
        (map, inputs): (&CacheMap, &[SharedStack]),
        work: impl Fn(&ContextReads<'a>) -> Result<T, OpsError>,
    ) -> Result<(T, Vec<lapstrake_engine::InputRead>), OpsError> {
        /// So often a step begins anew. What was read once is known from then on, so even the second time is rare.
        const TIMES: u32 = 8;
        let mut left = TIMES;
        loop {
            let reads = ContextReads { job, step, contexts: Mutex::default() };
            left -= 1;
            match work(&reads) {
                Err(error) if left > 0 && error.is_of_change() => {}
                done => return Ok((done?, reads.read(map, inputs)?)),
            }
        }
    }

    /// What `stack` stands for, for this step.
    pub(crate) fn origin(&self, stack: &Stack) -> Result<CopySource, OpsError> {
        let Some(name) = &stack.local else { return self.job.copy_sources.of(stack) };
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = contexts.get(name) {
            return Ok(CopySource::Context(seen.loaded.clone(), seen.view.clone()));
        }
        let loaded = self.job.copy_sources.context(name)?;
        let view = loaded.index.view();
        let seen = Seen { loaded: loaded.clone(), view: view.clone(), retaken: Vec::new() };
        contexts.insert(name.clone(), seen);
        Ok(CopySource::Context(loaded, view))
    }

    /// Takes note of what a copy of `stack` found that was not as selected. Names device nodes that were left out. Says once
    /// in a build that a file never held still.
    pub(crate) fn note(&self, stack: &Stack, copied: &Copied) -> Result<(), OpsError> {
        warn_skipped_devices(self.step, &copied.skipped_devices);
        let Some(name) = &stack.local else { return Ok(()) };
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = contexts.get_mut(name) {
            seen.loaded.index.apply(&copied.retaken)?;
            seen.retaken.extend_from_slice(&copied.retaken);
        }
        if let Some(path) = copied.cut.first()
            && !self.job.copy_sources.warned.swap(true, Ordering::Relaxed)
        {
            let text = format!(
                "warning: {path} changed during each read; the copy has the bytes up to the size at the last opening\n"
            );
            self.step.log(Stream::Stderr, text.into_bytes());
        }
        Ok(())
    }

    /// What the step read of contexts, where one of them is not as it was when the build began. `map` is the step's.
    fn read(
        self,
        map: &CacheMap,
        inputs: &[SharedStack],
    ) -> Result<Vec<lapstrake_engine::InputRead>, OpsError> {
        let contexts = self.contexts.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut read = Vec::new();
        for (input, (stack, dep)) in inputs.iter().zip(&map.deps).enumerate() {
            let Some(name) = &stack.local else { continue };
            let Some(seen) = contexts.get(name).filter(|seen| seen.loaded.index.has_moved()) else {
                continue;
            };
            let view = seen.view.with(&seen.retaken)?;
            let origin = CopySource::Context(seen.loaded.clone(), view);
            let content = |asked: &lapstrake_engine::Selector| -> Result<Key, OpsError> {
                let selection = origin.select(&selector(asked)?).map_err(stack.checksum_error())?;
                Ok(Key::from_bytes(selection.k_digest().0))
            };
            let everything = lapstrake_engine::Selector::everything();
            let content = match dep {
                Dep::ByContent(asked) => content(asked)?,
                Dep::ByKey => content(&everything)?,
            };
            let source = context_key(&Source::Local { name: name.clone() }, &content);
            read.push(lapstrake_engine::InputRead { input, content, source });
        }
        Ok(read)
    }
}
