//! The graph as text, for tests and for people.

use std::fmt::Write as _;

use crate::{Graph, VertexId};

/// One block for each vertex that `target` needs, inputs first: its number, its name, its inputs' numbers, and the op
/// as JSON. Numbers are positions in this listing, so that the text depends on nothing but the graph's content.
pub fn dump(graph: &Graph, target: VertexId) -> String {
    let order = graph.needed_by(target);
    let number = |id: VertexId| order.iter().position(|other| *other == id).unwrap_or(usize::MAX);
    let mut out = String::new();
    for (at, id) in order.iter().enumerate() {
        let vertex = &graph[*id];
        let inputs: Vec<String> =
            vertex.inputs.iter().map(|edge| format!("#{}", number(edge.vertex))).collect();
        let lines = vertex.meta.lines.map_or(String::new(), |l| format!(" lines {}-{}", l.first, l.last));
        let op = String::from_utf8_lossy(&lapstrake_go::to_json(&vertex.op)).into_owned();
        writeln!(out, "#{at} {:?} <- [{}]{lines}\n   {op}", vertex.meta.name, inputs.join(" "))
            .expect("writing to a string does not fail");
    }
    out
}
