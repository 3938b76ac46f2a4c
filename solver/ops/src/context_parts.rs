//! The parts of local contexts that a graph reads, so that a caller elsewhere sends no more than these.

use std::collections::BTreeMap;

use lapstrake_engine::{Dep, StepId};
use lapstrake_graph::{Edge, Graph, Op, Source};

/// The part of a local context that the steps of a graph read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextPart {
    /// The step that the context is in the progress of a build.
    pub step: StepId,
    /// Clean paths from the root of the context, with the patterns of Go's `filepath.Match`; `None` for everything.
    pub paths: Option<Vec<String>>,
}

/// The parts of the local contexts of `graph`, by the names of the contexts. A context that is a `target` is read as a whole.
pub fn context_parts(graph: &Graph, targets: &[Edge]) -> BTreeMap<String, ContextPart> {
    let mut parts: BTreeMap<String, ContextPart> = BTreeMap::new();
    for id in graph.topological() {
        let vertex = &graph[id];
        let Op::Source(Source::Local { name }) = &vertex.op else { continue };
        let step = StepId(vertex.step_digest().to_string());
        let part = parts.entry(name.clone()).or_insert_with(|| ContextPart { step, paths: Some(Vec::new()) });
        if targets.iter().any(|target| target.vertex == id) {
            part.paths = None;
        }
        for consumer in graph.consumers(id) {
            let consumer = &graph[consumer];
            let inputs = consumer.inputs.len();
            let deps = match &consumer.op {
                Op::File(file) => crate::file::deps(file, inputs),
                Op::Exec(exec) => crate::exec::deps(exec, inputs),
                Op::Source(_) | Op::Merge | Op::Diff => vec![Dep::ByKey; inputs],
            };
            let read = consumer.inputs.iter().zip(deps).filter(|(input, _)| input.vertex == id);
            read.for_each(|(_, dep)| part.add(&dep));
        }
    }
    for part in parts.values_mut() {
        if let Some(paths) = &mut part.paths {
            paths.sort();
            paths.dedup();
        }
    }
    parts
}

impl ContextPart {
    fn add(&mut self, dep: &Dep) {
        let read = match dep {
            Dep::ByContent(selector) if !selector.paths.is_empty() => {
                let clean = |path: &String| clean(path, selector.wildcards);
                selector.paths.iter().map(clean).collect::<Option<Vec<_>>>()
            }
            Dep::ByContent(_) | Dep::ByKey => None,
        };
        match (&mut self.paths, read) {
            (Some(paths), Some(read)) => paths.extend(read),
            (paths, _) => *paths = None,
        }
    }
}

/// A path from the root of a context; `None` for the root itself, and for paths that other programs read in another way.
fn clean(path: &str, wildcards: bool) -> Option<String> {
    let is_pattern = path.contains(['*', '?', '[', '\\']);
    if is_pattern && (!wildcards || path.contains('\\')) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            // Directories of any depth, which is more than one part of a pattern can mean.
            part if part.contains("**") => break,
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use lapstrake_graph::{Bind, Copy, Exec, File, FileAction, Mount, MountKind, VertexMeta};

    use super::*;

    #[test]
    fn paths_are_clean() {
        for (path, wildcards, expected) in [
            ("src/", true, Some("src")),
            ("/a/./b/../c", true, Some("a/c")),
            ("../../x", true, Some("x")),
            ("*.txt", true, Some("*.txt")),
            ("a/**/b", true, Some("a")),
            ("**/b", true, None),
            (".", true, None),
            ("/", true, None),
            ("", true, None),
            ("a\\*b", true, None),
            ("a[b]", false, None),
            ("a b", false, Some("a b")),
        ] {
            assert_eq!(clean(path, wildcards).as_deref(), expected, "{path}");
        }
    }

    fn copy(sources: &[&str]) -> Op {
        let sources = sources.iter().map(|source| (*source).to_owned()).collect();
        Op::File(File { actions: vec![FileAction::Copy(Copy { input: 1, sources, ..Copy::default() })] })
    }

    #[test]
    fn parts_are_those_of_all_readers() {
        let mut graph = Graph::new();
        let mut add = |op: Op, inputs: Vec<Edge>| -> Edge {
            graph.add(op, inputs, VertexMeta::default()).unwrap().into()
        };
        let local = |name: &str| Op::Source(Source::Local { name: name.to_owned() });
        let context = add(local("context"), Vec::new());
        let (named, base, whole) = (
            add(local("named"), Vec::new()),
            add(local("base"), Vec::new()),
            add(local("whole"), Vec::new()),
        );
        add(local("unread"), Vec::new());
        let one = add(copy(&["b", "a/"]), vec![base, context]);
        let bind = Bind { input: 1, source: "/c".to_owned(), readonly: true, keep: false };
        let mount = Mount { target: "/m".to_owned(), kind: MountKind::Bind(bind) };
        let exec = Exec { mounts: vec![mount], ..Exec::default() };
        let two = add(Op::Exec(exec), vec![one, named]);
        let three = add(copy(&["a"]), vec![two, context]);
        let last = add(copy(&["x", "."]), vec![three, whole]);
        let parts = context_parts(&graph, &[last]);
        let paths = |name: &str| parts[name].paths.as_ref().map(|paths| paths.join(" "));
        assert_eq!(paths("context").as_deref(), Some("a b"));
        assert_eq!(paths("named").as_deref(), Some("c"));
        assert_eq!(paths("unread").as_deref(), Some(""));
        assert_eq!((paths("base"), paths("whole")), (None, None));
        assert_eq!(context_parts(&graph, &[context])["context"].paths, None);
    }
}
