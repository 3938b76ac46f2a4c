//! From pieces to a tree.

use serde_json::Value;

use super::TemplateError;
use super::functions;
use super::lex::{Piece, Token};

/// More blocks or parentheses in each other are refused: the stack is finite.
const DEEPEST: usize = 100;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// As it stands.
    Text(String),
    /// A value that is printed.
    Show(Pipe),
    /// `$x := pipe` and `$x = pipe`.
    Set { name: String, new: bool, pipe: Pipe },
    /// `if`, `else if`, `else`.
    If { arms: Vec<(Pipe, Vec<Node>)>, other: Vec<Node> },
    /// `range`, with the names for index and element.
    Range { index: Option<String>, element: Option<String>, pipe: Pipe, body: Vec<Node>, other: Vec<Node> },
    /// `with`
    With { name: Option<String>, pipe: Pipe, body: Vec<Node>, other: Vec<Node> },
    /// `break`
    Break,
    /// `continue`
    Continue,
}

/// Commands; each gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipe(pub(super) Vec<Vec<Operand>>);

/// A part of a command.
#[derive(Debug)]
pub(super) enum Operand {
    /// The dot and fields of it.
    Dot(Vec<String>),
    /// A variable and fields of it.
    Variable(String, Vec<String>),
    /// A value.
    Literal(Value),
    /// A function by name.
    Function(String),
    /// A pipe in parentheses and fields of its value.
    Group(Pipe, Vec<String>),
}

/// The end of a block.
enum End {
    Done,
    Else(Vec<Token>),
    Text,
}

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0, loops: 0 };
    let (nodes, end) = parser.block()?;
    match end {
        End::Text => Ok(nodes),
        End::Done => Err(TemplateError::new("unexpected `{{end}}`")),
        End::Else(_) => Err(TemplateError::new("unexpected `{{else}}`")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
    loops: usize,
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError::new("blocks are too deep in each other"));
        }
        let mut nodes = Vec::new();
        let end = loop {
            let tokens = match self.pieces.next() {
                None => break End::Text,
                Some(Piece::Text(text)) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match keyword {
                "end" => break End::Done,
                "else" => break End::Else(tokens[1..].to_vec()),
                "if" => nodes.push(self.condition(&tokens[1..])?),
                "range" => nodes.push(self.range(&tokens[1..])?),
                "with" => nodes.push(self.with(&tokens[1..])?),
                "break" if self.loops > 0 => nodes.push(Node::Break),
                "continue" if self.loops > 0 => nodes.push(Node::Continue),
                "break" | "continue" => {
                    return Err(TemplateError::new(format!("unexpected `{{{{{keyword}}}}}`")));
                }
                "template" | "define" | "block" => {
                    return Err(TemplateError::new(format!("`{keyword}` is not supported")));
                }
                _ => nodes.push(action(&tokens)?),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn condition(&mut self, tokens: &[Token]) -> Result<Node, TemplateError> {
        let mut arms = Vec::new();
        let mut test = pipe(tokens)?;
        loop {
            let (body, end) = self.block()?;
            arms.push((test, body));
            match end {
                End::Done => return Ok(Node::If { arms, other: Vec::new() }),
                End::Else(tokens) if tokens.is_empty() => {
                    return Ok(Node::If { arms, other: self.last("if")? });
                }
                End::Else(tokens) => match &tokens[0] {
                    Token::Word(word) if word == "if" => test = pipe(&tokens[1..])?,
                    _ => return Err(TemplateError::new("`else` is followed by something else than `if`")),
                },
                End::Text => return Err(unclosed("if")),
            }
        }
    }

    /// The block behind `else`.
    fn last(&mut self, of: &str) -> Result<Vec<Node>, TemplateError> {
        match self.block()? {
            (nodes, End::Done) => Ok(nodes),
            _ => Err(unclosed(of)),
        }
    }

    /// A body and what stands behind `else`.
    fn body(&mut self, of: &str) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let (body, end) = self.block()?;
        let other = match end {
            End::Done => Vec::new(),
            End::Else(tokens) if tokens.is_empty() => self.last(of)?,
            End::Else(_) => return Err(TemplateError::new(format!("`{of}` has no `else if`"))),
            End::Text => return Err(unclosed(of)),
        };
        Ok((body, other))
    }

    fn range(&mut self, tokens: &[Token]) -> Result<Node, TemplateError> {
        use Token::{Comma, Declare, Variable};
        let (index, element, rest) = match tokens {
            [Variable(index, _), Comma, Variable(element, _), Declare, rest @ ..] => {
                (Some(index.clone()), Some(element.clone()), rest)
            }
            [Variable(element, _), Declare, rest @ ..] => (None, Some(element.clone()), rest),
            rest => (None, None, rest),
        };
        let pipe = pipe(rest)?;
        self.loops += 1;
        let (body, other) = self.body("range")?;
        self.loops -= 1;
        Ok(Node::Range { index, element, pipe, body, other })
    }

    fn with(&mut self, tokens: &[Token]) -> Result<Node, TemplateError> {
        let (name, rest) = match tokens {
            [Token::Variable(name, _), Token::Declare, rest @ ..] => (Some(name.clone()), rest),
            rest => (None, rest),
        };
        let pipe = pipe(rest)?;
        let (body, other) = self.body("with")?;
        Ok(Node::With { name, pipe, body, other })
    }
}

fn unclosed(what: &str) -> TemplateError {
    TemplateError::new(format!("`{{{{{what}}}}}` has no `{{{{end}}}}`"))
}

fn action(tokens: &[Token]) -> Result<Node, TemplateError> {
    match tokens {
        [Token::Variable(name, fields), how @ (Token::Declare | Token::Assign), rest @ ..]
            if fields.is_empty() =>
        {
            Ok(Node::Set { name: name.clone(), new: *how == Token::Declare, pipe: pipe(rest)? })
        }
        tokens => Ok(Node::Show(pipe(tokens)?)),
    }
}

/// All tokens as a pipe.
fn pipe(tokens: &[Token]) -> Result<Pipe, TemplateError> {
    let mut rest = tokens.iter();
    let pipe = commands(&mut rest, 0)?;
    match rest.next() {
        None => Ok(pipe),
        Some(_) => Err(TemplateError::new("unexpected `)`")),
    }
}

/// Commands up to a closing parenthesis, which is left, or the end.
fn commands(tokens: &mut std::slice::Iter<'_, Token>, depth: usize) -> Result<Pipe, TemplateError> {
    if depth > DEEPEST {
        return Err(TemplateError::new("parentheses are too deep in each other"));
    }
    let (mut pipe, mut command): (Vec<Vec<Operand>>, Vec<Operand>) = (Vec::new(), Vec::new());
    while let Some(token) = tokens.as_slice().first().filter(|token| **token != Token::Close) {
        tokens.next();
        match token {
            Token::Pipe if command.is_empty() => return Err(TemplateError::new("a command is missing")),
            Token::Pipe => pipe.push(std::mem::take(&mut command)),
            Token::Open => {
                let inner = commands(tokens, depth + 1)?;
                if tokens.next().is_none() {
                    return Err(TemplateError::new("`(` has no `)`"));
                }
                command.push(Operand::Group(inner, Vec::new()));
            }
            Token::Field(fields) => match command.last_mut() {
                // `(pipe).Field`; a lone dot never follows.
                Some(Operand::Group(_, own)) if own.is_empty() && !fields.is_empty() => {
                    own.clone_from(fields);
                }
                _ => command.push(Operand::Dot(fields.clone())),
            },
            Token::Variable(name, fields) => command.push(Operand::Variable(name.clone(), fields.clone())),
            Token::Literal(value) => command.push(Operand::Literal(value.clone())),
            Token::Word(word) => command.push(named(word)?),
            Token::Comma | Token::Declare | Token::Assign | Token::Close => {
                return Err(TemplateError::new("unexpected comma or assignment"));
            }
        }
    }
    if command.is_empty() {
        return Err(TemplateError::new("a command is missing"));
    }
    pipe.push(command);
    Ok(Pipe(pipe))
}

fn named(word: &str) -> Result<Operand, TemplateError> {
    match word {
        "true" => Ok(Operand::Literal(Value::Bool(true))),
        "false" => Ok(Operand::Literal(Value::Bool(false))),
        "nil" => Ok(Operand::Literal(Value::Null)),
        word if functions::NAMES.contains(&word) => Ok(Operand::Function(word.to_owned())),
        word => Err(TemplateError::new(format!("function `{word}` is not defined"))),
    }
}
