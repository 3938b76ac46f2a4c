//! The tree back to text.
//!
//! Not a formatter: comments that belong to no instruction and the author's line breaks are gone. Parsing the text gives
//! the same tree, places aside, as long as the tree came from text without errors.

use std::fmt::Write as _;

use crate::heredoc::Heredoc;
use crate::lines::MAX_LINE;
use crate::syntax::{Arg, Command, CommandLine, Dockerfile, Flag, Healthcheck, Instruction, Pair, Stage};
use crate::text::{Text, Word};

/// The text of a tree.
pub fn print(dockerfile: &Dockerfile) -> String {
    let mut printer = Printer { out: String::new(), escape: dockerfile.escape };
    for directive in &dockerfile.directives {
        printer.line(&format!("# {}={}", directive.name, directive.value));
    }
    // Comments that look like directives must not become any.
    printer.line("");
    dockerfile.global_args.iter().for_each(|command| printer.command(command));
    for stage in &dockerfile.stages {
        printer.stage(stage);
        stage.instructions.iter().for_each(|command| printer.command(command));
    }
    printer.out
}

struct Printer {
    out: String,
    escape: char,
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn comments(&mut self, comments: &[Text]) {
        comments.iter().for_each(|comment| self.line(&format!("# {comment}")));
    }

    fn stage(&mut self, stage: &Stage) {
        self.comments(stage.around.comments());
        let mut words = vec![stage.from.base.node.as_str()];
        if let Some((keyword, name)) = stage.from.alias.as_deref() {
            words.extend([keyword.node.as_str(), &name.node]);
        }
        self.instruction(stage.keyword(), stage.around.flags(), &words.join(" "), &[]);
    }

    fn command(&mut self, command: &Command) {
        self.comments(command.around.comments());
        // The bodies of a trigger are in its text.
        let bodies = match command.instruction {
            Instruction::Onbuild(_) => &[],
            _ => command.around.heredocs(),
        };
        self.instruction(command.keyword(), command.around.flags(), &rest(command), bodies);
    }

    fn instruction(&mut self, keyword: &str, flags: &[Flag], rest: &str, bodies: &[Heredoc]) {
        let mut line = keyword.to_owned();
        for flag in flags {
            line.push(' ');
            self.flag(&mut line, &flag.text);
        }
        if rest.starts_with("--") && !keyword.eq_ignore_ascii_case("ONBUILD") {
            line.push_str(" --");
        }
        line.push(' ');
        line.push_str(rest);
        self.broken(&line);
        for body in bodies {
            self.out.push_str(&body.content);
            self.line(&body.name);
        }
    }

    /// A flag with everything escaped that would end it. Its bytes were read as code points, and become bytes again.
    fn flag(&self, line: &mut String, text: &str) {
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
        let text = bytes.map_or(text.into(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
        for c in text.chars() {
            if c.is_ascii_whitespace() || c == '\u{b}' || matches!(c, '\'' | '"') || c == self.escape {
                line.push(self.escape);
            }
            line.push(c);
        }
    }

    /// A line, continued where it would be too long.
    fn broken(&mut self, line: &str) {
        let mut rest = line;
        while rest.split('\n').next().unwrap_or_default().len() > MAX_LINE {
            let at = self.place_to_break(rest);
            self.out.push_str(&rest[..at]);
            self.out.push(self.escape);
            self.out.push('\n');
            rest = &rest[at..];
        }
        self.out.push_str(rest);
        // Only the end of the file ends a line that ends like this.
        let blank = rest.trim_end_matches([' ', '\t']);
        let single = blank.strip_suffix(self.escape).is_some_and(|before| !before.ends_with(self.escape));
        if single || rest.ends_with('\r') {
            self.out.push(self.escape);
        }
        self.out.push('\n');
    }

    /// The last place where a continuation changes nothing: not behind an escape character, and not in front of what
    /// would then be a comment or an empty line.
    fn place_to_break(&self, line: &str) -> usize {
        let most = line.floor_char_boundary(MAX_LINE - self.escape.len_utf8());
        let plain = |c: char| !c.is_whitespace() && c != '#' && c != self.escape;
        let found = line[..most].char_indices().rev().find(|(at, c)| *at > 0 && plain(*c));
        found.map_or(most, |(at, _)| at)
    }
}

/// What stands behind keyword and flags.
fn rest(command: &Command) -> String {
    match &command.instruction {
        Instruction::Add(add) => words(add.transfer.words(), command.json),
        Instruction::Copy(copy) => words(copy.transfer.words(), command.json),
        Instruction::Volume(list) | Instruction::Expose(list) => words(list, command.json),
        Instruction::Arg(args) => args.iter().map(arg).collect::<Vec<_>>().join(" "),
        Instruction::Run(run) => line(&run.command),
        Instruction::Cmd(command) | Instruction::Entrypoint(command) => line(command),
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.iter().map(Pair::text).collect::<Vec<_>>().join(" ")
        }
        Instruction::Healthcheck(check) => healthcheck(check, command),
        Instruction::Onbuild(onbuild) => onbuild.expression.to_string(),
        Instruction::Shell(argv) => json(argv),
        Instruction::Maintainer(word)
        | Instruction::Stopsignal(word)
        | Instruction::User(word)
        | Instruction::Workdir(word) => word.node.to_string(),
    }
}

fn words<'w>(words: impl IntoIterator<Item = &'w Word>, as_json: bool) -> String {
    let texts: Vec<&str> = words.into_iter().map(|word| word.node.as_str()).collect();
    if as_json {
        return json(&texts);
    }
    // What is no array must not become one: a vertical tab splits words and is no white space to JSON.
    let looks_like_json = texts.first().is_some_and(|first| first.starts_with('['));
    texts.join(if looks_like_json { "\u{b}" } else { " " })
}

fn arg(arg: &Arg) -> String {
    match &arg.value {
        Some(value) => format!("{}={value}", arg.name),
        None => arg.name.to_string(),
    }
}

fn line(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => text.to_string(),
        CommandLine::Exec(argv) => json(argv),
    }
}

fn healthcheck(check: &Healthcheck, command: &Command) -> String {
    match check.test.as_slice() {
        [] => String::new(),
        [none] => none.to_string(),
        [_, argv @ ..] if command.json => format!("CMD {}", json(argv)),
        [_, text @ ..] => format!("CMD {}", text.join(" ")),
    }
}

/// An array of strings on one line.
fn json<S: AsRef<str>>(words: &[S]) -> String {
    let mut out = String::from("[");
    for (number, word) in words.iter().enumerate() {
        let separator = if number == 0 { "" } else { ", " };
        let word = serde_json::Value::from(word.as_ref());
        write!(out, "{separator}{word}").expect("writing to a string does not fail");
    }
    out.push(']');
    out
}
