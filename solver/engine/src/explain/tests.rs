//! Two builds, and what is said of the second.

use super::*;
use crate::key::KeyHasher;

fn key(text: &str) -> Key {
    KeyHasher::new("test").part("", text.as_bytes()).finish()
}

/// A step that was done, with an op and the values of its other parts.
fn step(name: &str, op: &str, inputs: &[(usize, &str)]) -> StepReport<()> {
    let mut parts = vec![KeyPart { label: "op".to_owned(), value: op.to_owned() }];
    for (number, (_, value)) in inputs.iter().enumerate() {
        let label = if value.starts_with("files") { "content of src" } else { "input" };
        parts.push(KeyPart { label: format!("{label} {number}"), value: (*value).to_owned() });
    }
    StepReport {
        digest: format!("sha256:{name}"),
        name: name.to_owned(),
        lines: None,
        outcome: StepOutcome::Executed,
        forced: false,
        inputs: inputs.iter().map(|(input, _)| *input).collect(),
        key: Some(key(name)),
        parts,
        result: None,
    }
}

fn run(env: &str, command: &str) -> String {
    format!(r#"{{"exec":{{"args":["/bin/sh","-c","{command}"],"env":["PATH=/bin","{env}"],"cwd":"/"}}}}"#)
}

fn build() -> Vec<StepReport<()>> {
    vec![
        step("[internal] load build context", "local", &[]),
        step("[build 1/4] FROM busybox", r#"{"source":{"image":{"manifest":"sha256:1"}}}"#, &[]),
        step("[build 2/4] COPY src .", "copy", &[(1, "k1"), (0, "files1")]),
        step("[build 3/4] RUN make", &run("A=1", "make"), &[(2, "k2")]),
        step("[build 4/4] RUN test", &run("A=1", "test"), &[(3, "k3")]),
    ]
}

fn reasons(this: &[StepReport<()>], earlier: &[StepReport<()>]) -> Vec<Vec<Reason>> {
    explain(this, Some(earlier), |_| None).into_iter().map(|explained| explained.reasons).collect()
}

#[test]
fn files_and_what_stands_on_them() {
    let mut this = build();
    this[0].outcome = StepOutcome::Cached;
    this[1].outcome = StepOutcome::Cached;
    this[2].parts[2].value = "files2".to_owned();
    this[3].parts[1].value = "k2b".to_owned();
    this[4].outcome = StepOutcome::Skipped;
    let digests = (Some("files1".to_owned()), "files2".to_owned());
    let content = Reason::Content { input: 0, label: "content of src 1".to_owned(), digests };
    assert_eq!(reasons(&this, &build()), [vec![], vec![], vec![content], vec![Reason::Input(2)], vec![]]);
}

#[test]
fn variables_and_commands_are_named() {
    let mut this = build();
    this[3].name = "[build 3/4] RUN make all".to_owned();
    this[3].parts[0].value = run("A=2", "make all");
    let explained = &reasons(&this, &build())[3];
    let change = |place: &str, before: &str, after: &str| Change {
        place: place.to_owned(),
        before: Some(before.to_owned()),
        after: Some(after.to_owned()),
    };
    let args = change("exec.args", "/bin/sh -c make", "/bin/sh -c make all");
    assert_eq!(explained, &[Reason::Op(vec![args, change("exec.env A", "1", "2")])]);
    this[1].parts[0].value = r#"{"source":{"image":{"manifest":"sha256:2"}}}"#.to_owned();
    let base = change("source.image.manifest", "sha256:1", "sha256:2");
    assert_eq!(reasons(&this, &build())[1], [Reason::Op(vec![base])]);
}

#[test]
fn what_has_no_earlier_one() {
    assert!(explain(&build(), None, |_| None).iter().all(|one| one.reasons == [Reason::First]));
    let mut this = build();
    this.push(step("[stage-1 1/1] RUN more", "x", &[]));
    assert_eq!(reasons(&this, &build())[5], [Reason::New]);
    this[4].forced = true;
    assert_eq!(reasons(&this, &build())[4], [Reason::Forced]);
}

#[test]
fn nothing_changed() {
    let mut earlier = build();
    assert_eq!(reasons(&build(), &earlier)[3], [Reason::Lost]);
    earlier[3].outcome = StepOutcome::Failed;
    assert_eq!(reasons(&build(), &earlier)[3], [Reason::Unfinished]);
    let parts = std::mem::take(&mut earlier[3].parts);
    assert_eq!(reasons(&build(), &earlier)[3], [Reason::Unknown]);
    // The record of its key has them.
    earlier[3].outcome = StepOutcome::Cached;
    let found = explain(&build(), Some(&earlier), |forced| {
        (*forced == key("[build 3/4] RUN make")).then(|| parts.clone())
    });
    assert_eq!(found[3].reasons, [Reason::Lost]);
}

#[test]
fn an_instruction_in_between_is_new_and_not_a_change_of_the_next() {
    let mut this = build();
    this.insert(3, step("[build 3/5] RUN configure", &run("A=1", "configure"), &[(2, "k2")]));
    let explained = explain(&this, Some(&build()), |_| None);
    let earlier: Vec<Option<usize>> = explained.iter().map(|one| one.earlier).collect();
    assert_eq!(earlier, [Some(0), Some(1), Some(2), None, Some(3), Some(4)]);
}
