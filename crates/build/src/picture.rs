//! A graph of steps as text, in Graphviz's language, and as a picture.
//!
//! The picture has a column for each stage, in the file's order, and a row for each level: a step is always below what it
//! stands on. Edges run between rows and between columns, where no box is: libraries for layered graphs place nodes where
//! few edges cross, and would tear the columns apart.

use std::collections::BTreeMap;

use lapstrake_diag::{Context as _, Outcome};
use lapstrake_engine::{Forecast, probe};
use lapstrake_ops::Cache;
use lapstrake_request::BuildRequest;

use crate::format::escaped;
use crate::notes::Notes;
use crate::phases::{Build, Loaded};
use crate::resolved::Resolved;

/// The steps of the first target of `request`, and what of it is cached. Nothing is built.
///
/// # Errors
/// The Dockerfile cannot be built, or has no target.
pub async fn planned_steps(
    this: &Build<'_>,
    request: &BuildRequest,
    resolved: Resolved,
) -> Outcome<Vec<PlannedStep>> {
    let loaded = Loaded::load(this, request, resolved, Notes::default()).await?;
    let (tools, plan) = loaded.plan(this, &mut None).await?.into_parts();
    let target = plan.targets.first().context("nothing to build")?;
    let cache = Cache::new(tools.worker.clone());
    let found = probe(&plan.graph, &tools.job, &cache, target.edge).await;
    // What was learnt about the context's files is of use to the next build.
    tools.job.finish()?;
    let place = |id| found.iter().position(|(other, _)| *other == id);
    let node = |(id, forecast): &(_, Forecast)| {
        let vertex = &plan.graph[*id];
        let inputs = vertex.inputs.iter().chain(&vertex.after);
        let inputs = inputs.filter_map(|edge| place(edge.vertex)).collect();
        PlannedStep::new(&vertex.meta.name, *forecast, inputs)
    };
    let mut steps = found.iter().map(node).collect::<Vec<_>>();
    PlannedStep::settle(&mut steps);
    Ok(steps)
}

/// A step of a graph, and what a build would do with it.
pub struct PlannedStep {
    stage: String,
    text: String,
    forecast: Forecast,
    inputs: Vec<usize>,
}

impl PlannedStep {
    /// Of a step's name, `[build 2/5] RUN make`.
    fn new(name: &str, forecast: Forecast, inputs: Vec<usize>) -> PlannedStep {
        let (place, text) =
            name.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap_or(("", name));
        // The number is the last word; what a stage without a name has in front of it is nothing.
        let stage = match place.rsplit_once(' ') {
            Some((stage, _)) => stage.to_owned(),
            None if place == "internal" => "context".to_owned(),
            None => place.to_owned(),
        };
        PlannedStep { stage, text: text.replace('\n', " "), forecast, inputs }
    }

    /// Puts what is no stage's, the empty tree, to the first that stands on it.
    fn settle(nodes: &mut [PlannedStep]) {
        for at in 0..nodes.len() {
            if nodes[at].stage.is_empty()
                && let Some(user) = nodes.iter().find(|node| node.inputs.contains(&at))
            {
                nodes[at].stage = user.stage.clone();
            }
        }
    }

    fn mark(&self) -> &'static str {
        match self.forecast {
            Forecast::Source => "source",
            Forecast::Cached => "cached",
            Forecast::Executed => "to do",
            Forecast::Unknown => "unknown",
        }
    }

    fn colour(&self) -> &'static str {
        match self.forecast {
            Forecast::Source => "#dfe9fb",
            Forecast::Cached => "#dcf2e1",
            Forecast::Executed => "#fde3cd",
            Forecast::Unknown => "#eceff3",
        }
    }
}

/// The stages in the order of their first steps, each with its steps.
fn stages(nodes: &[PlannedStep]) -> Vec<(&str, Vec<usize>)> {
    let mut stages: Vec<(&str, Vec<usize>)> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        match stages.iter_mut().find(|(name, _)| *name == node.stage) {
            Some((_, steps)) => steps.push(at),
            None => stages.push((&node.stage, vec![at])),
        }
    }
    stages
}

/// Stage by stage; what a step takes from others stands behind it.
pub fn text(nodes: &[PlannedStep]) -> String {
    let mut out = String::new();
    for (name, steps) in stages(nodes) {
        out.push_str(&format!("{name}\n"));
        for at in steps {
            let node = &nodes[at];
            let from: Vec<&str> = node
                .inputs
                .iter()
                .filter(|input| nodes[**input].stage != node.stage)
                .map(|input| nodes[*input].stage.as_str())
                .collect();
            let from = if from.is_empty() { String::new() } else { format!("  ← {}", from.join(", ")) };
            out.push_str(&format!("  {:<8} {}{from}\n", node.mark(), node.text));
        }
    }
    out
}

/// In the language of Graphviz.
pub fn dot(nodes: &[PlannedStep]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = String::from(
        "digraph build {\n  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fontname=\"monospace\", fontsize=10];\n",
    );
    for (number, (name, steps)) in stages(nodes).into_iter().enumerate() {
        out.push_str(&format!("  subgraph cluster_{number} {{\n    label={};\n", quoted(name)));
        for at in steps {
            let node = &nodes[at];
            let label = quoted(&format!("{}\n{}", node.text, node.mark())).replace('\n', "\\n");
            out.push_str(&format!("    s{at} [label={label}, fillcolor={}];\n", quoted(node.colour())));
        }
        out.push_str("  }\n");
    }
    for (at, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            out.push_str(&format!("  s{input} -> s{at};\n"));
        }
    }
    out.push_str("}\n");
    out
}

const WIDTH: usize = 300;
const HEIGHT: usize = 44;
const GAP_X: usize = 60;
const GAP_Y: usize = 22;
const TOP: usize = 50;
const MARGIN: usize = 20;
/// Edges side by side in a gap.
const LANES: usize = 10;
/// As many characters of 11 points as fit into a box.
const LETTERS: usize = 42;

/// As a picture that needs nothing else.
pub fn svg(nodes: &[PlannedStep]) -> String {
    let (rows, stages) = (rows(nodes), stages(nodes));
    let columns: BTreeMap<&str, usize> =
        stages.iter().enumerate().map(|(column, (name, _))| (*name, column)).collect();
    let cell = |at: usize| Cell { column: columns[nodes[at].stage.as_str()], row: rows[at] };
    let width = 2 * MARGIN + stages.len() * (WIDTH + GAP_X);
    let height = TOP + rows.iter().max().map_or(0, |last| (last + 1) * (HEIGHT + GAP_Y)) + 30;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"ui-monospace,monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#8793a3\"/></marker></defs>\n",
    );
    for (name, column) in &columns {
        let x = Cell { column: *column, row: 0 }.x();
        out.push_str(&format!(
            "<text x=\"{x}\" y=\"32\" font-size=\"14\" font-weight=\"bold\" fill=\"#1c2430\">{}</text>\n",
            escaped(name)
        ));
    }
    for route in routes(nodes, &cell) {
        let (start, rest) =
            route.split_first().map_or((Point::default(), &[][..]), |(first, rest)| (*first, rest));
        let path: String = rest.iter().map(|point| format!("L{} {}", point.x, point.y)).collect();
        out.push_str(&format!("<path d=\"M{} {}{path}\" fill=\"none\" stroke=\"#8793a3\" stroke-width=\"1.3\" stroke-linejoin=\"round\" marker-end=\"url(#tip)\"/>\n", start.x, start.y));
    }
    for (at, node) in nodes.iter().enumerate() {
        boxed(&mut out, node, cell(at));
    }
    out.push_str(&format!("<text x=\"20\" y=\"{}\" fill=\"#66707f\">green: cached · orange: to do · blue: source · grey: known after a download</text>\n</svg>\n",
        height - 12));
    out
}

/// The level of each step: below all that it stands on, and below the step of its stage before it.
fn rows(nodes: &[PlannedStep]) -> Vec<usize> {
    let mut rows = Vec::with_capacity(nodes.len());
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        let below = node.inputs.iter().filter_map(|input| rows.get(*input)).max().map_or(0, |row| row + 1);
        let row = below.max(last.get(node.stage.as_str()).map_or(0, |row| row + 1));
        last.insert(&node.stage, row);
        rows.push(row);
    }
    rows
}

/// The place of a box in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    column: usize,
    row: usize,
}

impl Cell {
    fn x(self) -> usize {
        MARGIN + self.column * (WIDTH + GAP_X)
    }

    fn y(self) -> usize {
        TOP + self.row * (HEIGHT + GAP_Y)
    }
}

/// A point of the picture, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Point {
    x: usize,
    y: usize,
}

/// A line for each edge: down from its input, along the gap between two rows, down between two columns, and along the gap
/// above the step.
fn routes(nodes: &[PlannedStep], cell: &dyn Fn(usize) -> Cell) -> Vec<Vec<Point>> {
    let boxes: Vec<Cell> = (0..nodes.len()).map(cell).collect();
    let mut lanes: BTreeMap<usize, usize> = BTreeMap::new();
    let mut routes = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let to = cell(at);
        let count = node.inputs.len();
        for (number, input) in node.inputs.iter().enumerate() {
            let from = cell(*input);
            // Inputs come in side by side.
            let end = Point { x: to.x() + WIDTH * (number + 1) / (count + 1), y: to.y() - 2 };
            let same = from.column == to.column;
            let start = Point { x: if same { end.x } else { from.x() + WIDTH / 2 }, y: from.y() + HEIGHT };
            let next = from.row + 1 == to.row;
            let between = from.row + 1..to.row;
            let hidden = |other: &Cell| other.column == to.column && between.contains(&other.row);
            if same && !boxes.iter().any(hidden) {
                routes.push(vec![start, end]);
                continue;
            }
            // The gap beside the step, on the side that the edge comes from.
            let channel = if from.column < to.column { to.column } else { to.column + 1 };
            let lane = lanes.entry(channel).or_default();
            let shift = *lane % LANES;
            *lane += 1;
            let (below, above) = (start.y + 4 + shift, to.y() - GAP_Y + 4 + shift);
            if next {
                routes.push(vec![start, Point { x: start.x, y: below }, Point { x: end.x, y: below }, end]);
                continue;
            }
            let x = (MARGIN + channel * (WIDTH + GAP_X)).saturating_sub(GAP_X)
                + 10
                + shift * (GAP_X - 20) / LANES;
            let x = if channel == 0 { MARGIN / 2 } else { x };
            routes.push(vec![
                start,
                Point { x: start.x, y: below },
                Point { x, y: below },
                Point { x, y: above },
                Point { x: end.x, y: above },
                end,
            ]);
        }
    }
    routes
}

fn boxed(out: &mut String, node: &PlannedStep, cell: Cell) {
    let (x, y) = (cell.x(), cell.y());
    let mut shown = node.text.clone();
    if shown.chars().count() > LETTERS {
        shown = shown.chars().take(LETTERS - 1).chain(['…']).collect();
    }
    out.push_str(&format!("<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"{}\" stroke=\"#b6c0cc\"/><text x=\"{}\" y=\"{}\" fill=\"#1c2430\">{}</text><text x=\"{}\" y=\"{}\" fill=\"#66707f\">{}</text></g>\n",
        escaped(&node.text),
        node.colour(),
        x + 10,
        y + 18,
        escaped(&shown),
        x + 10,
        y + 34,
        node.mark(),));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> Vec<PlannedStep> {
        vec![
            PlannedStep::new("[internal] load build context", Forecast::Source, vec![]),
            PlannedStep::new("[build 1/2] FROM a", Forecast::Source, vec![]),
            PlannedStep::new("[build 2/2] COPY \"x\" <y>", Forecast::Cached, vec![1, 0]),
            PlannedStep::new("[stage-1 1/1] COPY --from=build /y /", Forecast::Executed, vec![2]),
        ]
    }

    #[test]
    fn as_text() {
        let expected = "context\n  source   load build context\nbuild\n  source   FROM a\n  cached   COPY \"x\" <y>  ← context\nstage-1\n  to do    COPY --from=build /y /  ← build\n";
        assert_eq!(text(&build()), expected);
    }

    #[test]
    fn steps_are_below_what_they_stand_on() {
        assert_eq!(rows(&build()), [0, 0, 1, 2]);
    }

    /// Stages that take from each other over rows and columns, forwards and backwards.
    fn tangled() -> Vec<PlannedStep> {
        let mut nodes: Vec<PlannedStep> = Vec::new();
        for stage in 0..6_usize {
            for step in 0..5_usize {
                let at = nodes.len();
                let mut inputs = Vec::new();
                if step > 0 {
                    inputs.push(at - 1);
                }
                inputs
                    .extend((0..stage).filter(|other| (other + step) % 2 == 0).map(|other| other * 5 + step));
                if step == 4 {
                    inputs.push(at - 3);
                }
                nodes.push(PlannedStep::new(
                    &format!("[s{stage} {step}/5] RUN x"),
                    Forecast::Executed,
                    inputs,
                ));
            }
        }
        nodes
    }

    #[test]
    fn no_edge_runs_behind_a_box() {
        let nodes = tangled();
        let (rows, stages) = (rows(&nodes), stages(&nodes));
        let names: Vec<&str> = stages.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["s0", "s1", "s2", "s3", "s4", "s5"]);
        let cell = |at: usize| {
            let column = names.iter().position(|name| *name == nodes[at].stage).unwrap();
            Cell { column, row: rows[at] }
        };
        let routes = routes(&nodes, &cell);
        assert_eq!(routes.len(), nodes.iter().map(|node| node.inputs.len()).sum::<usize>());
        for route in &routes {
            for line in route.windows(2) {
                let (a, b) = (line[0], line[1]);
                assert!(a.x == b.x || a.y == b.y, "{route:?} is not straight");
                for at in 0..nodes.len() {
                    let (x, y) = (cell(at).x(), cell(at).y());
                    let across = a.x.max(b.x) > x && a.x.min(b.x) < x + WIDTH;
                    let down = a.y.max(b.y) > y && a.y.min(b.y) < y + HEIGHT;
                    assert!(!(across && down), "{route:?} runs behind {at}");
                }
            }
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_languages() {
        let drawn = dot(&build());
        assert!(drawn.contains(r#"label="COPY \"x\" <y>\ncached""#), "{drawn}");
        assert!(drawn.contains("s2 -> s3;"));
        let drawn = svg(&build());
        assert!(drawn.contains("COPY &quot;x&quot; &lt;y&gt;") && !drawn.contains("<y>"), "{drawn}");
    }
}
