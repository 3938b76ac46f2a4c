//! Lists as Docker prints them: a table, a template for each row, or JSON.

use lapstrake_go::{TabWriter, Template, duration};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use lapstrake_diag::{Outcome, Report, Usage};

/// A list.
pub(crate) struct Rows {
    /// The heading of a field's column.
    pub(crate) headings: &'static [(&'static str, &'static str)],
    /// The template of a row where nobody gives one.
    pub(crate) usual: &'static str,
    /// An object for each row, with the fields of the headings.
    pub(crate) rows: Vec<Value>,
}

/// Shows `document` by `template`.
///
/// # Errors
/// A report of what the template lacks.
pub(crate) fn show(template: &Template, document: &Value) -> Outcome<String> {
    template.show(document).map_err(|error| Report::new(error.to_string()))
}

impl Rows {
    /// The list in the form that was asked for: `json`, `table`, `table TEMPLATE` or a template; `None` is a table.
    pub(crate) fn text(&self, format: Option<&str>) -> Outcome<String> {
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
            lines.push(show(&template, &headings)?);
        }
        for row in &self.rows {
            lines.push(show(&template, row)?);
        }
        // As Docker sets it; but a wide character takes two places, which Docker forgets.
        let columns = TabWriter::new(10, 3).measured(str::width);
        Ok(if table { columns.lines(&lines) } else { lines.iter().map(|line| format!("{line}\n")).collect() })
    }
}

/// How long ago an RFC 3339 time was, in the words that Docker uses.
pub(crate) fn ago(time: Option<&str>) -> String {
    let Some(then) = time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) else {
        return "N/A".to_owned();
    };
    duration::human(jiff::Timestamp::now().as_second() - then.as_second()) + " ago"
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
    fn times_and_long_texts() {
        assert_eq!(go_time(Some("2024-05-06T07:08:09.5Z")), "2024-05-06 07:08:09 +0000 UTC");
        assert_eq!((shortened("abcd", 4), shortened("abcde", 4)), ("abcd".to_owned(), "abc…".to_owned()));
    }
}
