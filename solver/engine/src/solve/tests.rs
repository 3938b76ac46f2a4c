//! Builds with a scripted executor: what runs, when, how often, and what of it counts the next time.

mod script;

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use lapstrake_graph::VertexId;
use proptest::prelude::*;

use self::script::{Memory, Play, Script, Sketch};
use super::{CacheStatus, Solved, Solver, Solving};
use crate::event::{Event, Progress};
use crate::probe::{Forecast, probe};
use crate::report::StepOutcome;

/// A solver that nobody watches.
fn solver<'a>(sketch: &'a Sketch, script: &'a Script, cache: &'a Memory) -> Solver<'a, Script, Memory> {
    Solver::new(&sketch.graph, script, cache, Progress::none())
}

/// Builds `target`, every step ending as soon as it runs; what came out, and what ran.
fn build(
    sketch: &Sketch,
    target: VertexId,
    script: &Script,
    cache: &Memory,
) -> (Solved<String>, Vec<String>) {
    let before = script.started().len();
    let solver = solver(sketch, script, cache);
    let mut play = match Play::start(solver.solve(target.into())) {
        Ok(play) => play,
        Err(solved) => return (solved.unwrap(), script.started().split_off(before)),
    };
    loop {
        let running = script.running();
        assert!(!running.is_empty(), "the build hangs");
        for name in running {
            script.finish(&name);
        }
        if let Some(solved) = play.go() {
            return (solved.unwrap(), script.started().split_off(before));
        }
    }
}

/// `src` below `a` and `b`, which `both` takes in.
fn diamond() -> (Sketch, VertexId) {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let (a, b) = (sketch.step("a", &[source]), sketch.step("b", &[source]));
    let both = sketch.step("both", &[a, b]);
    (sketch, both)
}

#[test]
fn independent_steps_run_side_by_side() {
    for order in [["a", "b"], ["b", "a"]] {
        let ((sketch, both), script, cache) = (diamond(), Script::default(), Memory::default());
        let solver = solver(&sketch, &script, &cache);
        let mut play = Play::new(solver.solve(both.into()));
        assert_eq!(script.running(), ["src"]);
        script.finish("src");
        assert!(play.go().is_none());
        assert_eq!(script.running(), ["a", "b"]);
        script.finish(order[0]);
        assert!(play.go().is_none());
        assert_eq!(script.running(), [order[1]]);
        script.finish(order[1]);
        assert!(play.go().is_none());
        script.finish("both");
        let solved = play.go().unwrap().unwrap();
        assert_eq!(
            (solved.result.value.as_str(), solved.status),
            ("both.0(a.0(src.0()),b.0(src.0()))", CacheStatus::Executed)
        );
        assert_eq!(script.started().len(), 4);
    }
}

#[test]
fn targets_share_what_they_have_in_common() {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let shared = sketch.step("shared", &[source]);
    let (one, two) = (sketch.step("one", &[shared]), sketch.step("two", &[shared]));
    let unwanted = sketch.step("unwanted", &[shared]);
    let (script, cache) = (Script::default(), Memory::default());
    let solver = solver(&sketch, &script, &cache);
    let both = async { tokio::join!(solver.solve(one.into()), solver.solve(two.into())) };
    let mut play = Play::new(both);
    for steps in [&["src"] as &[&str], &["shared"], &["one", "two"]] {
        assert_eq!(script.running(), steps);
        for step in steps {
            script.finish(step);
        }
        let done = play.go();
        assert_eq!(done.is_some(), steps.len() == 2);
    }
    // Solved once, solved for good.
    assert_eq!(
        Play::start(solver.solve(shared.into())).err().unwrap().unwrap().status,
        CacheStatus::Executed
    );
    assert_eq!(script.started(), ["src", "shared", "one", "two"]);
    let _ = unwanted;
}

#[test]
fn processes_wait_for_each_other() {
    let ((sketch, both), script, cache) = (diamond(), Script::default(), Memory::default());
    let other_script = Script::default();
    let (first, second) = (solver(&sketch, &script, &cache), solver(&sketch, &other_script, &cache));
    let mut one = Play::new(first.solve(both.into()));
    let mut two = Play::new(second.solve(both.into()));
    // Sources have no records: each looks for itself.
    script.finish("src");
    other_script.finish("src");
    assert!(one.go().is_none() && two.go().is_none());
    assert_eq!((script.running().len(), other_script.running().len()), (2, 0));
    for step in ["a", "b", "both"] {
        script.finish(step);
        let (first, second) = (one.go(), two.go());
        assert_eq!((first.is_some(), second.is_some()), (step == "both", step == "both"), "after {step}");
        if let (Some(first), Some(second)) = (first, second) {
            assert_eq!(first.unwrap().result, second.unwrap().result);
        }
    }
    assert_eq!(other_script.started(), ["src"]);
}

/// Two jobs with the same steps, each with an executor of its own, so that it is known which one did what.
fn two_jobs(forced: bool, act: impl FnOnce(&Script, &mut Job<'_>, &Script, &mut Job<'_>)) {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let step = if forced { sketch.uncached("step", &[source]) } else { sketch.step("step", &[source]) };
    let (one, two, cache) = (Script::default(), Script::default(), Memory::default());
    let (first, second) = (solver(&sketch, &one, &cache), solver(&sketch, &two, &cache));
    let mut first = Play::new(first.solve(step.into()));
    let mut second = Play::new(second.solve(step.into()));
    one.finish("src");
    two.finish("src");
    assert!(first.go().is_none() && second.go().is_none());
    // One does the step, the other waits.
    assert_eq!((one.running(), two.running()), (vec!["step".to_owned()], vec![]));
    act(&one, &mut first, &two, &mut second);
}

type Job<'a> = Play<'a, Solving<Solved<String>>>;

#[test]
fn equal_steps_of_two_jobs_run_once() {
    // Even where no record counts: the step ran while the second job waited for it.
    for forced in [false, true] {
        two_jobs(forced, |one, first, two, second| {
            one.finish("step");
            let (first, second) = (first.go().unwrap().unwrap(), second.go().unwrap().unwrap());
            assert_eq!((first.status, second.status), (CacheStatus::Executed, CacheStatus::Cached));
            assert_eq!(first.result, second.result);
            assert_eq!(two.started(), ["src"]);
        });
    }
}

#[test]
fn a_job_that_fails_leaves_the_other_alone() {
    for forced in [false, true] {
        two_jobs(forced, |one, first, two, second| {
            one.fail("step");
            assert!(first.go().unwrap().is_err());
            assert!(second.go().is_none());
            two.finish("step");
            assert_eq!(second.go().unwrap().unwrap().status, CacheStatus::Executed);
        });
    }
}

#[test]
fn a_job_that_is_canceled_leaves_the_other_alone() {
    for forced in [false, true] {
        two_jobs(forced, |one, first, two, second| {
            first.cancel();
            assert_eq!(one.canceled(), ["step"]);
            assert!(second.go().is_none());
            two.finish("step");
            assert_eq!(second.go().unwrap().unwrap().status, CacheStatus::Executed);
        });
        // The job that waits may be canceled as well.
        two_jobs(forced, |one, first, two, second| {
            second.cancel();
            one.finish("step");
            assert_eq!(first.go().unwrap().unwrap().status, CacheStatus::Executed);
            assert_eq!((two.started(), two.canceled()), (vec!["src".to_owned()], vec![]));
        });
    }
}

#[test]
fn a_job_that_panics_leaves_the_other_alone() {
    for forced in [false, true] {
        two_jobs(forced, |one, first, two, second| {
            // A step without an end is a panic in the executor.
            one.forget("step");
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| first.go().is_some()));
            assert!(panic.is_err());
            first.cancel();
            assert!(second.go().is_none());
            two.finish("step");
            assert_eq!(second.go().unwrap().unwrap().status, CacheStatus::Executed);
        });
    }
}

#[test]
fn a_job_that_comes_after_the_step_does_it_again_if_no_record_counts() {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let step = sketch.uncached("step", &[source]);
    let (script, cache) = (Script::default(), Memory::default());
    for _ in 0..2 {
        let (solved, ran) = build(&sketch, step, &script, &cache);
        assert_eq!((solved.status, ran), (CacheStatus::Executed, vec!["src".to_owned(), "step".to_owned()]));
    }
}

#[test]
fn the_first_failure_ends_the_build_and_names_the_step() {
    let ((sketch, both), script, cache) = (diamond(), Script::default(), Memory::default());
    let (sender, events) = channel();
    let solver = Solver::new(&sketch.graph, &script, &cache, Progress::new(sender));
    let mut play = Play::new(solver.solve(both.into()));
    script.finish("src");
    assert!(play.go().is_none());
    script.fail("b");
    let failed = play.go().unwrap().unwrap_err();
    assert_eq!((failed.step.as_str(), failed.to_string().as_str()), ("b", "b went wrong"));
    assert_eq!(script.canceled(), ["a"]);
    let errors: Vec<String> = events
        .try_iter()
        .filter_map(|event| match event {
            Event::Completed { error, .. } => error,
            _ => None,
        })
        .collect();
    assert_eq!(errors, ["b went wrong", "canceled"]);
    // What was finished stays; what failed is tried again.
    let (_, ran) = build(&sketch, both, &script, &cache);
    assert_eq!(ran, ["src", "a", "b", "both"]);
}

#[test]
fn dropping_a_build_cancels_what_runs() {
    let ((sketch, both), script, cache) = (diamond(), Script::default(), Memory::default());
    let solver = solver(&sketch, &script, &cache);
    let mut play = Play::new(solver.solve(both.into()));
    script.finish("src");
    assert!(play.go().is_none());
    drop(play);
    assert_eq!(script.canceled(), ["a", "b"]);
    // The same solver can be asked again, and a lock that was held is free.
    let mut play = Play::new(solver.solve(both.into()));
    for step in ["a", "b", "both"] {
        script.finish(step);
        let ended = play.go();
        assert_eq!(ended.is_some(), step == "both");
    }
}

#[test]
fn what_is_remembered_needs_nothing() {
    let ((sketch, both), script, cache) = (diamond(), Script::default(), Memory::default());
    let (first, _) = build(&sketch, both, &script, &cache);
    let (second, ran) = build(&sketch, both, &script, &cache);
    assert!(ran.is_empty());
    assert_eq!((second.result, second.status), (first.result, CacheStatus::Cached));
}

#[test]
fn the_same_content_cuts_off_what_is_behind() {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let compile = sketch.step("compile", &[source]);
    let link = sketch.step("link", &[compile]);
    let cache = Memory::default();
    let run = |version: u32, content: &str| {
        let script = Script::new(&[("src", version)], &[]);
        let solver = solver(&sketch, &script, &cache);
        let mut play = Play::new(solver.solve(link.into()));
        script.finish("src");
        assert!(play.go().is_none());
        script.finish_with("compile", content);
        let solved = play.go().unwrap_or_else(|| {
            script.finish("link");
            play.go().unwrap()
        });
        (solved.unwrap().status, script.started())
    };
    assert_eq!(run(0, "object").0, CacheStatus::Executed);
    let (status, ran) = run(1, "object");
    assert_eq!((status, ran), (CacheStatus::Cached, vec!["src".to_owned(), "compile".to_owned()]));
    assert_eq!(run(2, "another object").0, CacheStatus::Executed);
}

#[test]
fn a_source_by_content_may_change_its_key() {
    let mut sketch = Sketch::default();
    let (base, context) = (sketch.source("base"), sketch.source("context"));
    let copy = sketch.step("copy", &[base, context]);
    let cache = Memory::default();
    let run = |version: u32, content: &str| {
        let script = Script::new(&[("context", version)], &["copy"]);
        let solver = solver(&sketch, &script, &cache);
        let mut play = Play::new(solver.solve(copy.into()));
        script.finish("base");
        script.finish_with("context", content);
        let solved = play.go().unwrap_or_else(|| {
            script.finish("copy");
            play.go().unwrap()
        });
        solved.unwrap().status
    };
    assert_eq!(
        [run(0, "files"), run(1, "files"), run(1, "other files")],
        [CacheStatus::Executed, CacheStatus::Cached, CacheStatus::Executed]
    );
}

#[test]
fn ignoring_the_cache_runs_one_step_and_looks_at_what_it_gave() {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let fetch = sketch.uncached("fetch", &[source]);
    let unpack = sketch.step("unpack", &[fetch]);
    let (script, cache) = (Script::default(), Memory::default());
    let (_, ran) = build(&sketch, unpack, &script, &cache);
    assert_eq!(ran, ["src", "fetch", "unpack"]);
    let (_, ran) = build(&sketch, unpack, &script, &cache);
    assert_eq!(ran, ["src", "fetch"]);
}

#[test]
fn another_op_runs_with_all_that_is_behind_it() {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let a = sketch.step("a", &[source]);
    let before = sketch.step("b", &[a]);
    let old = sketch.step("c", &[before]);
    let after = sketch.step("b2", &[a]);
    let new = sketch.step("c", &[after]);
    let (script, cache) = (Script::default(), Memory::default());
    build(&sketch, old, &script, &cache);
    let (_, ran) = build(&sketch, new, &script, &cache);
    assert_eq!(ran, ["b2", "c"]);
}

/// Inputs of each step, by the numbers of earlier ones; the first two are sources.
fn shapes() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    let steps = prop::collection::vec(prop::collection::vec(0_usize..1000, 1..4), 1..12);
    steps.prop_map(|steps| {
        let fold = |(at, inputs): (usize, Vec<usize>)| inputs.into_iter().map(|i| i % (at + 2)).collect();
        steps.into_iter().enumerate().map(fold).collect()
    })
}

fn draw(shape: &[BTreeSet<usize>]) -> (Sketch, VertexId) {
    let mut sketch = Sketch::default();
    let mut steps = vec![sketch.source("s0"), sketch.source("s1")];
    for (at, inputs) in shape.iter().enumerate() {
        let inputs: Vec<VertexId> = inputs.iter().map(|input| steps[*input]).collect();
        steps.push(sketch.step(&format!("v{at}"), &inputs));
    }
    let target = *steps.last().expect("there are the sources at least");
    (sketch, target)
}

/// Builds with steps ending in the order that `picks` say.
fn replay(
    (sketch, target): (&Sketch, VertexId),
    script: &Script,
    cache: &Memory,
    picks: &[prop::sample::Index],
) -> Solving<Solved<String>> {
    let solver = solver(sketch, script, cache);
    let mut play = Play::new(solver.solve(target.into()));
    for pick in picks.iter().cycle() {
        let running = script.running();
        assert!(!running.is_empty(), "the build hangs");
        script.finish(&running[pick.index(running.len())]);
        if let Some(outcome) = play.go() {
            return outcome;
        }
    }
    unreachable!("the picks are never empty");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn order_changes_nothing_and_nothing_runs_twice(
        shape in shapes(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        contents in prop::collection::btree_set(0_usize..12, 0..6),
    ) {
        let (sketch, target) = draw(&shape);
        let by_content: Vec<String> = contents.iter().map(|at| format!("v{at}")).collect();
        let by_content: Vec<&str> = by_content.iter().map(String::as_str).collect();
        let script = || Script::new(&[], &by_content);
        let (plain, cache) = (script(), Memory::default());
        let (expected, _) = build(&sketch, target, &plain, &cache);

        let (shuffled, other_cache) = (script(), Memory::default());
        let found = replay((&sketch, target), &shuffled, &other_cache, &picks).unwrap();
        prop_assert_eq!(&found, &expected);
        let mut ran = shuffled.started();
        ran.sort();
        let mut needed: Vec<String> =
            sketch.graph.needed_by(target).into_iter().map(|id| sketch.graph[id].meta.name.clone()).collect();
        needed.sort();
        prop_assert_eq!(ran, needed);

        let (again, ran) = build(&sketch, target, &shuffled, &other_cache);
        prop_assert_eq!(again.result, expected.result);
        // Only sources have no records.
        prop_assert!(ran.iter().all(|name| name.starts_with('s')), "{:?} ran again", ran);
    }
}

/// Each step's future polls that of the step before: without a stack that grows, this ends the process.
#[test]
fn a_long_chain_needs_no_long_stack() {
    let chain = || {
        let (mut sketch, script, cache) = (Sketch::default(), Script::default(), Memory::default());
        let source = sketch.source("src");
        let last = (0..1_000).fold(source, |below, number| sketch.step(&format!("step {number}"), &[below]));
        build(&sketch, last, &script, &cache).1.len()
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(chain).unwrap();
    assert_eq!(thread.join().unwrap(), 1_001);
}

#[test]
fn what_a_build_would_do_is_found_out_without_doing_it() {
    let mut sketch = Sketch::default();
    let source = sketch.source("src");
    let a = sketch.step("a", &[source]);
    let top = sketch.step("top", &[a]);
    let cache = Memory::default();
    let forecasts = |script: &Script| -> Vec<Forecast> {
        let found = Play::start(probe(&sketch.graph, script, &cache, top.into())).err();
        let found = found.expect("nothing is waited for");
        found.into_iter().map(|(_, forecast)| forecast).collect()
    };
    let script = Script::default();
    assert_eq!(forecasts(&script), [Forecast::Source, Forecast::Executed, Forecast::Executed]);
    build(&sketch, top, &script, &cache);
    let before = script.started().len();
    assert_eq!(forecasts(&script), [Forecast::Source, Forecast::Cached, Forecast::Cached]);
    let changed = Script::new(&[("src", 2)], &["top"]);
    assert_eq!(forecasts(&changed), [Forecast::Source, Forecast::Executed, Forecast::Executed]);
    assert_eq!(script.started().len(), before);
}

#[test]
fn a_report_says_what_became_of_each_step() {
    let ((sketch, both), script, cache) = (diamond(), Script::default(), Memory::default());
    let watched = solver(&sketch, &script, &cache);
    let mut play = Play::new(watched.solve(both.into()));
    script.finish("src");
    assert!(play.go().is_none());
    script.fail("b");
    assert!(play.go().is_some());
    drop(play);
    let report = watched.report(&[both.into()]);
    let of = |name: &str| report.iter().find(|step| step.name == name).unwrap();
    assert_eq!(
        (of("src").outcome, of("b").outcome, of("both").outcome),
        (StepOutcome::Executed, StepOutcome::Failed, StepOutcome::Skipped)
    );
    assert_eq!(of("both").inputs.len(), 2);
    assert!(of("b").parts.len() == 2 && of("b").key.is_some());
    let (_, ran) = build(&sketch, both, &script, &cache);
    assert!(!ran.is_empty());
    let again = solver(&sketch, &script, &cache);
    assert!(Play::start(again.solve(both.into())).is_err());
    assert!(
        again
            .report(&[both.into()])
            .iter()
            .filter(|step| step.name != "src")
            .all(|step| step.outcome == StepOutcome::Cached)
    );
}

/// A step that ran again replaces what others stand on, also where they counted it by its content.
#[test]
fn no_memo_outlives_a_step_that_was_asked_to_run_again() {
    let make = |again: bool| {
        let mut sketch = Sketch::default();
        let source = sketch.source("src");
        let fetch = if again { sketch.uncached("fetch", &[source]) } else { sketch.step("fetch", &[source]) };
        let copy = sketch.step("copy", &[fetch]);
        (sketch, copy)
    };
    let (script, cache) = (Script::new(&[], &["copy"]), Memory::default());
    let (sketch, copy) = make(false);
    build(&sketch, copy, &script, &cache);
    // The same instructions, with another result.
    let changed = Script::new(&[("fetch", 2)], &["copy"]);
    let (asked, copy_again) = make(true);
    let (forced, _) = build(&asked, copy_again, &changed, &cache);
    let (after, ran) = build(&sketch, copy, &changed, &cache);
    assert!(ran.is_empty(), "{ran:?}");
    assert_eq!(after.result, forced.result);
}

/// A source changes between the moment when its content was asked for and the moment when a step reads it. The result is
/// recorded as one of what was read, and so is what stands on it; what the source was before is nobody's record.
#[test]
fn keys_are_of_what_was_read() {
    for by_content in [&["copy"][..], &[]] {
        let mut sketch = Sketch::default();
        let source = sketch.source("src");
        let copy = sketch.step("copy", &[source]);
        let run = sketch.step("run", &[copy]);
        let cache = Memory::default();
        let torn = Script::new(&[("src", 1)], by_content).reading("copy", "src.2()");
        let (_, ran) = build(&sketch, run, &torn, &cache);
        assert_eq!(ran, ["src", "copy", "run"]);
        // The content that was asked for is not the content that was copied.
        let (_, ran) = build(&sketch, run, &Script::new(&[("src", 1)], by_content), &cache);
        assert_eq!(ran.iter().filter(|name| *name != "src").collect::<Vec<_>>(), ["copy", "run"]);
        if !by_content.is_empty() {
            let (solved, ran) = build(&sketch, run, &Script::new(&[("src", 2)], by_content), &cache);
            assert_eq!(
                (solved.status, ran),
                (CacheStatus::Cached, vec!["src".to_owned()]),
                "what was copied is known"
            );
        }
    }
}
