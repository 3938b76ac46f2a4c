//! Nested definitions and source policies: definitions that the server changes before it builds them.

use std::collections::BTreeMap;

use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::policysession::{DecisionResponse, DenyMessage};
use lapstrake_proto::moby::buildkit::v1::sourcepolicy::{
    AttrConstraint, Policy, PolicyAction, Rule, Selector, Update,
};
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;
use lapstrake_testkit::buildkit::{Shelf, control, entry, of_build, shelf, solve as call};
use lapstrake_testkit::{ALL, Mode, Test};
use prost::Message as _;
use tonic::{Code, Status};

use crate::definitions::{Graph, contents, has, mkfile, solve};
use crate::place::{BUILD, Place, with};

pub(crate) const TESTS: &[Test] = &[
    ("nested_definitions", ALL, nested_definitions),
    ("nested_definitions_that_cannot_be", ALL, nested_definitions_that_cannot_be),
    ("policies_of_definitions", ALL, policies_of_definitions),
    ("policies_of_dockerfiles", ALL, policies_of_dockerfiles),
    ("policies_of_sessions", ALL, policies_of_sessions),
];

/// The file that a nested definition is read from, where nothing else is said.
const FILE: &str = "/buildkit.llb.definition";

fn bytes(path: &str, data: Vec<u8>) -> Action {
    let Action::Mkfile(file) = mkfile(path, "") else { unreachable!() };
    Action::Mkfile(pb::FileActionMkFile { data, ..file })
}

/// The op that is what the file in `tree` says.
fn nested(graph: &mut Graph, tree: pb::Input, builder: i64, attrs: &[(&str, &str)]) -> pb::Input {
    let inputs = [("buildkit.llb.definition".to_owned(), pb::BuildInput { input: 0 })].into();
    let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let build = pb::BuildOp { builder, inputs, attrs, ..pb::BuildOp::default() };
    graph.add(vec![tree], pb::op::Op::Build(build))
}

/// A tree with the file `path`, as a definition.
fn tree_of(path: &str, text: &str) -> pb::Definition {
    let mut graph = Graph::default();
    let root = graph.files(None, None, vec![mkfile(path, text)]);
    graph.definition(root)
}

fn nested_definitions(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        let inner = tree_of("/inner", "1").encode_to_vec();
        let mut graph = Graph::default();
        let tree = graph.files(None, None, vec![bytes(FILE, inner.clone())]);
        let first = nested(&mut graph, tree, -1, &[]);
        // What stands on the result, and a definition in a definition.
        let more = graph.files(Some(first), None, vec![mkfile("/more", "2")]);
        let more = graph.definition(more);
        let id = solve(&mut place, more.clone(), true).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/inner", "1"), ("/more", "2")]);
        let mut outer = Graph::default();
        let tree = outer.files(None, None, vec![bytes("/other", more.encode_to_vec())]);
        let outermost = nested(&mut outer, tree, -1, &[("llbbuild.filename", "other")]);
        let outermost = outer.definition(outermost);
        let id = solve(&mut place, outermost, false).await.unwrap();
        has(&contents(&mut place, &id, "/").await, &[("/inner", "1"), ("/more", "2")]);
    });
}

fn nested_definitions_that_cannot_be(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        for (data, builder, text) in [
            (b"\xff\xff".to_vec(), -1, "buildkit.llb.definition"),
            (Vec::new(), -1, "the definition is empty"),
            (tree_of("/x", "").encode_to_vec(), 7, "only LLB builder is currently allowed"),
        ] {
            let mut graph = Graph::default();
            let tree = graph.files(None, None, vec![bytes(FILE, data)]);
            let root = nested(&mut graph, tree, builder, &[]);
            let error = solve(&mut place, graph.definition(root), false).await.unwrap_err();
            assert!(error.message().contains(text), "{error:?}");
        }
        for file in ["nosuch", "/../../../../etc/passwd"] {
            let mut graph = Graph::default();
            let tree = graph.files(None, None, vec![mkfile("/x", "")]);
            let root = nested(&mut graph, tree, -1, &[("llbbuild.filename", file)]);
            let error = solve(&mut place, graph.definition(root), false).await.unwrap_err();
            assert!(error.message().contains("no such file"), "{error:?}");
        }
    });
}

/// A client with two images to build, and Dockerfiles on them.
fn two() -> Shelf {
    let mut shelf =
        shelf("FROM scratch\nCOPY one /one\nENV A=1\n", vec![entry("one", "1"), entry("two", "2")]);
    let files = shelf.directories.get_mut("dockerfile").unwrap();
    files.push(entry("Other", "FROM scratch\nCOPY two /two\nENV A=2\n"));
    files.push(entry("User", "FROM local/one:1\nCOPY one /more\n"));
    files.push(entry("Web", "FROM scratch\nADD http://127.0.0.1:1/before /\n"));
    shelf
}

async fn images(place: &Place) {
    for (file, name) in [("Dockerfile", "local/one:1"), ("Other", "local/two:1")] {
        let attrs = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        let request = api::SolveRequest {
            session: "session-b".to_owned(),
            exporters: vec![api::Exporter { r#type: "image".to_owned(), attrs }],
            frontend_attrs: [("filename".to_owned(), file.to_owned())].into(),
            ..call(name, &[])
        };
        control(&place.channel).solve(request).await.unwrap();
    }
}

fn rule(action: PolicyAction, name: &str) -> Rule {
    let selector = Selector { identifier: name.to_owned(), ..Selector::default() };
    Rule { action: action.into(), selector: Some(selector), updates: None }
}

fn to(name: &str, other: &str) -> Rule {
    let updates = Some(Update { identifier: other.to_owned(), attrs: BTreeMap::new() });
    Rule { updates, ..rule(PolicyAction::Convert, name) }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy { version: 1, rules }
}

fn source(name: &str) -> pb::Definition {
    let mut graph = Graph::default();
    let op = pb::SourceOp { identifier: name.to_owned(), ..pb::SourceOp::default() };
    let source = graph.add(Vec::new(), pb::op::Op::Source(op));
    let root = graph.files(Some(source), None, vec![mkfile("/z", "z")]);
    graph.definition(root)
}

const ONE: &str = "docker-image://docker.io/local/one:1";
const TWO: &str = "docker-image://docker.io/local/two:1";

/// Solves a definition or a Dockerfile of the build, with these rules.
async fn ruled(
    place: &mut Place,
    of: Result<&str, &str>,
    rules: Vec<Rule>,
) -> Result<frontend::Result, Status> {
    let mut request =
        frontend::SolveRequest { source_policies: vec![policy(rules)], ..frontend::SolveRequest::default() };
    match of {
        Ok(name) => request.definition = Some(source(name)),
        Err(file) => {
            request.frontend = "dockerfile.v0".to_owned();
            request.frontend_opt = [("filename".to_owned(), file.to_owned())].into();
        }
    }
    request.evaluate = true;
    Ok(place.bridge.solve(of_build(BUILD, request)).await?.into_inner().result.unwrap())
}

async fn paths(place: &mut Place, result: frontend::Result) -> Vec<String> {
    let Some(frontend::result::Result::Ref(reference)) = result.result else { panic!() };
    contents(place, &reference.id, "/").await.into_keys().collect()
}

fn policies_of_definitions(mode: Mode) {
    with(mode, two(), |mut place| async move {
        let place = &mut place;
        images(place).await;
        let deny = |name: &str| rule(PolicyAction::Deny, name);
        let name = "docker-image://local/one:1";
        let result = ruled(place, Ok(name), vec![deny(TWO)]).await.unwrap();
        assert_eq!(paths(place, result).await, ["/one", "/z"]);
        let result = ruled(place, Ok(name), vec![to(ONE, TWO)]).await.unwrap();
        assert_eq!(paths(place, result).await, ["/two", "/z"]);
        for rules in [vec![deny(ONE)], vec![deny("docker-image://*")], vec![to(ONE, TWO), deny(TWO)]] {
            let error = ruled(place, Ok(name), rules).await.unwrap_err();
            assert!(error.message().contains("source denied by policy"), "{error:?}");
        }
        let constraint = AttrConstraint { key: "k".to_owned(), value: "v".to_owned(), condition: 0 };
        let mut unlike = deny(ONE);
        unlike.selector.as_mut().unwrap().constraints.push(constraint);
        ruled(place, Ok(name), vec![unlike]).await.unwrap();
        let error = ruled(place, Ok(name), vec![Rule::default()]).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::InvalidArgument, "invalid nil selector in policy")
        );
        let error = ruled(place, Ok(name), vec![to(ONE, TWO), to(TWO, ONE)]).await.unwrap_err();
        assert!(error.message().contains("too many operations"), "{error:?}");
        // Questions follow the rules, too.
        let ask = |rules: Vec<Rule>| frontend::ResolveImageConfigRequest {
            r#ref: "local/one:1".to_owned(),
            source_policies: vec![policy(rules)],
            ..frontend::ResolveImageConfigRequest::default()
        };
        let found =
            place.bridge.resolve_image_config(of_build(BUILD, ask(vec![to(ONE, TWO)]))).await.unwrap();
        assert_eq!(found.into_inner().r#ref, "docker.io/local/two:1");
        let error =
            place.bridge.resolve_image_config(of_build(BUILD, ask(vec![deny(ONE)]))).await.unwrap_err();
        assert!(error.message().starts_with("could not resolve image due to policy: "), "{error:?}");
        // A nested definition cannot get around the rules.
        let mut graph = Graph::default();
        let tree = graph.files(None, None, vec![bytes(FILE, source(name).encode_to_vec())]);
        let root = nested(&mut graph, tree, -1, &[]);
        let request = frontend::SolveRequest {
            definition: Some(graph.definition(root)),
            source_policies: vec![policy(vec![deny(ONE)])],
            ..frontend::SolveRequest::default()
        };
        let error = place.bridge.solve(of_build(BUILD, request)).await.unwrap_err();
        assert!(error.message().contains("source denied by policy"), "{error:?}");
    });
}

fn policies_of_dockerfiles(mode: Mode) {
    with(mode, two(), |mut place| async move {
        let place = &mut place;
        images(place).await;
        let result = ruled(place, Err("User"), vec![to(ONE, TWO)]).await.unwrap();
        let config = String::from_utf8_lossy(&result.metadata["containerimage.config"]).into_owned();
        assert!(config.contains("A=2"), "{config}");
        assert_eq!(paths(place, result).await, ["/more", "/two"]);
        let deny = |name: &str| vec![rule(PolicyAction::Deny, name)];
        let error = ruled(place, Err("User"), deny(ONE)).await.unwrap_err();
        assert!(error.message().contains("denied by policy"), "{error:?}");
        let error = ruled(place, Err("Web"), deny("http://127.0.0.1:1/*")).await.unwrap_err();
        assert!(error.message().contains("denied by policy"), "{error:?}");
        let moved = vec![to("http://127.0.0.1:1/be*", "http://127.0.0.1:1/after/be$1")];
        let error = ruled(place, Err("Web"), moved).await.unwrap_err();
        assert!(error.message().contains("/after/before"), "{error:?}");
        let error = ruled(place, Err("User"), vec![to(ONE, "local://context")]).await.unwrap_err();
        assert!(error.message().contains("not supported for Dockerfiles"), "{error:?}");
        // The rules of the whole call, from the client's own command line.
        let request = api::SolveRequest {
            session: "session-b".to_owned(),
            frontend_attrs: [("filename".to_owned(), "User".to_owned())].into(),
            source_policy: Some(policy(deny(ONE))),
            ..call("whole", &["image"])
        };
        let error = control(&place.channel).solve(request).await.unwrap_err();
        assert!(error.message().contains("denied by policy"), "{error:?}");
    });
}

fn policies_of_sessions(mode: Mode) {
    let mut shelf = two();
    let update = pb::SourceOp { identifier: TWO.to_owned(), ..pb::SourceOp::default() };
    let convert = DecisionResponse {
        action: PolicyAction::Convert.into(),
        update: Some(update),
        ..DecisionResponse::default()
    };
    let deny_messages = vec![DenyMessage { message: "because".to_owned() }];
    let deny =
        DecisionResponse { action: PolicyAction::Deny.into(), deny_messages, ..DecisionResponse::default() };
    shelf.decisions = [(ONE.to_owned(), convert.clone())].into();
    shelf.decisions.insert("http://127.0.0.1:1/before".to_owned(), deny);
    let circle = DecisionResponse {
        update: Some(pb::SourceOp { identifier: "http://c/".to_owned(), ..pb::SourceOp::default() }),
        ..convert
    };
    shelf.decisions.insert("http://c/".to_owned(), circle);
    with(mode, shelf, |mut place| async move {
        let place = &mut place;
        images(place).await;
        let mut number = 0;
        let mut request = |file: Option<&str>, name: &str| {
            number += 1;
            let mut request = api::SolveRequest {
                session: "session-b".to_owned(),
                source_policy_session: "session-b".to_owned(),
                ..call(&format!("n{number}"), &["tar"])
            };
            match file {
                Some(file) => drop(request.frontend_attrs.insert("filename".to_owned(), file.to_owned())),
                None => {
                    request.frontend = String::new();
                    request.definition = Some(source(name));
                }
            }
            request
        };
        let mut control = control(&place.channel);
        for asked in [request(None, "docker-image://local/one:1"), request(Some("User"), "")] {
            control.solve(asked).await.unwrap();
        }
        for asked in [request(None, "http://127.0.0.1:1/before"), request(Some("Web"), "")] {
            let error = control.solve(asked).await.unwrap_err();
            assert!(error.message().contains("not allowed by policy: action DENY"), "{error:?}");
            let whole = rpc::Status::decode(error.details()).unwrap();
            let told = String::from_utf8_lossy(&whole.details[0].value).into_owned();
            assert!(told.contains("because"), "{told}");
        }
        let error = control.solve(request(None, "http://c/")).await.unwrap_err();
        assert!(error.message().contains("too many policy requests"), "{error:?}");
    });
}
