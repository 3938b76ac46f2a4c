//! A build on a time axis: one HTML page that needs nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use lapstrake_engine::{Event, ResourceUsage};
use lapstrake_go::duration;
use lapstrake_go::size::human as bytes;
use lapstrake_ops::StackReport;

use crate::format::{cpu, escaped, millis, time};
use crate::history::BuildRecord;
use crate::journal::Journal;

/// A step as it is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bar {
    /// Names it in events.
    step: String,
    name: String,
    start: Duration,
    end: Duration,
    cached: bool,
    error: Option<String>,
    /// How many bytes it moved: of layers pulled, pushed, downloaded.
    moved: u64,
    /// The resource usage of its processes, if it had any.
    used: Option<ResourceUsage>,
    /// Whether the build would have been shorter if this step had.
    critical: bool,
}

impl Bar {
    fn took(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    fn class(&self) -> &'static str {
        match (&self.error, self.cached) {
            (Some(text), _) if text == "canceled" => "canceled",
            (Some(_), _) => "failed",
            (None, true) => "cached",
            (None, false) if self.critical => "done critical",
            (None, false) => "done",
        }
    }
}

/// The page of a build, as HTML that needs nothing else.
pub fn timeline(record: &BuildRecord, journal: &Journal) -> String {
    let mut bars = bars(journal.events());
    mark_critical(&mut bars, &record.steps);
    let whole = bars.iter().map(|bar| bar.end).max().unwrap_or_default().max(Duration::from_millis(1));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>{STYLE}</style></head><body>\n",
        escaped(&record.title())
    );
    // Writing to a string does not fail.
    head(&mut out, record, &bars).unwrap_or_default();
    chart(&mut out, &bars, whole).unwrap_or_default();
    out.push_str("</body></html>\n");
    out
}

/// The steps in the order in which they began.
fn bars(events: &[Event]) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events {
        match event {
            Event::Started { step, name, at } => {
                // One that was taken for cached and is needed after all begins anew.
                let place = *places.entry(&step.0).or_insert(bars.len());
                let (step, name) = (step.0.clone(), name.replace('\n', " "));
                let bar = Bar { step, name, start: *at, end: *at, ..Bar::default() };
                match bars.get_mut(place) {
                    Some(known) => *known = bar,
                    None => bars.push(bar),
                }
            }
            Event::Completed { step, at, cached, error } => {
                if let Some(bar) = places.get(step.0.as_str()).map(|at| &mut bars[*at]) {
                    (bar.end, bar.cached) = (*at, *cached);
                    bar.error.clone_from(error);
                }
            }
            Event::Status { step, current, done: true, at, .. } => {
                if let Some(bar) = places.get(step.0.as_str()).map(|at| &mut bars[*at]) {
                    bar.moved += current;
                    bar.end = bar.end.max(*at);
                }
            }
            Event::ResourceUsage { step, used, .. } => {
                if let Some(bar) = places.get(step.0.as_str()).map(|at| &mut bars[*at]) {
                    bar.used = Some(*used);
                }
            }
            Event::Status { .. } | Event::Log { .. } | Event::Warning(_) => {}
        }
    }
    bars
}

/// From the last step that was done back along whatever each had to wait for.
fn mark_critical(bars: &mut [Bar], steps: &[StackReport]) {
    let places: BTreeMap<String, usize> =
        bars.iter().enumerate().map(|(place, bar)| (bar.step.clone(), place)).collect();
    let place = |step: &StackReport| places.get(&step.digest).copied();
    let end = |step: &&StackReport| place(step).map(|at| bars[at].end);
    let mut path = Vec::new();
    let mut next = steps.iter().filter(|step| place(step).is_some()).max_by_key(end);
    while let Some(step) = next {
        path.extend(place(step));
        next = step
            .inputs
            .iter()
            .filter_map(|input| steps.get(*input))
            .filter(|step| place(step).is_some())
            .max_by_key(end);
    }
    for at in path {
        bars[at].critical = !bars[at].cached;
    }
}

fn head(out: &mut String, record: &BuildRecord, bars: &[Bar]) -> std::fmt::Result {
    let (cached, all) = record.cached();
    let critical: Duration = bars.iter().filter(|bar| bar.critical).map(Bar::took).sum();
    let moved: u64 = bars.iter().map(|bar| bar.moved).sum();
    writeln!(out, "<h1>{}</h1>", escaped(&record.title()))?;
    writeln!(
        out,
        "<p class=\"sub\">{} · {} · build {}</p>",
        escaped(&record.subject.context),
        time(record.started),
        record.id
    )?;
    let facts = [
        (record.status.name().to_owned(), "status"),
        (duration::short(record.took), "in all"),
        (millis(critical), "critical path"),
        (format!("{cached} of {all}"), "steps cached"),
        (bytes(moved), "moved"),
    ];
    out.push_str("<div class=\"facts\">");
    for (value, label) in facts {
        write!(out, "<div><b>{value}</b><span>{label}</span></div>")?;
    }
    out.push_str("</div>\n");
    if let Some(error) = &record.error {
        writeln!(out, "<pre class=\"error\">{}</pre>", escaped(error))?;
    }
    Ok(())
}

fn chart(out: &mut String, bars: &[Bar], whole: Duration) -> std::fmt::Result {
    let percent = |at: Duration| at.as_secs_f64() / whole.as_secs_f64() * 100.0;
    out.push_str(
        "<div class=\"chart\"><div class=\"row axis\"><div class=\"name\"></div><div class=\"track\">",
    );
    for tick in ticks(whole) {
        write!(out, "<span class=\"tick\" style=\"left:{:.2}%\">{}</span>", percent(tick), millis(tick))?;
    }
    out.push_str("</div><div class=\"took\">took</div><div class=\"used\">CPU, memory</div></div>\n");
    for bar in bars {
        let moved = if bar.moved > 0 { format!(", {} moved", bytes(bar.moved)) } else { String::new() };
        let fate = match (&bar.error, bar.cached) {
            (Some(error), _) => format!(", {error}"),
            (None, true) => ", cached".to_owned(),
            (None, false) => String::new(),
        };
        let told = format!(
            "{}\nfrom {} for {}{moved}{fate}{}",
            bar.name,
            millis(bar.start),
            millis(bar.took()),
            bar.used.map_or_else(String::new, in_full)
        );
        let used = bar
            .used
            .map_or_else(String::new, |used| format!("{}, {}", millis(cpu(used)), bytes(used.peak_memory)));
        let took = if bar.cached { "cached".to_owned() } else { millis(bar.took()) };
        writeln!(
            out,
            "<div class=\"row\" title=\"{}\"><div class=\"name\">{}</div><div class=\"track\"><span class=\"bar {}\" style=\"left:{:.2}%;width:{:.2}%\"></span></div><div class=\"took\">{took}</div><div class=\"used\">{used}</div></div>",
            escaped(&told),
            escaped(&bar.name),
            bar.class(),
            percent(bar.start),
            percent(bar.took()),
        )?;
    }
    out.push_str("</div>\n<p class=\"legend\"><i class=\"bar done critical\"></i>critical path <i class=\"bar done\"></i>done <i class=\"bar cached\"></i>cached <i class=\"bar failed\"></i>failed <i class=\"bar canceled\"></i>canceled</p>\n");
    Ok(())
}

/// The resource usage of a step, as a line of its tooltip.
fn in_full(used: ResourceUsage) -> String {
    format!(
        "\nCPU {} ({} of it in the kernel), peak memory {}, {} read from disks, {} written",
        millis(cpu(used)),
        millis(used.system),
        bytes(used.peak_memory),
        bytes(used.read),
        bytes(used.written)
    )
}

/// Five to ten round times.
fn ticks(whole: Duration) -> Vec<Duration> {
    let mut step = Duration::from_millis(1);
    let mut factors = [2, 5, 10].iter().cycle();
    let mut base = step;
    while whole.as_nanos() / step.as_nanos() > 8 {
        let factor = factors.next().copied().unwrap_or(10);
        step = base * factor;
        if factor == 10 {
            base = step;
        }
    }
    (0..).map(|number| step * number).take_while(|at| *at <= whole.mul_f64(0.96)).collect()
}

const STYLE: &str = "
:root{--ink:#1c2430;--soft:#66707f;--line:#dde3ea;--page:#fff;--done:#5b8def;--critical:#e8833a;--cached:#9aa7b5;--failed:#d64545}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#97a1b0;--line:#2c3542;--page:#161b22}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2rem auto;max-width:1200px;padding:0 1rem}
h1{font-size:1.4rem;margin:0}.sub{color:var(--soft);margin:.2rem 0 1rem}
.facts{display:flex;gap:2.5rem;margin:0 0 1.2rem}.facts b{display:block;font-size:1.25rem}.facts span{color:var(--soft)}
.error{color:var(--failed);white-space:pre-wrap;border-left:3px solid var(--failed);padding-left:.8rem}
.row{display:flex;align-items:center;border-bottom:1px solid var(--line)}.row:hover{background:color-mix(in srgb,var(--line) 45%,transparent)}
.name{width:36%;flex:none;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font:12.5px ui-monospace,monospace;padding:.28rem .6rem .28rem 0}
.track{position:relative;flex:1;height:1.1rem}.took{width:5rem}.used{width:8.5rem}.took,.used{flex:none;text-align:right;color:var(--soft);font-variant-numeric:tabular-nums}
.axis{border-bottom:2px solid var(--line)}.tick{position:absolute;color:var(--soft);font-size:11px;border-left:1px solid var(--line);padding-left:3px}
.bar{position:absolute;top:2px;bottom:2px;min-width:3px;border-radius:3px}
.done{background:var(--done)}.critical{background:var(--critical)}.cached{background:var(--cached)}.failed{background:var(--failed)}.canceled{background:repeating-linear-gradient(45deg,var(--cached) 0 4px,transparent 4px 8px)}
@media(max-width:1000px){.tick:nth-child(even){display:none}.name{width:30%}}
@media(max-width:600px){.tick:not(:nth-child(4n+1)),.used{display:none}.facts{flex-wrap:wrap;gap:1rem}}
.legend{color:var(--soft);margin-top:.8rem}.legend .bar{position:static;display:inline-block;width:1rem;height:.7rem;margin:0 .35rem 0 1rem}
";

#[cfg(test)]
mod tests {
    use super::*;
    use lapstrake_engine::{StepId, StepOutcome};

    fn started(step: &str, at: u64) -> Event {
        Event::Started { step: StepId(step.into()), name: format!("[{step}]"), at: Duration::from_millis(at) }
    }

    fn ended(step: &str, at: u64) -> Event {
        let at = Duration::from_millis(at);
        Event::Completed { step: StepId(step.into()), at, cached: false, error: None }
    }

    fn report(digest: &str, inputs: &[usize]) -> StackReport {
        let (name, outcome) = (String::new(), StepOutcome::Executed);
        let inputs = inputs.to_vec();
        StackReport {
            digest: digest.into(),
            name,
            lines: None,
            outcome,
            forced: false,
            inputs,
            key: None,
            parts: vec![],
            result: None,
        }
    }

    #[test]
    fn the_critical_path_is_what_the_last_step_waited_for() {
        let events = [
            started("a", 0),
            started("b", 0),
            ended("a", 10),
            ended("b", 50),
            started("c", 50),
            ended("c", 60),
        ];
        let mut bars = bars(&events);
        mark_critical(&mut bars, &[report("a", &[]), report("b", &[]), report("c", &[0, 1])]);
        let critical: Vec<&str> =
            bars.iter().filter(|bar| bar.critical).map(|bar| bar.step.as_str()).collect();
        assert_eq!(critical, ["b", "c"]);
        assert_eq!(bars[1].took(), Duration::from_millis(50));
    }

    #[test]
    fn what_processes_used_is_in_a_column_and_in_full_in_the_tooltip() {
        let (user, system) = (Duration::from_millis(1_200), Duration::from_millis(300));
        let used = ResourceUsage { user, system, peak_memory: 64_000_000, read: 5_000, written: 0 };
        let at = Duration::from_millis(9);
        let events = [
            started("copy", 0),
            ended("copy", 5),
            started("run", 5),
            Event::ResourceUsage { step: StepId("run".into()), used, at },
            ended("run", 10),
        ];
        let bars = bars(&events);
        assert_eq!(bars.iter().map(|bar| bar.used).collect::<Vec<_>>(), [None, Some(used)]);
        let mut page = String::new();
        chart(&mut page, &bars, Duration::from_millis(10)).unwrap();
        assert!(page.contains("<div class=\"used\">1.5s, 64MB</div>"), "{page}");
        assert!(
            page.contains("\nCPU 1.5s (300ms of it in the kernel), peak memory 64MB, 5kB read"),
            "{page}"
        );
        assert!(page.contains("<div class=\"used\"></div>"), "{page}");
    }

    #[test]
    fn ticks_are_few_and_round() {
        let shown = |whole: u64| -> Vec<u128> {
            ticks(Duration::from_millis(whole)).into_iter().map(|tick| tick.as_millis()).collect()
        };
        assert_eq!(shown(6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(shown(90), [0, 20, 40, 60, 80]);
        assert_eq!(shown(4_000), [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 3_500]);
    }
}
