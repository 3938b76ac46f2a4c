//! Each target on its seeds and on some thousand changes of them, the same every time.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use lapstrake_fuzz::{Mutator, TARGETS, dictionary, found, seeds};

/// How many changed inputs each target is given. `cargo xtask fuzz` gives many more, and better ones.
const INPUTS: usize = 2_000;

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let (seeds, words) = (seeds(name).unwrap(), dictionary());
    assert!(seeds.len() >= 30, "{name}: {} seeds", seeds.len());
    found(name).unwrap().iter().chain(&seeds).for_each(|seed| (target.run)(seed));
    let mut mutator = Mutator::new(1);
    for _ in 0..INPUTS {
        (target.run)(&mutator.input(&seeds, &words, target.longest));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn all_targets_are_here() {
            let here = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), here);
        }
    };
}

targets! { parse lower words patterns ignore git mount names layers documents challenges go }
