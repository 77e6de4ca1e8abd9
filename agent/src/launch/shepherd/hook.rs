//! How does a node run a prolog or epilog of the site?
//!
//! Each script runs with the agent's rights in a process group of its own, one after the other in the
//! order of their names, until one fails or is out of time (slurm.conf(5), "PROLOG AND EPILOG
//! SCRIPTS"). Orders to end it are not obeyed: what a prolog has begun is for the epilog to undo, and
//! an epilog that stops halfway helps nobody. What a script leaves in its process group is killed when
//! it ends; a daemon that it starts in a session of its own stays.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as NixSignal, killpg};
use nix::unistd::Pid as NixPid;
use penstock_proto::v1;
use penstock_supervisor::RunResult;
use penstock_vocab::Millis;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::control::Link;
use super::{LaunchError, failed};
use crate::launch::environment::hook_environment;
use crate::launch::record::{EPILOG, Intent, News};
use crate::sys::{boottime, wall_clock};

/// What is kept of a script's output, for the log: its end, bytes.
const MAX_OUTPUT: usize = 1_000;
/// How often is looked for the end of a script where the kernel has no pidfd.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait without a look at the clock.
const REST: Duration = Duration::from_secs(60);
/// Most scripts that a pattern may name.
const MAX_SCRIPTS: usize = 1_000;

/// Runs the hook that `intent` tells of.
pub(super) fn attempt(intent: &Intent, claim: File, link: &mut Link) -> (RunResult, File) {
    let launch = intent.hook.clone().unwrap_or_default();
    let (start, begun) = (wall_clock(), boottime());
    link.tell(News::Started(start.as_millis()));
    let result = match run_all(&launch, intent, link) {
        Ok(wait_status) => RunResult {
            start,
            end: wall_clock(),
            wait_status,
            elapsed: Millis(boottime().0.saturating_sub(begun.0).max(1)),
            ..RunResult::default()
        },
        Err(error) => failed(error),
    };
    (result, claim)
}

/// The wait status of the script that failed, else 0.
fn run_all(launch: &v1::LaunchHook, intent: &Intent, link: &mut Link) -> Result<i32, LaunchError> {
    let what = if launch.step == EPILOG { "epilog" } else { "prolog" };
    let scripts = scripts(&launch.path).map_err(LaunchError::node)?;
    let variables = hook_environment(launch, &intent.node, intent.devices.as_ref());
    let limit = Duration::from_secs(u64::from(launch.timeout_secs));
    for script in scripts {
        may_run(&script).map_err(LaunchError::node)?;
        let ran = run(&script, &variables, limit, link).map_err(|error| {
            LaunchError::node(format!("{what} {} cannot be run: {error}", script.display()))
        })?;
        if ran.status.success() {
            continue;
        }
        let how = match (ran.timed_out, ran.status.code(), ran.status.signal()) {
            (true, ..) => format!("was killed after {} s", launch.timeout_secs),
            (_, Some(code), _) => format!("ended with exit status {code}"),
            (_, None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
        };
        let said = String::from_utf8_lossy(&ran.output);
        let said = said.trim_end();
        let said = if said.is_empty() { String::new() } else { format!("; it wrote: {said}") };
        link.tell(News::Notice(format!(
            "{what} {} of job {} {how}{said}",
            script.display(),
            launch.job_id
        )));
        return Ok(ran.status.into_raw());
    }
    Ok(0)
}

/// How one script ended.
struct Ran {
    status: ExitStatus,
    timed_out: bool,
    /// The end of what it wrote.
    output: Vec<u8>,
}

fn run(
    script: &Path,
    variables: &[(OsString, OsString)],
    limit: Duration,
    link: &mut Link,
) -> io::Result<Ran> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let mut command = Command::new(script);
    command.env_clear().envs(variables.iter().cloned()).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(theirs.try_clone()?).stderr(theirs);
    let mut child = command.spawn()?;
    // The command holds the other ends of the pipe.
    drop(command);
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let mut watched = Watched { pipe: Some(File::from(ours)), output: Vec::new(), pidfd };
    let (status, timed_out) = wait(&mut child, &mut watched, limit, link)?;
    // As Slurm does: children that share its group end with it.
    let _none_left = killpg(NixPid::from_raw(pid), NixSignal::SIGKILL);
    watched.read();
    Ok(Ran { status, timed_out, output: watched.output })
}

/// Waits for the end of a script; true if it was killed for its time.
fn wait(
    child: &mut Child,
    watched: &mut Watched,
    limit: Duration,
    link: &mut Link,
) -> io::Result<(ExitStatus, bool)> {
    let begun = Instant::now();
    let mut killed = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, killed));
        }
        let left = match limit {
            Duration::ZERO => REST,
            limit => limit.saturating_sub(begun.elapsed()),
        };
        if left.is_zero() && !killed {
            killed = true;
            let group = i32::try_from(child.id()).map_err(io::Error::other)?;
            killpg(NixPid::from_raw(group), NixSignal::SIGKILL)?;
        }
        watched.rest(if killed { LOOK } else { left.min(REST) }, link);
        watched.read();
        // A hook ends by itself; what is read here is that the agent went, or that another came.
        link.receive();
    }
}

/// What is waited for beside the clock.
struct Watched {
    pipe: Option<File>,
    output: Vec<u8>,
    pidfd: Option<OwnedFd>,
}

impl Watched {
    fn rest(&self, most: Duration, link: &Link) {
        let most = if self.pidfd.is_none() { most.min(LOOK) } else { most };
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let own = self.pipe.as_ref().map(|file| file.as_fd());
        let own = own.into_iter().chain(self.pidfd.as_ref().map(|fd| fd.as_fd()));
        let mut fds: Vec<PollFd<'_>> = own.chain(link.fds()).map(readable).collect();
        let timeout = Timespec::try_from(most).ok();
        // An interrupted or failed wait is one that ended early.
        let _early = poll(&mut fds, timeout.as_ref());
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    self.output.extend_from_slice(&buffer[..length]);
                    let over = self.output.len().saturating_sub(MAX_OUTPUT);
                    self.output.drain(..over);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// The scripts that `path` names, sorted: none if it is empty, one, or where its last part has wildcards all that fit.
fn scripts(path: &str) -> Result<Vec<PathBuf>, String> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let whole = Path::new(path);
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !whole.is_absolute() || name.is_empty() {
        return Err(format!("{path:?} is no absolute path of a script"));
    }
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![whole.to_owned()]);
    }
    let dir = whole.parent().unwrap_or_else(|| Path::new("/"));
    let unreadable = |error: io::Error| format!("{} cannot be read: {error}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let text = entry.file_name();
        let fits = text.to_str().is_some_and(|text| fits(name.as_bytes(), text.as_bytes()));
        if fits && entry.path().is_file() {
            found.push(entry.path());
        }
        if found.len() > MAX_SCRIPTS {
            return Err(format!("{path} names more than {MAX_SCRIPTS} scripts"));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether `text` fits the pattern of a shell: `*`, `?`, `[a-c]`, `[!a]`. A dot in front must be
/// written (glob(7)).
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    if text.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut at, mut of) = (0, 0);
    // Where the last star stands, and what of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        if pattern.get(of) == Some(&b'*') {
            star = Some((of, at));
            of += 1;
        } else if let Some(length) = pattern.get(of..).and_then(|rest| one(rest, text[at])) {
            of += length;
            at += 1;
        } else if let Some((back, taken)) = star {
            star = Some((back, taken + 1));
            (of, at) = (back + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[of..].iter().all(|&byte| byte == b'*')
}

/// How many bytes the front of a pattern has that fits one byte of text; `None` if it does not.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
            let first = if negated { 2 } else { 1 };
            // A bracket in front is one of the set.
            let close = pattern.iter().skip(first + 1).position(|&end| end == b']')? + first + 1;
            let set = &pattern[first..close];
            let mut within = false;
            let mut at = 0;
            while at < set.len() {
                let range = set.get(at + 1) == Some(&b'-') && at + 2 < set.len();
                let last = if range { set[at + 2] } else { set[at] };
                within |= (set[at]..=last).contains(&byte);
                at += if range { 3 } else { 1 };
            }
            (within != negated).then_some(close + 1)
        }
        own => (*own == byte).then_some(1),
    }
}

/// Refuses what somebody else than the agent's user or root could have written.
fn may_run(script: &Path) -> Result<(), String> {
    let shown = script.display();
    let data = std::fs::metadata(script).map_err(|error| format!("{shown}: {error}"))?;
    let own = nix::unistd::geteuid().as_raw();
    if !data.is_file() {
        return Err(format!("{shown} is no file"));
    }
    if data.uid() != 0 && data.uid() != own {
        return Err(format!("{shown} belongs to uid {}, not to root; it is not run", data.uid()));
    }
    let mode = data.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!("{shown} may be written by others (mode {mode:04o}); it is not run"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, text, expect) in [
            ("*", "10-gpu", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("*.sh", "a.sh", true),
            ("*.sh", "a.sh.bak", false),
            ("*a*b", "xaybzab", true),
            ("?0-*", "10-gpu", true),
            ("?0-*", "0-gpu", false),
            ("[0-4]*", "3x", true),
            ("[0-4]*", "5x", false),
            ("[!0-4]*", "5x", true),
            ("[]a]", "]", true),
            ("[a", "[a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expect, "{pattern} {text}");
        }
    }

    #[test]
    fn scripts_come_in_order_and_a_name_stands_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["20-b", "10-a", "30-c.off"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("40-dir")).unwrap();
        let path = |name: &str| dir.path().join(name);
        let names = |pattern: &str| scripts(path(pattern).to_str().unwrap());
        assert_eq!(names("[0-9]0-?"), Ok(vec![path("10-a"), path("20-b")]));
        assert_eq!(names("absent"), Ok(vec![path("absent")]));
        assert_eq!(names("x*"), Ok(Vec::new()));
        assert!(scripts("prolog").unwrap_err().contains("absolute"));
        assert!(may_run(&path("absent")).is_err());
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path("10-a"), mode).unwrap();
        assert!(may_run(&path("10-a")).unwrap_err().contains("mode 0777"));
    }
}
