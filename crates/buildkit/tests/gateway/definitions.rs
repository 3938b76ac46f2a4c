//! Definitions (LLB): graphs that the client has made.

use std::collections::BTreeMap;

use lapstrake_oci::Digest;
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;
use lapstrake_testkit::buildkit::{entry, of_build, shelf};
use lapstrake_testkit::{ALL, Mode, Test};
use prost::Message as _;
use tonic::{Code, Status};

use crate::place::{BUILD, DOCKERFILE, Place, tree, with};

pub(crate) const TESTS: &[Test] = &[
    ("files_of_definitions", ALL, files_of_definitions),
    ("changes_that_cannot_be", ALL, changes_that_cannot_be),
    ("processes_have_several_outputs", ALL, processes_have_several_outputs),
    ("merges_and_differences", ALL, merges_and_differences),
    ("results_are_inputs", ALL, results_are_inputs),
    ("uploads_are_files", ALL, uploads_are_files),
    ("large_definitions", ALL, large_definitions),
    ("places_come_with_errors", ALL, places_come_with_errors),
    ("returned_results_are_checked", ALL, returned_results_are_checked),
    ("broken_definitions_are_refused", ALL, broken_definitions_are_refused),
];

/// A definition that grows.
#[derive(Default)]
pub(crate) struct Graph(Vec<Vec<u8>>);

impl Graph {
    pub(crate) fn add(&mut self, inputs: Vec<pb::Input>, op: pb::op::Op) -> pb::Input {
        let op = pb::Op { inputs, op: Some(op), ..pb::Op::default() };
        self.0.push(op.encode_to_vec());
        pb::Input { digest: Digest::sha256(self.0.last().unwrap()).to_string(), index: 0 }
    }

    fn http(&mut self, url: &str, attrs: &[(&str, &str)]) -> pb::Input {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.add(Vec::new(), pb::op::Op::Source(pb::SourceOp { identifier: url.to_owned(), attrs }))
    }

    fn local(&mut self, attrs: &[(&str, &str)]) -> pb::Input {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let source = pb::SourceOp { identifier: "local://context".to_owned(), attrs };
        self.add(Vec::new(), pb::op::Op::Source(source))
    }

    /// Actions on `base`, each on the result of the one before; `from` is the source of copies.
    pub(crate) fn files(
        &mut self,
        base: Option<pb::Input>,
        from: Option<pb::Input>,
        actions: Vec<Action>,
    ) -> pb::Input {
        let mut inputs = Vec::new();
        let mut number = |input: Option<pb::Input>| {
            inputs.extend(input);
            i64::try_from(inputs.len()).unwrap() - 1
        };
        let (first, second) =
            (base.map_or(-1, |base| number(Some(base))), from.map_or(-1, |from| number(Some(from))));
        let (count, last) = (i64::try_from(inputs.len()).unwrap(), actions.len() - 1);
        let one = |(index, action): (usize, Action)| pb::FileAction {
            input: if index == 0 { first } else { count + i64::try_from(index).unwrap() - 1 },
            secondary_input: second,
            output: if index == last { 0 } else { -1 },
            action: Some(action),
        };
        let actions = actions.into_iter().enumerate().map(one).collect();
        self.add(inputs, pb::op::Op::File(pb::FileOp { actions }))
    }

    fn shell(&mut self, inputs: Vec<pb::Input>, script: &str, more: Vec<pb::Mount>) -> pb::Input {
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        };
        let mut mounts = vec![pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() }];
        mounts.extend(more);
        let exec = pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() };
        self.add(inputs, pb::op::Op::Exec(exec))
    }

    /// The definition whose result is `root`.
    pub(crate) fn definition(&self, root: pb::Input) -> pb::Definition {
        let mut def = self.0.clone();
        def.push(pb::Op { inputs: vec![root], ..pb::Op::default() }.encode_to_vec());
        pb::Definition { def, ..pb::Definition::default() }
    }
}

fn output(input: &pb::Input, index: i64) -> pb::Input {
    pb::Input { index, ..input.clone() }
}

pub(crate) fn mkfile(path: &str, data: &str) -> Action {
    Action::Mkfile(pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o640,
        data: data.as_bytes().to_vec(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    })
}

pub(crate) fn mkdir(path: &str) -> Action {
    Action::Mkdir(pb::FileActionMkDir {
        path: path.to_owned(),
        mode: 0o755,
        make_parents: true,
        timestamp: -1,
        ..pb::FileActionMkDir::default()
    })
}

fn remove(path: &str, wildcards: bool) -> Action {
    Action::Rm(pb::FileActionRm { path: path.to_owned(), allow_wildcard: wildcards, allow_not_found: false })
}

pub(crate) fn copy(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        timestamp: -1,
        create_dest_path: true,
        ..pb::FileActionCopy::default()
    }
}

/// The reference of a definition.
pub(crate) async fn solve(
    place: &mut Place,
    definition: pb::Definition,
    evaluate: bool,
) -> Result<String, Status> {
    let request = frontend::SolveRequest {
        definition: Some(definition),
        evaluate,
        ..frontend::SolveRequest::default()
    };
    let answer = place.bridge.solve(of_build(BUILD, request)).await?.into_inner();
    match answer.result.unwrap().result.unwrap() {
        Value::Ref(reference) => Ok(reference.id),
        other => panic!("{other:?}"),
    }
}

/// All paths of a result below `dir`, with the content of files.
pub(crate) async fn contents(place: &mut Place, id: &str, dir: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let request = frontend::ReadDirRequest {
            r#ref: id.to_owned(),
            dir_path: dir.clone(),
            ..frontend::ReadDirRequest::default()
        };
        let entries = place.bridge.read_dir(of_build(BUILD, request)).await.unwrap().into_inner().entries;
        for entry in entries {
            let path = format!("{}/{}", dir.trim_end_matches('/'), entry.path);
            let text = match (entry.mode >> 31, entry.linkname.is_empty()) {
                (1, _) => {
                    left.push(path.clone());
                    String::new()
                }
                (_, false) => format!("-> {}", entry.linkname),
                _ => {
                    let request = frontend::ReadFileRequest {
                        r#ref: id.to_owned(),
                        file_path: path.clone(),
                        ..frontend::ReadFileRequest::default()
                    };
                    let data =
                        place.bridge.read_file(of_build(BUILD, request)).await.unwrap().into_inner().data;
                    if data.len() > 1000 { "large".to_owned() } else { String::from_utf8(data).unwrap() }
                }
            };
            found.insert(path, text);
        }
    }
    found
}

pub(crate) fn has(found: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = found.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert_eq!(found, expected);
}

/// A context with a few files.
fn few() -> lapstrake_testkit::buildkit::Shelf {
    let tree = vec![
        entry("a.o", "o"),
        entry("a.txt", "a"),
        entry("d/", ""),
        entry("d/b.txt", "b"),
        entry("d/c.o", "c"),
    ];
    shelf("FROM scratch\n", tree)
}

fn files_of_definitions(mode: Mode) {
    with(mode, few(), |mut place| async move {
        let mut graph = Graph::default();
        let local = graph.local(&[("local.followpaths", "[]")]);
        let link = pb::FileActionSymlink {
            oldpath: "w/x".to_owned(),
            newpath: "/link".to_owned(),
            timestamp: -1,
            ..pb::FileActionSymlink::default()
        };
        let actions = vec![
            mkdir("/w/v"),
            mkfile("/w/x", "x"),
            mkfile("/w/gone1", ""),
            mkfile("/w/gone2", ""),
            Action::Symlink(link),
            // A directory itself, into one that is there; and its contents.
            Action::Copy(copy("/d", "/w/")),
            Action::Copy(pb::FileActionCopy { dir_copy_contents: true, ..copy("/d", "/e/") }),
            Action::Copy(pb::FileActionCopy {
                dir_copy_contents: true,
                include_patterns: vec!["*.txt".to_owned()],
                ..copy("/", "/i/")
            }),
            remove("/w/gone*", true),
            remove("/w/v", false),
        ];
        let root = graph.files(None, Some(local.clone()), actions);
        let id = solve(&mut place, graph.definition(root), false).await.unwrap();
        let found = contents(&mut place, &id, "/").await;
        has(
            &found,
            &[
                ("/e", ""),
                ("/e/b.txt", "b"),
                ("/e/c.o", "c"),
                ("/i", ""),
                ("/i/a.txt", "a"),
                ("/link", "-> w/x"),
                ("/w", ""),
                ("/w/d", ""),
                ("/w/d/b.txt", "b"),
                ("/w/d/c.o", "c"),
                ("/w/x", "x"),
            ],
        );
        // A directory of the client can be the result itself.
        let id = solve(&mut place, graph.definition(local), true).await.unwrap();
        has(
            &contents(&mut place, &id, "/").await,
            &[("/a.o", "o"), ("/a.txt", "a"), ("/d", ""), ("/d/b.txt", "b"), ("/d/c.o", "c")],
        );
    });
}

fn changes_that_cannot_be(mode: Mode) {
    with(mode, few(), |mut place| async move {
        for (actions, error) in [
            (vec![remove("/nothing", false)], "not found"),
            (vec![mkfile("/no/parent", "")], "No such file"),
            (vec![Action::Copy(copy("/nothing", "/x"))], "not found"),
        ] {
            let mut graph = Graph::default();
            let local = graph.local(&[]);
            let root = graph.files(None, Some(local), actions);
            let failed = solve(&mut place, graph.definition(root), true).await.unwrap_err();
            assert!(failed.message().contains(error), "{failed:?}");
        }
    });
}

/// The tree with a shell that the Dockerfile makes, as a definition.
fn base(graph: &mut Graph) -> pb::Input {
    let local = graph.local(&[]);
    let actions = ["/bin/busybox", "/bin/sh"].map(|to| Action::Copy(copy("/busybox", to)));
    graph.files(None, Some(local), actions.to_vec())
}

fn processes_have_several_outputs(mode: Mode) {
    with(mode, shelf(DOCKERFILE, tree(Vec::new())), |mut place| async move {
        let mut graph = Graph::default();
        let base = base(&mut graph);
        let seed = graph.files(None, None, vec![mkfile("/seed", "s")]);
        let mounts = vec![
            pb::Mount { input: 1, dest: "/m".to_owned(), output: 1, ..pb::Mount::default() },
            pb::Mount { input: 1, dest: "/r".to_owned(), output: 2, readonly: true, ..pb::Mount::default() },
            pb::Mount { input: -1, dest: "/t".to_owned(), output: -1, ..pb::Mount::default() },
        ];
        let script =
            "echo root > /root-file; echo more > /m/more; echo lost > /t/lost; cat /r/seed > /m/copied";
        let ran = graph.shell(vec![base.clone(), seed], script, mounts);
        let id = solve(&mut place, graph.definition(output(&ran, 1)), false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/copied", "s"), ("/more", "more\n"), ("/seed", "s")]);
        let id = solve(&mut place, graph.definition(output(&ran, 2)), false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/seed", "s")]);
        let id = solve(&mut place, graph.definition(ran), false).await.unwrap();
        assert_eq!(contents(&mut place, &id, "/").await["/root-file"], "root\n");
        // An exit code that counts as success, and a root that nobody can write to.
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", "echo x > /x && exit 0; exit 7"].map(str::to_owned).to_vec(),
            valid_exit_codes: vec![7],
            ..pb::Meta::default()
        };
        let root = pb::Mount { dest: "/".to_owned(), readonly: true, ..pb::Mount::default() };
        let exec = pb::ExecOp { meta: Some(meta), mounts: vec![root], ..pb::ExecOp::default() };
        let mut second = Graph(graph.0[..2].to_vec());
        let ran = second.add(vec![base.clone()], pb::op::Op::Exec(exec));
        let id = solve(&mut place, second.definition(ran), true).await.unwrap();
        assert!(!contents(&mut place, &id, "/").await.contains_key("/x"));
        let failing = second.shell(vec![base], "exit 3", Vec::new());
        let failed = solve(&mut place, second.definition(failing), true).await.unwrap_err();
        assert!(failed.message().contains("exit code: 3"), "{failed:?}");
    });
}

fn merges_and_differences(mode: Mode) {
    with(mode, few(), |mut place| async move {
        let mut graph = Graph::default();
        let lower = graph.files(
            None,
            None,
            vec![mkfile("/a", "1"), mkfile("/b", "1"), mkdir("/d"), mkfile("/d/x", "1")],
        );
        let upper = graph.files(
            Some(lower.clone()),
            None,
            vec![mkfile("/a", "2"), remove("/d", false), mkfile("/c", "2")],
        );
        let other = graph.files(None, None, vec![mkfile("/b", "1"), mkfile("/a", "3"), mkfile("/d", "file")]);
        let between = |graph: &mut Graph, lower: &pb::Input, upper: &pb::Input| {
            let diff = pb::DiffOp {
                lower: Some(pb::LowerDiffInput { input: 0 }),
                upper: Some(pb::UpperDiffInput { input: 1 }),
            };
            graph.add(vec![lower.clone(), upper.clone()], pb::op::Op::Diff(diff))
        };
        let merged = |graph: &mut Graph, inputs: Vec<pb::Input>| {
            let inputs_of =
                (0..inputs.len()).map(|input| pb::MergeInput { input: i64::try_from(input).unwrap() });
            let merge = pb::MergeOp { inputs: inputs_of.collect() };
            graph.add(inputs, pb::op::Op::Merge(merge))
        };
        // The changes of one chain, put on another tree: what was removed goes there, too.
        let step = between(&mut graph, &lower, &upper);
        let onto = merged(&mut graph, vec![other.clone(), step]);
        let id = solve(&mut place, graph.definition(onto), false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/a", "2"), ("/b", "1"), ("/c", "2")]);
        // What is removed need not be there.
        let far = graph.files(None, None, vec![mkdir("/e/f"), mkfile("/e/f/x", "1"), mkfile("/e/g", "1")]);
        let less = graph.files(Some(far.clone()), None, vec![remove("/e/f/x", false), mkfile("/e/h", "2")]);
        let step = between(&mut graph, &far, &less);
        let onto = merged(&mut graph, vec![lower.clone(), step]);
        let id = solve(&mut place, graph.definition(onto), false).await.unwrap();
        let found = contents(&mut place, &id, "/e").await;
        assert_eq!(found.keys().filter(|path| !path.ends_with("/f")).collect::<Vec<_>>(), ["/e/h"]);
        // Trees that have nothing in common: the difference makes one of the other.
        let step = between(&mut graph, &lower, &other);
        let onto = merged(&mut graph, vec![lower, step]);
        let id = solve(&mut place, graph.definition(onto), false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/a", "3"), ("/b", "1"), ("/d", "file")]);
    });
}

/// Files of the web whose address stands for an upload come from the client.
fn uploads_are_files(mode: Mode) {
    let shelf = shelf("FROM scratch\n", Vec::new());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    archive.append_data(&mut header, "in/x", &b"x"[..]).unwrap();
    let long = "long ".repeat(20);
    *shelf.uploads.lock().unwrap() = BTreeMap::from([
        ("/tar".to_owned(), archive.into_inner().unwrap()),
        ("/long".to_owned(), long.clone().into_bytes()),
        ("/other".to_owned(), Vec::new()),
    ]);
    with(mode, shelf, |mut place| async move {
        let attrs = [("http.filename", "context"), ("http.perm", "0644")];
        let mut graph = Graph::default();
        let tar = graph.http("http://buildkit-session/tar", &attrs);
        let id = solve(&mut place, graph.definition(tar.clone()), false).await.unwrap();
        assert_eq!(contents(&mut place, &id, "/").await.keys().collect::<Vec<_>>(), ["/context"]);
        // The same upload again, in another definition, with further ones.
        let long_file = graph.http("http://buildkit-session/long", &attrs);
        let mut unpacked = copy("/context", "/");
        unpacked.attempt_unpack_docker_compatibility = true;
        let files = graph.files(None, Some(tar), vec![Action::Copy(unpacked)]);
        let both = graph.files(Some(files), Some(long_file), vec![Action::Copy(copy("/context", "/long"))]);
        let id = solve(&mut place, graph.definition(both), false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/in", ""), ("/in/x", "x"), ("/long", &long)]);
        let wrong = format!("sha256:{}", "0".repeat(64));
        for (path, attrs, why) in [
            ("other", vec![("http.checksum", wrong.as_str())], "digest mismatch sha256:e3b0c44298fc"),
            ("nosuch", vec![], "no upload /nosuch"),
        ] {
            let mut graph = Graph::default();
            let file = graph.http(&format!("http://buildkit-session/{path}"), &attrs);
            let error = solve(&mut place, graph.definition(file), true).await.unwrap_err();
            assert!(error.message().contains(why), "{error:?}");
        }
    });
}

/// A result of the Dockerfile frontend is a definition, which the frontend takes for a context again.
fn results_are_inputs(mode: Mode) {
    let tree = vec![entry("one", "1")];
    with(mode, shelf("FROM scratch\nCOPY one /first\n", tree), |mut place| async move {
        let request = frontend::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            ..frontend::SolveRequest::default()
        };
        let answer = place.bridge.solve(of_build(BUILD, request)).await.unwrap().into_inner();
        let Value::Ref(first) = answer.result.unwrap().result.unwrap() else { panic!() };
        let definition = first.def.unwrap();
        let id = solve(&mut place, definition.clone(), false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/first", "1")]);
        let mut graph = Graph::default();
        let text = "FROM base\nCOPY --from=base /first /second\n";
        let dockerfile = graph.files(None, None, vec![mkfile("/Dockerfile", text)]);
        let dockerfile = graph.definition(dockerfile);
        let request = |inputs: Vec<(&str, &pb::Definition)>| frontend::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: [("context:base".to_owned(), "input:base".to_owned())].into(),
            frontend_inputs: inputs
                .into_iter()
                .map(|(name, input)| (name.to_owned(), input.clone()))
                .collect(),
            ..frontend::SolveRequest::default()
        };
        let all = request(vec![("base", &definition), ("dockerfile", &dockerfile), ("context", &dockerfile)]);
        let answer = place.bridge.solve(of_build(BUILD, all)).await.unwrap().into_inner();
        let Value::Ref(second) = answer.result.unwrap().result.unwrap() else { panic!() };
        has(&contents(&mut place, &second.id, "/").await, &[("/first", "1"), ("/second", "1")]);
        let missing = place.bridge.solve(of_build(BUILD, request(Vec::new()))).await.unwrap_err();
        assert!(missing.message().contains("invalid frontend input base"), "{missing:?}");
    });
}

fn broken_definitions_are_refused(mode: Mode) {
    with(mode, few(), |mut place| async move {
        let mut graph = Graph::default();
        let local = graph.local(&[]);
        let beyond = output(&local, 5);
        let away = graph.files(None, None, vec![mkfile("/../../../../escape", "x")]);
        let no_arguments = graph.add(vec![local.clone()], pb::op::Op::Exec(pb::ExecOp::default()));
        let unknown = graph.add(
            Vec::new(),
            pb::op::Op::Source(pb::SourceOp {
                identifier: "file:///etc".to_owned(),
                ..pb::SourceOp::default()
            }),
        );
        let bare = graph.add(Vec::new(), pb::op::Op::Source(pb::SourceOp::default()));
        let far = graph.files(Some(local), None, vec![Action::Copy(copy("/../../../../etc/passwd", "/x"))]);
        for (root, code) in [
            (beyond, Code::InvalidArgument),
            (no_arguments, Code::InvalidArgument),
            (unknown, Code::InvalidArgument),
            (bare, Code::InvalidArgument),
            (pb::Input { digest: "sha256:x".to_owned(), index: 0 }, Code::InvalidArgument),
            (far, Code::Unknown),
        ] {
            let failed = solve(&mut place, graph.definition(root.clone()), true).await.unwrap_err();
            assert_eq!(failed.code(), code, "{root:?} {failed:?}");
        }
        // What leads out of the tree stays in the tree.
        let id = solve(&mut place, graph.definition(away), true).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/escape", "x")]);
        let garbage = pb::Definition { def: vec![vec![0xff, 0xff], vec![0x0a]], ..pb::Definition::default() };
        assert_eq!(solve(&mut place, garbage, true).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

/// A step that fails names all of its places in the texts of the client.
fn places_come_with_errors(mode: Mode) {
    with(mode, few(), |mut place| async move {
        let mut graph = Graph::default();
        let root = graph.files(None, None, vec![remove("/nothing", false)]);
        let line = |line| pb::Range { start: Some(pb::Position { line, character: 0 }), end: None };
        let at = |index, number| pb::Location { source_index: index, ranges: vec![line(number)] };
        let text = |name: &str| pb::SourceInfo { filename: name.to_owned(), ..pb::SourceInfo::default() };
        let locations = pb::Locations { locations: vec![at(0, 7), at(1, 8), at(9, 9)] };
        let source = pb::Source {
            locations: [(root.digest.clone(), locations)].into(),
            infos: vec![text("one"), text("two")],
        };
        let definition = pb::Definition { source: Some(source), ..graph.definition(root) };
        let failed = solve(&mut place, definition, true).await.unwrap_err();
        let details = rpc::Status::decode(failed.details()).unwrap().details;
        let read = |detail: &prost_types::Any| -> (String, i64) {
            let value: serde_json::Value = serde_json::from_slice(&detail.value).unwrap();
            let name = value["info"]["filename"].as_str().unwrap().to_owned();
            (name, value["ranges"][0]["start"]["line"].as_i64().unwrap())
        };
        let of_text = details.iter().filter(|detail| detail.type_url.ends_with("errdefs.Source+json"));
        let places: Vec<(String, i64)> = of_text.map(read).collect();
        // The last place comes first. A location in a text that does not exist is none.
        assert_eq!(places, [("two".to_owned(), 8), ("one".to_owned(), 7)]);
    });
}

/// What a client says of its result is checked, and then ends the build.
fn returned_results_are_checked(mode: Mode) {
    let platform = r#"{"Platforms":[{"ID":"a","Platform":{"os":"linux"}}]}"#;
    for (key, value, expected) in [
        ("containerimage.config", "null", Some("invalid null image config")),
        ("containerimage.config", r#"{"os":"linux"}"#, Some("must be specified together")),
        ("refs.platforms", r#"{"Platforms":[]}"#, Some("invalid empty platforms index")),
        ("refs.platforms", platform, Some("invalid platform value")),
        ("containerimage.config", r#"{"os":"linux","architecture":"amd64"}"#, None),
    ] {
        with(mode, few(), |mut place| async move {
            let mut graph = Graph::default();
            let root = graph.files(None, None, vec![mkfile("/x", "x")]);
            let id = solve(&mut place, graph.definition(root), false).await.unwrap();
            let result = frontend::Result {
                result: Some(Value::Ref(frontend::Ref { id, def: None })),
                metadata: [(key.to_owned(), value.as_bytes().to_vec())].into(),
                ..frontend::Result::default()
            };
            let answer = frontend::ReturnRequest { result: Some(result), error: None };
            place.bridge.r#return(of_build(BUILD, answer)).await.unwrap();
            let ended = place.build.await.unwrap();
            match expected {
                Some(text) => {
                    let error = ended.unwrap_err();
                    assert!(error.message().contains(text), "{value}: {error:?}");
                }
                None => ended.unwrap(),
            }
        });
    }
}

/// Many actions in one op, and many ops on each other: neither takes more than its size.
fn large_definitions(mode: Mode) {
    with(mode, few(), |mut place| async move {
        let mut graph = Graph::default();
        let data = "x".repeat(1000);
        let many = (0..1000).map(|number| mkfile(&format!("/f{number}"), &data)).collect();
        let root = graph.files(None, None, many);
        let id = solve(&mut place, graph.definition(root), true).await.unwrap();
        let request = frontend::ReadDirRequest {
            r#ref: id,
            dir_path: "/".to_owned(),
            ..frontend::ReadDirRequest::default()
        };
        let listed = place.bridge.read_dir(of_build(BUILD, request)).await.unwrap().into_inner().entries;
        assert_eq!(listed.len(), 1000);
        let mut graph = Graph::default();
        let mut root = graph.files(None, None, vec![mkfile("/x", "x")]);
        for number in 0..2000 {
            let passed = pb::PassthroughOp { id: number.to_string(), outputs: vec![0] };
            root = graph.add(vec![root], pb::op::Op::Passthrough(passed));
        }
        for number in 0..200 {
            let merge = pb::MergeOp { inputs: vec![pb::MergeInput { input: 0 }] };
            // Each one is another op.
            let inputs = vec![root; 1 + number % 2];
            root = graph.add(inputs, pb::op::Op::Merge(merge));
        }
        let id = solve(&mut place, graph.definition(root), true).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/x", "x")]);
        // The owner is a name of a tree that is not changed.
        let mut graph = Graph::default();
        let first = graph.files(None, None, vec![mkfile("/a", "")]);
        let second = graph.files(None, None, vec![mkfile("/b", "")]);
        let named = pb::NamedUserOpt { name: "me".to_owned(), input: 1 };
        let user = pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) };
        let owned = pb::FileActionCopy {
            owner: Some(pb::ChownOpt { user: Some(user), group: None }),
            ..copy("/b", "/c")
        };
        let root = graph.files(Some(first), Some(second), vec![Action::Copy(owned)]);
        let refused = solve(&mut place, graph.definition(root), true).await.unwrap_err();
        assert!(refused.message().contains("looked up in another tree"), "{refused:?}");
    });
}
