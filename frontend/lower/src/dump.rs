//! A plan as text, for tests and for people.

use std::fmt::Write as _;

use lapstrake_graph::Plan;

/// For each target: its platform, its steps, its image config as JSON, its rows of history with the numbers of the
/// steps whose layers they stand for.
pub fn dump(plan: &Plan) -> String {
    let mut out = String::new();
    for target in &plan.targets {
        let write = |out: &mut String, line: String| {
            writeln!(out, "{line}").expect("writing to a string does not fail");
        };
        write(&mut out, format!("target {}", target.platform));
        out.push_str(&lapstrake_graph::dump(&plan.graph, target.edge.vertex));
        let order = plan.graph.needed_by(target.edge.vertex);
        let config = String::from_utf8_lossy(&lapstrake_go::to_json(&target.image.config)).into_owned();
        write(&mut out, format!("image {config}"));
        if let Some(epoch) = target.image.epoch {
            write(&mut out, format!("epoch {epoch}"));
        }
        for row in &target.image.history {
            let number = row.layer.and_then(|layer| order.iter().position(|id| *id == layer));
            let number = number.map_or("-".to_owned(), |number| format!("#{number}"));
            write(&mut out, format!("row {number} {:?}", row.created_by));
        }
    }
    out
}
