//! Showing a template.

use serde_json::Value;

use super::TemplateError;
use super::functions::{self, print};
use super::parse::{Node, Operand, Pipe};

/// Objects that have whatever keys somebody gave them: what is not there is no mistake.
const MAPS: [&str; 4] = ["Labels", "ExposedPorts", "Volumes", "Annotations"];

/// How a block was left.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'d> {
    data: &'d Value,
    variables: Vec<(String, Value)>,
    out: String,
}

pub(super) fn run(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut run = Run { data, variables: Vec::new(), out: String::new() };
    run.block(nodes, data)?;
    Ok(run.out)
}

impl Run<'_> {
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Show(pipe) => {
                let value = self.pipe(pipe, dot)?;
                // Of an action's own value, Go tells "nothing there" from a nil.
                self.out.push_str(&if value.is_null() { "<no value>".to_owned() } else { print(&value) });
            }
            Node::Set { name, new, pipe } => {
                let value = self.pipe(pipe, dot)?;
                self.set(name, *new, value)?;
            }
            Node::If { arms, other } => {
                for (test, body) in arms {
                    if functions::truth(&self.pipe(test, dot)?) {
                        return self.block(body, dot);
                    }
                }
                return self.block(other, dot);
            }
            Node::Range { index, element, pipe, body, other } => {
                return self.range((index.as_deref(), element.as_deref()), pipe, (body, other), dot);
            }
            Node::With { name, pipe, body, other } => {
                let value = self.pipe(pipe, dot)?;
                if !functions::truth(&value) {
                    return self.block(other, dot);
                }
                let outer = self.variables.len();
                self.variables.extend(name.clone().map(|name| (name, value.clone())));
                let flow = self.block(body, &value);
                self.variables.truncate(outer);
                return flow;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        (index, element): (Option<&str>, Option<&str>),
        pipe: &Pipe,
        (body, other): (&[Node], &[Node]),
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let pairs: Vec<(Value, Value)> = match self.pipe(pipe, dot)? {
            Value::Array(list) => list.into_iter().enumerate().map(|(n, value)| (n.into(), value)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            Value::Null => Vec::new(),
            value => return Err(TemplateError::new(format!("`range` over {}", functions::kind(&value)))),
        };
        if pairs.is_empty() {
            return self.block(other, dot);
        }
        for (key, value) in pairs {
            let outer = self.variables.len();
            self.variables.extend(index.map(|name| (name.to_owned(), key)));
            self.variables.extend(element.map(|name| (name.to_owned(), value.clone())));
            let flow = self.block(body, &value)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, new: bool, value: Value) -> Result<(), TemplateError> {
        if new {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, place)) => *place = value,
            None => return Err(undefined(name)),
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipe.0 {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn command(
        &mut self,
        command: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let Some((first, rest)) = command.split_first() else { return Ok(Value::Null) };
        let Operand::Function(name) = first else {
            if rest.is_empty() && last.is_none() {
                return self.operand(first, dot);
            }
            let text = match first {
                Operand::Dot(fields) => format!(".{}", fields.join(".")),
                Operand::Variable(name, _) => format!("${name}"),
                _ => "a value".to_owned(),
            };
            return Err(TemplateError::new(format!("`{text}` takes no arguments")));
        };
        let mut arguments = Vec::new();
        for operand in rest {
            // `and` and `or` stop at the first value that decides.
            let decided = arguments.last().is_some_and(|value| match name.as_str() {
                "and" => !functions::truth(value),
                "or" => functions::truth(value),
                _ => false,
            });
            if decided {
                return Ok(arguments.pop().unwrap_or_default());
            }
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        functions::call(name, &arguments)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Dot(fields) => field(dot, fields),
            Operand::Variable(name, fields) if name.is_empty() => field(self.data, fields),
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                field(&found.ok_or_else(|| undefined(name))?.1, fields)
            }
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => functions::call(name, &[]),
            Operand::Group(pipe, fields) => field(&self.pipe(pipe, dot)?, fields),
        }
    }
}

fn undefined(name: &str) -> TemplateError {
    TemplateError::new(format!("variable `${name}` is not defined"))
}

fn field(value: &Value, fields: &[String]) -> Result<Value, TemplateError> {
    let (mut value, mut inside) = (value, "");
    for name in fields {
        let Value::Object(map) = value else {
            let kind = functions::kind(value);
            return Err(TemplateError::new(format!("{kind} has no field `{name}`")));
        };
        value = match map.get(name) {
            Some(value) => value,
            None if MAPS.contains(&inside) => return Ok(Value::Null),
            None => {
                let known: Vec<&str> = map.keys().map(String::as_str).collect();
                let known = known.join(", ");
                let why = format!("unknown field `{name}`: the fields are {known}");
                return Err(TemplateError::new(why));
            }
        };
        inside = name;
    }
    Ok(value.clone())
}
