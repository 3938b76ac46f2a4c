//! One source file, taken apart as far as the house rules need it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A function by name, with its lines, braces and signature included.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) lines: usize,
}

/// What was found in a file.
#[derive(Debug)]
pub(super) struct Source {
    /// Lines with code on them: neither blank, nor comment, nor of a test module.
    pub(super) code: usize,
    pub(super) functions: Vec<Function>,
    /// What follows `crate::` and `super::` outside of tests, cut after the first name: `["crate", "foo"]`.
    pub(super) paths: BTreeSet<Vec<String>>,
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let at = |error: &syn::Error| format!("line {}: {error}", error.span().start().line);
        let file = syn::parse_file(text).map_err(|error| at(&error))?;
        let mut seen = Seen::default();
        seen.visit_file(&file);
        let stream: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let mut tokens = Tokens { tests: seen.tests, lines: BTreeSet::new(), paths: BTreeSet::new() };
        tokens.walk(stream);
        Ok(Self { code: tokens.lines.len(), functions: seen.functions, paths: tokens.paths })
    }
}

#[derive(Default)]
struct Seen {
    functions: Vec<Function>,
    /// The lines of `#[cfg(test)]` items.
    tests: Vec<RangeInclusive<usize>>,
}

impl Seen {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        self.functions.push(Function { name: signature.ident.to_string(), lines });
    }
}

impl<'ast> Visit<'ast> for Seen {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.attrs.iter().any(is_test) {
            self.tests.push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item_mod(self, item);
    }
}

fn is_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
}

/// A walk over all tokens, those in macros too.
struct Tokens {
    tests: Vec<RangeInclusive<usize>>,
    lines: BTreeSet<usize>,
    paths: BTreeSet<Vec<String>>,
}

impl Tokens {
    fn walk(&mut self, stream: TokenStream) {
        let mut rest = stream.into_iter().peekable();
        let mut path: Vec<String> = Vec::new();
        while let Some(token) = rest.next() {
            let span = token.span();
            let start = span.start().line;
            if self.tests.iter().any(|lines| lines.contains(&start)) {
                continue;
            }
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    // Doc comments are attributes to the compiler.
                    rest.next_if(|next| matches!(next, TokenTree::Punct(mark) if mark.as_char() == '!'));
                    let doc = rest.next_if(is_doc);
                    if doc.is_none() {
                        self.lines.insert(start);
                    }
                }
                TokenTree::Group(group) => {
                    self.lines.extend([start, span.end().line]);
                    if !path.is_empty() && group.delimiter() == Delimiter::Brace {
                        self.group(&path, group.stream());
                    }
                    path.clear();
                    self.walk(group.stream());
                }
                TokenTree::Ident(ident) => {
                    self.lines.insert(start);
                    self.name(&mut path, &ident.to_string());
                }
                TokenTree::Punct(mark) => {
                    self.lines.insert(start);
                    if mark.as_char() != ':' {
                        path.clear();
                    }
                }
                TokenTree::Literal(_) => {
                    self.lines.extend(start..=span.end().line);
                    path.clear();
                }
            }
        }
    }

    /// Goes on with a path that began with `crate` or `super`, or begins one.
    fn name(&mut self, path: &mut Vec<String>, name: &str) {
        match name {
            "crate" => *path = vec![name.to_owned()],
            "super" => path.push(name.to_owned()),
            _ if path.is_empty() => {}
            _ => {
                path.push(name.to_owned());
                self.paths.insert(std::mem::take(path));
            }
        }
    }

    /// `crate::{a, b::c}`: the first name of each part.
    fn group(&mut self, path: &[String], stream: TokenStream) {
        let mut first = true;
        for token in stream {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ',' => first = true,
                TokenTree::Ident(name) if first => {
                    self.name(&mut path.to_vec(), &name.to_string());
                    first = false;
                }
                _ => {}
            }
        }
    }
}

fn is_doc(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let first = group.stream().into_iter().next();
    matches!(first, Some(TokenTree::Ident(name)) if name == "doc")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"//! Doc.

use crate::{a::B, c};
use super::super::d;

/// More.
fn one() {
    // A brace: {
    let text = "
        }
    ";
    macro_call!(crate::e::F);
}

impl X {
    fn two(&self) -> char { '{' }
}

#[cfg(test)]
mod tests {
    use crate::only_in_tests;
    fn three() {}
}
"#;

    #[test]
    fn takes_a_file_apart() {
        let source = Source::parse(TEXT).unwrap();
        let functions: Vec<(&str, usize)> =
            source.functions.iter().map(|function| (function.name.as_str(), function.lines)).collect();
        assert_eq!(functions, [("one", 7), ("two", 1), ("three", 1)]);
        assert_eq!(source.code, 2 + 6 + 3);
        let paths: Vec<String> = source.paths.iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["crate::a", "crate::c", "crate::e", "super::super::d"]);
    }
}
