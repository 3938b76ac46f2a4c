//! Long inputs of the worst kinds: what once took, or might take, time that grows with the square of its length.

use std::fmt::Write as _;

/// What is done with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The parser, with checks.
    Parse,
    /// The lexer of words.
    Expand,
    /// The parser of ignore files.
    Ignore,
    /// The parser of git addresses.
    Git,
    /// The parser of `--mount`, which expands its values.
    Mount,
}

/// A kind of bad input.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Who reads it.
    pub reader: Reader,
    head: &'static str,
    /// Repeated as often as it takes; `@` becomes the number.
    piece: &'static str,
    tail: &'static str,
}

impl Kind {
    const fn of(
        reader: Reader,
        name: &'static str,
        head: &'static str,
        piece: &'static str,
        tail: &'static str,
    ) -> Kind {
        Kind { name, reader, head, piece, tail }
    }

    const fn parse(name: &'static str, head: &'static str, piece: &'static str, tail: &'static str) -> Kind {
        Kind::of(Reader::Parse, name, head, piece, tail)
    }

    const fn expand(name: &'static str, head: &'static str, piece: &'static str, tail: &'static str) -> Kind {
        Kind::of(Reader::Expand, name, head, piece, tail)
    }

    /// An input of this kind of about `size` bytes.
    pub fn text(&self, size: usize) -> String {
        let mut text = String::with_capacity(size + 64);
        text.push_str(self.head);
        let mut number = 0usize;
        while text.len() < size {
            match self.piece.split_once('@') {
                // Writing to a string does not fail.
                Some((before, after)) => write!(text, "{before}{number}{after}").unwrap_or_default(),
                None => text.push_str(self.piece),
            }
            number += 1;
        }
        text.push_str(self.tail);
        text
    }
}

/// All kinds.
pub const KINDS: [Kind; 51] = [
    Kind::parse("instructions", "FROM a\n", "RUN x\n", ""),
    Kind::parse("stages", "", "FROM a\n", ""),
    Kind::parse("named stages", "", "FROM a AS s@\n", ""),
    Kind::parse("continued lines", "FROM a\nRUN x \\\n", "y \\\n", "z\n"),
    Kind::parse("empty continued lines", "FROM a\nRUN x \\\n", "\n", "z\n"),
    Kind::parse("comments in a continued line", "FROM a\nRUN x \\\n", "# c\n", "z\n"),
    Kind::parse("continuations with empty lines", "FROM a\n", "RUN x \\\n\n y\n", ""),
    Kind::parse("comments", "FROM a\n", "# c\n", "RUN x\n"),
    Kind::parse("comments on each instruction", "FROM a\n", "# c\nRUN x\n", ""),
    Kind::parse("blank lines", "FROM a\n", "\n", ""),
    Kind::parse("only comments", "", "#\n", ""),
    Kind::parse("directives", "", "# a=b\n", "FROM a\n"),
    Kind::parse("heredocs", "FROM a\n", "RUN <<E\nx\nE\n", ""),
    Kind::parse("one long heredoc", "FROM a\nCOPY <<E /x\n", "$v \\$v \"\n", "E\n"),
    Kind::parse("a heredoc without an end each", "FROM a\n", "RUN <<E@\n", ""),
    Kind::parse("heredoc words in one instruction", "FROM a\nCOPY \\\n", "<<E \\\n", "/x\nx\nE\n"),
    Kind::parse("heredoc words with names", "FROM a\nCOPY \\\n", "<<E@ \\\n", "/x\nx\nE\n"),
    Kind::parse("heredoc signs", "FROM a\nRUN \\\n", "<< \\\n", "x\n"),
    Kind::parse("pairs", "FROM a\nENV \\\n", "a@=x \\\n", "\n"),
    Kind::parse("pairs of one name", "FROM a\nLABEL \\\n", "a=x \\\n", "\n"),
    Kind::parse("pairs in quotes", "FROM a\nLABEL \\\n", "a=\"x y\" \\\n", "\n"),
    Kind::parse("an open quote", "FROM a\nENV a=\"\\\n", "x y \\\n", "\n"),
    Kind::parse("quotes", "FROM a\nENV a=\\\n", "\"'\\\n", "\n"),
    Kind::parse("arguments", "", "ARG a@=x\n", "FROM a\n"),
    Kind::parse("arguments in one line", "ARG \\\n", "a@=x \\\n", "\nFROM a\n"),
    Kind::parse("ports", "FROM a\nEXPOSE \\\n", "@ \\\n", "\n"),
    Kind::parse("a long array", "FROM a\nCMD [\\\n", "\"x\",\\\n", "\"x\"]\n"),
    Kind::parse("a deep array", "FROM a\nCMD \\\n", "[[[[[[[[\\\n", "\n"),
    Kind::parse("broken arrays", "FROM a\n", "CMD [\"x\",\n", ""),
    Kind::parse("escapes in an array", "FROM a\nCMD [\"\\\n", "\\u0041\\n\\\n", "\"]\n"),
    Kind::parse("flags", "FROM a\nRUN \\\n", "--mount=type=tmpfs,target=/@ \\\n", "x\n"),
    Kind::parse("keys of a mount", "FROM a\nRUN --mount=type=bind\\\n", ",target=/x\\\n", " x\n"),
    Kind::parse("sources", "FROM a\nCOPY \\\n", "x@ \\\n", "/x/\n"),
    Kind::parse("triggers", "FROM a\n", "ONBUILD RUN x\n", ""),
    Kind::parse("unknown instructions", "FROM a\n", "RUM x@\n", ""),
    Kind::parse("wrong flags", "FROM a\n", "COPY --form=x a b\n", ""),
    Kind::parse("health checks", "FROM a\n", "HEALTHCHECK --interval=1h2m3s CMD x\n", ""),
    Kind::expand("variables", "", "$x${x}", ""),
    Kind::expand("unset variables", "", "$u@ ", ""),
    Kind::expand("open braces", "", "${x:-", ""),
    Kind::expand("cut values", "", "${x#*.}${x%%/*}", ""),
    Kind::expand("words in quotes", "", "'a b' \"c $x\" \\ ", ""),
    Kind::of(Reader::Ignore, "ignored names", "", "a/@/**/*.c\n", ""),
    Kind::of(Reader::Ignore, "a long ignored name", "", "a/**/[b-c]*?", "\n"),
    Kind::of(Reader::Git, "a query of git", "https://h/x.git?", "a@=b&", "ref=v"),
    Kind::of(Reader::Git, "one key of git", "https://h/x.git?", "ref=v&", ""),
    Kind::of(Reader::Git, "a path of git", "git@h:", "x%2f../", "y.git#v"),
    Kind::of(Reader::Git, "a directory of git", "https://h/x.git#v:", "x/../", ""),
    Kind::of(Reader::Mount, "mount keys", "type=bind", ",target=/x@", ""),
    Kind::of(Reader::Mount, "mount quotes", "\"target=", "\"\"x", "\""),
    Kind::of(Reader::Mount, "mount variables", "target=", "$x${u:-y}", ""),
];
