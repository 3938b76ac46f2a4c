//! The log of the program itself: retries, fallbacks, cache lookups. Nothing is logged unless somebody asks, and events of other
//! people's crates never are: those may have credentials in them.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use lapstrake_diag::Usage;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

use crate::env;
use crate::progress::hold;

/// All crates of this program are called like this.
const OWN: &str = "lapstrake";

/// Takes `-v` and `--verbose` from in front of the verb; gives how often they are there.
pub(crate) fn take_verbosity(words: &mut Vec<OsString>) -> usize {
    let count = |word: &OsString| match word.to_str()? {
        "--verbose" => Some(1),
        text => {
            let letters = text.strip_prefix('-').filter(|letters| !letters.is_empty())?;
            letters.bytes().all(|letter| letter == b'v').then_some(letters.len())
        }
    };
    let flags: Vec<usize> = words.iter().skip(1).map_while(count).collect();
    // Without a verb there is nothing to log, and clap says what is missing.
    if words.len() > flags.len() + 1 {
        words.drain(1..=flags.len());
    }
    flags.iter().sum()
}

/// Collects events from here on if `verbosity` or the environment asks for them.
///
/// # Errors
/// The filter cannot be read, or the log's file cannot be opened.
pub(crate) fn start(verbosity: usize) -> Result<(), Usage> {
    let directives = match (env::log_filter(), verbosity) {
        (Some(filter), _) => filter,
        (None, 0) => return Ok(()),
        (None, 1) => "info".to_owned(),
        (None, 2) => "debug".to_owned(),
        (None, _) => "trace".to_owned(),
    };
    let bad = |why: &dyn std::fmt::Display| Usage(format!("LAPSTRAKE_LOG={directives}: {why}"));
    let filter = EnvFilter::builder().parse(&directives).map_err(|error| bad(&error))?;
    let own = filter_fn(|metadata| metadata.target().starts_with(OWN));
    let open = |path: PathBuf| {
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        opened.map(Arc::new).map_err(|why| Usage(format!("LAPSTRAKE_LOG_FILE={}: {why}", path.display())))
    };
    let output = Output(env::log_file().map(open).transpose()?);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_timer(uptime());
    let layer = layer.with_writer(move || output.clone()).with_filter(filter.and(own));
    tracing::subscriber::set_global_default(registry().with(layer))
        .map_err(|error| Usage(format!("the log cannot be started: {error}")))
}

/// The place of the log: a file, or standard error between two drawings of the display.
#[derive(Clone)]
struct Output(Option<Arc<File>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &self.0 {
            return (&**file).write(bytes);
        }
        let turn = hold();
        let written = io::stderr().write(bytes);
        drop(turn);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_stands_in_front_of_the_verb() {
        for (line, count, left) in [
            ("lapstrake -v build .", 1, "lapstrake build ."),
            ("lapstrake -vv --verbose build -v", 3, "lapstrake build -v"),
            ("lapstrake run -v /a:/b x", 0, "lapstrake run -v /a:/b x"),
            ("lapstrake -V", 0, "lapstrake -V"),
            ("lapstrake -", 0, "lapstrake -"),
            ("lapstrake -v", 1, "lapstrake -v"),
        ] {
            let mut words = line.split(' ').map(OsString::from).collect();
            assert_eq!(take_verbosity(&mut words), count, "{line}");
            assert_eq!(words.join(" ".as_ref()), left, "{line}");
        }
    }
}
