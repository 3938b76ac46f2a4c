//! Equal steps of several jobs: one job does a step at a time, and those that waited for it take its result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lapstrake_engine::Key;
use tokio::sync::OwnedMutexGuard;

/// What is being done, by keys.
pub(crate) struct Turns<T>(Mutex<HashMap<Key, Weak<Step<T>>>>);

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns(Mutex::default())
    }
}

/// A step that somebody does or waits for.
struct Step<T> {
    turn: Arc<tokio::sync::Mutex<()>>,
    done: Mutex<Done<T>>,
}

/// How often a step was done, and its last result.
struct Done<T> {
    times: usize,
    last: Option<T>,
}

/// A job that does a step or waits for it. The last one to leave takes the step out of the table.
struct Participant<T> {
    turns: Arc<Turns<T>>,
    key: Key,
    step: Option<Arc<Step<T>>>,
}

/// The turn of one job at a step, for as long as this value lives.
pub(crate) struct OwnTurn<T> {
    _turn: OwnedMutexGuard<()>,
    participant: Participant<T>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> Turns<T> {
    /// Waits for the turn at the step `key`; with the result of a job that did the step meanwhile. A future that is dropped
    /// waits no more.
    pub(crate) async fn wait(self: &Arc<Self>, key: Key) -> (OwnTurn<T>, Option<T>) {
        let step = self.step(key);
        let before = locked(&step.done).times;
        let turn = step.turn.clone();
        let participant = Participant { turns: self.clone(), key, step: Some(step.clone()) };
        let turn = turn.lock_owned().await;
        let result = {
            let done = locked(&step.done);
            done.last.clone().filter(|_| done.times > before)
        };
        (OwnTurn { _turn: turn, participant }, result)
    }

    fn step(&self, key: Key) -> Arc<Step<T>> {
        let mut steps = locked(&self.0);
        if let Some(step) = steps.get(&key).and_then(Weak::upgrade) {
            return step;
        }
        let (turn, done) = (Arc::default(), Mutex::new(Done { times: 0, last: None }));
        let step = Arc::new(Step { turn, done });
        steps.insert(key, Arc::downgrade(&step));
        step
    }
}

impl<T> OwnTurn<T> {
    /// Ends the turn with a result for those that wait.
    pub(crate) fn done(self, result: T) {
        if let Some(step) = &self.participant.step {
            let mut done = locked(&step.done);
            done.times += 1;
            done.last = Some(result);
        }
    }
}

impl<T> Drop for Participant<T> {
    fn drop(&mut self) {
        let mut steps = locked(&self.turns.0);
        self.step = None;
        if steps.get(&self.key).is_some_and(|step| step.strong_count() == 0) {
            steps.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lapstrake_engine::KeyHasher;
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    fn key(text: &str) -> Key {
        KeyHasher::new("test").part("", text.as_bytes()).finish()
    }

    async fn waits(turns: &Arc<Turns<u32>>) -> bool {
        timeout(Duration::from_millis(20), turns.wait(key("a"))).await.is_err()
    }

    #[test]
    fn those_that_wait_take_the_result_and_later_ones_do_not() {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let turns: Arc<Turns<u32>> = Arc::default();
            let (first, none) = turns.wait(key("a")).await;
            assert_eq!(none, None);
            // Other steps are in nobody's way; one that stops waiting leaves no trace.
            assert_eq!(turns.wait(key("b")).await.1, None);
            assert!(waits(&turns).await);
            let waiting = [1, 2].map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move {
                    let (turn, result) = turns.wait(key("a")).await;
                    turn.done(result.unwrap_or(0) + 1);
                    result
                })
            });
            tokio::task::yield_now().await;
            first.done(7);
            for (waiting, result) in waiting.into_iter().zip([7, 8]) {
                assert_eq!(waiting.await.unwrap(), Some(result));
            }
            assert!(locked(&turns.0).is_empty());
            assert_eq!(turns.wait(key("a")).await.1, None);
            assert!(locked(&turns.0).is_empty());
        });
    }

    #[test]
    fn a_turn_without_a_result_gives_the_step_to_the_next_one() {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let turns: Arc<Turns<u32>> = Arc::default();
            let sign = Arc::new(tokio::sync::Notify::new());
            let panicking = {
                let (turns, sign) = (turns.clone(), sign.clone());
                tokio::spawn(async move {
                    let _turn = turns.wait(key("a")).await;
                    sign.notified().await;
                    panic!("in the middle of the step");
                })
            };
            tokio::task::yield_now().await;
            assert!(waits(&turns).await);
            sign.notify_one();
            let next = timeout(Duration::from_secs(5), turns.wait(key("a"))).await.unwrap();
            assert!(panicking.await.is_err() && next.1.is_none());
            drop(next);
            assert!(locked(&turns.0).is_empty());
        });
    }
}
