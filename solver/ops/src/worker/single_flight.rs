//! Equal steps of several jobs: one job does a step at a time, and those that waited for it take its result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lapstrake_engine::Key;
use tokio::sync::OwnedMutexGuard;

/// What is being done, by keys.
pub(crate) struct SingleFlight<T>(Mutex<HashMap<Key, Weak<Call<T>>>>);

impl<T> Default for SingleFlight<T> {
    fn default() -> SingleFlight<T> {
        SingleFlight(Mutex::default())
    }
}

/// A step that somebody does or waits for.
struct Call<T> {
    call_lock: Arc<tokio::sync::Mutex<()>>,
    done: Mutex<Finished<T>>,
}

/// How often a step was done, and its last result.
struct Finished<T> {
    times: usize,
    last: Option<T>,
}

/// A job that does a step or waits for it. The last one to leave takes the step out of the table.
struct Participant<T> {
    flights: Arc<SingleFlight<T>>,
    key: Key,
    step: Option<Arc<Call<T>>>,
}

/// The turn of one job at a step, for as long as this value lives.
pub(crate) struct CallGuard<T> {
    _lock: OwnedMutexGuard<()>,
    participant: Participant<T>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> SingleFlight<T> {
    /// Waits for the turn at the step `key`; with the result of a job that did the step meanwhile. A future that is dropped
    /// waits no more.
    pub(crate) async fn wait(self: &Arc<Self>, key: Key) -> (CallGuard<T>, Option<T>) {
        let step = self.step(key);
        let before = locked(&step.done).times;
        let call_lock = step.call_lock.clone();
        let participant = Participant { flights: self.clone(), key, step: Some(step.clone()) };
        let call_lock = call_lock.lock_owned().await;
        let result = {
            let done = locked(&step.done);
            done.last.clone().filter(|_| done.times > before)
        };
        (CallGuard { _lock: call_lock, participant }, result)
    }

    fn step(&self, key: Key) -> Arc<Call<T>> {
        let mut steps = locked(&self.0);
        if let Some(step) = steps.get(&key).and_then(Weak::upgrade) {
            return step;
        }
        let (call_lock, done) = (Arc::default(), Mutex::new(Finished { times: 0, last: None }));
        let step = Arc::new(Call { call_lock, done });
        steps.insert(key, Arc::downgrade(&step));
        step
    }
}

impl<T> CallGuard<T> {
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
        let mut steps = locked(&self.flights.0);
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

    async fn is_waiting(flights: &Arc<SingleFlight<u32>>) -> bool {
        timeout(Duration::from_millis(20), flights.wait(key("a"))).await.is_err()
    }

    #[test]
    fn those_that_wait_take_the_result_and_later_ones_do_not() {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let flights: Arc<SingleFlight<u32>> = Arc::default();
            let (first, none) = flights.wait(key("a")).await;
            assert_eq!(none, None);
            // Other steps are in nobody's way; one that stops waiting leaves no trace.
            assert_eq!(flights.wait(key("b")).await.1, None);
            assert!(is_waiting(&flights).await);
            let waiting = [1, 2].map(|_| {
                let flights = flights.clone();
                tokio::spawn(async move {
                    let (call_lock, result) = flights.wait(key("a")).await;
                    call_lock.done(result.unwrap_or(0) + 1);
                    result
                })
            });
            tokio::task::yield_now().await;
            first.done(7);
            for (waiting, result) in waiting.into_iter().zip([7, 8]) {
                assert_eq!(waiting.await.unwrap(), Some(result));
            }
            assert!(locked(&flights.0).is_empty());
            assert_eq!(flights.wait(key("a")).await.1, None);
            assert!(locked(&flights.0).is_empty());
        });
    }

    #[test]
    fn a_turn_without_a_result_gives_the_step_to_the_next_one() {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let flights: Arc<SingleFlight<u32>> = Arc::default();
            let sign = Arc::new(tokio::sync::Notify::new());
            let panicking = {
                let (flights, sign) = (flights.clone(), sign.clone());
                tokio::spawn(async move {
                    let _lock = flights.wait(key("a")).await;
                    sign.notified().await;
                    panic!("in the middle of the step");
                })
            };
            tokio::task::yield_now().await;
            assert!(is_waiting(&flights).await);
            sign.notify_one();
            let next = timeout(Duration::from_secs(5), flights.wait(key("a"))).await.unwrap();
            assert!(panicking.await.is_err() && next.1.is_none());
            drop(next);
            assert!(locked(&flights.0).is_empty());
        });
    }
}
