//! `lapstrake login` and `logout`.

use std::io;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use lapstrake_diag::{Outcome, Usage};
use lapstrake_oci::Reference;
use lapstrake_registry::{Client, Credentials, DockerConfig, Login, Registries, registry_of};

use crate::args::images::{LoginArgs, Logout};
use crate::env;
use crate::session;

/// Checks a login and keeps it where Docker keeps its own.
pub(crate) fn login(args: &LoginArgs) -> Outcome<ExitCode> {
    let from_stdin = from_stdin(args)?;
    let registry = registry_of(args.server.as_deref())?;
    let config = config()?;
    let given = args.username.is_some() || args.password.is_some();
    if !given && let Some(login) = kept(&config, &registry)? {
        match check(&registry, &login) {
            Ok(()) => return finish(args, &registry, None),
            Err(error) => tell!("Stored credentials invalid or expired: {error}"),
        }
    }
    let login = asked(args, from_stdin)?;
    check(&registry, &login)?;
    let place = config.store(&registry, &login)?;
    finish(args, &registry, Some(&place))
}

/// Whether the password comes from standard input. What contradicts itself is told in Docker's words.
fn from_stdin(args: &LoginArgs) -> Result<bool, Usage> {
    let bad = |why: &str| Err(Usage(why.to_owned()));
    let dash = args.password.as_deref() == Some("-");
    let from_stdin = args.password_stdin || dash;
    if args.password_stdin && args.password.is_some() && !dash {
        return bad("conflicting options: cannot specify both --password and --password-stdin");
    }
    if from_stdin && args.username.is_none() {
        return bad("the --password-stdin option requires --username to be set");
    }
    if args.username.as_deref() == Some("") {
        return bad("username is empty");
    }
    if args.password.as_deref() == Some("") {
        return bad("password is empty");
    }
    Ok(from_stdin)
}

/// The login that there is, told of.
fn kept(config: &DockerConfig, registry: &str) -> Outcome<Option<Login>> {
    let login = Credentials::Docker(config.clone()).of(registry)?;
    let user = match &login {
        Some(Login::Password { user, .. }) => format!(" [Username: {user}]"),
        Some(Login::Identity(_)) => String::new(),
        None => return Ok(None),
    };
    tell!("Authenticating with existing credentials...{user}");
    tell!("To login with a different account, run `lapstrake logout` followed by `lapstrake login`");
    Ok(login)
}

/// The login that the arguments give, asking for what they leave out.
fn asked(args: &LoginArgs, from_stdin: bool) -> Outcome<Login> {
    let complete = args.username.is_some() && (from_stdin || args.password.is_some());
    if !complete && !std::io::stdin().is_terminal() {
        let text =
            "cannot perform an interactive login from a non-TTY device: use --username and --password-stdin";
        return Err(Usage(text.to_owned()).into());
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ")?,
    };
    let password = match &args.password {
        _ if from_stdin => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            // One end of a line is the shell's; more are somebody's password.
            let line = text.strip_suffix('\n').unwrap_or(&text);
            line.strip_suffix('\r').unwrap_or(line).to_owned()
        }
        Some(password) => {
            tell!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password.clone()
        }
        None => ask_secretly("Password: ")?,
    };
    if user.is_empty() || password.trim().is_empty() {
        let what = if user.is_empty() { "username" } else { "password" };
        return Err(Usage(format!("{what} is empty")).into());
    }
    Ok(Login::Password { user, password })
}

/// Fails if the registry does not take the login.
fn check(registry: &str, login: &Login) -> Outcome<()> {
    // Any name of the registry will do: only the registry itself is asked.
    let probe: Reference = format!("{registry}/lapstrake/login").parse()?;
    super::block_on(async {
        let credentials = Credentials::Given(login.clone());
        let client = Client::new(Registries { credentials, ..session::registries() })?;
        Ok(client.check_login(&probe).await?)
    })
}

fn finish(args: &LoginArgs, registry: &str, place: Option<&str>) -> Outcome<ExitCode> {
    if args.json {
        say!("{}", serde_json::json!({"Registry": registry, "Place": place}));
        return Ok(ExitCode::SUCCESS);
    }
    match place {
        Some(place) if place.contains('/') => {
            tell!("WARNING! Your credentials are stored unencrypted in '{place}'.");
            tell!("Configure a credential helper to remove this warning.");
        }
        Some(program) => tell!("The login for {registry} is kept in {program}."),
        None => {}
    }
    say!("Login Succeeded");
    Ok(ExitCode::SUCCESS)
}

/// Forgets a login.
pub(crate) fn logout(args: &Logout) -> Outcome<ExitCode> {
    let registry = registry_of(args.server.as_deref())?;
    let had = config()?.erase(&registry)?;
    if args.json {
        say!("{}", serde_json::json!({"Registry": registry, "Removed": had}));
        return Ok(ExitCode::SUCCESS);
    }
    // As Docker tells it, which does not say whether there was anything.
    let place = if registry == "docker.io" { "https://index.docker.io/v1/" } else { &registry };
    say!("Removing login credentials for {place}");
    if !had {
        tell!("Not logged in to {registry}");
    }
    Ok(ExitCode::SUCCESS)
}

fn config() -> Result<DockerConfig, Usage> {
    env::docker_config().ok_or_else(|| Usage("no place for logins: set HOME or DOCKER_CONFIG".to_owned()))
}

fn ask(prompt: &str) -> Outcome<String> {
    let mut err = std::io::stderr();
    err.write_all(prompt.as_bytes())?;
    err.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks without showing what is typed.
fn ask_secretly(prompt: &str) -> Outcome<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin).map_err(io::Error::from)?;
    let mut hidden = shown.clone();
    hidden.local_modes -= LocalModes::ECHO;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(io::Error::from)?;
    let answer = ask(prompt);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(io::Error::from)?;
    tell!("");
    answer
}
