//! Scheduling, cache keys, single flight, events and reasons.
//!
//! Pure: no file system, no containers. What an op does and where records live are behind two traits,
//! [`Executor`] and [`CacheIndex`].
//!
//! A build is one future for each vertex, made when somebody first wants it and shared by all who do. Dropping the
//! build drops them all, and with them whatever they had running: there is no other way to cancel.
//!
//! # Keys
//!
//! A step has a *plain key*, which needs no other step's result, a *definition key*, and a *content key*, known once its
//! inputs are:
//!
//! | value | plain key | definition key | content key |
//! |---|---|---|---|
//! | the op, as [`CacheMap::op`] gives it, with the version of what it does if that has changed | yes | yes | yes |
//! | a source that counts [by content](Dep::ByContent) | content of the selected paths | the same | the same |
//! | a step that counts by content | its plain key | content of the selected paths | content of the selected paths |
//! | an input that counts [by key](Dep::ByKey) | its plain key | its definition key | the content of its result |
//! | names, lines, places of contexts on the host | no | no | no |
//!
//! A result is recorded under all three. A step is looked up by its plain key first, so the key of the last step is the
//! memo of the whole build: if nothing changed, that is the one look-up. Then by its definition key, then its inputs are
//! solved and it is looked up by content, so that a step that ran again and gave the same tree cuts off everything behind
//! it. A step that had to run again although a record had it (`--no-cache`) replaces what its plain key has, and so does
//! everything that stands on it.
//!
//! Equal steps of two jobs run once: a step is done under the lock of its content key. Jobs that wait for the lock take the
//! result from the job that had it. If that job fails, panics or is dropped, the next one does the step itself.
//!
//! A source may change while a step reads it. The step then says what it [read](InputRead). The keys of the step, and of all steps
//! that stand on it, are computed again from what was read before the result is recorded. So a key always names what was read.

mod event;
mod executor;
mod explain;
mod key;
mod masked;
mod probe;
mod report;
mod solve;
mod stack_guard;

pub use event::{Event, OwnWarning, Progress, ResourceUsage, Step, StepId, Stream, Warning};
pub use executor::{
    CacheIndex, CacheMap, Dep, Execution, Executor, InputRead, LockedStep, Record, Selector, StepResult,
};
pub use explain::{Change, Reason, StepExplanation, explain};
pub use key::{Key, KeyHasher};
pub use masked::Secrets;
pub use probe::{Forecast, probe};
pub use report::{KeyPart, StepOutcome, StepReport};
pub use solve::{CacheStatus, Solved, Solver, StepFailed};
