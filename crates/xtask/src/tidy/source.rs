//! One source file, taken apart as far as the house rules need it.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A function by name, with its lines, braces and signature included.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) lines: usize,
}

/// What was found in a file. Nothing in it is of a test module that the file holds.
#[derive(Debug)]
pub(super) struct Source {
    /// Lines with code on them, without blank lines and comments.
    pub(super) code: usize,
    /// The functions, those of test modules too.
    pub(super) functions: Vec<Function>,
    /// All paths of two names or more, and what `super::*` and the like begin with: `["crate", "foo", "Bar"]`. A path
    /// in a module with a body counts its `super` from the file.
    pub(super) paths: BTreeSet<Vec<String>>,
    /// What `use` brings, by the name that it has here; `*` for everything.
    pub(super) uses: Vec<(String, Vec<String>)>,
    /// The modules in files of their own, and whether they are for tests only.
    pub(super) modules: BTreeMap<String, bool>,
    /// The names of items, in `impl` blocks too, that other files may use.
    pub(super) public: BTreeSet<String>,
    /// The macros that are called.
    pub(super) macros: BTreeSet<String>,
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let at = |error: &syn::Error| format!("line {}: {error}", error.span().start().line);
        let file = syn::parse_file(text).map_err(|error| at(&error))?;
        let mut seen = Seen::default();
        seen.visit_file(&file);
        let stream: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let mut tokens = Tokens { tests: seen.tests, ..Tokens::default() };
        tokens.walk(stream, 0);
        let mut uses = Vec::new();
        for item in &file.items {
            if let syn::Item::Use(item) = item {
                leaves(&item.tree, &[], &mut uses);
            }
        }
        Ok(Self {
            code: tokens.lines.len(),
            functions: seen.functions,
            paths: tokens.paths,
            uses,
            modules: seen.modules,
            public: seen.public,
            macros: tokens.macros,
        })
    }
}

/// The names that a `use` brings, each with its whole path.
fn leaves(tree: &syn::UseTree, way: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let with =
        |name: &syn::Ident| if name == "self" { way.to_vec() } else { [way, &[name.to_string()]].concat() };
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, &with(&path.ident), found),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, way, found)),
        syn::UseTree::Name(name) if name.ident == "self" => {
            found.extend(way.last().map(|last| (last.clone(), way.to_vec())));
        }
        syn::UseTree::Name(name) => found.push((name.ident.to_string(), with(&name.ident))),
        syn::UseTree::Rename(name) => found.push((name.rename.to_string(), with(&name.ident))),
        syn::UseTree::Glob(_) => found.push(("*".to_owned(), way.to_vec())),
    }
}

#[derive(Default)]
struct Seen {
    functions: Vec<Function>,
    /// The lines of `#[cfg(test)]` items.
    tests: Vec<RangeInclusive<usize>>,
    modules: BTreeMap<String, bool>,
    public: BTreeSet<String>,
}

impl Seen {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        self.functions.push(Function { name: signature.ident.to_string(), lines });
    }

    fn name(&mut self, visibility: &syn::Visibility, name: &syn::Ident) {
        if !matches!(visibility, syn::Visibility::Inherited) {
            self.public.insert(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Seen {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.name(&item.vis, &item.sig.ident);
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.name(&item.vis, &item.sig.ident);
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.name(&item.vis, &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.name(&item.vis, &item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.name(&item.vis, &item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.name(&item.vis, &item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.name(&item.vis, &item.ident);
        let test = item.attrs.iter().any(is_test);
        if item.content.is_none() {
            self.modules.insert(item.ident.to_string(), test);
        } else if test {
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
#[derive(Default)]
struct Tokens {
    tests: Vec<RangeInclusive<usize>>,
    lines: BTreeSet<usize>,
    paths: BTreeSet<Vec<String>>,
    macros: BTreeSet<String>,
}

type Rest = Peekable<token_stream::IntoIter>;

impl Tokens {
    /// Takes in tokens that are `inline` modules with bodies below the file.
    fn walk(&mut self, stream: TokenStream, inline: usize) {
        let mut rest = stream.into_iter().peekable();
        // Whether `mod NAME` came just before.
        let mut module = false;
        while let Some(token) = rest.next() {
            let span = token.span();
            let start = span.start().line;
            if self.tests.iter().any(|lines| lines.contains(&start)) {
                continue;
            }
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    // Doc comments are attributes to the compiler.
                    rest.next_if(|next| is_mark(next, '!'));
                    let doc = rest.next_if(is_doc);
                    if doc.is_none() {
                        self.lines.insert(start);
                    }
                }
                TokenTree::Group(group) => {
                    self.lines.extend([start, span.end().line]);
                    let body = module && group.delimiter() == Delimiter::Brace;
                    self.walk(group.stream(), inline + usize::from(body));
                }
                TokenTree::Ident(name) if name == "mod" => {
                    self.lines.insert(start);
                    rest.next_if(|next| matches!(next, TokenTree::Ident(_)));
                    module = true;
                    continue;
                }
                TokenTree::Ident(name) => {
                    self.lines.insert(start);
                    self.path(vec![name.to_string()], &mut rest, inline);
                }
                TokenTree::Punct(_) => {
                    self.lines.insert(start);
                }
                TokenTree::Literal(_) => self.lines.extend(start..=span.end().line),
            }
            module = false;
        }
    }

    /// Goes on with a path as far as it goes.
    fn path(&mut self, mut path: Vec<String>, rest: &mut Rest, inline: usize) {
        loop {
            let mut after = rest.clone();
            if !(after.next().is_some_and(|next| is_mark(&next, ':'))
                && after.next().is_some_and(|next| is_mark(&next, ':')))
            {
                break;
            }
            match after.next() {
                Some(TokenTree::Ident(name)) => {
                    self.lines.insert(name.span().start().line);
                    path.push(name.to_string());
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.lines.extend([group.span().start().line, group.span().end().line]);
                    self.group(&path, group.stream(), inline);
                    *rest = after;
                    return;
                }
                Some(next) if is_mark(&next, '*') => {
                    *rest = after;
                    return self.keep(path, inline);
                }
                _ => break,
            }
            *rest = after;
        }
        let mut after = rest.clone();
        if after.next().is_some_and(|next| is_mark(&next, '!'))
            && after.next().is_some_and(|next| matches!(next, TokenTree::Group(_)))
        {
            self.macros.extend(path.last().cloned());
        }
        if path.len() > 1 {
            self.keep(path, inline);
        }
    }

    /// `crate::{a, b::c}`: each part.
    fn group(&mut self, path: &[String], stream: TokenStream, inline: usize) {
        let mut rest = stream.into_iter().peekable();
        while let Some(token) = rest.next() {
            self.lines.insert(token.span().start().line);
            match token {
                TokenTree::Ident(name) if name == "self" => self.keep(path.to_vec(), inline),
                // The new name is no part of the path.
                TokenTree::Ident(name) if name == "as" => drop(rest.next()),
                TokenTree::Ident(name) => self.path([path, &[name.to_string()]].concat(), &mut rest, inline),
                TokenTree::Punct(mark) if mark.as_char() == '*' => self.keep(path.to_vec(), inline),
                _ => {}
            }
        }
    }

    /// Keeps a path as it would be written at the file's own level.
    fn keep(&mut self, mut path: Vec<String>, inline: usize) {
        if path.first().is_some_and(|name| name == "self") {
            path.remove(0);
        }
        let up = path.iter().take_while(|name| *name == "super").count();
        if up > 0 {
            if up <= inline {
                return;
            }
            path.drain(..inline);
        }
        self.paths.insert(path);
    }
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
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
        assert_eq!(paths, ["crate::a::B", "crate::c", "crate::e::F", "super::super::d"]);
    }
}
