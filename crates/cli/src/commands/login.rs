//! `lapstrake login` and `logout`.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use lapstrake_oci::Reference;
use lapstrake_registry::{Client, Credentials, DockerConfig, Login, Registries};

use crate::args::images::{LoginArgs, Logout};
use crate::env;
use crate::exit::Usage;
use crate::session;

/// Checks a login and keeps it where Docker keeps its own.
pub(crate) fn login(args: &LoginArgs) -> anyhow::Result<ExitCode> {
    let registry = registry(args.server.as_deref())?;
    let config = config()?;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ")?,
    };
    let password = if let Some(password) = &args.password {
        tell!(
            "warning: others can read --password in the list of processes; --password-stdin keeps it to itself"
        );
        password.clone()
    } else if args.password_stdin {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        ask_secretly("Password: ")?
    };
    if user.is_empty() || password.is_empty() {
        return Err(Usage("a login needs a user name and a password".to_owned()).into());
    }
    let login = Login::Password { user, password };
    // Any name of the registry will do: only the registry itself is asked.
    let probe: Reference = format!("{registry}/lapstrake/login").parse()?;
    super::block_on(async {
        let credentials = Credentials::Given(login.clone());
        let client = Client::new(Registries { credentials, ..session::registries() })?;
        Ok(client.check_login(&probe).await?)
    })?;
    let place = config.store(&registry, &login)?;
    if args.json {
        say!("{}", serde_json::json!({"Registry": registry, "Place": place}));
        return Ok(ExitCode::SUCCESS);
    }
    say!("Login Succeeded");
    tell!("The login for {registry} is kept in {place}.");
    Ok(ExitCode::SUCCESS)
}

/// Forgets a login.
pub(crate) fn logout(args: &Logout) -> anyhow::Result<ExitCode> {
    let registry = registry(args.server.as_deref())?;
    let had = config()?.erase(&registry)?;
    if args.json {
        say!("{}", serde_json::json!({"Registry": registry, "Removed": had}));
    } else if had {
        // As Docker tells it.
        let place = if registry == "docker.io" { "https://index.docker.io/v1/" } else { &registry };
        say!("Removing login credentials for {place}");
    } else {
        say!("Not logged in to {registry}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The registry that a person means: Docker Hub, a host, or an address with a scheme.
fn registry(server: Option<&str>) -> Result<String, Usage> {
    let Some(server) = server else { return Ok("docker.io".to_owned()) };
    let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    let probe: Reference =
        format!("{host}/x/y").parse().map_err(|_| Usage(format!("`{server}` is no registry")))?;
    if probe.registry() == "docker.io" || probe.registry() == host {
        Ok(probe.registry().to_owned())
    } else {
        Err(Usage(format!("`{server}` is no registry")))
    }
}

fn config() -> Result<DockerConfig, Usage> {
    let path = env::docker_config();
    path.map(DockerConfig::new)
        .ok_or_else(|| Usage("no place for logins: set HOME or DOCKER_CONFIG".to_owned()))
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    let mut err = std::io::stderr();
    err.write_all(prompt.as_bytes())?;
    err.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks without showing what is typed.
fn ask_secretly(prompt: &str) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Usage("no terminal to ask for the password: use --password-stdin".to_owned()).into());
    }
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes -= LocalModes::ECHO;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let answer = ask(prompt);
    tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    tell!("");
    answer
}
