//! How fast Dockerfiles are read: `speed` prints a table of ordinary files, `speed worst BYTES [NAME]` one of long inputs
//! of the worst kinds, each in a process of its own.

use std::fs;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lapstrake_fuzz::{KINDS, Kind, read, seeds, typical};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        [] => ordinary(),
        ["worst", size] => size.parse().map_err(|_| format!("`{size}` is no size")).and_then(worst),
        ["one", name, size] => one(name, size),
        _ => Err("usage: speed [worst BYTES]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("speed: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The least, the median and the most of the times that `texts` take. What else runs on the machine adds to all but the
/// least.
fn measure(texts: &[String]) -> [Duration; 3] {
    let mut times: Vec<Duration> = texts
        .iter()
        .map(|text| {
            let begun = Instant::now();
            black_box(typical(black_box(text)));
            begun.elapsed()
        })
        .collect();
    times.sort();
    [times[0], times[times.len() / 2], times[times.len() - 1]]
}

fn ordinary() -> Result<(), String> {
    let files: Vec<String> =
        seeds("lower")?.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    let made = |instructions: usize, count: u64| -> Vec<String> {
        (0..count).map(|number| lapstrake_fuzz::generated(number, instructions)).collect()
    };
    println!("{:32} {:>8} {:>10} {:>10} {:>10}", "parse and lower", "files", "least", "median", "most");
    for (name, texts) in [
        ("the Dockerfiles of testdata", files),
        ("generated, 10 instructions", made(10, 3_000)),
        ("generated, 100 instructions", made(100, 1_000)),
        ("generated, 1000 instructions", made(1_000, 50)),
    ] {
        measure(&texts);
        let [least, median, most] = measure(&texts);
        println!("{name:32} {:>8} {least:>10.1?} {median:>10.1?} {most:>10.1?}", texts.len());
    }
    Ok(())
}

fn worst(size: usize) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    println!("{:44} {:>12} {:>12}", format!("{} MB of", size as f64 / 1e6), "time", "memory");
    for kind in KINDS {
        let told = Command::new(&own).args(["one", kind.name, &size.to_string()]).output();
        let told = told.map_err(|error| error.to_string())?;
        print!("{}", String::from_utf8_lossy(&told.stdout));
        if !told.status.success() {
            return Err(format!("{}: {}", kind.name, String::from_utf8_lossy(&told.stderr)));
        }
    }
    Ok(())
}

fn one(name: &str, size: &str) -> Result<(), String> {
    let kind: Kind = KINDS.into_iter().find(|kind| kind.name == name).ok_or("there is no such kind")?;
    let text = kind.text(size.parse().map_err(|_| "no size")?);
    let begun = Instant::now();
    black_box(read(kind.reader, black_box(&text)));
    let time = begun.elapsed();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!("{name:44} {time:>12.1?} {peak:>12}");
    Ok(())
}
