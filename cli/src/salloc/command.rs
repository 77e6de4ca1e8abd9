//! What runs within the job, here?
//!
//! A command, or the user's shell. On a terminal it gets a group of its own in the foreground, as a
//! shell would give it, so that keys reach it and not salloc; afterwards the terminal is taken back.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use tokio::process::{Child, Command};

use crate::allocation::{Allocated, Order};
use crate::sbatch::spec::Submitter;

/// What runs.
pub(super) struct Running {
    child: Child,
    pid: Option<Pid>,
    /// It has a group of its own, and the terminal.
    foreground: bool,
    /// Nobody named a command: it is the user's shell.
    is_shell: bool,
}

/// How that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    By(ExitStatus),
    /// Nothing is known of it.
    Lost,
    /// salloc leaves before it.
    LetGo,
}

impl Ended {
    /// salloc's exit status. A signal that a user sends by hand or by key is no failure.
    pub(super) fn status(self) -> i32 {
        match self {
            Self::By(status) => match (status.code(), status.signal()) {
                (Some(code), _) => code,
                (None, Some(libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGKILL)) => 0,
                (None, _) => 1,
            },
            Self::Lost | Self::LetGo => 1,
        }
    }
}

impl Running {
    /// Starts the command.
    ///
    /// # Errors
    /// With Slurm's text.
    pub(super) fn start(
        order: &Order,
        submitter: &Submitter,
        allocated: &Allocated,
    ) -> Result<Self, String> {
        let shell = || {
            let user = uzers::get_user_by_uid(uzers::get_current_uid());
            let known = user.map(|user| {
                use uzers::os::unix::UserExt as _;
                user.shell().as_os_str().to_owned()
            });
            std::env::var_os("SHELL").or(known).unwrap_or_else(|| "/bin/sh".into())
        };
        let is_shell = order.operands.is_empty();
        let name = order.operands.first().map_or_else(shell, OsString::from);
        let foreground = std::io::stdin().is_terminal()
            && tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp());
        let mut command = Command::new(&name);
        command.args(order.operands.iter().skip(1));
        command.env("SLURM_SUBMIT_DIR", &submitter.cwd).env("SLURM_SUBMIT_HOST", &submitter.host);
        for variable in &allocated.variables {
            if let Some((name, value)) = variable.split_once('=') {
                command.env(name, value);
            }
        }
        if let Some(dir) = &order.request.chdir {
            command.current_dir(dir);
        }
        if foreground {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|_| {
            let name = name.to_string_lossy();
            format!("_fork_command: Unable to find command \"{name}\"")
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let running = Self { child, pid, foreground, is_shell };
        running.give_terminal();
        Ok(running)
    }

    /// It may have asked for the terminal before it had it, and was stopped for that.
    fn give_terminal(&self) {
        let Some(pid) = self.pid.filter(|_| self.foreground) else { return };
        tcsetpgrp(std::io::stdin(), pid).ok();
        killpg(pid, Signal::SIGCONT).ok();
    }

    /// The terminal is this process's again.
    pub(super) fn take_terminal_back(&self) {
        if self.foreground {
            // Whoever takes it from the background is stopped unless it does not hear of that.
            SigSet::from(Signal::SIGTTOU).thread_block().ok();
            tcsetpgrp(std::io::stdin(), getpgrp()).ok();
        }
    }

    /// Waits for its end. Loses nothing when it is dropped.
    pub(super) async fn wait(&mut self) -> Ended {
        match self.child.wait().await {
            Ok(status) => Ended::By(status),
            Err(_) => Ended::Lost,
        }
    }

    /// The job is gone: a command goes on unless the user wants it ended with the job, a shell hangs
    /// up.
    pub(super) fn end(&self, wanted: Option<i32>) {
        let signal = wanted.or_else(|| self.is_shell.then_some(libc::SIGHUP));
        if let Some(signal) = signal {
            self.send(signal);
        }
    }

    /// A signal for salloc; true: it leaves.
    pub(super) fn on_signal(&self, signal: i32) -> bool {
        match signal {
            // Keys mean the command, which gets them from the terminal.
            libc::SIGINT | libc::SIGQUIT => false,
            libc::SIGHUP => {
                self.send(signal);
                true
            }
            other => {
                self.send(other);
                false
            }
        }
    }

    fn send(&self, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else { return };
        match self.pid {
            Some(pid) if self.foreground => drop(killpg(pid, signal)),
            Some(pid) => drop(kill(pid, signal)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_commands() {
        for (raw, expect) in [(0, 0), (4 << 8, 4), (15, 1), (9, 0), (2, 0), (1, 0), (11, 1)] {
            assert_eq!(Ended::By(ExitStatus::from_raw(raw)).status(), expect, "{raw}");
        }
        assert_eq!(Ended::LetGo.status(), 1);
    }
}
