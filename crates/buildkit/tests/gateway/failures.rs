//! What a failed step leaves for the client that drives the build: its op, and references of its trees.

use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;
use lapstrake_testkit::buildkit::{of_build, shelf};
use lapstrake_testkit::{ALL, Mode, Test};
use prost::Message as _;
use serde_json::Value;
use tonic::Status;

use crate::definitions::{Graph, copy, mkdir, mkfile, solve};
use crate::place::{BUILD, DOCKERFILE, Place, shell, tree, with};

pub(crate) const TESTS: &[Test] = &[
    ("trees_of_failed_processes", ALL, trees_of_failed_processes),
    ("trees_of_failed_changes", ALL, trees_of_failed_changes),
    ("mounts_that_do_not_exist", ALL, mounts_that_do_not_exist),
    ("steps_of_a_dockerfile", ALL, steps_of_a_dockerfile),
];

/// The detail of `failed` with this name.
fn detail(failed: &Status, name: &str) -> Value {
    let details = rpc::Status::decode(failed.details()).unwrap().details;
    let found = details.iter().find(|detail| detail.type_url.ends_with(name));
    serde_json::from_slice(&found.unwrap_or_else(|| panic!("no {name}: {details:?}")).value).unwrap()
}

fn ids(solve: &Value, key: &str) -> Vec<String> {
    let all = solve[key].as_array().cloned().unwrap_or_default();
    all.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// What `path` has in a container with `mounts`, which has `root` for its root.
async fn read(place: &mut Place, root: &str, mounts: &[(&str, &str)], script: &str) -> String {
    let mount = |(dest, id): (&str, &str)| pb::Mount {
        dest: dest.to_owned(),
        result_id: id.to_owned(),
        ..pb::Mount::default()
    };
    let mounts = [("/", root)].into_iter().chain(mounts.iter().copied()).map(mount).collect();
    let request = frontend::NewContainerRequest {
        container_id: format!("c{script}"),
        mounts,
        ..frontend::NewContainerRequest::default()
    };
    let id = request.container_id.clone();
    place.bridge.new_container(of_build(BUILD, request)).await.unwrap();
    place.stream().await.run("p", shell(&id, script)).await.stdout
}

fn exec(graph: &mut Graph, root: pb::Input, mounted: pb::Input, script: &str, mount: pb::Mount) -> pb::Input {
    let meta = pb::Meta {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        cwd: "/".to_owned(),
        ..pb::Meta::default()
    };
    let root_mount = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
    let mounts = vec![root_mount, pb::Mount { input: 1, ..mount }];
    let exec = pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() };
    graph.add(vec![root, mounted], pb::op::Op::Exec(exec))
}

/// A root with a shell, as a definition.
fn image(graph: &mut Graph) -> pb::Input {
    let source = pb::SourceOp { identifier: "local://context".to_owned(), ..pb::SourceOp::default() };
    let context = graph.add(Vec::new(), pb::op::Op::Source(source));
    let copies = ["/bin/busybox", "/bin/sh"].map(|to| Action::Copy(copy("/busybox", to)));
    graph.files(None, Some(context), copies.to_vec())
}

fn trees_of_failed_processes(mode: Mode) {
    with(mode, shelf(DOCKERFILE, tree(Vec::new())), |mut place| async move {
        let mut graph = Graph::default();
        let root = image(&mut graph);
        let data = graph.files(None, None, vec![mkfile("/old", "before")]);
        let script = "echo left > /data; echo too > /m/new; exit 3";
        let mount = pb::Mount { dest: "/m".to_owned(), output: 1, ..pb::Mount::default() };
        let step = exec(&mut graph, root, data, script, mount);
        let failed = solve(&mut place, graph.definition(step.clone()), true).await.unwrap_err();
        assert_eq!(detail(&failed, "errdefs.Vertex+json")["digest"], step.digest);
        let told = detail(&failed, "errdefs.Solve+json");
        assert_eq!(told["op"]["exec"]["meta"]["args"][2], script);
        let (inputs, mounts) = (ids(&told, "inputIDs"), ids(&told, "mountIDs"));
        assert_eq!((inputs.len(), mounts.len()), (2, 2));
        let after = read(&mut place, &mounts[0], &[("/m", &mounts[1])], "cat /data /m/old /m/new").await;
        assert_eq!(after, "left\nbeforetoo\n");
        let before =
            read(&mut place, &inputs[0], &[("/m", &inputs[1])], "ls /m; ls /data || echo none").await;
        assert_eq!(before, "old\nnone\n");
        // Other builds cannot have them, and references that do not exist are refused.
        let request = frontend::EvaluateRequest { r#ref: format!("{BUILD}:failed:99") };
        assert!(place.bridge.evaluate(of_build(BUILD, request)).await.is_err());
    });
}

fn trees_of_failed_changes(mode: Mode) {
    with(mode, shelf(DOCKERFILE, tree(Vec::new())), |mut place| async move {
        let mut graph = Graph::default();
        let root = image(&mut graph);
        let actions = vec![mkdir("/found"), mkfile("/found/a", "made"), mkfile("/nothing/b", "x")];
        let step = graph.files(None, None, actions);
        let failed = solve(&mut place, graph.definition(step), true).await.unwrap_err();
        let told = detail(&failed, "errdefs.Solve+json");
        assert_eq!(told["file"]["index"], "2");
        let mounts = ids(&told, "mountIDs");
        assert_eq!((ids(&told, "inputIDs").len(), mounts.len()), (0, 3));
        let shell = solve(&mut place, graph.definition(root.clone()), true).await.unwrap();
        assert_eq!(read(&mut place, &shell, &[("/m", &mounts[2])], "cat /m/found/a").await, "made");
        // The source of a copy.
        let from = graph.files(None, None, vec![mkfile("/a", "source")]);
        let into_nothing = pb::FileActionCopy { create_dest_path: false, ..copy("/a", "/nothing/a") };
        let step = graph.files(Some(root), Some(from), vec![Action::Copy(into_nothing)]);
        let failed = solve(&mut place, graph.definition(step), true).await.unwrap_err();
        let told = detail(&failed, "errdefs.Solve+json");
        let inputs = ids(&told, "inputIDs");
        assert_eq!(
            read(&mut place, &inputs[0], &[("/m", &inputs[1])], "cat /m/a; ls /bin").await,
            "sourcebusybox\nsh\n"
        );
    });
}

fn mounts_that_do_not_exist(mode: Mode) {
    with(mode, shelf(DOCKERFILE, tree(Vec::new())), |mut place| async move {
        let mut graph = Graph::default();
        let root = image(&mut graph);
        let data = graph.files(None, None, vec![mkfile("/a", "there")]);
        let mount = pb::Mount {
            dest: "/m".to_owned(),
            selector: "/nothing".to_owned(),
            readonly: true,
            output: -1,
            ..pb::Mount::default()
        };
        let step = exec(&mut graph, root.clone(), data, "true", mount);
        let failed = solve(&mut place, graph.definition(step), true).await.unwrap_err();
        let told = detail(&failed, "errdefs.Solve+json");
        assert_eq!(told["cache"]["index"], "1", "{failed:?}");
        let inputs = ids(&told, "inputIDs");
        assert_eq!((inputs.len(), ids(&told, "mountIDs").len()), (1, 0));
        let shell = solve(&mut place, graph.definition(root), true).await.unwrap();
        assert_eq!(read(&mut place, &shell, &[("/m", &inputs[0])], "cat /m/a").await, "there");
    });
}

/// The step of a Dockerfile has an op, too.
fn steps_of_a_dockerfile(mode: Mode) {
    let dockerfile = format!("{DOCKERFILE}RUN echo left > /data; exit 3\n");
    with(mode, shelf(&dockerfile, tree(Vec::new())), |mut place| async move {
        let request = frontend::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            evaluate: true,
            ..frontend::SolveRequest::default()
        };
        let failed = place.bridge.solve(of_build(BUILD, request)).await.unwrap_err();
        let told = detail(&failed, "errdefs.Solve+json");
        assert!(told["op"]["exec"]["meta"]["args"].to_string().contains("echo left"), "{told}");
        let mounts = ids(&told, "mountIDs");
        assert_eq!(read(&mut place, &mounts[0], &[], "cat /data").await, "left\n");
    });
}
