//! From a graph to a definition: what [`Definition::lower`](crate::Definition::lower) reads.

use std::collections::BTreeMap;

use lapstrake_graph::{Edge, Git, Graph, Http, ImageStore, Op, Source, Vertex, VertexId};
use lapstrake_oci::Digest;
use lapstrake_proto::pb;
use prost::Message as _;

use crate::encoded::{Inputs, NotDefinable};
use crate::local::LocalSource;
use crate::names::CUSTOM_NAME;

/// The definition of `edge` with all that it needs. `local` gives the directories of the client by their names in the graph.
/// The empty tree is an empty definition.
///
/// # Errors
/// The graph needs something that no definition can say.
pub fn encode(
    graph: &Graph,
    edge: Edge,
    local: &dyn Fn(&str) -> Option<LocalSource>,
) -> Result<pb::Definition, NotDefinable> {
    let mut encoder = Encoder { local, definition: pb::Definition::default(), digests: BTreeMap::new() };
    for id in graph.needed_by(edge.vertex) {
        if let Some(vertex) = graph.get(id) {
            encoder.vertex(id, vertex)?;
        }
    }
    let Some(input) = encoder.input(edge) else { return Ok(pb::Definition::default()) };
    let root = pb::Op { inputs: vec![input], ..pb::Op::default() };
    encoder.definition.def.push(root.encode_to_vec());
    Ok(encoder.definition)
}

/// A definition that grows.
struct Encoder<'g> {
    local: &'g dyn Fn(&str) -> Option<LocalSource>,
    definition: pb::Definition,
    /// The names of the vertices as ops. The empty tree has none.
    digests: BTreeMap<VertexId, String>,
}

impl Encoder<'_> {
    /// An edge as an input; nothing for the empty tree.
    fn input(&self, edge: Edge) -> Option<pb::Input> {
        let digest = self.digests.get(&edge.vertex)?.clone();
        Some(pb::Input { digest, index: edge.output.into() })
    }

    /// Adds an op, and gives its name.
    fn add(&mut self, op: &pb::Op, name: &str, ignore_cache: bool) -> String {
        let bytes = op.encode_to_vec();
        let digest = Digest::sha256(&bytes).to_string();
        let meta = pb::OpMetadata {
            ignore_cache,
            description: [(CUSTOM_NAME.to_owned(), name.to_owned())].into(),
            ..pb::OpMetadata::default()
        };
        if self.definition.metadata.insert(digest.clone(), meta).is_none() {
            self.definition.def.push(bytes);
        }
        digest
    }

    fn vertex(&mut self, id: VertexId, vertex: &Vertex) -> Result<(), NotDefinable> {
        if !vertex.after.is_empty() {
            return Err(NotDefinable("a step that waits for another one".to_owned()));
        }
        let inputs: Vec<Option<pb::Input>> = vertex.inputs.iter().map(|edge| self.input(*edge)).collect();
        let mut all = Inputs::default();
        let mut platform = None;
        let op = match &vertex.op {
            Op::Source(Source::Scratch) => return Ok(()),
            Op::Source(source) => {
                if let Source::Image { platform: asked, .. } = source {
                    platform = Some(pb::Platform {
                        architecture: asked.architecture.clone(),
                        os: asked.os.clone(),
                        variant: asked.variant.clone(),
                        os_version: asked.os_version.clone(),
                        os_features: asked.os_features.clone(),
                    });
                }
                pb::op::Op::Source(self.source(source)?)
            }
            Op::Exec(exec) => crate::encode_exec::exec(exec, &inputs, &mut all)?,
            Op::File(file) => {
                let mut made = |op: &pb::Op| self.add(op, "[internal] inline file", false);
                crate::encode_file::file(file, &inputs, &mut all, &mut made)?
            }
            Op::Merge => {
                let merged =
                    inputs.into_iter().flatten().map(|input| pb::MergeInput { input: all.add(Some(input)) });
                pb::op::Op::Merge(pb::MergeOp { inputs: merged.collect() })
            }
            Op::Diff => {
                let mut sides = inputs.into_iter().map(|input| all.add(input));
                let (lower, upper) = (sides.next().unwrap_or(-1), sides.next().unwrap_or(-1));
                pb::op::Op::Diff(pb::DiffOp {
                    lower: Some(pb::LowerDiffInput { input: lower }),
                    upper: Some(pb::UpperDiffInput { input: upper }),
                })
            }
        };
        let op = pb::Op { inputs: all.0, op: Some(op), platform, ..pb::Op::default() };
        let digest = self.add(&op, &vertex.meta.name, vertex.meta.ignore_cache);
        self.digests.insert(id, digest);
        Ok(())
    }

    fn source(&self, source: &Source) -> Result<pb::SourceOp, NotDefinable> {
        match source {
            Source::Image { reference, store, .. } => {
                let limit = match store {
                    ImageStore::Registry => None,
                    ImageStore::LowestLayers(limit) => {
                        Some(("image.layerlimit".to_owned(), limit.to_string()))
                    }
                    ImageStore::Layout { .. } => {
                        return Err(NotDefinable("an image of this machine".to_owned()));
                    }
                };
                Ok(pb::SourceOp {
                    identifier: format!("docker-image://{reference}"),
                    attrs: limit.into_iter().collect(),
                })
            }
            Source::Local { name } => {
                let local = (self.local)(name);
                local.map(|local| local.op()).ok_or_else(|| NotDefinable(format!("the directory `{name}`")))
            }
            Source::Http(http) if !http.unpack => Ok(of_http(http)),
            Source::Git(git) => Ok(of_git(git)),
            _ => Err(NotDefinable("a source of this machine".to_owned())),
        }
    }
}

fn of_http(http: &Http) -> pb::SourceOp {
    let mut attrs = std::collections::HashMap::new();
    if !http.options.named_by_server {
        attrs.insert("http.filename".to_owned(), http.name.clone());
    }
    if let Some(checksum) = &http.checksum {
        attrs.insert("http.checksum".to_owned(), checksum.to_string());
    }
    if let Some(mode) = http.options.mode {
        attrs.insert("http.perm".to_owned(), format!("0{mode:o}"));
    }
    if let Some((uid, gid)) = http.options.owner {
        attrs.insert("http.uid".to_owned(), uid.to_string());
        attrs.insert("http.gid".to_owned(), gid.to_string());
    }
    if !http.options.authorization_secret.is_empty() {
        attrs.insert("http.authheadersecret".to_owned(), http.options.authorization_secret.clone());
    }
    let headers = http.options.headers.iter();
    attrs.extend(headers.map(|(name, value)| (format!("http.header.{name}"), value.clone())));
    pb::SourceOp { identifier: http.url.clone(), attrs: attrs.into_iter().collect() }
}

fn of_git(git: &Git) -> pb::SourceOp {
    let path = git.remote.split_once("://").map_or(git.remote.as_str(), |(_, rest)| rest);
    let fragment = if git.subdir.is_empty() {
        git.reference.clone()
    } else {
        format!("{}:{}", git.reference, git.subdir)
    };
    let identifier =
        if fragment.is_empty() { format!("git://{path}") } else { format!("git://{path}#{fragment}") };
    let flags = [
        ("git.keepgitdir", git.keep_git_dir),
        ("git.skipsubmodules", !git.submodules),
        ("git.fetchbycommit", git.fetch_by_commit),
    ];
    let set = flags.iter().filter(|(_, set)| *set).map(|(key, _)| ((*key).to_owned(), "true".to_owned()));
    let mut attrs: Vec<(String, String)> = set.collect();
    attrs.push(("git.fullurl".to_owned(), git.remote.clone()));
    if !git.checksum.is_empty() {
        attrs.push(("git.checksum".to_owned(), git.checksum.clone()));
    }
    if git.commit_times {
        attrs.push(("git.mtime".to_owned(), "commit".to_owned()));
    }
    pb::SourceOp { identifier, attrs: attrs.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use lapstrake_graph::{
        Bind, Copy, CopyVariant, Exec, File, FileAction, MakeDir, Mount, MountKind, VertexMeta,
    };
    use lapstrake_oci::Platform;

    use super::*;
    use crate::{Answers, Definition};

    fn meta(name: &str) -> VertexMeta {
        VertexMeta { name: name.to_owned(), ..VertexMeta::default() }
    }

    fn copy(input: usize) -> Copy {
        Copy {
            input,
            sources: vec!["/src".to_owned()],
            dest: "/d/".to_owned(),
            chown: None,
            chmod: Some("644".to_owned()),
            chmod_made: false,
            exclude: vec!["*.o".to_owned()],
            parents: false,
            optional: false,
            unpack: false,
            timestamp: None,
            variant: CopyVariant::default(),
        }
    }

    fn exec() -> Exec {
        let mut exec: Exec = serde_json::from_value(serde_json::json!({
            "args": ["sh", "-c", "true"], "env": ["PATH=/bin"], "cwd": "/w", "user": "u", "hostname": "h",
            "mounts": [], "secret_env": [], "network": "none", "security": "sandbox", "extra_hosts": [],
            "shm_size": 0, "ulimits": [],
        }))
        .unwrap();
        let bind = Bind { input: 1, source: "/s".to_owned(), readonly: false, keep: true };
        exec.mounts.push(Mount { target: "/m".to_owned(), kind: MountKind::Bind(bind) });
        exec
    }

    /// A graph that becomes a definition, and a graph again, has the same ops.
    #[test]
    fn there_and_back() {
        let mut graph = Graph::new();
        let source = |reference: &str| Source::Image {
            reference: reference.to_owned(),
            manifest: Digest::sha256(reference.as_bytes()),
            platform: Platform::host(),
            store: ImageStore::Registry,
        };
        let base = graph.add(Op::Source(source("docker.io/library/a:1")), vec![], meta("FROM a")).unwrap();
        let local = Source::Local { name: "context".to_owned() };
        let context = graph.add(Op::Source(local), vec![], meta("context")).unwrap();
        let make =
            MakeDir { path: "/w".to_owned(), mode: 0o755, parents: true, owner: None, timestamp: None };
        let file = File { actions: vec![FileAction::MakeDir(make), FileAction::Copy(copy(1))] };
        let copied = graph.add(Op::File(file), vec![base.into(), context.into()], meta("COPY")).unwrap();
        let ran = graph.add(Op::Exec(exec()), vec![copied.into(), base.into()], meta("RUN")).unwrap();
        let kept = Edge { vertex: ran, output: 1 };
        let last = graph.add(Op::Merge, vec![ran.into(), kept], meta("merge")).unwrap();
        let named = |name: &str| Some(LocalSource { name: name.to_owned(), ..LocalSource::default() });
        let definition = encode(&graph, last.into(), &named).unwrap();
        let decoded = Definition::decode(&definition).unwrap().unwrap();
        let images = decoded.images().unwrap();
        let answer = (images[0].op.clone(), source("docker.io/library/a:1"));
        let answers = Answers { images: [answer].into(), ..Answers::default() };
        let mut again = Graph::new();
        let lowered = decoded.lower(&answers, &mut again).unwrap();
        let ops = |graph: &Graph, edge: Edge| -> Vec<(Op, String)> {
            let needed = graph.needed_by(edge.vertex).into_iter();
            needed.map(|id| (graph[id].op.clone(), graph[id].meta.name.clone())).collect()
        };
        let (mut before, mut after) = (ops(&graph, last.into()), ops(&again, lowered.edge));
        before.sort_by_key(|(_, name)| name.clone());
        after.sort_by_key(|(_, name)| name.clone());
        assert_eq!(before, after);
        assert_eq!(lowered.locals.len(), 1);
    }

    #[test]
    fn the_empty_tree_is_an_empty_definition() {
        let mut graph = Graph::new();
        let edge = graph.add(Op::Source(Source::Scratch), vec![], meta("")).unwrap().into();
        assert!(encode(&graph, edge, &|_| None).unwrap().def.is_empty());
        let rootfs = Op::Source(Source::Rootfs { path: "/".to_owned() });
        let edge = graph.add(rootfs, vec![], meta("")).unwrap().into();
        assert!(encode(&graph, edge, &|_| None).is_err());
    }
}
