//! Commits of git repositories, through the `git` program.
//!
//! A repository is hostile: no hook, filter, external transport or local path is ever used, no configuration but ours is
//! read, nothing that somebody else chose stands where git takes options, and what is checked out are files, directories
//! and links, never anything that git would run. The caller resolves paths in the result within its root.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod lookup;

pub use lookup::{GitObjects, NamedCommit};

use crate::error::RemoteError;
use crate::http::without_login;
use crate::moved::Moved;

/// What of a repository is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Git {
    /// Where it is: an address with scheme, or `user@host:path`.
    pub remote: String,
    /// A branch, a tag or a commit; empty is what the repository itself shows first.
    pub reference: String,
    /// What the commit must begin with, in hex; empty is any.
    pub checksum: String,
    /// Whether the commit is the checksum, without asking what the reference is.
    pub fetch_by_commit: bool,
    /// Whether submodules are brought too.
    pub submodules: bool,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
}

/// What is used to get there. Never part of a result.
#[derive(Clone, Debug, Default)]
pub struct GitAccess {
    /// The value of an `Authorization` header for this repository's server, and for no other.
    pub authorization: Option<String>,
    /// Where the server says that the repository is: see [`crate::moved()`].
    pub moved: Option<Moved>,
    /// Why a secret that is there was not used, for the message if git fails.
    pub withheld: Option<String>,
    /// The socket of an SSH agent.
    pub ssh_agent: Option<PathBuf>,
    /// What git gets to know of the caller's environment: `PATH`, proxies, certificates. It gets nothing else.
    pub environment: Vec<(OsString, OsString)>,
    /// A directory for the home directories of git, which nobody else cleans meanwhile; the system's for temporary files where
    /// it is not given.
    pub scratch: Option<PathBuf>,
}

/// A commit whose files are in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The commit.
    pub commit: String,
    /// When it was committed, seconds since the Unix epoch.
    pub time: i64,
}

/// Runs git in one place: what is tried, and the arguments.
type Run<'r> = dyn Fn(&'static str, &[&str]) -> Result<String, RemoteError> + 'r;

/// What git says of a server that only hands out files: such a server cannot leave out history.
const DUMB: &str = "dumb http transport does not support shallow capabilities";

/// Runs a command with a depth among its words. A server without shallow fetches is asked for the whole history.
fn shallow(run: &Run<'_>, action: &'static str, words: &[&str]) -> Result<String, RemoteError> {
    match run(action, words) {
        Err(error) if error.to_string().contains(DUMB) => {
            let whole: Vec<&str> =
                words.iter().filter(|word| !word.starts_with("--depth=")).copied().collect();
            run(action, &whole)
        }
        done => done,
    }
}

impl Git {
    /// The commit that is meant, without fetching it.
    ///
    /// # Errors
    /// [`RemoteError`]: git cannot be run or fails, or there is no such reference.
    pub fn resolve(&self, access: &GitAccess) -> Result<String, RemoteError> {
        Ok(self.lookup(access)?.commit)
    }

    /// Puts the files of `commit`, which [`Git::resolve`] gave, into the empty directory `dir`.
    ///
    /// # Errors
    /// [`RemoteError`]: git cannot be run or fails.
    pub fn checkout(&self, commit: &str, dir: &Path, access: &GitAccess) -> Result<Checkout, RemoteError> {
        self.check()?;
        let home = self.home(access)?;
        let run = |action, args: &[&str]| self.git_text((home.path(), Some(dir)), access, action, args);
        self.fetch(commit, &run)?;
        run("checkout", &["-c", "advice.detachedHead=false", "checkout", "-q", "--force", commit])?;
        if self.submodules && dir.join(".gitmodules").is_file() {
            let depth = ["submodule", "update", "-q", "--init", "--recursive", "--depth=1"];
            run("remote add", &["remote", "add", "origin", &self.remote])?;
            shallow(&run, "submodule update", &depth)?;
        }
        let time = committed(commit, &run)?;
        if self.keep_git_dir {
            self.tidy(commit, dir, &run)?;
        } else {
            remove_git(dir).map_err(self.io("remove .git"))?;
        }
        Ok(Checkout { commit: commit.to_owned(), time })
    }

    /// When `commit`, which [`Git::resolve`] gave, was committed, in seconds since 1970.
    ///
    /// # Errors
    /// [`RemoteError`]: git cannot be run or fails.
    pub fn time(&self, commit: &str, access: &GitAccess) -> Result<i64, RemoteError> {
        self.check()?;
        let (home, dir) = (self.home(access)?, self.home(access)?);
        let run =
            |action, args: &[&str]| self.git_text((home.path(), Some(dir.path())), access, action, args);
        self.fetch(commit, &run)?;
        committed(commit, &run)
    }

    /// Makes a repository and fetches the one commit into it, without history. Servers that give no commit that nobody names are asked for the
    /// reference, and must still have the same there.
    fn fetch(&self, commit: &str, run: &Run<'_>) -> Result<(), RemoteError> {
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        run("init", &["-c", "init.defaultBranch=lapstrake", "init", "-q", "--template=", format])?;
        let fetch = |what: &str, depth: &str| {
            shallow(
                run,
                "fetch",
                &["fetch", "-q", "--no-tags", "--update-head-ok", depth, "--", &self.remote, what],
            )
        };
        let Err(error) = fetch(commit, "--depth=1") else { return Ok(()) };
        if is_commit(&self.reference) || self.fetch_by_commit {
            // Whoever does not give commits gives branches, and the commit is perhaps in one of them.
            fetch("+refs/heads/*:refs/remotes/origin/*", "--depth=2147483647").map_err(|_| error)?;
            return Ok(());
        }
        let wanted = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        fetch(wanted, "--depth=1").map_err(|_| error).map(drop)
    }

    /// A `.git` to keep: where it came from is known, how to get there is not. Nothing is on a branch, but the branch or
    /// the tag that was asked for is there, so that `git describe` has something to say.
    fn tidy(&self, commit: &str, dir: &Path, run: &Run<'_>) -> Result<(), RemoteError> {
        match self.name_of(run)? {
            Some(tag) if tag.starts_with("refs/tags/") => {
                let both = format!("+{tag}:{tag}");
                shallow(run, "fetch", &["fetch", "-q", "--no-tags", "--depth=1", "--", &self.remote, &both])?;
            }
            Some(branch) => drop(run("update-ref", &["update-ref", &branch, commit])?),
            None => {}
        }
        // There is none yet unless there were submodules.
        run("remote remove", &["remote", "remove", "origin"]).map(drop).unwrap_or_default();
        run("remote add", &["remote", "add", "origin", &self.shown()])?;
        run("reflog", &["reflog", "expire", "--all", "--expire=now"])?;
        fs::remove_file(dir.join(".git/FETCH_HEAD")).unwrap_or_default();
        Ok(())
    }

    /// The whole name of the branch or tag that is meant; `None` of a commit.
    fn name_of(&self, run: &Run<'_>) -> Result<Option<String>, RemoteError> {
        if is_commit(&self.reference) || self.fetch_by_commit {
            return Ok(None);
        }
        let list = |args: &[&str]| run("ls-remote", &[&["ls-remote"], args].concat());
        if self.reference.is_empty() {
            let out = list(&["--symref", "--", &self.remote, "HEAD"])?;
            let head = out.lines().find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
            return Ok(head.filter(|head| head.starts_with("refs/heads/")).map(str::to_owned));
        }
        let out = list(&["--", &self.remote, &self.reference])?;
        let name = choose(&out, &self.reference).map(|found| found.name);
        Ok(name.filter(|name| name.starts_with("refs/heads/") || name.starts_with("refs/tags/")))
    }

    /// What cannot be a remote or a reference is refused before git sees it.
    fn check(&self) -> Result<(), RemoteError> {
        let option = |text: &str| text.starts_with('-');
        let odd = |text: &str| text.chars().any(char::is_control);
        if self.remote.is_empty() || option(&self.remote) || odd(&self.remote) {
            return Err(bad(format!("`{}` is no repository", self.remote)));
        }
        let forbidden = |c: char| c.is_whitespace() || "~^:?*[\\".contains(c);
        let reference = &self.reference;
        if option(reference) || odd(reference) || reference.contains(forbidden) || reference.contains("..") {
            return Err(bad(format!("invalid git reference `{reference}`")));
        }
        if !self.checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad(format!(
                "invalid checksum {} for Git URL, expected hex commit hash",
                self.checksum
            )));
        }
        Ok(())
    }

    fn shown(&self) -> String {
        without_login(&self.remote).unwrap_or_else(|_| self.remote.clone())
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> RemoteError + use<'_> {
        move |source| RemoteError::Io { action, remote: self.shown(), source }
    }

    /// An empty home directory: no configuration, no keys.
    fn home(&self, access: &GitAccess) -> Result<tempfile::TempDir, RemoteError> {
        let made = match &access.scratch {
            Some(scratch) => tempfile::tempdir_in(scratch),
            None => tempfile::tempdir(),
        };
        made.map_err(self.io("make a directory"))
    }

    /// Runs git and gives what it printed.
    fn git_in(
        &self,
        home: &Path,
        dir: Option<&Path>,
        access: &GitAccess,
        action: &'static str,
        args: &[&str],
    ) -> Result<Vec<u8>, RemoteError> {
        // Files have the same modes whatever the user's mask is.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 022 && exec git \"$@\"", "git"]);
        command.env_clear().current_dir(dir.unwrap_or(home));
        command
            .envs(access.environment.iter().map(|(name, value)| (name, value)))
            .env("HOME", home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
            .env("GIT_SSH_COMMAND", ssh_command(access));
        if let Some(agent) = &access.ssh_agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        for (number, (key, value)) in self.settings(access).into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
            command.env("GIT_CONFIG_COUNT", (number + 1).to_string());
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.run(command, action, access.withheld.as_deref())
    }

    /// As [`Git::git_in`], as text.
    fn git_text(
        &self,
        (home, dir): (&Path, Option<&Path>),
        access: &GitAccess,
        action: &'static str,
        args: &[&str],
    ) -> Result<String, RemoteError> {
        let printed = self.git_in(home, dir, access, action, args)?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// Settings travel in the environment: not even a list of processes shows a token.
    fn settings(&self, access: &GitAccess) -> Vec<(String, String)> {
        let plain = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.symlinks", "true"),
            ("core.protectHFS", "true"),
            ("core.protectNTFS", "true"),
            ("core.autocrlf", "false"),
            ("fetch.fsckObjects", "true"),
            ("transfer.fsckObjects", "true"),
            ("submodule.recurse", "false"),
            ("submodule.fetchJobs", "2"),
            ("credential.helper", ""),
            ("safe.directory", "*"),
            ("gc.auto", "0"),
        ];
        let mut all: Vec<(String, String)> =
            plain.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let Some(value) = &access.authorization else { return all };
        let mut servers = vec![origin(&self.remote)];
        if let Some(moved) = &access.moved {
            all.push((format!("url.{}.insteadOf", moved.remote), self.remote.clone()));
            servers.push(origin(&moved.remote).filter(|_| moved.authorized));
        }
        servers.dedup();
        for origin in servers.into_iter().flatten() {
            // Only for this server: submodules elsewhere must not see it, nor whoever the server sends git to.
            all.push((format!("http.{origin}.extraHeader"), format!("Authorization: {value}")));
            all.push((format!("http.{origin}.followRedirects"), "false".to_owned()));
        }
        all
    }

    fn run(
        &self,
        mut command: Command,
        action: &'static str,
        withheld: Option<&str>,
    ) -> Result<Vec<u8>, RemoteError> {
        let no_git = |source| RemoteError::NoGit { remote: self.shown(), source };
        let mut child = command.spawn().map_err(no_git)?;
        let errors = child.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(errors) = errors {
                // What cannot be read is not told.
                errors.take(64 << 10).read_to_end(&mut said).unwrap_or_default();
            }
            said
        });
        let output = child.wait_with_output().map_err(self.io("wait for git"))?;
        let said = reader.join().unwrap_or_default();
        if output.status.success() {
            return Ok(output.stdout);
        }
        if output.status.code() == Some(127) {
            return Err(no_git(io::ErrorKind::NotFound.into()));
        }
        let said = String::from_utf8_lossy(&said);
        let mut said = said.trim().replace(&self.remote, &self.shown());
        if let Some(why) = withheld {
            said = format!("{said}\n{why}");
        }
        Err(RemoteError::Git { action, remote: self.shown(), said })
    }
}

/// When a commit that is here was committed.
fn committed(commit: &str, run: &Run<'_>) -> Result<i64, RemoteError> {
    let time = run("show", &["show", "-q", "--format=%ct", commit])?;
    Ok(time.trim().lines().last().and_then(|line| line.parse().ok()).unwrap_or(0))
}

fn bad(why: String) -> RemoteError {
    RemoteError::Reference { why }
}

/// Whether it is a whole SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Scheme and host, with a slash.
fn origin(remote: &str) -> Option<String> {
    let (scheme, rest) =
        remote.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let host = rest.split('/').next()?;
    Some(format!("{scheme}://{}/", host.rsplit_once('@').map_or(host, |(_, host)| host)))
}

/// Nothing is asked, no configuration is read, no key of this machine and only an agent that was given is used: ssh takes the home
/// directory from the system's list of users, not from `HOME`. Who a host is, is learnt as it goes: the connection is
/// encrypted, and a checksum says whether the right thing came.
fn ssh_command(access: &GitAccess) -> String {
    let agent = if access.ssh_agent.is_some() { "" } else { " -o IdentityAgent=none" };
    format!(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o IdentityFile=none -o CertificateFile=none -o PKCS11Provider=none \
         -o GSSAPIAuthentication=no -o HostbasedAuthentication=no{agent}"
    )
}

/// What `ls-remote` says of a name.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The commit.
    commit: String,
    /// The annotated tag around it.
    tag: Option<String>,
    /// The whole name.
    name: String,
}

/// What `ls-remote` means by a name: a branch before a tag, and the exact name before those that only end in it.
fn choose(out: &str, wanted: &str) -> Option<Found> {
    let lines = out.lines().filter_map(|line| line.split_once('\t'));
    let all: Vec<(&str, &str)> = lines.filter(|(commit, _)| is_commit(commit)).collect();
    let find =
        |name: &str| all.iter().find(|(_, found)| *found == name).map(|(commit, _)| (*commit).to_owned());
    let names = [wanted.to_owned(), format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")];
    let name = names.into_iter().find(|name| find(name).is_some())?;
    let own = find(&name)?;
    Some(match find(&format!("{name}^{{}}")) {
        Some(commit) => Found { commit, tag: Some(own), name },
        None => Found { commit: own, tag: None, name },
    })
}

/// Removes `.git` of the repository and of its submodules. Links are removed, never followed.
fn remove_git(dir: &Path) -> io::Result<()> {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if entry.file_name() == OsStr::new(".git") {
                if is_dir { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
            } else if is_dir {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(remote: &str, reference: &str) -> Git {
        Git { remote: remote.to_owned(), reference: reference.to_owned(), ..Git::default() }
    }

    #[test]
    fn nothing_becomes_an_option() {
        for (remote, reference) in [
            ("--upload-pack=touch /tmp/x", ""),
            ("", ""),
            ("https://host/x.git", "--upload-pack=x"),
            ("https://host/x.git", "a b"),
            ("https://host/x.git", "a..b"),
            ("https://host/x.git", "+refs/heads/*:refs/heads/*"),
            ("https://host/x\n.git", "a"),
        ] {
            let error = git(remote, reference).resolve(&GitAccess::default()).unwrap_err();
            assert!(matches!(error, RemoteError::Reference { .. }), "{remote} {reference}: {error}");
        }
        let odd = Git { checksum: "nothex".to_owned(), ..git("https://host/x.git", "") };
        let error = odd.resolve(&GitAccess::default()).unwrap_err();
        assert_eq!(error.to_string(), "invalid checksum nothex for Git URL, expected hex commit hash");
    }

    #[test]
    fn other_transports_are_refused_by_git_too() {
        for remote in ["ext::sh -c true", "file:///tmp/none.git", "/tmp/none.git"] {
            let error = git(remote, "main").resolve(&GitAccess::default()).unwrap_err();
            assert!(
                error.to_string().contains("not allowed") || error.to_string().contains("not supported"),
                "{error}"
            );
        }
    }

    #[test]
    fn commits_need_no_asking() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let pinned = Git { checksum: "0123".to_owned(), ..git("https://host/x.git", commit) };
        assert_eq!(pinned.resolve(&GitAccess::default()).unwrap(), commit);
        let other = Git { checksum: "9".to_owned(), ..git("https://host/x.git", commit) };
        let error = other.resolve(&GitAccess::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("expected checksum to match 9, got {commit}"));
        let by_commit = |reference: &str, checksum: &str| {
            let checksum = checksum.to_owned();
            let git = Git { checksum, fetch_by_commit: true, ..git("https://host/x.git", reference) };
            git.resolve(&GitAccess::default()).map_err(|error| error.to_string())
        };
        assert_eq!(by_commit(commit, ""), Ok(commit.to_owned()));
        assert_eq!(by_commit("main", commit), Ok(commit.to_owned()));
        let none = "fetch-by-commit requires a checksum or a commit SHA ref";
        assert_eq!(by_commit("main", ""), Err(none.to_owned()));
        let short = "fetch-by-commit requires a full commit SHA checksum, got \"0123\"";
        assert_eq!(by_commit("", "0123"), Err(short.to_owned()));
    }

    #[test]
    fn names_in_order() {
        let (a, b, c, d) = ("a".repeat(40), "b".repeat(40), "c".repeat(40), "d".repeat(40));
        let out = format!(
            "{a}\trefs/heads/x/v1\n{b}\trefs/heads/v1\n{c}\trefs/tags/v1\n{d}\trefs/tags/v1^{{}}\nnonsense\n"
        );
        let found = |commit: String, tag: Option<String>, name: &str| {
            Some(Found { commit, tag, name: name.to_owned() })
        };
        assert_eq!(choose(&out, "v1"), found(b, None, "refs/heads/v1"));
        assert_eq!(choose(&out, "refs/tags/v1"), found(d, Some(c), "refs/tags/v1"));
        assert_eq!(choose(&out, "v2"), None);
    }

    #[test]
    fn a_token_is_for_its_server() {
        let access = GitAccess { authorization: Some("Basic x".to_owned()), ..GitAccess::default() };
        let keys = |remote: &str| {
            let settings = git(remote, "").settings(&access);
            settings.into_iter().find(|(key, _)| key.starts_with("http."))
        };
        let found = keys("https://me@host:8443/x.git").unwrap();
        assert_eq!(
            found,
            ("http.https://host:8443/.extraHeader".to_owned(), "Authorization: Basic x".to_owned())
        );
        assert_eq!(keys("git@host:x"), None);
    }

    #[test]
    fn a_token_follows_no_redirect() {
        let moved = |remote: &str, authorized| Moved { remote: remote.to_owned(), authorized };
        let keys = |moved: Moved| {
            let access = GitAccess {
                authorization: Some("Basic x".to_owned()),
                moved: Some(moved),
                ..GitAccess::default()
            };
            let settings = git("http://host/x.git", "").settings(&access);
            settings.into_iter().map(|(key, _)| key).filter(|key| key.contains("://")).collect::<Vec<_>>()
        };
        let elsewhere = keys(moved("https://other/y.git", false));
        assert_eq!(
            elsewhere,
            [
                "url.https://other/y.git.insteadOf",
                "http.http://host/.extraHeader",
                "http.http://host/.followRedirects"
            ]
        );
        let here = keys(moved("https://host/y.git", true));
        assert!(here.contains(&"http.https://host/.extraHeader".to_owned()), "{here:?}");
    }

    /// What ssh would do, told by itself: no key of the machine is tried.
    #[test]
    fn no_key_of_the_machine() {
        let command = ssh_command(&GitAccess::default());
        let asked = Command::new("sh").args(["-c", &format!("{command} -G host")]).output();
        // Without ssh there is nothing to be tried.
        let Some(output) = asked.ok().filter(|output| output.status.success()) else { return };
        let settings = String::from_utf8_lossy(&output.stdout).into_owned();
        let identities: Vec<&str> = settings.lines().filter(|line| line.starts_with("identity")).collect();
        assert!(identities.contains(&"identityagent none"), "{identities:?}");
        assert!(identities.iter().all(|line| !line.contains('/')), "{identities:?}");
    }
}
