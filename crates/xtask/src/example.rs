//! The README's example: a C program built with this machine's compiler and shipped `FROM scratch`, then run.

use std::process::Command;

/// Builds and runs it, in the user's own state directory.
pub(crate) fn example() -> Result<(), String> {
    println!(
        "compiling lapstrake with cargo: a few minutes the first time, and only crates come from the network"
    );
    crate::run("cargo", &["build", "--package", "lapstrake"])?;
    let lapstrake = crate::target()?.join("debug/lapstrake");
    let context = crate::top().join("testdata/builds/hello");
    let steps: [&[&str]; 2] =
        [&["build", "-t", "hello", "--build-context", "host=rootfs:///"], &["run", "hello", "reader"]];
    for (number, args) in steps.into_iter().enumerate() {
        let mut command = Command::new(&lapstrake);
        command.args(args);
        if number == 0 {
            command.arg(&context);
        }
        println!("$ lapstrake {}", args.join(" "));
        let status = command.status().map_err(|error| format!("cannot run lapstrake: {error}"))?;
        if !status.success() {
            return Err(format!("lapstrake ended with {status}"));
        }
    }
    println!("\nThat was {}.", lapstrake.display());
    println!("`cargo install --path crates/cli` builds it as it is shipped and puts it on your PATH.");
    Ok(())
}
