//! Go's `text/template` language, as far as Docker's users know it from `--format`: fields, variables, pipelines, `if`,
//! `range`, `with`, the comparisons, and Docker's own functions. Values are JSON.
//!
//! An unknown field is an error when the template is read, not an empty place when it is shown.

mod functions;
mod lex;
mod parse;
mod run;

use serde_json::Value;

use self::parse::Node;

/// A template that has been read.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

/// Why a template cannot be read or shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(String);

impl TemplateError {
    fn new(why: impl Into<String>) -> TemplateError {
        TemplateError(why.into())
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Bad syntax, or a part of the language that is not here.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        Ok(Template { nodes: parse::parse(lex::lex(text)?)? })
    }

    /// The template with `data` for the dot.
    ///
    /// # Errors
    /// A field or an index that is not there, and a function that cannot take its arguments.
    pub fn show(&self, data: &Value) -> Result<String, TemplateError> {
        run::run(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show(template: &str, data: &Value) -> Result<String, String> {
        let template = Template::parse(template).map_err(|error| error.to_string())?;
        template.show(data).map_err(|error| error.to_string())
    }

    #[test]
    fn what_docker_users_write() {
        let data = json!({
            "Id": "sha256:ab", "Size": 12, "Tags": ["a:1", "b:2"], "None": [], "Ok": true,
            "Config": {"Env": ["A=1", "B=2"], "Labels": {"x.y": "z", "k": "v"}, "User": "", "Cmd": null},
        });
        for (template, expected) in [
            ("{{.Id}}", "sha256:ab"),
            ("a{{ .Size }}b", "a12b"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[k:v x.y:z]"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{json .Config.Cmd}}", "null"),
            (r#"{{index .Config.Labels "x.y"}}"#, "z"),
            ("{{index .Tags 1}}", "b:2"),
            ("{{.Config.Labels.k}}-{{.Config.Labels.none}}", "v-<no value>"),
            ("{{range .Tags}}{{.}};{{end}}", "a:1;b:2;"),
            ("{{range $i, $t := .Tags}}{{if $i}},{{end}}{{$t}}{{end}}", "a:1,b:2"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "k=v x.y=z "),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{range .Tags}}{{if eq . \"b:2\"}}{{break}}{{end}}{{.}}{{end}}", "a:1"),
            ("{{if .Config.User}}u{{else if .Ok}}ok{{else}}no{{end}}", "ok"),
            ("{{with .Config}}{{len .Env}}{{$.Id}}{{end}}", "2sha256:ab"),
            (r#"{{join .Config.Env ", "}}"#, "A=1, B=2"),
            (r#"{{range split "a/b" "/"}}<{{.}}>{{end}}"#, "<a><b>"),
            ("{{upper .Id | printf \"%s!\"}}", "SHA256:AB!"),
            (
                "{{title \"one two\"}} {{lower \"X\"}} {{pad \"x\" 1 2}}| {{truncate .Id 3}}",
                "One Two x  x  | sha",
            ),
            ("{{println .Size .Id}}", "12 sha256:ab\n"),
            ("{{print 1 2}} {{print \"a\" \"b\"}}", "1 2 ab"),
            ("{{printf \"%q %d %v %-4s|%%\" .Id .Size .Ok \"x\"}}", "\"sha256:ab\" 12 true x   |%"),
            ("{{$x := len .Tags}}{{if and (gt $x 1) (not false)}}{{$x}}{{end}}", "2"),
            ("{{or .Config.User \"root\"}}", "root"),
            ("{{if (ne .Size 13)}}{{(index .Tags 0)}}{{end}}", "a:1"),
            ("a {{- /* comment */ -}} b{{/* c */}}", "ab"),
            ("{{slice .Id 0 6}}{{`r\\n`}}", "sha256r\\n"),
            ("{{eq .Size 1 12}}", "true"),
            ("{{(index .Config.Env 0) | len}}{{ (json .Ok) }}", "3true"),
        ] {
            assert_eq!(show(template, &data).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let data = json!({"Id": "x", "List": [1], "Deep": {"A": 1}});
        for (template, expected) in [
            ("{{.Nope}}", "template: unknown field `Nope`: the fields are Deep, Id, List"),
            ("{{.Deep.B}}", "template: unknown field `B`: the fields are A"),
            ("{{.Id.x}}", "template: a string has no field `x`"),
            ("{{nope .}}", "template: function `nope` is not defined"),
            ("{{if .Id}}", "template: `{{if}}` has no `{{end}}`"),
            ("{{end}}", "template: unexpected `{{end}}`"),
            ("{{.Id", "template: an action is not closed by `}}`"),
            ("{{$x}}", "template: variable `$x` is not defined"),
            ("{{index .List 1}}", "template: index 1 is out of range: there are 1"),
            ("{{break}}", "template: unexpected `{{break}}`"),
            ("{{}}", "template: an action is empty"),
            ("{{\"a}}", "template: a string is not closed"),
            ("{{len 1}}", "template: `len` of a number"),
            ("{{template \"x\"}}", "template: `template` is not supported"),
            ("{{1 | .Id}}", "template: `.Id` takes no arguments"),
            ("{{lt 1 \"a\"}}", "template: a number and a string cannot be compared"),
        ] {
            assert_eq!(show(template, &data), Err(expected.to_owned()), "{template}");
        }
        let deep = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(show(&deep, &data).is_err_and(|error| error.contains("too deep")));
        let deep = "{{if 1}}".repeat(100_000);
        assert!(show(&deep, &data).is_err_and(|error| error.contains("too deep")));
    }
}
