//! `--load` into a real containerd.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script, text};

pub(super) const CASES: &[super::Case] = &[("load_containerd", load)];

/// Debian's containerd with all that it has in one directory. Ends with this value.
struct Containerd(Child);

impl Containerd {
    fn start(dir: &Path) -> Result<Containerd, String> {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let at = dir.display();
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{at}/sock\"\n"
        );
        let file = dir.join("config.toml");
        fs::write(&file, config).map_err(|error| error.to_string())?;
        // It must not outlive who started it, however they end.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "containerd", "--config"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("containerd (package containerd): {error}"))?;
        let (server, begun) = (Containerd(server), Instant::now());
        let answers = || {
            let ctr = Command::new("ctr").arg("-a").arg(dir.join("sock")).arg("version").output();
            ctr.is_ok_and(|output| output.status.success())
        };
        while !answers() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("containerd does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

fn load(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "shipped", "FROM busybox\nRUN echo shipped > /x\nCMD [\"cat\", \"/x\"]\n")?;
    let nobody = "export CONTAINERD_ADDRESS=$PWD/nobody; ./lapstrake build -q --load -t shipped:1 shipped";
    expect(
        &script(mode, nobody)?,
        3,
        &["no Docker or containerd is running at", "nobody", "lapstrake save"],
    )?;
    if mode.name != "root" {
        // An ordinary user has no containerd to talk to, and can start none.
        return nothing_left(mode);
    }
    let dir = mode.place.join("containerd");
    let server = Containerd::start(&dir)?;
    let at = format!("export CONTAINERD_ADDRESS='{}/sock' CONTAINERD_NAMESPACE=shipping; ", dir.display());
    let run = |commands: &str| script(mode, &format!("{at}{commands}"));
    let build =
        "./lapstrake build -q --load -t shipped:1 -t team/shipped --metadata-file shipped.json shipped";
    expect(&run(build)?, 0, &["sha256:"])?;
    let name = "docker.io/library/shipped:1";
    let whole = |name: &str| {
        let checked = run(&format!("ctr images check name=={name}"))?;
        expect(&checked, 0, &[name, "complete (3/3)"])
    };
    whole(name)?;
    whole("docker.io/team/shipped:latest")?;
    let digest = "grep -o 'containerimage.digest.*' shipped.json | grep -o 'sha256:[0-9a-f]*'";
    let digest = String::from_utf8_lossy(&run(digest)?.stdout).trim().to_owned();
    expect(&run(&format!("ctr images ls name=={name}"))?, 0, &[&digest, "linux/amd64"])?;
    // What it gives away is what it was given.
    let export = format!(
        "rm -f out.tar && ctr images export out.tar {name} && ./lapstrake rmi -f shipped:1 && ./lapstrake load -i out.tar && ./lapstrake run shipped:1"
    );
    expect(&run(&export)?, 0, &["Loaded image: shipped:1", "shipped\n"])?;
    // The name goes to another image. What nobody names any more is collected, and nothing else.
    dockerfile(mode, "shipped", "FROM busybox\nRUN echo anew > /x\nCMD [\"cat\", \"/x\"]\n")?;
    expect(&run("./lapstrake build -q --load -t shipped:1 shipped")?, 0, &["sha256:"])?;
    expect(&run("ctr images rm --sync docker.io/team/shipped:latest")?, 0, &[])?;
    whole(name)?;
    let listed = run(&format!("ctr images ls name=={name}; ctr content ls; ctr leases ls -q"))?;
    if text(&listed).contains(&digest) || text(&listed).contains("lapstrake-") {
        return Err(format!("something old is left: {}", text(&listed)));
    }
    let unnamed = run("./lapstrake build -q --load shipped")?;
    expect(&unnamed, 2, &["containerd needs an image name"])?;
    expect(&run(&format!("ctr images rm --sync {name} && ctr content ls -q | wc -l"))?, 0, &["\n0\n"])?;
    several(mode, &run, name)?;
    drop(server);
    expect(&lap(mode, "rmi -f shipped:1")?, 0, &[])?;
    nothing_left(mode)
}

/// Of several platforms it gets the index, and keeps all that this names.
fn several(mode: &Mode, run: &impl Fn(&str) -> Result<Output, String>, name: &str) -> Result<(), String> {
    dockerfile(mode, "shipped", "FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\nCOPY Dockerfile /d\n")?;
    expect(
        &run("./lapstrake build -q --platform linux/amd64,linux/arm64 --load -t shipped:1 shipped")?,
        0,
        &["sha256:"],
    )?;
    expect(&run("ctr images rm --sync docker.io/team/shipped:latest")?, 0, &[])?;
    expect(
        &run(&format!("ctr images ls name=={name}"))?,
        0,
        &["application/vnd.oci.image.index.v1+json", "linux/amd64,linux/arm64"],
    )?;
    let both = format!(
        "rm -f out.tar && ctr images export --all-platforms out.tar {name} && ./lapstrake rmi -f shipped:1 && ./lapstrake load -i out.tar && ./lapstrake images --format '{{{{.Platform}}}}' shipped"
    );
    expect(&run(&both)?, 0, &["Loaded image: shipped:1", "linux/amd64\n", "linux/arm64\n"])?;
    expect(&run(&format!("ctr images rm --sync {name} && ctr content ls -q | wc -l"))?, 0, &["\n0\n"])
}
