//! Is this node well? A program of the admin's says so.
//!
//! The controller says when it runs and which it is (Slurm's `HealthCheckProgram`). It runs as the agent
//! does, one at a time, in a process group that is killed when its time is over; it drains its node by
//! itself (`scontrol update`), and how it ended goes to the log. Only a program that nobody but root, or
//! the agent's own user, can change is run.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use penstock_proto::v1;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

/// Longest time of a program, whatever is ordered.
const MAX_SECS: u32 = 3_600;
/// Output that goes to the log, bytes.
const MAX_OUTPUT: u64 = 4_096;

/// Runs the program; dropped, it kills one that runs.
#[derive(Debug, Default)]
pub(crate) struct HealthChecks {
    /// Variables that the program gets, beside PATH.
    variables: Vec<(&'static str, String)>,
    commands_dir: Option<PathBuf>,
    running: JoinSet<()>,
}

impl HealthChecks {
    /// For a node of this name whose commands speak to `socket`; they may lie in `commands_dir`.
    pub(crate) fn new(node: &str, socket: &Path, commands_dir: Option<&Path>) -> Self {
        let variables = vec![
            ("SLURMD_NODENAME", node.to_owned()),
            ("PENSTOCK_SOCKET", socket.to_string_lossy().into_owned()),
        ];
        let commands_dir = commands_dir.map(Path::to_path_buf);
        Self { variables, commands_dir, running: JoinSet::new() }
    }

    /// Starts the program, unless the last one still runs.
    pub(crate) fn start(&mut self, order: &v1::RunHealthCheck) {
        while self.running.try_join_next().is_some() {}
        if !self.running.is_empty() {
            warn!(program = order.program, "the health check before still runs; this one is left");
            return;
        }
        let program = match trusted(Path::new(&order.program)) {
            Ok(program) => program,
            Err(error) => {
                warn!(program = order.program, %error, "the health check is not run");
                return;
            }
        };
        let secs = order.timeout_secs.clamp(1, MAX_SECS);
        let command = self.command(&program);
        self.running.spawn(run(program, command, Duration::from_secs(secs.into())));
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = match &self.commands_dir {
            Some(dir) => format!("{}:{usual}", dir.display()),
            None => usual.to_owned(),
        };
        command.env_clear().env("PATH", path).envs(self.variables.iter().cloned());
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

async fn run(program: PathBuf, mut command: Command, time: Duration) {
    let program = program.display();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return warn!(%program, %error, "the health check cannot be started"),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let done = timeout(time, async {
        let (_out, _err) = tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
        child.wait().await
    })
    .await;
    let said = String::from_utf8_lossy(&[out, err].concat()).trim().to_owned();
    match done {
        Ok(Ok(status)) if status.success() => info!(%program, said, "the health check is content"),
        Ok(Ok(status)) => warn!(%program, %status, said, "the health check complains"),
        Ok(Err(error)) => warn!(%program, %error, "the health check is lost"),
        Err(_) => {
            if let Some(group) = group {
                // One that is gone meanwhile needs no signal.
                let _gone = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            let _reaped = child.wait().await;
            warn!(%program, secs = time.as_secs(), said, "the health check was killed: it took too long");
        }
    }
}

/// Reads all, and keeps the beginning.
async fn read(
    from: Option<impl tokio::io::AsyncRead + Unpin>,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    (&mut from).take(MAX_OUTPUT).read_to_end(into).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The program with its links followed, if nobody but root and this user can put another one in its
/// place.
fn trusted(program: &Path) -> Result<PathBuf, String> {
    if !program.is_absolute() {
        return Err("it is no absolute path".to_owned());
    }
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let real = program.canonicalize().map_err(|error| told(program, error))?;
    let own = rustix::process::geteuid().as_raw();
    for path in real.ancestors() {
        let found = path.metadata().map_err(|error| told(path, error))?;
        if !is_safe(&found, own) {
            return Err(format!(
                "{} can be changed by others than root; chown root and chmod go-w it",
                path.display()
            ));
        }
    }
    let found = real.metadata().map_err(|error| told(&real, error))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(format!("{} is no program", real.display()));
    }
    Ok(real)
}

/// Whether only root and this user can change a file, or take one out of a folder.
fn is_safe(found: &Metadata, own: u32) -> bool {
    let mode = found.mode();
    let sticky = found.is_dir() && mode & 0o1000 != 0;
    (found.uid() == 0 || found.uid() == own) && (mode & 0o022 == 0 || sticky)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_nobody_else_can_change_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("check");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let mode = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        assert_eq!(trusted(&program), Ok(program.canonicalize().unwrap()));
        mode(0o644);
        assert!(trusted(&program).unwrap_err().ends_with("is no program"));
        mode(0o775);
        assert!(trusted(&program).unwrap_err().contains("can be changed by others"));
        assert!(trusted(Path::new("check")).unwrap_err().contains("absolute"));
        assert!(trusted(&dir.path().join("none")).is_err());
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("check");
        let pid = dir.path().join("pid");
        let text = format!("#!/bin/sh\nsleep 600 & echo $! > {}\nwait\n", pid.display());
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let checks = HealthChecks::new("n1", Path::new("/run/socket"), None);
        let program = trusted(&program).unwrap();
        let command = checks.command(&program);
        run(program, command, Duration::from_millis(500)).await;
        let pid: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(stat.is_err() || stat.unwrap().contains(") Z "), "it is gone");
    }
}
