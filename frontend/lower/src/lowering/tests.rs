//! Golden plans in `testdata/plans`, and what is shorter said in code. `UPDATE=1` writes the plans anew.

use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::SourceFile;
use lapstrake_graph::{MountKind, Op, Source};
use lapstrake_oci::{DiffId, Digest, History, ImageConfig, Reference};

use super::*;
use crate::inputs::{NamedContext, NoCache};
use crate::root::empty_image;

/// Every image has one layer and the same config; what its name says is added: `onbuild` has triggers, `entry` has an
/// entry point, `arm` is for arm64, and `missing` is not there.
struct Fake;

impl ImageResolver for Fake {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let name = request.reference.familiar_name();
        let mut config = empty_image(&request.platform);
        config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
        config.created = Some("2020-01-01T00:00:00Z".to_owned());
        config.rootfs.diff_ids = vec![DiffId(Digest::sha256(b"layer"))];
        config.history = vec![History { created_by: "fake base".to_owned(), ..History::default() }];
        match name.as_str() {
            "missing" | "alpin" => return Err(std::sync::Arc::new(std::io::Error::other("no such image"))),
            "onbuild" => {
                config.config.on_build = vec![
                    "ARG v=1".to_owned(),
                    "COPY --from=tools /t /t".to_owned(),
                    "RUN build $v".to_owned(),
                ];
            }
            "badtrigger" => config.config.on_build = vec!["RUM x".to_owned()],
            "entry" => {
                config.config.entrypoint = Some(vec!["/entry".to_owned()]);
                config.config.env = vec!["A=1".to_owned()];
                config.config.working_dir = "/srv/".to_owned();
                config.config.user = "app".to_owned();
            }
            "arm" => config.architecture = "arm64".to_owned(),
            _ => {}
        }
        Ok(ResolvedImage { manifest: Digest::sha256(name.as_bytes()), config, guessed: false })
    }
}

fn inputs() -> BuildInputs {
    BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() }
}

fn parsed(text: &str) -> (SourceFile, Dockerfile) {
    let file = SourceFile::new("Dockerfile", text);
    let parsed = lapstrake_dockerfile::parse(&file);
    assert_eq!(parsed.first_error(), None, "{text}");
    (file, parsed.dockerfile)
}

fn plan_with(text: &str, inputs: &BuildInputs) -> Result<Plan, String> {
    lower(&parsed(text).1, inputs, &Fake).map_err(|error| error.to_string())
}

fn plan(text: &str) -> Plan {
    plan_with(text, &inputs()).unwrap()
}

fn error(text: &str) -> String {
    plan_with(text, &inputs()).unwrap_err()
}

fn config(plan: &Plan) -> &ImageConfig {
    &plan.targets[0].image.config
}

fn rows(plan: &Plan) -> Vec<&str> {
    plan.targets[0].image.history.iter().map(|row| row.created_by.as_str()).collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.graph
        .needed_by(plan.targets[0].edge.vertex)
        .into_iter()
        .map(|id| plan.graph[id].meta.name.as_str())
        .collect()
}

fn execs(plan: &Plan) -> Vec<&lapstrake_graph::Exec> {
    plan.graph
        .needed_by(plan.targets[0].edge.vertex)
        .into_iter()
        .filter_map(|id| match &plan.graph[id].op {
            Op::Exec(exec) => Some(exec),
            _ => None,
        })
        .collect()
}

fn env_of<'e>(exec: &'e lapstrake_graph::Exec, name: &str) -> Option<&'e str> {
    exec.env.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/plans")
}

/// `key value` lines of an `inputs` file.
fn read_inputs(path: &Path) -> BuildInputs {
    let mut inputs = inputs();
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let (key, value) = line.split_once(' ').unwrap();
        match key {
            "target" => inputs.target = Some(value.to_owned()),
            "platform" => inputs.platforms.push(value.parse().unwrap()),
            "arg" => inputs.build_args.extend([pair(value)]),
            "label" => inputs.labels.extend([pair(value)]),
            "context" => {
                let (name, what) = pair(value);
                let context = match what.split_once("://") {
                    None if what.starts_with("target:") => {
                        NamedContext::Target(what["target:".len()..].to_owned())
                    }
                    Some(("docker-image", image)) => NamedContext::Image(image.parse().unwrap()),
                    Some(("rootfs", path)) => NamedContext::Rootfs { path: path.to_owned() },
                    _ => NamedContext::Local,
                };
                inputs.contexts.insert(name, context);
            }
            other => panic!("{other} in {path:?}"),
        }
    }
    inputs
}

#[test]
fn golden_plans() {
    let mut dirs: Vec<PathBuf> =
        fs::read_dir(golden_dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert!(!dirs.is_empty());
    for dir in dirs {
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        let (file, dockerfile) = parsed(&text);
        let found = match lower(&dockerfile, &read_inputs(&dir.join("inputs")), &Fake) {
            Ok(plan) => crate::dump(&plan),
            Err(error) => match error.diagnostic() {
                Some(diagnostic) => {
                    lapstrake_diag::render(&diagnostic, &file, lapstrake_diag::Style::Plain) + "\n"
                }
                None => format!("error: {error}\n"),
            },
        };
        let golden = dir.join("plan.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&golden).unwrap_or_default(), "{}", golden.display());
    }
}

#[test]
fn error_texts_of_sources_elsewhere() {
    let unsure = "checksum can't be specified for multiple sources";
    let table = [
        ("ADD --checksum=md5:00 https://x/y z", "unsupported digest algorithm"),
        ("ADD --checksum=00 https://x/y z", "invalid checksum digest format"),
        ("ADD --checksum=sha256:00 https://x/y z", "invalid checksum digest length"),
        ("ADD --checksum=sha256:00 x z", "checksum requires HTTP(S) or Git sources"),
        ("ADD --checksum=sha256:00 https://x/a https://x/b z", unsure),
        ("ADD --checksum=xyz git@h:x z", "invalid checksum xyz for Git URL, expected hex commit hash"),
        ("ADD --keep-git-dir=false git@h:x?keep-git-dir=1 z", "inconsistent keep-git-dir configuration"),
        ("ADD --checksum=ab git@h:x?checksum=cd z", "checksum mismatch \"ab\" != \"cd\""),
        ("ADD git@h:x?what=1 z", "unexpected query \"what\""),
        ("COPY git@h:x?what=1 z", "unexpected query \"what\""),
    ];
    for (text, expected) in table {
        assert_eq!(error(&format!("FROM a\n{text}")), expected, "{text}");
    }
}

#[test]
fn error_texts() {
    let table = [
        ("FROM $x", "base name ($x) should not be blank"),
        ("FROM a!b", "failed to parse stage name \"a!b\": invalid reference format"),
        ("FROM --platform=$x y", "empty platform value from expression $x"),
        (
            "FROM a\nCOPY --from=$x a b",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("FROM a\nCOPY --from=1 a b", "invalid stage index 1"),
        ("FROM a\nCOPY --from=-1 a b", "invalid stage index -1"),
        ("FROM a AS x\nCOPY --from=x a b", "circular dependency detected on stage: x"),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nCOPY --from=0 a b",
            "circular dependency detected on stage: x",
        ),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nFROM x",
            "cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
        ),
        (
            "FROM a AS x\nRUN --mount=from=y,target=/y true\nFROM a AS y\nFROM x",
            "cannot mount from stage \"y\" to \"/y\", stage needs to be defined before current command",
        ),
        ("FROM a\nENV a=${b", "failed to process \"${b\": unsupported modifier (\u{fffd}) in substitution"),
        ("FROM a\nRUN --mount=typ=tmpfs true", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
        ("FROM a\nRUN --mount=type=tmpfs,target=/ true", "invalid mount target \"/\""),
        ("FROM a\nRUN --mount=type=secret,id=s,target=/ true", "invalid mount target \"/\""),
        ("FROM a\nRUN --mount=type=ssh,target=/.. true", "invalid mount target \"/\""),
        ("FROM a\nRUN --mount=type=ssh,source=x true", "ssh does not support source"),
        ("FROM a\nCOPY https://x/y z", "source can't be a URL for COPY"),
        ("FROM a\nCOPY https://x/y.git z", "source can't be a git ref for COPY"),
        ("FROM a\nADD --checksum=sha256:x a b c", "checksum can't be specified for multiple sources"),
        ("FROM a\nADD --checksum=sha256:x a b", "checksum requires HTTP(S) or Git sources"),
        (
            "FROM a\nCOPY --chmod=64a a b",
            "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777",
        ),
        ("FROM a\nCOPY --link --chown=me a b", "invalid user index: -1"),
        ("FROM a\nEXPOSE 80/x", "invalid port: \"80/x\": invalid proto: x"),
        ("FROM a\nSTOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("FROM badtrigger", "unknown instruction: RUM (did you mean RUN?)"),
        ("FROM missing", "failed to resolve source metadata for docker.io/library/missing:latest"),
        (
            "FROM alpin",
            "failed to resolve source metadata for docker.io/library/alpin:latest (did you mean alpine?)",
        ),
        ("FROM a\nRUN []", "arguments are required"),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), expected, "{text}");
    }
    let target = BuildInputs { target: Some("biuld".into()), ..inputs() };
    assert_eq!(
        plan_with("FROM a AS build", &target).unwrap_err(),
        "target stage \"biuld\" could not be found (did you mean build?)"
    );
    let epoch = BuildInputs { build_args: [("SOURCE_DATE_EPOCH".into(), "x".into())].into(), ..inputs() };
    assert_eq!(plan_with("FROM a", &epoch).unwrap_err(), "invalid SOURCE_DATE_EPOCH: x");
}

#[test]
fn unreachable_stages_are_not_resolved() {
    let text = "FROM missing AS no\nRUN --mount=nonsense x\nFROM a AS yes\nRUN true";
    assert_eq!(execs(&plan(text)).len(), 1);
    let requests = required_images(&parsed(text).1, &inputs()).unwrap();
    let found: Vec<String> = requests.iter().map(|image| image.request.reference.familiar()).collect();
    assert_eq!(found, ["a:latest"]);
}

/// A name that looks like that of a stage is told as such before anybody is asked.
#[test]
fn required_images_that_may_be_stages() {
    let text = "FROM a AS build\nFROM b:1 AS tools\nCOPY --from=biuld /x /\nCOPY --from=tool:1 /x /\n\
                COPY --from=docker.io/library/biuld /y /\nRUN --mount=from=tols,target=/m true\nCOPY --from=far /x /";
    let found: Vec<String> = required_images(&parsed(text).1, &inputs())
        .unwrap()
        .into_iter()
        .map(|image| format!("{}{}", image.request.reference.familiar(), image.hint))
        .collect();
    let expected = [
        "b:1",
        "biuld:latest (did you mean build?)",
        "tool:1",
        "tols:latest (did you mean tools?)",
        "far:latest",
    ];
    assert_eq!(found, expected);
}

#[test]
fn required_images_are_those_of_all_platforms() {
    let text = "ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V AS x\nFROM b\nCOPY --from=x /a /\nCOPY --from=c /c /\nCOPY --from=x /b /";
    let both = BuildInputs {
        platforms: vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()],
        ..inputs()
    };
    let found: Vec<String> = required_images(&parsed(text).1, &both)
        .unwrap()
        .into_iter()
        .map(|image| format!("{} {}", image.request.reference.familiar(), image.request.platform))
        .collect();
    assert_eq!(
        found,
        [
            "a:1 linux/amd64",
            "b:latest linux/amd64",
            "c:latest linux/amd64",
            "b:latest linux/arm64",
            "c:latest linux/arm64"
        ]
    );
}

#[test]
fn trap_01_an_arg_behind_an_env_of_the_same_name_wins_in_run() {
    let late = plan("FROM a\nENV x=env\nARG x=arg\nRUN true");
    assert_eq!(env_of(execs(&late)[0], "x"), Some("arg"));
    assert!(config(&late).config.env.contains(&"x=env".to_owned()));
    let early = plan("FROM a\nARG x=arg\nENV x=env\nRUN true");
    assert_eq!(env_of(execs(&early)[0], "x"), Some("env"));
}

#[test]
fn trap_02_entrypoint_resets_only_an_inherited_cmd() {
    let inherited = plan("FROM a\nENTRYPOINT [\"e\"]");
    assert_eq!(config(&inherited).config.cmd, None);
    for text in ["FROM a\nCMD [\"c\"]\nENTRYPOINT [\"e\"]", "FROM a\nENTRYPOINT [\"e\"]\nCMD [\"c\"]"] {
        assert_eq!(config(&plan(text)).config.cmd.as_deref(), Some(&["c".to_owned()][..]), "{text}");
    }
    let from_stage = plan("FROM a AS s\nCMD [\"c\"]\nFROM s\nENTRYPOINT []");
    assert_eq!((&config(&from_stage).config.cmd, &config(&from_stage).config.entrypoint), (&None, &None));
    assert_eq!(config(&plan("FROM a\nCMD []")).config.cmd, Some(vec![]));
}

#[test]
fn trap_06_names_are_looked_up_as_buildkit_does() {
    let sources = |text: &str| {
        let plan = plan(text);
        names(&plan)
            .iter()
            .filter(|name| name.contains("FROM"))
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let upper = plan_with("FROM a AS Base\nFROM Base", &inputs());
    assert_eq!(
        upper.unwrap_err(),
        "failed to parse stage name \"Base\": invalid reference format: repository name (library/Base) must be lowercase"
    );
    assert_eq!(sources("FROM a AS Base\nRUN x\nFROM scratch\nCOPY --from=BASE /x /x").len(), 2);
    let last = sources("FROM a AS s\nFROM b AS s\nFROM scratch\nCOPY --from=s /x /x");
    assert!(last.iter().any(|name| name.contains("library/b:")), "{last:?}");
    let earlier = sources("FROM a AS s\nFROM s AS s\nRUN x");
    assert!(earlier.iter().any(|name| name.contains("library/a:")), "{earlier:?}");
}

#[test]
fn trap_13_what_is_expanded_and_what_is_not() {
    let text = "FROM a\nARG p=\"1 2/udp\"\nENV d=/data\nEXPOSE $p\nVOLUME $d\nLABEL $d=$d\nUSER $d\nCMD echo $d\nHEALTHCHECK CMD x $d\nCOPY --exclude=$d --chown=$p a $d";
    let plan = plan(text);
    let config = &config(&plan).config;
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["1/tcp", "2/udp"]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data"]);
    assert_eq!(config.labels["/data"], "/data");
    assert_eq!(config.user, "/data");
    assert_eq!(config.cmd.as_ref().unwrap()[2], "echo $d");
    assert_eq!(config.healthcheck.as_ref().unwrap().test[1], "x $d");
    assert!(rows(&plan).contains(&"EXPOSE [1/tcp 2/udp]"));
    assert!(rows(&plan).contains(&"HEALTHCHECK {Test:[CMD-SHELL x $d] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"));
}

#[test]
fn trap_20_history_rows() {
    let text = "FROM entry\nARG A=1 B\nARG A=2\nRUN [\"x\", \"y z\"]\nRUN a  b\nWORKDIR sub\nWORKDIR /\nCMD [\"a\", \"b\\\"\"]\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT run me\nONBUILD RUN x\nSTOPSIGNAL 9\nMAINTAINER a b\nVOLUME /a /b\nENV K=V  L=\"W X\"\nCOPY --link --chown=1:2 a <<E b/\nx\nE\nADD --chmod=600 t.tar /\n";
    assert_eq!(
        rows(&plan(text)),
        [
            "ARG A=1 B",
            "ARG A=2",
            "RUN |2 A=2 B= x y z # buildkit",
            "RUN |2 A=2 B= /bin/sh -c a  b # buildkit",
            "WORKDIR /srv/sub",
            "WORKDIR /",
            "CMD [\"a\" \"b\\\"\"]",
            "SHELL [/bin/bash -c]",
            "ENTRYPOINT [\"/bin/bash\" \"-c\" \"run me\"]",
            "STOPSIGNAL 9",
            "MAINTAINER a b",
            "VOLUME [/a /b]",
            "ENV K=V L=W X",
            "COPY --chown=1:2 a <<E b/ # buildkit",
            "ADD --chmod=600 t.tar / # buildkit",
        ]
    );
    let plan = plan(text);
    let layers = plan.targets[0].image.history.iter().filter(|row| row.layer.is_some()).count();
    assert_eq!(layers, 5);
}

#[test]
fn trap_22_triggers_fire_once_with_their_own_edges() {
    let plan = plan("FROM onbuild AS one\nFROM one AS two\nONBUILD RUN again\nFROM two\nRUN x");
    assert_eq!(
        rows(&plan),
        [
            "ARG v=1",
            "COPY /t /t # buildkit",
            "RUN |1 v=1 /bin/sh -c build $v # buildkit",
            "RUN |1 v=1 /bin/sh -c again # buildkit",
            "RUN |1 v=1 /bin/sh -c x # buildkit"
        ]
    );
    assert!(names(&plan).contains(&"[one 3/3] ONBUILD RUN build 1"), "{:?}", names(&plan));
    assert!(names(&plan).iter().any(|name| name.contains("library/tools")));
    assert!(config(&plan).config.on_build.is_empty());
}

#[test]
fn trap_23_scratch_and_stages_ignore_platforms() {
    let plan = plan("FROM --platform=linux/arm64 scratch AS a\nFROM --platform=linux/s390x a");
    assert_eq!(plan.targets[0].platform.to_string(), "linux/amd64");
}

#[test]
fn trap_28_proxies_reach_processes_and_nothing_else() {
    let with = |proxy: &str| {
        let inputs = BuildInputs { build_args: [("http_proxy".into(), proxy.into())].into(), ..inputs() };
        plan_with("FROM a\nRUN true\nRUN echo $http_proxy", &inputs).unwrap()
    };
    let (one, two) = (with("p1"), with("p2"));
    assert_eq!(execs(&one)[0].proxy_env, ["HTTP_PROXY=p1", "http_proxy=p1"]);
    assert_eq!(
        one.graph[one.targets[0].edge.vertex].digest(),
        two.graph[two.targets[0].edge.vertex].digest()
    );
    assert_eq!(rows(&one), rows(&two));
}

#[test]
fn trap_29_the_epoch_is_a_number_for_everybody() {
    let plan = plan("ARG SOURCE_DATE_EPOCH=12\nFROM a\nARG SOURCE_DATE_EPOCH\nWORKDIR /w\nRUN true");
    assert_eq!(plan.targets[0].image.epoch, Some(12));
    assert_eq!(env_of(execs(&plan)[0], "SOURCE_DATE_EPOCH"), Some("12"));
    let off = plan_with(
        "FROM a\nARG SOURCE_DATE_EPOCH\nRUN true",
        &BuildInputs { build_args: [("SOURCE_DATE_EPOCH".into(), "context".into())].into(), ..inputs() },
    )
    .unwrap();
    assert_eq!((off.targets[0].image.epoch, env_of(execs(&off)[0], "SOURCE_DATE_EPOCH")), (None, None));
}

/// What [`crate::epoch_source`] asked for is what everybody sees, as if the number had been given.
#[test]
fn the_epoch_of_a_source() {
    let stage = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://host/x /\nFROM a\n\
                 ARG SOURCE_DATE_EPOCH\nRUN x";
    let plan = plan_with(stage, &BuildInputs { source_epoch: Some(12), ..inputs() }).unwrap();
    assert_eq!(plan.targets[0].image.epoch, Some(12));
    assert_eq!(env_of(execs(&plan)[0], "SOURCE_DATE_EPOCH"), Some("12"));
    assert!(rows(&plan).contains(&"ARG SOURCE_DATE_EPOCH=12"), "{:?}", rows(&plan));
}

#[test]
fn trap_16_mount_options_are_read_in_order_and_late() {
    let text = "FROM a\nWORKDIR /w\nARG t=/c\nRUN --mount=type=cache,target=$t --mount=type=cache,target=rel,uid=5,sharing=locked --mount=target=. --mount=type=bind,from=0,source=x/../y,target=/b,rw --mount=type=secret,id=s,env=S --mount=type=secret,id=d/f --mount=type=ssh true";
    let plan = plan(text);
    let exec = execs(&plan)[0];
    let targets: Vec<&str> = exec.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/c", "/w/rel", "/w", "/b", "/run/secrets/f", "/run/buildkit/ssh_agent.0"]);
    let ids: Vec<(&str, u32)> = exec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Cache(cache) => Some((cache.id.as_str(), cache.uid)),
            _ => None,
        })
        .collect();
    assert_eq!(ids, [("//c", 0), ("/rel", 5)]);
    let MountKind::Bind(bind) = &exec.mounts[3].kind else { panic!() };
    assert_eq!((bind.source.as_str(), bind.readonly), ("/y", false));
    assert!(
        names(&plan).iter().any(|name| name.contains("docker.io/library/0:latest")),
        "no index in mounts"
    );
    assert_eq!((exec.secret_env[0].name.as_str(), exec.secret_env[0].required), ("S", false));
    assert_eq!(env_of(exec, "SSH_AUTH_SOCK"), Some("/run/buildkit/ssh_agent.0"));
    // What is said of a type counts for the type so far, and nobody looks at a stage that is not needed.
    let early = "FROM a\nRUN --mount=required,type=secret,id=s x";
    assert_eq!(error(early), "unexpected key 'required' for mount type 'bind'");
    self::plan(&format!("{early}\nFROM a"));
}

#[test]
fn no_cache_is_for_stages() {
    let text = "FROM a AS one\nRUN 1\nFROM a AS two\nRUN 2\nCOPY --from=one /x /";
    let inputs = BuildInputs { no_cache: NoCache::Stages(["ONE".to_owned()].into()), ..inputs() };
    let plan = plan_with(text, &inputs).unwrap();
    let ignored: Vec<&str> = plan
        .graph
        .topological()
        .into_iter()
        .filter(|id| plan.graph[*id].meta.ignore_cache)
        .map(|id| plan.graph[id].meta.name.as_str())
        .collect();
    assert_eq!(ignored, ["[one 2/2] RUN 1"]);
}

#[test]
fn contexts_replace_stages_and_images() {
    let reference: Reference = "docker.io/library/other:1".parse().unwrap();
    let inputs = BuildInputs {
        contexts: [
            ("base".to_owned(), NamedContext::Image(reference)),
            ("files".to_owned(), NamedContext::Local),
            ("host".to_owned(), NamedContext::Rootfs { path: "/".to_owned() }),
        ]
        .into(),
        ..inputs()
    };
    let plan = plan_with(
        "FROM missing AS base\nRUN never\nFROM base\nCOPY --from=files a b\nCOPY --from=host /etc/hosts /\nRUN yes",
        &inputs,
    )
    .unwrap();
    let names = names(&plan);
    assert_eq!(execs(&plan).len(), 1);
    assert!(names.iter().any(|name| name.contains("library/other:1@sha256:")), "{names:?}");
    assert!(names.contains(&"[context files] load from client"), "{names:?}");
    assert!(names.contains(&"FROM rootfs:///"), "{names:?}");
    let files = plan_with("FROM files\nRUN x", &inputs).unwrap();
    assert_eq!(config(&files).config.working_dir, "/");
}

#[test]
fn platforms_are_asked_for_or_kept() {
    let arm: Platform = "linux/arm64".parse().unwrap();
    let kept = plan("FROM arm");
    assert_eq!(kept.targets[0].platform, arm);
    let asked = BuildInputs { platforms: vec![arm, inputs().build_platform], ..inputs() };
    let plan = plan_with("FROM a\nARG TARGETARCH\nRUN echo $TARGETARCH", &asked).unwrap();
    let platforms: Vec<String> = plan.targets.iter().map(|target| target.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/amd64"]);
    assert_eq!(plan.graph[plan.targets[0].edge.vertex].meta.name, "[linux/arm64 2/2] RUN echo arm64");
    assert_eq!(plan.targets[0].image.config.architecture, "arm64");
}

#[test]
fn hostile_files_cost_little() {
    let chain: String =
        (1..3000).map(|n| format!("FROM scratch AS s{n}\nCOPY --from=s{} /x /x\n", n - 1)).collect();
    assert!(plan_with(&format!("FROM scratch AS s0\n{chain}"), &inputs()).is_ok());
    let doubling = format!("FROM a\nENV a=xxxxxxxx\n{}", "ENV a=$a$a\n".repeat(40));
    assert!(error(&doubling).contains("the expansion is larger than"));
}
/// What stands behind `from=` is filled in as it is read: from global ARGs, and nowhere else in the line.
#[test]
fn names_of_steps_with_global_args_in_from() {
    let text = "# syntax=lapstrake\nARG T=tools\nFROM a AS tools\nFROM b\nCOPY --from=$T /x /\n\
                RUN --mount=FROM=${T},target=/m --mount=\"from=$T\",target=/n echo --mount=from=$T \"--from=$T\"\n";
    let file = SourceFile::new("Dockerfile", text);
    let parsed = lapstrake_dockerfile::parse(&file);
    assert_eq!(parsed.first_error(), None);
    let plan = lower(&parsed.dockerfile, &inputs(), &Fake).unwrap();
    let name = |id| plan.graph.get(id).map(|vertex| vertex.meta.name.clone()).unwrap();
    let names: Vec<String> = plan.graph.topological().into_iter().map(name).collect();
    assert_eq!(
        names.last().unwrap(),
        "[stage-1 3/3] RUN --mount=FROM=tools,target=/m --mount=\"from=tools\",target=/n echo --mount=from=$T \"--from=$T\""
    );
    assert!(names.contains(&"[stage-1 2/3] COPY --from=tools /x /".to_owned()), "{names:?}");
}

#[test]
fn builds_in_one_graph_share_their_steps() {
    let (_, both) =
        parsed("FROM a AS base\nRUN common\nFROM base AS one\nRUN one\nFROM base AS two\nCOPY x /\n");
    let (_, other) = parsed("FROM a\nRUN common\nRUN other\n");
    let checks = Checks::default();
    let target = |name: &str| BuildInputs { target: Some(name.to_owned()), ..inputs() };
    let (one, two, plain) = (target("one"), target("two"), inputs());
    let request = |dockerfile, inputs| LowerRequest { dockerfile, inputs, resolver: &Fake, checks: &checks };
    let requests = [request(&both, &one), request(&both, &two), request(&other, &plain)];
    let joint = lower_all(&requests).unwrap();
    let alone = |request: &LowerRequest<'_>| lower(request.dockerfile, request.inputs, &Fake).unwrap();
    // Each target is the vertex that its own build has, and says the same of its image.
    for (request, targets) in requests.iter().zip(&joint.targets) {
        let plan = alone(request);
        assert_eq!(targets.len(), 1);
        assert_eq!(
            joint.graph[targets[0].edge.vertex].digest(),
            plan.graph[plan.targets[0].edge.vertex].digest()
        );
        assert_eq!(targets[0].image.config, plan.targets[0].image.config);
    }
    let commands = |name: &str| {
        let is_it = |id: &lapstrake_graph::VertexId| joint.graph[*id].meta.name.ends_with(name);
        joint.graph.topological().into_iter().filter(is_it).count()
    };
    assert_eq!((commands("RUN common"), commands("RUN one"), commands("RUN other")), (1, 1, 1));
    let apart: usize = requests.iter().map(|request| alone(request).graph.len()).sum();
    assert!(joint.graph.len() < apart, "{} of {apart}", joint.graph.len());
}

#[test]
fn builds_in_one_graph_have_contexts_of_their_own() {
    let (_, file) = parsed("FROM scratch\nCOPY x /\n");
    let checks = Checks::default();
    let elsewhere =
        BuildInputs { local_names: [("context".into(), "web/context".into())].into(), ..inputs() };
    let here = inputs();
    let locals = |all: &[&BuildInputs]| {
        let requests: Vec<_> = all
            .iter()
            .map(|inputs| LowerRequest { dockerfile: &file, inputs, resolver: &Fake, checks: &checks })
            .collect();
        let graph = lower_all(&requests).unwrap().graph;
        let names = graph.topological().into_iter().filter_map(|id| match &graph[id].op {
            Op::Source(Source::Local { name }) => Some(name.clone()),
            _ => None,
        });
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(locals(&[&here, &here]), ["context"]);
    assert_eq!(locals(&[&here, &elsewhere]), ["context", "web/context"]);
}

#[test]
fn the_request_that_cannot_be_lowered_is_named() {
    let (_, good) = parsed("FROM a\n");
    let (_, bad) = parsed("FROM missing\n");
    let (checks, inputs) = (Checks::default(), inputs());
    let request = |dockerfile| LowerRequest { dockerfile, inputs: &inputs, resolver: &Fake, checks: &checks };
    let failed = lower_all(&[request(&good), request(&bad)]).map(|_| ()).unwrap_err();
    assert_eq!(failed.0, 1);
    assert_eq!(lower_all(&[]).unwrap().targets.len(), 0);
}
