//! The value of `# check=`: which rules count.

use std::collections::BTreeSet;

use crate::check::Rule;
use crate::directives::{detect_directive, directive_in_comment};
use crate::text::Text;
use lapstrake_go::{parse_bool, quoted};

/// Which rules count, and whether what they find is an error. Names of rules that there are not count for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// `error=true`
    pub error: bool,
}

impl CheckOptions {
    /// Parses `skip=A,B|all;error=true;experimental=C|all`. Errors are BuildKit's texts.
    pub fn parse(text: &str) -> Result<CheckOptions, String> {
        let mut options = CheckOptions::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect();
        for part in text.splitn(3, ';') {
            let bad = || format!("invalid check option {}", quoted(part));
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let value = value.trim();
            match key.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(value),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(value),
                "error" => {
                    options.error = parse_bool(value).ok_or_else(|| {
                        let why = format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(value));
                        format!("failed to parse check option {}: {why}", quoted(part))
                    })?;
                }
                key => return Err(format!("invalid check option {}", quoted(key))),
            }
        }
        Ok(options)
    }

    /// The options that stand in a file's `check` directive.
    pub fn of_file(text: &str) -> Result<CheckOptions, String> {
        CheckOptions::parse(&detect_directive(text, "check").unwrap_or_default())
            .map_err(|why| format!("failed to parse check options: {why}"))
    }

    /// The line of a file's `check` directive, counted from 1.
    pub fn line_in(text: &str) -> Option<u32> {
        detect_directive(text, "check")?;
        let found = |line: &str| {
            let comment = line.trim_start_matches('\u{feff}').strip_prefix('#')?;
            directive_in_comment(comment, "check")
        };
        (1..).zip(text.lines()).find(|(_, line)| found(line).is_some()).map(|(number, _)| number)
    }

    /// These options with those of the first `check=` in the comment lines above an instruction.
    pub fn with_comments(&self, comments: &[Text]) -> CheckOptions {
        let mut merged = self.clone();
        let found = comments.iter().find_map(|comment| directive_in_comment(comment, "check"));
        let value = found.as_deref().map(|value| value.split(' ').next().unwrap_or(value));
        if let Some(Ok(more)) = value.map(CheckOptions::parse) {
            merged.skip_all |= more.skip_all;
            merged.skip.extend(more.skip);
            merged.experimental_all |= more.experimental_all;
            merged.experimental.extend(more.experimental);
        }
        merged
    }

    /// Whether `rule` counts. Skipping everything does not skip what was asked for by name.
    pub fn wants(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            self.experimental_all || self.experimental.contains(rule.name())
        } else {
            !self.skip_all && !self.skip.contains(rule.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |text: &str| CheckOptions::parse(text);
        let some = parse(" skip = StageNameCasing , FromAsCasing ; error = 1").unwrap();
        assert!(some.error && !some.wants(Rule::StageNameCasing) && !some.wants(Rule::FromAsCasing));
        assert!(some.wants(Rule::UndefinedVar) && !some.wants(Rule::InvalidDefinitionDescription));
        let all = parse("skip=all;experimental=InvalidDefinitionDescription").unwrap();
        assert!(!all.wants(Rule::UndefinedVar) && all.wants(Rule::InvalidDefinitionDescription));
        assert!(parse("experimental=all").unwrap().wants(Rule::InvalidDefinitionDescription));
        assert!(parse("skip=stagenamecasing").unwrap().wants(Rule::StageNameCasing));
        assert_eq!(parse("skip").unwrap_err(), "invalid check option \"skip\"");
        assert_eq!(parse("Skip=all").unwrap_err(), "invalid check option \"Skip\"");
        assert!(parse("error=yes").unwrap_err().starts_with("failed to parse check option \"error=yes\": "));
        assert!(parse("skip=a;skip=b;error=true;skip=c").is_err());
        assert_eq!(CheckOptions::line_in("#syntax=x\n# check = y\nFROM a\n# check=z\n"), Some(2));
        assert_eq!(CheckOptions::line_in("FROM a\n# check=z\n"), None);
    }

    #[test]
    fn comments_add_to_them() {
        let own = CheckOptions::parse("skip=UndefinedVar").unwrap();
        let comment = |text: &str| own.with_comments(&[text.into()]);
        let more = comment("check=skip=StageNameCasing;error=true");
        assert!(!more.wants(Rule::UndefinedVar) && !more.wants(Rule::StageNameCasing) && !more.error);
        assert!(!comment("check = skip=all and more").wants(Rule::DuplicateStageName));
        assert!(comment("a check=skip=all").wants(Rule::DuplicateStageName));
        assert!(comment("check=nonsense").wants(Rule::DuplicateStageName));
    }
}
