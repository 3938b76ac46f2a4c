//! The events of several builds as those of one.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use lapstrake_build::{Failure, Journal, Tails};
use lapstrake_engine::{Event, Progress, StepId};

use super::{Display, Mode, Work, start};

/// A display that several builds share.
pub(crate) struct Joint {
    display: Display,
    whole: Progress,
    steps: Arc<Mutex<Steps>>,
}

/// The steps that are shown. A step of several builds is shown once.
#[derive(Default)]
struct Steps {
    /// The builds that have begun and not ended a step.
    running: HashMap<StepId, usize>,
}

/// The events of one of the builds.
pub(crate) struct Part {
    thread: JoinHandle<Tails>,
}

impl Joint {
    /// Starts a display.
    pub(crate) fn start(mode: Mode) -> Joint {
        let (whole, display) = start(mode, Work::Build);
        Joint { display, whole, steps: Arc::default() }
    }

    /// The sink of the events of the build `name`.
    pub(crate) fn part(&self, name: &str) -> (Progress, Part) {
        let (sender, events) = channel();
        let (steps, name) = (self.steps.clone(), name.to_owned());
        let whole = self.whole.sender();
        let thread = std::thread::spawn(move || {
            let mut tails = Tails::default();
            for event in events {
                tails.note(&event);
                if let Some(event) = joined(event, &name, &steps) {
                    pass(whole.as_ref(), event);
                }
            }
            tails
        });
        (self.whole.to(sender), Part { thread })
    }

    /// Waits for the last event to be shown; every part must have ended.
    pub(crate) fn finish(self) {
        drop(self.whole);
        self.display.finish();
    }
}

fn pass(to: Option<&Sender<Event>>, event: Event) {
    if let Some(to) = to {
        // The display may have ended first.
        to.send(event).unwrap_or_default();
    }
}

impl Part {
    /// Waits for the last event of this build. Gives what failed steps said last, and all that happened.
    pub(crate) fn finish(self) -> (Vec<Failure>, Journal) {
        self.thread.join().map(super::printed).unwrap_or_default()
    }
}

/// The event as the whole shows it: with the build's name, and nothing of a step that another build tells of.
fn joined(event: Event, build: &str, steps: &Mutex<Steps>) -> Option<Event> {
    let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
    let own = |step: StepId| {
        if step.0.starts_with("sha256:") || !step.0.contains(':') {
            step
        } else {
            StepId(format!("{build}:{}", step.0))
        }
    };
    match event {
        Event::Started { step, name, at } => {
            let step = own(step);
            let running = steps.running.entry(step.clone()).or_insert(0);
            *running += 1;
            let name = match name.strip_prefix('[') {
                Some(rest) => format!("[{build} {rest}"),
                None => format!("[{build}] {name}"),
            };
            (*running == 1).then_some(Event::Started { step, name, at })
        }
        Event::Completed { step, at, cached, error } => {
            let step = own(step);
            let running = steps.running.get_mut(&step)?;
            *running -= 1;
            if *running > 0 {
                return None;
            }
            steps.running.remove(&step);
            Some(Event::Completed { step, at, cached, error })
        }
        Event::Status { step, id, current, total, done, at } => {
            Some(Event::Status { step: own(step), id, current, total, done, at })
        }
        Event::Log { step, stream, data, at } => Some(Event::Log { step: own(step), stream, data, at }),
        Event::ResourceUsage { step, used, at } => Some(Event::ResourceUsage { step: own(step), used, at }),
        Event::Warning(warning) => Some(Event::Warning(warning)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_of_two_builds_is_shown_once() {
        let steps = Mutex::new(Steps::default());
        let at = Duration::ZERO;
        let id = || StepId("sha256:1".to_owned());
        let begun = || Event::Started { step: id(), name: "[1/2] RUN x".to_owned(), at };
        let done = |cached| Event::Completed { step: id(), at, cached, error: None };
        let shown = joined(begun(), "a", &steps);
        assert_eq!(shown, Some(Event::Started { step: id(), name: "[a 1/2] RUN x".to_owned(), at }));
        assert_eq!(joined(begun(), "b", &steps), None);
        assert_eq!(joined(done(false), "a", &steps), None);
        assert_eq!(joined(done(true), "b", &steps), Some(done(true)));
        let internal =
            Event::Started { step: StepId("internal:x".to_owned()), name: "exporting".to_owned(), at };
        let shown = joined(internal, "b", &steps);
        assert_eq!(
            shown,
            Some(Event::Started {
                step: StepId("b:internal:x".to_owned()),
                name: "[b] exporting".to_owned(),
                at
            })
        );
    }
}
