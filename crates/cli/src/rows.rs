//! Lists as Docker prints them: a table, a template for each row, or JSON.

use serde_json::Value;

use crate::exit::Usage;
use crate::template::Template;

/// A list.
pub(crate) struct Rows {
    /// What a field is called at the top of its column.
    pub(crate) headings: &'static [(&'static str, &'static str)],
    /// The template of a row where nobody gives one.
    pub(crate) usual: &'static str,
    /// An object for each row, with the fields of the headings.
    pub(crate) rows: Vec<Value>,
}

impl Rows {
    /// The list in the form that was asked for: `json`, `table`, `table TEMPLATE` or a template; `None` is a table.
    pub(crate) fn text(&self, format: Option<&str>) -> anyhow::Result<String> {
        let (table, template) = match format {
            None | Some("table") => (true, self.usual),
            Some("json") => (false, "{{json .}}"),
            Some(format) => match format.strip_prefix("table ") {
                Some(template) => (true, template.trim()),
                None => (false, format),
            },
        };
        // A shell hands over `\t` as it is typed.
        let unescaped = template.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&unescaped).map_err(|error| Usage(format!("--format: {error}")))?;
        let mut lines = Vec::new();
        if table {
            let heading = |(name, heading): &(&str, &str)| ((*name).to_owned(), Value::from(*heading));
            let headings = Value::Object(self.headings.iter().map(heading).collect());
            lines.push(template.show(&headings)?);
        }
        for row in &self.rows {
            lines.push(template.show(row)?);
        }
        Ok(if table { align(&lines) } else { lines.iter().map(|line| format!("{line}\n")).collect() })
    }
}

/// Lines with tabs as columns: three spaces between them, none narrower than ten.
fn align(lines: &[String]) -> String {
    use unicode_width::UnicodeWidthStr as _;
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let count = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let of = |line: &Vec<&str>| (line.len() > column + 1).then(|| line[column].width());
        cells.iter().filter_map(of).max().map_or(0, |widest| (widest + 3).max(10))
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for line in &cells {
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < line.len() {
                out.push_str(&" ".repeat(widths[column] - cell.width()));
            }
        }
        out.push('\n');
    }
    out
}

/// Bytes as Docker's lists have them: three digits.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// How long ago an RFC 3339 time was, in the words that Docker uses.
pub(crate) fn ago(time: Option<&str>) -> String {
    let Some(then) = time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) else {
        return "N/A".to_owned();
    };
    duration(jiff::Timestamp::now().as_second() - then.as_second()) + " ago"
}

/// Seconds in words.
fn duration(seconds: i64) -> String {
    let hours = (seconds + 1800) / 3600;
    match (seconds, seconds / 60, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 168),
        (.., ..17520) => format!("{} months", hours / 720),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// An RFC 3339 time as Go prints one.
pub(crate) fn go_time(time: Option<&str>) -> String {
    match time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        None => "N/A".to_owned(),
    }
}

/// An RFC 3339 time to the second.
pub(crate) fn rfc3339(time: Option<&str>) -> String {
    match time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) {
        Some(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        None => "N/A".to_owned(),
    }
}

/// `text` cut to `width` characters, the last of them an ellipsis.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> Rows {
        Rows {
            headings: &[("Name", "NAME"), ("Size", "SIZE OF IT")],
            usual: "{{.Name}}\t{{.Size}}",
            rows: vec![json!({"Name": "a-long-name", "Size": "1"}), json!({"Name": "b", "Size": "22"})],
        }
    }

    #[test]
    fn tables_templates_and_json() {
        let text = |format| rows().text(format).unwrap();
        assert_eq!(text(None), "NAME          SIZE OF IT\na-long-name   1\nb             22\n");
        assert_eq!(
            text(Some(r"table {{.Size}}\t{{.Name}}")),
            "SIZE OF IT   NAME\n1            a-long-name\n22           b\n"
        );
        assert_eq!(text(Some("{{.Name}}={{.Size}}")), "a-long-name=1\nb=22\n");
        assert_eq!(text(Some("json")).lines().next(), Some(r#"{"Name":"a-long-name","Size":"1"}"#));
        assert!(rows().text(Some("{{.Nmae}}")).is_err());
    }

    #[test]
    fn sizes_and_times_in_words() {
        for (bytes, text) in
            [(0, "0B"), (1000, "1kB"), (1230, "1.23kB"), (12_340, "12.3kB"), (762_000, "762kB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (172_000, "2 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(go_time(Some("2024-05-06T07:08:09.5Z")), "2024-05-06 07:08:09 +0000 UTC");
        assert_eq!((shortened("abcd", 4), shortened("abcde", 4)), ("abcd".to_owned(), "abc…".to_owned()));
    }
}
