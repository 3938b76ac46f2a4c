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
    /// Both judges of a path: the text is an ignore file, its last line the path.
    Judge,
    /// The parsers of references, platforms, digests and ports.
    Names,
    /// The parser of `--chmod`.
    Chmod,
    /// The parser of `# check=`.
    Check,
    /// The parser of what a registry asks for a login with.
    Challenge,
    /// The parsers of manifests, indexes and configs.
    Document,
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

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1},"layers":["#;
const LAYER: &str = r#"{"mediaType":"x","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1},"#;
const LISTED: &str = r#"{"mediaType":"x","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1,"platform":{"architecture":"arm@","os":"linux"}},"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Volumes":{"/":{}"#;
const HISTORY: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":["#;

/// All kinds.
pub const KINDS: [Kind; 101] = [
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
    Kind::of(Reader::Mount, "an unknown key of a mount", "", "targe", "=x"),
    Kind::of(Reader::Mount, "a field of a mount that is none", "type=tmpfs,", "xY", ""),
    Kind::of(Reader::Mount, "a type of a mount", "type=", "Cache", ""),
    Kind::of(Reader::Mount, "fields of a mount without values", "type=tmpfs", ",ro,RW", ",x"),
    Kind::of(Reader::Mount, "a mode of a mount", "type=cache,target=/x,mode=", "0", "7"),
    Kind::of(Reader::Mount, "a size of a mount", "type=tmpfs,target=/x,size=", "1", "m"),
    Kind::of(
        Reader::Mount,
        "fields in quotes of a mount",
        "type=bind",
        ",\"source=\"\"x\"\"\"",
        ",target=/x",
    ),
    Kind::of(Reader::Git, "values of git", "https://h/x.git?", "tag=%41%zz;&", "ref=v"),
    Kind::of(Reader::Git, "a host of git", "https://", "a.", "h/x.git"),
    Kind::of(Reader::Git, "a host in brackets of git", "ssh://[", "::1%25", "]:22/x.git"),
    Kind::of(Reader::Git, "users of git", "ssh://", "a:b@", "h/x.git"),
    Kind::of(Reader::Git, "a user of git", "", "git-", "@h:x.git"),
    Kind::of(Reader::Git, "a fragment of git", "https://h/x.git#", "%2e%2e/:", ""),
    Kind::of(Reader::Git, "a directory in a query of git", "https://h/x.git?subdir=", "../x/%2e/", ""),
    Kind::of(Reader::Git, "a checksum of git", "https://h/x.git?checksum=", "0aF", "&commit=0"),
    Kind::of(Reader::Git, "signs of git", "https://h/x.git?", "#?&=", ""),
    Kind::of(Reader::Git, "a path on github", "github.com/", "%2f/", "x"),
    Kind::of(Reader::Judge, "a pattern that is judged", "", "*a", "b\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b"),
    Kind::of(Reader::Judge, "stars that are judged", "", "**/", "x\na/b/c/d/e/f/g/h"),
    Kind::of(Reader::Judge, "names that are judged", "", "a/*@\n!a/b@\n", "a/b/c"),
    Kind::of(Reader::Judge, "a path that is judged", "a/**/b\n!**/c\n*/*/x\n", "a/", "b"),
    Kind::of(Reader::Names, "a name of an image", "", "a/", "b:v"),
    Kind::of(Reader::Names, "dashes of an image", "h/a", "--", "b"),
    Kind::of(Reader::Names, "underscores of an image", "", "_", "b"),
    Kind::of(Reader::Names, "a host of an image", "", "h.", ":5000/x@sha256:0"),
    Kind::of(Reader::Names, "colons of an image", "", ":1", "/x"),
    Kind::of(Reader::Names, "a tag of an image", "x:", "v1.", ""),
    Kind::of(Reader::Names, "a digest", "x@sha256:", "0f", ""),
    Kind::of(Reader::Names, "a platform", "linux/", "arm/", "v7"),
    Kind::of(Reader::Names, "a version of a platform", "windows(", "10.", "+win32k)/amd64"),
    Kind::of(Reader::Names, "a port", "", "1-", "2/tcp"),
    Kind::of(Reader::Names, "an address of a port", "[", "::", "]:80:80"),
    Kind::of(Reader::Names, "digits of a port", "", "0", "80"),
    Kind::of(Reader::Chmod, "clauses of a mode", "u=r", ",g+wX,o=u", ""),
    Kind::of(Reader::Chmod, "letters of a mode", "u=", "rwxXst", ""),
    Kind::of(Reader::Chmod, "operators of a mode", "u", "+r-w=x", ""),
    Kind::of(Reader::Chmod, "digits of a mode", "", "0", "755"),
    Kind::of(Reader::Check, "rules of a check", "skip=", "UndefinedVar,x@,", "all"),
    Kind::of(Reader::Check, "options of a check", "", "skip=a;", "error=true"),
    Kind::of(Reader::Challenge, "pairs of a challenge", "Bearer realm=\"https://a/t\"", ",k@=\"v\"", ""),
    Kind::of(Reader::Challenge, "quotes of a challenge", "Bearer realm=\"", "\\\"", "\",service=x"),
    Kind::of(Reader::Challenge, "commas of a challenge", "Bearer ", ", ", "realm=x"),
    Kind::of(Reader::Challenge, "an open challenge", "Bearer realm=\"", "x, Basic ", ""),
    Kind::of(Reader::Document, "a deep document", "{\"schemaVersion\":2,\"x\":", "[", ""),
    Kind::of(Reader::Document, "layers of a manifest", MANIFEST, LAYER, "{}]}"),
    Kind::of(
        Reader::Document,
        "platforms of an index",
        "{\"schemaVersion\":2,\"manifests\":[",
        LISTED,
        "{}]}",
    ),
    Kind::of(Reader::Document, "keys of a document", "{\"schemaVersion\":2", ",\"a@\":1", "}"),
    Kind::of(Reader::Document, "one key of a config", CONFIG, ",\"/v\":{}", "}}}"),
    Kind::of(Reader::Document, "keys of a config", CONFIG, ",\"/v@\":{}", "}}}"),
    Kind::of(Reader::Document, "history of a config", HISTORY, "{\"created_by\":\"x\"},", "{}]}"),
];
