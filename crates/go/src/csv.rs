//! `encoding/csv`: one line of comma-separated values, as `--mount` and `--output` take them. BuildKit and buildx read these
//! with `go-csvvalue`, which places an open quote elsewhere than Go's own package does.

/// A line that is no list of values, in the words of `encoding/csv`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// The text has no line.
    #[error("EOF")]
    Empty,
    /// A quote stands where none can be.
    #[error("parse error on line 1, column {column}: {why}")]
    Quote {
        /// The place, in bytes from 1.
        column: usize,
        /// Go's reason.
        why: &'static str,
    },
}

/// `csvvalue.Fields`: the fields of one line, with or without a line feed at its end. A field in double quotes may hold
/// commas and doubled quotes.
///
/// # Errors
/// [`CsvError`], with Go's message.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = match line.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => line,
    };
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let wrong = |rest: &str, why| Err(CsvError::Quote { column: line.len() - rest.len() + 1, why });
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let after = if let Some(inside) = rest.strip_prefix('"') {
            let (field, after, closed) = quoted_field(inside);
            if !closed {
                return wrong(after, "extraneous or missing \" in quoted-field");
            }
            fields.push(field);
            after
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(quote) = rest[..end].find('"') {
                return wrong(&rest[quote..], "bare \" in non-quoted-field");
            }
            fields.push(rest[..end].to_owned());
            &rest[end..]
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// A field whose opening quote has been taken, the text behind it, and whether the field was closed. Of a field that was
/// not closed, the text starts at the fault.
fn quoted_field(inside: &str) -> (String, &str, bool) {
    let mut field = String::new();
    let mut rest = inside;
    while let Some(quote) = rest.find('"') {
        field.push_str(&rest[..quote]);
        let after = &rest[quote + 1..];
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return (field, after, true),
            None => return (field, &rest[quote..], false),
        }
    }
    (field, rest, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_bare() {
        assert_eq!(fields("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(fields("\"a,\"\"b\",c").unwrap(), ["a,\"b", "c"]);
        assert!(fields("a\"b").is_err());
        assert!(fields("\"a").is_err());
        assert!(fields("\"a\"b").is_err());
    }
}
