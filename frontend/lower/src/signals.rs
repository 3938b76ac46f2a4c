//! The signals that STOPSIGNAL may name.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether `text` is a number other than 0 or a signal's name, with or without `SIG`.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || real_time(name)
}

/// `RTMIN+1` to `RTMIN+15`, `RTMAX-1` to `RTMAX-14`.
fn real_time(name: &str) -> bool {
    let between = |text: Option<&str>, last: u8| {
        text.is_some_and(|digits| {
            digits.parse::<u8>().is_ok_and(|n| (1..=last).contains(&n) && n.to_string() == digits)
        })
    };
    between(name.strip_prefix("RTMIN+"), 15) || between(name.strip_prefix("RTMAX-"), 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for good in ["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX-1"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["0", "", "SIGNOPE", "RTMIN+16", "RTMIN+01", "SIGSIGTERM"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
