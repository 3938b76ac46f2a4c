//! Long and deep Dockerfiles: nothing here may overflow a stack or take time that grows with the square of its length.
//! No time is measured; at these lengths (a megabyte or so) a quadratic step takes minutes in a debug build.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fmt::Write as _;

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{Checks, parse};
use lapstrake_graph::Plan;
use lapstrake_lower::{
    BuildInputs, ImageRequest, ImageResolver, LowerError, ResolveFailure, ResolvedImage, lower, outline,
};
use lapstrake_oci::{Digest, ImageConfig, Platform};

/// One image, whatever is asked for.
struct Fake;

impl ImageResolver for Fake {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let manifest = Digest::sha256(request.reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest, config: ImageConfig::default(), guessed: false })
    }
}

fn lowered(text: &str) -> Result<Plan, LowerError> {
    let parsed = parse(&SourceFile::new("Dockerfile", text));
    assert!(parsed.first_error().is_none(), "{:?}", parsed.first_error());
    let inputs = BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() };
    let plan = lower(&parsed.dockerfile, &inputs, &Fake)?;
    outline(&parsed.dockerfile, &inputs, &Fake, &Checks::default())?;
    Ok(plan)
}

/// `head` and then a line for each number up to `count`.
fn lines(head: &str, count: usize, line: impl Fn(usize) -> String) -> String {
    (1..=count).fold(head.to_owned(), |mut text, number| {
        writeln!(text, "{}", line(number)).unwrap();
        text
    })
}

#[test]
fn a_long_chain_of_stages() {
    let plan = lowered(&lines("FROM a AS s0\n", 20_000, |n| format!("FROM s{} AS s{n}", n - 1))).unwrap();
    assert_eq!(plan.graph.len(), 1);
    let copies = |n| format!("FROM a AS s{n}\nCOPY --from=s{} /x /y", n - 1);
    let plan = lowered(&lines("FROM a AS s0\n", 5_000, copies)).unwrap();
    assert_eq!(plan.graph.len(), 5_001);
}

#[test]
fn many_names() {
    let plan = lowered(&lines("FROM a\n", 20_000, |n| format!("ENV a{n}=x"))).unwrap();
    assert_eq!(plan.targets[0].image.config.config.env.len(), 20_001);
    let plan = lowered(&lines("FROM a\nENV \\\n", 50_000, |n| format!(" a{n}=x \\"))).unwrap();
    assert_eq!(plan.targets[0].image.config.config.env.len(), 50_001);
    let plan = lowered(&lines("FROM a\nLABEL \\\n", 50_000, |n| format!(" a{n}=x \\"))).unwrap();
    assert_eq!(plan.targets[0].image.config.config.labels.len(), 50_000);
    lowered(&(lines("ARG a0=x\n", 20_000, |n| format!("ARG a{n}=$a{}", n - 1)) + "FROM a\nARG a20000\n"))
        .unwrap();
}

#[test]
fn many_steps() {
    let plan = lowered(&lines("FROM a\n", 20_000, |_| "RUN x".to_owned())).unwrap();
    assert_eq!(plan.graph.len(), 20_001);
    let plan = lowered(&lines("FROM a\n", 10_000, |_| "RUN <<E\nx\nE".to_owned())).unwrap();
    assert_eq!(plan.graph.len(), 10_001);
}

/// `ENV a=$a$a` doubles with every line; braces nest. Both end in an error before they end the memory or the stack.
#[test]
fn growing_and_nesting() {
    let doubled = lines("FROM a\nENV a=xxxxxxxxxx\n", 60, |_| "ENV a=$a$a".to_owned());
    assert!(lowered(&doubled).is_err());
    for open in ["${a:-", "${a#", "\"${a:-"] {
        let nested = open.repeat(9_000);
        assert!(lowered(&format!("FROM a\nENV b={nested}\n")).is_err(), "{open}");
    }
    lowered(&format!("FROM a\nRUN {}\n", "[".repeat(60_000))).unwrap();
}
