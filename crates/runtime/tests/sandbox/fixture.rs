//! A root file system of busybox, and containers in it.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lapstrake_runtime::{Exit, Finished, RunFds, RunSpec, Running, RuntimeError, Sandbox};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// A writable root over a lower directory, and the sandbox to run in.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) sandbox: Sandbox,
}

/// What a container said and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) finished: Finished,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let fixture = Self { directory, sandbox: Sandbox::start().unwrap() };
        for name in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work"] {
            fs::create_dir_all(fixture.path(name)).unwrap();
        }
        fs::copy("/bin/busybox", fixture.path("lower/bin/busybox"))
            .expect("these tests need a static busybox in /bin (Debian: busybox-static)");
        for applet in
            "sh cat ls id env pwd true false sleep mount umount mkdir touch rm ln mv hostname ps stat echo \
                       readlink find kill dd chown tty test ulimit wc rmdir sync yes nc chroot mknod cp grep su chmod \
                       mkfifo tar sort head"
                .split_whitespace()
        {
            std::os::unix::fs::symlink("busybox", fixture.path(&format!("lower/bin/{applet}"))).unwrap();
        }
        fs::write(fixture.path("lower/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn lower(&self, name: &str) -> PathBuf {
        self.path("lower").join(name)
    }

    pub(crate) fn upper(&self, name: &str) -> PathBuf {
        self.path("upper").join(name)
    }

    /// The overlay as a detached mount.
    pub(crate) fn root(&self) -> OwnedFd {
        self.root_over("upper", "work")
    }

    /// As [`Fixture::root`], with a writable part of its own.
    pub(crate) fn another_root(&self, name: &str) -> OwnedFd {
        let (upper, work) = (format!("upper.{name}"), format!("work.{name}"));
        fs::create_dir(self.path(&upper)).unwrap();
        fs::create_dir(self.path(&work)).unwrap();
        self.root_over(&upper, &work)
    }

    fn root_over(&self, upper: &str, work: &str) -> OwnedFd {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for (key, name) in [("lowerdir", "lower"), ("upperdir", upper), ("workdir", work)] {
            rustix::mount::fsconfig_set_string(&context, key, self.path(name)).unwrap();
        }
        rustix::mount::fsconfig_set_flag(&context, "userxattr").unwrap();
        rustix::mount::fsconfig_create(&context).unwrap();
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
    }

    pub(crate) fn start(
        &self,
        spec: &RunSpec,
        mounts: Vec<OwnedFd>,
    ) -> Result<(Running, [OwnedFd; 2]), RuntimeError> {
        self.start_on(self.root(), spec, mounts)
    }

    pub(crate) fn start_on(
        &self,
        root: OwnedFd,
        spec: &RunSpec,
        mounts: Vec<OwnedFd>,
    ) -> Result<(Running, [OwnedFd; 2]), RuntimeError> {
        let (stdout, out) = std::io::pipe().unwrap();
        let (stderr, err) = std::io::pipe().unwrap();
        let stdin = fs::File::open("/dev/null").unwrap();
        let fds = RunFds { root, mounts, stdin: stdin.into(), stdout: out.into(), stderr: err.into() };
        let running = self.sandbox.run(spec, fds)?;
        Ok((running, [stdout.into(), stderr.into()]))
    }

    pub(crate) fn try_run(&self, spec: &RunSpec, mounts: Vec<OwnedFd>) -> Result<Output, RuntimeError> {
        let (running, [stdout, stderr]) = self.start(spec, mounts)?;
        let (stdout, stderr) = (read_all(stdout), read_all(stderr));
        Ok(Output { stdout, stderr, finished: running.wait()? })
    }

    pub(crate) fn run(&self, spec: &RunSpec) -> Output {
        self.try_run(spec, Vec::new()).unwrap()
    }

    /// What a script says that has to succeed.
    pub(crate) fn says(&self, script: &str) -> String {
        let output = self.run(&shell(script));
        assert_eq!(output.finished.exit, Exit::Code(0), "{script}: {output:?}");
        output.stdout.trim_end().to_owned()
    }
}

pub(crate) fn shell(script: &str) -> RunSpec {
    RunSpec::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

pub(crate) fn read_all(fd: OwnedFd) -> String {
    let mut text = Vec::new();
    // The master of a terminal says EIO at the end.
    drop(fs::File::from(fd).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

pub(crate) fn write_to(fd: impl AsFd, text: &str) {
    let mut file = fs::File::from(fd.as_fd().try_clone_to_owned().unwrap());
    file.write_all(text.as_bytes()).unwrap();
}
