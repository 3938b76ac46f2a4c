//! Writes what a target starts from: `seeds NAME DIR DICTIONARY`. Without arguments, lists the targets with their lengths.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use lapstrake_fuzz::{TARGETS, dictionary, seeds};

fn write(name: &str, dir: &Path, words: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    for (number, seed) in seeds(name)?.iter().enumerate() {
        fs::write(dir.join(format!("seed-{number}")), seed).map_err(|error| error.to_string())?;
    }
    let line = |word: &String| {
        let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{bytes}\"\n")
    };
    fs::write(words, dictionary().iter().map(line).collect::<String>()).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [] => {
            TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.longest));
            Ok(())
        }
        [name, dir, words] => write(name, Path::new(dir), Path::new(words)),
        _ => Err("usage: seeds [NAME DIR DICTIONARY]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("seeds: {why}");
            ExitCode::FAILURE
        }
    }
}
