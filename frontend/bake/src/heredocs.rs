//! Here-documents that are indented: `<<-EOT`.
//!
//! HCL takes the indentation away from the lines of the text, after markers as `~}` took their white space. `hcl-edit` looks
//! at the outer parts only, so the text is read anew here.

use std::ops::Range;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::template::{Directive, Element, HeredocTemplate, Strip, Template};
use hcl_edit::visit_mut::{VisitMut, visit_expr_mut};

/// Takes the indentation from all indented here-documents in an expression of `text`.
pub(crate) struct Flush<'t>(pub(crate) &'t str);

impl VisitMut for Flush<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expression) {
        let range = expr.span();
        if let (Expression::HeredocTemplate(heredoc), Some(range)) = (&mut *expr, range)
            && heredoc.indent().is_some()
            && let Some(template) = self.read(range)
        {
            flush(heredoc, template);
            return;
        }
        visit_expr_mut(self, expr);
    }
}

impl Flush<'_> {
    /// The body of a here-document as it is written.
    fn read(&self, range: Range<usize>) -> Option<Template> {
        let (_, body) = self.0.get(range)?.split_once('\n')?;
        let end = body.trim_end().rfind('\n').map_or(0, |at| at + 1);
        body[..end].parse().ok()
    }
}

/// A piece of a text: a line or its part, or something in between.
enum Token {
    Text(String),
    Other,
}

fn flush(heredoc: &mut HeredocTemplate, mut template: Template) {
    let mut tokens = Tokens::default();
    tokens.collect(&template, (Strip::None, Strip::None));
    tokens.unindent();
    tokens.literals.reverse();
    tokens.write(&mut template);
    heredoc.template = template;
}

#[derive(Default)]
struct Tokens {
    tokens: Vec<Token>,
    /// For each literal, the number of its tokens.
    counts: Vec<usize>,
    /// The texts that literals get, the last one first.
    literals: Vec<String>,
}

impl Tokens {
    /// Collects the tokens of `template`, without the white space that markers take.
    fn collect(&mut self, template: &Template, around: (Strip, Strip)) {
        let parts: Vec<&Element> = template.iter().collect();
        for (number, part) in parts.iter().enumerate() {
            match part {
                Element::Literal(text) => {
                    let before = number.checked_sub(1).map_or(around.0, |before| sides(parts[before]).1);
                    let after = parts.get(number + 1).map_or(around.1, |part| sides(part).0);
                    let mut lines: Vec<String> =
                        text.value().split_inclusive('\n').map(str::to_owned).collect();
                    if let (Strip::End | Strip::Both, Some(first)) = (before, lines.first_mut()) {
                        *first = first.trim_start().to_owned();
                    }
                    if let (Strip::Start | Strip::Both, Some(last)) = (after, lines.last_mut()) {
                        last.truncate(last.trim_end().len());
                    }
                    self.counts.push(lines.len());
                    self.tokens.extend(lines.into_iter().map(Token::Text));
                }
                Element::Interpolation(_) => self.tokens.push(Token::Other),
                Element::Directive(directive) => self.directive(directive),
            }
        }
    }

    fn directive(&mut self, directive: &Directive) {
        self.tokens.push(Token::Other);
        match directive {
            Directive::If(this) => {
                let end = this.endif_expr.strip;
                let otherwise = this.else_expr.as_ref();
                self.collect(
                    &this.if_expr.template,
                    (this.if_expr.strip, otherwise.map_or(end, |other| other.strip)),
                );
                self.tokens.push(Token::Other);
                if let Some(otherwise) = otherwise {
                    self.collect(&otherwise.template, (otherwise.strip, end));
                    self.tokens.push(Token::Other);
                }
            }
            Directive::For(this) => {
                self.collect(&this.for_expr.template, (this.for_expr.strip, this.endfor_expr.strip));
                self.tokens.push(Token::Other);
            }
        }
    }

    /// Takes the smallest indentation of all lines from those that have one.
    fn unindent(&mut self) {
        let (mut least, mut starts, mut at_start) = (usize::MAX, Vec::new(), true);
        for (number, token) in self.tokens.iter().enumerate() {
            let text = match token {
                Token::Text(text) => Some(text),
                Token::Other => None,
            };
            if at_start {
                at_start = false;
                let trimmed = text.map_or("", |text| text.trim_start());
                match text {
                    // A blank line has no indentation.
                    Some(text) if trimmed.is_empty() && text.ends_with('\n') => {}
                    Some(text) => {
                        starts.push(number);
                        least = least.min(text[..text.len() - trimmed.len()].chars().count());
                    }
                    None => least = 0,
                }
            }
            at_start |= text.is_some_and(|text| text.ends_with('\n'));
        }
        for number in starts {
            if let Token::Text(text) = &mut self.tokens[number] {
                *text = text.chars().skip(least).collect();
            }
        }
        let mut texts = std::mem::take(&mut self.tokens).into_iter().filter_map(|token| match token {
            Token::Text(text) => Some(text),
            Token::Other => None,
        });
        self.literals = self.counts.iter().map(|count| texts.by_ref().take(*count).collect()).collect();
    }

    /// Puts the texts in, and drops the markers, whose work is done.
    fn write(&mut self, template: &mut Template) {
        for part in template.iter_mut() {
            match part {
                Element::Literal(text) => *text.value_mut() = self.literals.pop().unwrap_or_default(),
                Element::Interpolation(inner) => inner.strip = Strip::None,
                Element::Directive(directive) => match &mut **directive {
                    Directive::If(this) => {
                        (this.if_expr.strip, this.endif_expr.strip) = (Strip::None, Strip::None);
                        self.write(&mut this.if_expr.template);
                        if let Some(otherwise) = &mut this.else_expr {
                            otherwise.strip = Strip::None;
                            self.write(&mut otherwise.template);
                        }
                    }
                    Directive::For(this) => {
                        (this.for_expr.strip, this.endfor_expr.strip) = (Strip::None, Strip::None);
                        self.write(&mut this.for_expr.template);
                    }
                },
            }
        }
    }
}

/// The markers on the left and on the right of a part.
pub(crate) fn sides(part: &Element) -> (Strip, Strip) {
    match part {
        Element::Literal(_) => (Strip::None, Strip::None),
        Element::Interpolation(inner) => (inner.strip, inner.strip),
        Element::Directive(directive) => match &**directive {
            Directive::If(this) => (this.if_expr.strip, this.endif_expr.strip),
            Directive::For(this) => (this.for_expr.strip, this.endfor_expr.strip),
        },
    }
}
