//! Errors as values that can be shown: on a terminal, as JSON, as the status of a call.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::{Diagnostic, SourceFile};

/// The party that has to act before another try can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The author of what is built: the Dockerfile, its files, a command in it.
    Build,
    /// The caller: an argument that cannot be.
    Usage,
    /// The machine or a service: the kernel, a disk, a registry.
    Environment,
    /// Nobody: the work was canceled by a signal with this number, or by a client (0).
    Canceled(i32),
}

impl Fault {
    /// The name that programs read.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Build => "build",
            Fault::Usage => "usage",
            Fault::Environment => "environment",
            Fault::Canceled(_) => "canceled",
        }
    }
}

/// A stable name for a kind of error: the area that it belongs to, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    area: &'static str,
    name: &'static str,
}

impl Code {
    /// Of the area `area`, as `registry`, with the name `name`, as `not-found`.
    pub const fn new(area: &'static str, name: &'static str) -> Code {
        Code { area, name }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.area, self.name)
    }
}

/// The code of errors without one of their own.
const PLAIN: Code = Code::new("error", "failed");
/// The code of [`Usage`].
const USAGE: Code = Code::new("usage", "invalid");
/// The code of [`Report::canceled`].
const CANCELED: Code = Code::new("canceled", "signal");
/// The code of a write that nobody reads.
const BROKEN_PIPE: Code = Code::new("io", "broken-pipe");

/// An error that can become a [`Report`]. The error type of each crate implements it.
pub trait Reported: Error + Send + Sync + 'static {
    /// A stable name for this kind of error.
    fn code(&self) -> Code;

    /// The reported error that this one passes on or was caused by.
    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        None
    }

    /// The party that has to act.
    fn fault(&self) -> Fault {
        self.inner().map_or(Fault::Build, Reported::fault)
    }

    /// The user's way to go on.
    fn hint(&self) -> Option<String> {
        self.inner().and_then(Reported::hint)
    }
}

/// Shared errors are reported as the errors that they share.
impl<E: Reported + ?Sized> Reported for Arc<E> {
    fn code(&self) -> Code {
        (**self).code()
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        (**self).inner()
    }

    fn fault(&self) -> Fault {
        (**self).fault()
    }

    fn hint(&self) -> Option<String> {
        (**self).hint()
    }
}

impl Reported for io::Error {
    fn code(&self) -> Code {
        if self.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { Code::new("io", "failed") }
    }
}

impl Reported for serde_json::Error {
    fn code(&self) -> Code {
        match self.io_error_kind() {
            Some(io::ErrorKind::BrokenPipe) => BROKEN_PIPE,
            _ => Code::new("json", "malformed"),
        }
    }
}

impl Reported for std::convert::Infallible {
    fn code(&self) -> Code {
        match *self {}
    }
}

/// An argument that cannot be, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

impl Reported for Usage {
    fn code(&self) -> Code {
        USAGE
    }

    fn fault(&self) -> Fault {
        Fault::Usage
    }
}

/// The part of a user's text that a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excerpt {
    /// Findings with their places, in the order of the text.
    Findings(Vec<Diagnostic>),
    /// The lines from the first to the last, counted from 1.
    Lines(u32, u32),
}

/// The place of an error in a user's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub file: Arc<SourceFile>,
    /// The part of the text.
    pub excerpt: Excerpt,
}

impl Place {
    /// The name of the file and the first line, counted from 1; nothing where no finding has a place.
    pub fn start(&self) -> Option<(&str, u32)> {
        let line = match &self.excerpt {
            Excerpt::Lines(first, _) => *first,
            Excerpt::Findings(findings) => findings.first()?.lines(&self.file)?.0,
        };
        let origin = self.file.origin(line);
        Some((origin.name, origin.line))
    }
}

/// An error as a value: what went wrong, where, why, and the way to go on.
///
/// The [`Display`](fmt::Display) form is one line: the message and its causes.
#[derive(Clone, PartialEq, Eq)]
pub struct Report(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    code: Code,
    message: String,
    causes: Vec<String>,
    place: Option<Place>,
    step: Option<String>,
    hint: Option<String>,
    fault: Fault,
}

/// The way to go on with a full disk.
const FULL_DISK: &str = "free space, or set LAPSTRAKE_ROOT to a directory on another disk";

impl Report {
    /// A failed build, with this sentence.
    pub fn new(message: impl Into<String>) -> Report {
        let message = message.into();
        let fault = Fault::Build;
        Report(Box::new(Parts {
            code: PLAIN,
            message,
            causes: Vec::new(),
            place: None,
            step: None,
            hint: None,
            fault,
        }))
    }

    /// Work that the signal `signal` ended; 0 where a client canceled it.
    pub fn canceled(signal: i32) -> Report {
        let mut report = Report::new("canceled");
        (report.0.code, report.0.fault) = (CANCELED, Fault::Canceled(signal));
        report
    }

    /// Of an error and its causes.
    pub fn of(error: &(dyn Reported + 'static)) -> Report {
        let mut texts = texts(error).into_iter();
        let message = texts.next().unwrap_or_default();
        let (mut fault, mut hint) = (error.fault(), error.hint());
        if chain(error).any(is_full) {
            fault = if fault == Fault::Build { Fault::Environment } else { fault };
            hint = hint.or_else(|| Some(FULL_DISK.to_owned()));
        }
        let parts = Parts {
            code: error.code(),
            message,
            causes: texts.collect(),
            place: None,
            step: None,
            hint,
            fault,
        };
        Report(Box::new(parts))
    }

    /// With a hint in place of the error's own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Report {
        self.0.hint = Some(hint.into());
        self
    }

    /// With a fault in place of the error's own.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Report {
        self.0.fault = fault;
        self
    }

    /// With the place in a user's text.
    #[must_use]
    pub fn at(mut self, file: &Arc<SourceFile>, excerpt: Excerpt) -> Report {
        self.0.place = Some(Place { file: file.clone(), excerpt });
        self
    }

    /// With the digest of the step that failed.
    #[must_use]
    pub fn of_step(mut self, digest: impl Into<String>) -> Report {
        self.0.step = Some(digest.into());
        self
    }

    /// With a message in place of the error's own, and of its causes'.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Report {
        self.0.message = message.into();
        self.0.causes.clear();
        self
    }

    /// As a cause of `message`.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Report {
        let cause = std::mem::replace(&mut self.0.message, message.into());
        if !self.0.message.ends_with(&cause) {
            self.0.causes.insert(0, cause);
        }
        self
    }

    /// With all texts through `change`.
    #[must_use]
    pub fn map_texts(mut self, change: impl Fn(&str) -> String) -> Report {
        let texts = std::iter::once(&mut self.0.message).chain(&mut self.0.causes).chain(&mut self.0.hint);
        texts.for_each(|text| *text = change(text));
        self
    }

    /// A stable name for this kind of error.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The fault, without the causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The causes, the nearest one first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// The place in a user's text.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The digest of the step that failed, by which progress streams name it.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// The user's way to go on.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The party that has to act.
    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    /// Whether the output's reader has gone, so that there is nobody to tell.
    pub fn is_broken_pipe(&self) -> bool {
        self.0.code == BROKEN_PIPE
    }
}

/// The result of work that can fail, with a report of the failure.
pub type Outcome<T> = Result<T, Report>;

impl<E: Reported> From<E> for Report {
    fn from(error: E) -> Report {
        Report::of(&error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        self.0.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One object: `code`, `message`, `causes`, `hint`, `fault`, and `file` and `line` where there is a place.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Report", 7)?;
        object.serialize_field("code", &self.0.code.to_string())?;
        object.serialize_field("message", &self.0.message)?;
        object.serialize_field("causes", &self.0.causes)?;
        object.serialize_field("hint", &self.0.hint)?;
        object.serialize_field("fault", self.0.fault.name())?;
        let start = self.0.place.as_ref().and_then(Place::start);
        object.serialize_field("file", &start.map(|(file, _)| file))?;
        object.serialize_field("line", &start.map(|(_, line)| line))?;
        object.end()
    }
}

/// Puts a sentence before an error, or in place of nothing.
pub trait Context<T> {
    /// With `message` before the causes.
    ///
    /// # Errors
    /// The report of the error, if there is one.
    fn context(self, message: &str) -> Result<T, Report>;

    /// As [`Context::context`], with a message that is only made for an error.
    ///
    /// # Errors
    /// The report of the error, if there is one.
    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T, Report>;
}

impl<T, E: Into<Report>> Context<T> for Result<T, E> {
    fn context(self, message: &str) -> Result<T, Report> {
        self.map_err(|error| error.into().context(message))
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T, Report> {
        self.map_err(|error| error.into().context(message()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, message: &str) -> Result<T, Report> {
        self.ok_or_else(|| Report::new(message))
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T, Report> {
        self.ok_or_else(|| Report::new(message()))
    }
}

/// An error and its causes, outermost first.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// The texts of an error and its causes in one line.
pub fn text(error: &(dyn Error + 'static)) -> String {
    texts(error).join(": ")
}

/// Transparent errors repeat their cause, and some texts end with it: once is enough.
fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts
}

/// Whether there was no room on a disk.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot write `x`")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    impl Reported for Outer {
        fn code(&self) -> Code {
            Code::new("test", "outer")
        }

        fn inner(&self) -> Option<&(dyn Reported + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn causes_are_told_once() {
        let report = Report::from(Outer(io::Error::other("no")));
        assert_eq!(report.to_string(), "cannot write `x`: no");
        assert_eq!(report.clone().context("cannot save").to_string(), "cannot save: cannot write `x`: no");
        assert_eq!(
            (report.fault(), report.hint(), report.code().to_string().as_str()),
            (Fault::Build, None, "test.outer")
        );
        assert_eq!(Report::new("no").context("all is no").to_string(), "all is no");
    }

    #[test]
    fn full_disks_are_the_machines() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let report = Report::from(Outer(full()));
        assert_eq!((report.fault(), report.hint()), (Fault::Environment, Some(FULL_DISK)));
        assert_eq!(Report::from(full()).with_hint("mine").hint(), Some("mine"));
    }

    #[test]
    fn programs_read_an_object() {
        let file = Arc::new(SourceFile::new("Dockerfile", "FROM a\nRUM b\n"));
        let found = Diagnostic::error("InstructionError", "unknown instruction: RUM", Span::new(7, 10));
        let report = Report::from(Usage("bad".to_owned())).with_hint("mend it");
        let report = report.at(&file, Excerpt::Findings(vec![found]));
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"code":"usage.invalid","message":"bad","causes":[],"hint":"mend it","fault":"usage","file":"Dockerfile","line":2}"#
        );
    }
}
