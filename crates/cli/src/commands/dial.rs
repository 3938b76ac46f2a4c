//! `lapstrake dial-stdio`: standard input and output as a connection to a running server.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use lapstrake_buildkit::Address;
use lapstrake_diag::{Context as _, Outcome, Report};

use crate::args::serve::Dial;
use crate::commands::serve::usual_address;
use crate::env;

/// A connection to a server.
enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    fn open(address: &Address) -> io::Result<Connection> {
        Ok(match address {
            Address::Unix(path) => Connection::Unix(UnixStream::connect(path)?),
            Address::Tcp(place) => Connection::Tcp(TcpStream::connect(place)?),
            Address::Activated => {
                return Err(io::Error::new(ErrorKind::InvalidInput, "only a server can listen at `fd://`"));
            }
        })
    }

    /// A file for one direction.
    fn file(&self) -> io::Result<File> {
        let fd: OwnedFd = match self {
            Connection::Unix(stream) => stream.try_clone()?.into(),
            Connection::Tcp(stream) => stream.try_clone()?.into(),
        };
        Ok(File::from(fd))
    }

    /// Tells the server that nothing more comes.
    fn finish(&self) -> io::Result<()> {
        match self {
            Connection::Unix(stream) => stream.shutdown(Shutdown::Write),
            Connection::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

/// Connects, and copies in both directions until the server closes the connection.
pub(super) fn dial(args: &Dial) -> Outcome<ExitCode> {
    if let Some(other) = args.builder.as_ref().filter(|name| *name != "default") {
        return Err(Report::new(format!(
            "no builder {other:?} found: the only builder is `default`; `--addr` names the address of a server"
        )));
    }
    let given = args.address.clone().or_else(|| env::value("BUILDKIT_HOST")).filter(|text| !text.is_empty());
    let address: Address = given.map_or_else(usual_address, Ok)?.parse()?;
    let connection = Connection::open(&address).map_err(|error| refused(&address, &error))?;
    let (mut answers, mut requests) = (connection.file()?, connection.file()?);
    // Not `io::stdout`, which waits for ends of lines.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The thread ends with the process: standard input may never end.
    std::thread::spawn(move || {
        // A connection that breaks ends the other direction too, where the user is told.
        drop(copy(&mut input, &mut requests));
        drop(connection.finish());
    });
    copy(&mut answers, &mut out).with_context(|| format!("connection to {address}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Copies each piece as soon as it comes. A reader that has gone away is an end like any other.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    match io::copy(from, to) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map(drop),
    }
}

fn refused(address: &Address, error: &io::Error) -> Report {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Report::new(format!("no server listens at {address}: {error}"))
                .with_hint(format!("start a server with `lapstrake serve --addr {address}`"))
        }
        _ => Report::new(format!("cannot connect to {address}: {error}")),
    }
}
