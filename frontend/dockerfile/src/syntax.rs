//! The syntax tree. Nothing in it is expanded; every word knows its place.

use lapstrake_diag::Span;
use lapstrake_go::to_lower;

use crate::split::blank;
use crate::text::{Text, Word};
use crate::{Directive, Heredoc};

/// Which language a file is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// What BuildKit's frontend takes, and nothing else.
    #[default]
    BuildKit,
    /// That, and what only this builder has: `# syntax=lapstrake`.
    Lapstrake,
}

impl Dialect {
    /// The dialect that the value of a `syntax` directive asks for: a name with or without a tag.
    pub fn of_syntax(syntax: &str) -> Dialect {
        match syntax.split([':', '@']).next() {
            Some("lapstrake") => Dialect::Lapstrake,
            _ => Dialect::BuildKit,
        }
    }
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Which language it is written in.
    pub dialect: Dialect,
    /// The parser directives at the top, in order.
    pub directives: Vec<Directive>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// The `ARG`s before the first `FROM`.
    pub global_args: Vec<Command>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// First and last line of the instruction that `span` begins in: where BuildKit places what is wrong with a part of it.
    pub fn lines_at(&self, span: Span) -> Option<(u32, u32)> {
        let inside =
            |whole: Span| whole.start() <= span.start() && span.start() < whole.end().max(whole.start() + 1);
        let commands = |commands: &[Command]| {
            commands.iter().find(|command| inside(command.span)).map(|command| command.lines)
        };
        let in_stage = |stage: &Stage| {
            if inside(stage.span) { Some(stage.lines) } else { commands(&stage.instructions) }
        };
        commands(&self.global_args).or_else(|| self.stages.iter().find_map(in_stage))
    }
}

/// A `FROM` with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` line.
    pub from: From,
    /// The `FROM` line as a place with its comments and flags.
    pub span: Span,
    /// First and last line of the `FROM`.
    pub lines: (u32, u32),
    /// The `FROM` line, continuation joined.
    pub text: Text,
    /// Its flags and the comments above.
    pub around: Around,
    /// What the comments say of this stage: the text behind its name.
    pub doc: Text,
    /// What comes behind, in order.
    pub instructions: Vec<Command>,
}

impl Stage {
    /// The keyword as written.
    pub fn keyword(&self) -> &str {
        keyword_of(&self.text)
    }
}

/// `FROM [--platform=…] base [AS name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The base as written.
    pub base: Word,
    /// The value of `--platform`.
    pub platform: Option<Box<Word>>,
    /// The `AS` keyword and the name, both as written.
    pub alias: Option<Box<(Word, Word)>>,
    /// `--after`: stages that are done before this one begins. Only [`Dialect::Lapstrake`] has it.
    pub after: Box<[Word]>,
}

impl From {
    /// The stage's name, in lower case.
    pub fn name(&self) -> Option<String> {
        self.alias.as_deref().map(|(_, name)| to_lower(&name.node))
    }
}

/// An instruction with everything that was written around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What it says.
    pub instruction: Instruction,
    /// All its bytes, heredoc bodies included.
    pub span: Span,
    /// First and last line, heredoc bodies and terminators included.
    pub lines: (u32, u32),
    /// The line with its continuation joined, without heredoc bodies.
    pub text: Text,
    /// Whether the arguments were a JSON array.
    pub json: bool,
    /// What most instructions do not have.
    pub around: Around,
}

impl Command {
    /// The keyword as written.
    pub fn keyword(&self) -> &str {
        keyword_of(&self.text)
    }
}

fn keyword_of(text: &str) -> &str {
    text.trim().split(blank).next().unwrap_or_default()
}

/// What was written around the arguments of an instruction. In a box, as most have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around(Option<Box<Parts>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    flags: Vec<Flag>,
    heredocs: Vec<Heredoc>,
    comments: Vec<Text>,
}

impl Around {
    pub(crate) fn new(flags: Vec<Flag>, heredocs: Vec<Heredoc>, comments: Vec<Text>) -> Around {
        let any = !(flags.is_empty() && heredocs.is_empty() && comments.is_empty());
        Around(any.then(|| Box::new(Parts { flags, heredocs, comments })))
    }

    /// Flags, quotes taken off.
    pub fn flags(&self) -> &[Flag] {
        self.0.as_ref().map_or(&[], |parts| &parts.flags)
    }

    /// Heredocs in order of appearance.
    pub fn heredocs(&self) -> &[Heredoc] {
        self.0.as_ref().map_or(&[], |parts| &parts.heredocs)
    }

    /// The comment lines above, `#` taken off.
    pub fn comments(&self) -> &[Text] {
        self.0.as_ref().map_or(&[], |parts| &parts.comments)
    }
}

/// `--name[=value]` before the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The whole word, quotes and escapes taken off.
    pub text: Text,
    /// Its place.
    pub span: Span,
}

/// The keywords. [`Keyword::ALL`] has them in the order of the alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the keywords")]
pub enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    /// All of them with their names.
    pub const ALL: [(Keyword, &'static str); 18] = [
        (Keyword::Add, "ADD"),
        (Keyword::Arg, "ARG"),
        (Keyword::Cmd, "CMD"),
        (Keyword::Copy, "COPY"),
        (Keyword::Entrypoint, "ENTRYPOINT"),
        (Keyword::Env, "ENV"),
        (Keyword::Expose, "EXPOSE"),
        (Keyword::From, "FROM"),
        (Keyword::Healthcheck, "HEALTHCHECK"),
        (Keyword::Label, "LABEL"),
        (Keyword::Maintainer, "MAINTAINER"),
        (Keyword::Onbuild, "ONBUILD"),
        (Keyword::Run, "RUN"),
        (Keyword::Shell, "SHELL"),
        (Keyword::Stopsignal, "STOPSIGNAL"),
        (Keyword::User, "USER"),
        (Keyword::Volume, "VOLUME"),
        (Keyword::Workdir, "WORKDIR"),
    ];

    /// The keyword that `text` is, in whatever case.
    pub fn parse(text: &str) -> Option<Keyword> {
        // By length and first letter few are left, and a file may have a million of these.
        let is = |text: &str| {
            let first = text.as_bytes().first()?.to_ascii_uppercase();
            let near = |name: &str| name.len() == text.len() && name.as_bytes()[0] == first;
            Keyword::ALL.iter().find(|(_, name)| near(name) && name.eq_ignore_ascii_case(text))
        };
        let found = if text.is_ascii() { is(text) } else { is(&to_lower(text)) };
        found.map(|(keyword, _)| *keyword)
    }

    /// In upper case.
    pub fn name(self) -> &'static str {
        Keyword::ALL[self as usize].1
    }
}

/// What an instruction says. `FROM` is not among them: it opens a [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the keywords")]
pub enum Instruction {
    // In boxes, so that a file of a million short instructions is not as large as if all were of the longest kind.
    Add(Box<Add>),
    Arg(Vec<Arg>),
    Cmd(CommandLine),
    Copy(Box<Copy>),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    /// Sorted.
    Expose(Vec<Word>),
    Healthcheck(Box<Healthcheck>),
    Label(Vec<Pair>),
    Maintainer(Word),
    Onbuild(Onbuild),
    Run(Run),
    Shell(Vec<Text>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

impl Instruction {
    /// Which keyword it has.
    pub fn keyword(&self) -> Keyword {
        match self {
            Instruction::Add(_) => Keyword::Add,
            Instruction::Arg(_) => Keyword::Arg,
            Instruction::Cmd(_) => Keyword::Cmd,
            Instruction::Copy(_) => Keyword::Copy,
            Instruction::Entrypoint(_) => Keyword::Entrypoint,
            Instruction::Env(_) => Keyword::Env,
            Instruction::Expose(_) => Keyword::Expose,
            Instruction::Healthcheck(_) => Keyword::Healthcheck,
            Instruction::Label(_) => Keyword::Label,
            Instruction::Maintainer(_) => Keyword::Maintainer,
            Instruction::Onbuild(_) => Keyword::Onbuild,
            Instruction::Run(_) => Keyword::Run,
            Instruction::Shell(_) => Keyword::Shell,
            Instruction::Stopsignal(_) => Keyword::Stopsignal,
            Instruction::User(_) => Keyword::User,
            Instruction::Volume(_) => Keyword::Volume,
            Instruction::Workdir(_) => Keyword::Workdir,
        }
    }
}

/// A command of RUN, CMD or ENTRYPOINT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for a shell.
    Shell(Text),
    /// Words for `exec`.
    Exec(Box<[Text]>),
}

/// What COPY and ADD have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Sources that are paths, patterns or URLs.
    pub sources: Vec<Word>,
    /// Sources that are heredocs.
    pub inline: Vec<InlineFile>,
    /// The destination.
    pub dest: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude`
    pub exclude: Vec<Word>,
}

impl Transfer {
    /// Sources and destination in the order written.
    pub fn words(&self) -> Vec<&Word> {
        let mut words: Vec<&Word> =
            self.sources.iter().chain(self.inline.iter().map(|file| &file.word)).collect();
        words.sort_by_key(|word| word.span);
        words.push(&self.dest);
        words
    }
}

/// A heredoc as a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// The file's name: the delimiter.
    pub name: Text,
    /// The content, leading tabs taken off where asked for. Shared by all words that name the same delimiter.
    pub data: Text,
    /// Whether variables in it are expanded.
    pub expand: bool,
    /// The heredoc word as written.
    pub word: Word,
}

/// COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--from`
    pub from: Option<Word>,
    /// `--parents`
    pub parents: bool,
    /// `--optional`: sources may be missing. Only [`Dialect::Lapstrake`] has it.
    pub optional: bool,
}

/// ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--checksum`
    pub checksum: Option<Word>,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// One declaration of ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The name as written.
    pub name: Text,
    /// The default, quotes kept.
    pub value: Option<Text>,
    /// The place of the declaration.
    pub span: Span,
    /// What the comments above say of it.
    pub doc: Text,
}

/// One pair of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name, quotes kept.
    pub key: Text,
    /// The value, quotes kept.
    pub value: Text,
    /// Whether it was written without `=`.
    pub legacy: bool,
    /// The place of the pair.
    pub span: Span,
}

impl Pair {
    /// `key=value` or, where it was written so, `key value`.
    pub fn text(&self) -> String {
        let separator = if self.legacy { " " } else { "=" };
        format!("{}{separator}{}", self.key, self.value)
    }
}

/// HEALTHCHECK. Durations are nanoseconds; 0 stands for "not given", for `retries` too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<Text>,
    /// `--interval`
    pub interval: i64,
    /// `--timeout`
    pub timeout: i64,
    /// `--start-period`
    pub start_period: i64,
    /// `--start-interval`
    pub start_interval: i64,
    /// `--retries`
    pub retries: i64,
}

/// ONBUILD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger, heredoc bodies included.
    pub expression: Text,
    /// The trigger's keyword.
    pub keyword: Text,
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command; heredoc bodies are in the parts around it.
    pub command: CommandLine,
    /// In a box, as most have none; [`Run::flags`] reads it.
    pub given: Option<Box<RunFlags>>,
}

impl Run {
    /// Its flags, defaults where none were given.
    pub fn flags(&self) -> &RunFlags {
        static NONE: RunFlags = RunFlags {
            mounts: Vec::new(),
            network: Network::Default,
            security: Security::Sandbox,
            devices: Vec::new(),
            attempts: Attempts { no_cache: false, retry: 0, timeout: 0 },
        };
        self.given.as_deref().unwrap_or(&NONE)
    }
}

/// What the flags of a RUN say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    /// `--mount`, in order.
    pub mounts: Vec<MountFlag>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`
    pub devices: Vec<Device>,
    /// What only [`Dialect::Lapstrake`] has.
    pub attempts: Attempts,
}

/// How often a RUN is tried and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// `--no-cache`: it runs in every build.
    pub no_cache: bool,
    /// `--retry`: how often it is tried again after a failure.
    pub retry: u32,
    /// `--timeout` in nanoseconds, for each try; 0 is no limit.
    pub timeout: i64,
}

/// A `--mount` before its values are expanded. [`Mount::parse`](crate::Mount::parse) does the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// The value of the flag.
    pub text: Word,
    /// Its `from`, which is never expanded.
    pub from: Option<Text>,
}

/// `--network`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The builder's default.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's.
    Host,
}

/// `--security`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// The sandbox.
    #[default]
    Sandbox,
    /// Without one.
    Insecure,
}

/// `--device`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The CDI name.
    pub name: Text,
    /// Whether the build fails without it.
    pub required: bool,
}
