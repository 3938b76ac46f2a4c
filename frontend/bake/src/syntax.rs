//! The text of a bake file to attributes and blocks: HCL and its JSON form.

use std::ops::Range;
use std::sync::Arc;

use hcl_edit::Span as _;
use hcl_edit::expr::{Array, Expression, Object, ObjectKey, ObjectValue};
use hcl_edit::structure::{Body as HclBody, Structure};
use hcl_edit::template::{Element, StringTemplate, Template};
use hcl_edit::visit_mut::VisitMut as _;
use lapstrake_diag::SourceFile;

use crate::error::{BakeError, Baked, Origin};
use crate::heredocs::Flush;

/// An attribute: a name with an expression.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) expr: Arc<Expression>,
    pub(crate) origin: Arc<Origin>,
}

/// A block: `KIND "LABEL" { … }`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) labels: Vec<String>,
    pub(crate) body: Body,
    pub(crate) origin: Arc<Origin>,
    /// The place of the label, else of the kind.
    pub(crate) range: Option<Range<usize>>,
}

/// Attributes and blocks in the order of the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) blocks: Vec<Block>,
}

impl Body {
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

/// The kinds of blocks at the top.
const KINDS: [&str; 4] = ["variable", "function", "group", "target"];

/// Reads a bake file. The form is that of the name's ending; else HCL is tried, and then JSON.
pub(crate) fn read(name: &str, text: &str) -> Baked<Body> {
    if name.ends_with(".json") {
        return json(name, text);
    }
    match (hcl(name, text), name.ends_with(".hcl")) {
        (Err(error), false) => json(name, text).map_err(|_| error),
        (read, _) => read,
    }
}

fn hcl(name: &str, text: &str) -> Baked<Body> {
    let text = text.trim_start_matches('\u{feff}');
    let origin = Arc::new(Origin { file: Arc::new(SourceFile::new(name, text)), exact: true });
    let mut body = hcl_edit::parser::parse_body(text).map_err(|error| {
        let at = error.location().offset().min(text.len());
        BakeError::new(format!("cannot parse: {}", error.message())).at(&origin, Some(at..at))
    })?;
    Flush(text).visit_body_mut(&mut body);
    Ok(of_hcl(&body, &origin))
}

fn of_hcl(body: &HclBody, origin: &Arc<Origin>) -> Body {
    let mut read = Body::default();
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => read.attributes.push(Attribute {
                name: attribute.key.as_str().to_owned(),
                expr: Arc::new(attribute.value.clone()),
                origin: origin.clone(),
            }),
            Structure::Block(block) => read.blocks.push(Block {
                kind: block.ident.as_str().to_owned(),
                labels: block.labels.iter().map(|label| label.as_str().to_owned()).collect(),
                body: of_hcl(&block.body, origin),
                origin: origin.clone(),
                range: block.labels.first().and_then(hcl_edit::Span::span).or_else(|| block.ident.span()),
            }),
        }
    }
    read
}

fn json(name: &str, text: &str) -> Baked<Body> {
    let origin = Arc::new(Origin { file: Arc::new(SourceFile::new(name, text)), exact: false });
    let at = |error: BakeError| error.at(&origin, None);
    let value: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| at(BakeError::new(format!("cannot parse: {error}"))))?;
    let mut body = Body::default();
    for object in objects(&value).map_err(at)? {
        for (key, value) in object {
            if KINDS.contains(&key.as_str()) {
                labelled(key, value, &origin, &mut body.blocks).map_err(at)?;
            } else if key != "//" {
                body.attributes.push(attribute(key, value, &origin).map_err(at)?);
            }
        }
    }
    Ok(body)
}

type Json = serde_json::Map<String, serde_json::Value>;

/// An object, or the objects of an array.
fn objects(value: &serde_json::Value) -> Baked<Vec<&Json>> {
    let object = |value: &'_ serde_json::Value| -> bool { value.is_object() };
    match value {
        serde_json::Value::Object(object) => Ok(vec![object]),
        serde_json::Value::Array(items) if items.iter().all(object) => {
            Ok(items.iter().filter_map(serde_json::Value::as_object).collect())
        }
        _ => Err(BakeError::new("a JSON object is required here")),
    }
}

/// The blocks of a kind, by label.
fn labelled(
    kind: &str,
    value: &serde_json::Value,
    origin: &Arc<Origin>,
    blocks: &mut Vec<Block>,
) -> Baked<()> {
    for object in objects(value)? {
        for (label, value) in object {
            for inner in objects(value)? {
                let mut body = Body::default();
                for (key, value) in inner {
                    if kind == "variable" && key == "validation" {
                        for rule in objects(value)? {
                            let attributes = rule.iter().map(|(key, value)| attribute(key, value, origin));
                            let rule =
                                Body { attributes: attributes.collect::<Baked<_>>()?, blocks: Vec::new() };
                            body.blocks.push(block(key, Vec::new(), rule, origin));
                        }
                    } else if key != "//" {
                        body.attributes.push(attribute(key, value, origin)?);
                    }
                }
                blocks.push(block(kind, vec![label.clone()], body, origin));
            }
        }
    }
    Ok(())
}

fn block(kind: &str, labels: Vec<String>, body: Body, origin: &Arc<Origin>) -> Block {
    Block { kind: kind.to_owned(), labels, body, origin: origin.clone(), range: None }
}

fn attribute(name: &str, value: &serde_json::Value, origin: &Arc<Origin>) -> Baked<Attribute> {
    let expr = Arc::new(expression(value)?);
    Ok(Attribute { name: name.to_owned(), expr, origin: origin.clone() })
}

/// JSON as an expression: texts are templates.
fn expression(value: &serde_json::Value) -> Baked<Expression> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => Expression::null(),
        Json::Bool(value) => Expression::from(*value),
        Json::Number(number) => number
            .to_string()
            .parse::<Expression>()
            .map_err(|error| BakeError::new(format!("invalid number {number}: {}", error.message())))?,
        Json::String(text) => template(text)?,
        Json::Array(items) => {
            let mut array = Array::new();
            for item in items {
                array.push(expression(item)?);
            }
            Expression::Array(array)
        }
        Json::Object(fields) => {
            let mut object = Object::new();
            for (key, value) in fields {
                object.insert(ObjectKey::from(template(key)?), ObjectValue::new(expression(value)?));
            }
            Expression::Object(object)
        }
    })
}

fn template(text: &str) -> Baked<Expression> {
    if !text.contains("${") && !text.contains("%{") {
        return Ok(Expression::from(text));
    }
    let template: Template = text.parse().map_err(|error: hcl_edit::parser::Error| {
        BakeError::new(format!("cannot parse the text {text:?}: {}", error.message()))
    })?;
    let parts: Vec<Element> = template.into_iter().collect();
    Ok(Expression::from(StringTemplate::from(parts)))
}
