//! How does a test type a command?

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::probe::NOBODY;

/// A command that is about to be run.
pub(crate) struct Cmd {
    command: Command,
    line: String,
    stdin: Option<Vec<u8>>,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    /// The command line, for messages.
    pub(crate) line: String,
    /// Exit status; 128 and the number of the signal that ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Cmd {
    /// `program`, which bears a command's name, with nothing of this process's environment but what
    /// every program needs.
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/");
        let line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { command, line, stdin: None }
    }

    /// Adds arguments; a string is split at blanks, so that tests read like a terminal.
    pub(crate) fn words(mut self, words: &str) -> Self {
        self.line.push(' ');
        self.line.push_str(words);
        self.command.args(words.split_whitespace());
        self
    }

    /// Adds one argument as it is.
    pub(crate) fn arg(mut self, word: impl AsRef<std::ffi::OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&word.as_ref().to_string_lossy());
        self.command.arg(word);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it there.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives it these bytes to read.
    pub(crate) fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Runs it as the account `nobody`.
    pub(crate) fn by_nobody(mut self) -> Self {
        self.command.uid(NOBODY).gid(NOBODY);
        self.env("USER", "nobody")
    }

    /// Starts it and comes back at once.
    pub(crate) fn spawn(mut self) -> Running {
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the command starts");
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), self.stdin.take()) {
            // A command may refuse before it has read everything.
            pipe.write_all(&bytes).ok();
        }
        Running { child, line: self.line, heard: Vec::new() }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        self.spawn().wait()
    }

    /// Runs it to its end, which must be a good one; returns its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        let ran = self.run();
        assert_eq!(ran.code, 0, "{ran}");
        ran.out
    }

    /// Runs it to its end, which must be a bad one.
    #[track_caller]
    pub(crate) fn fails(self) -> Ran {
        let ran = self.run();
        assert_ne!(ran.code, 0, "{ran}");
        ran
    }

    /// Runs an `sbatch --parsable`; returns the job's id.
    #[track_caller]
    pub(crate) fn id(self) -> u32 {
        let out = self.ok();
        out.trim().parse().unwrap_or_else(|_| panic!("no job id: {out:?}"))
    }
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    line: String,
    /// What was read of its standard error already.
    heard: Vec<u8>,
}

impl Running {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Waits until it has said this on its standard error.
    #[track_caller]
    pub(crate) fn hears(&mut self, text: &str) {
        let stderr = self.child.stderr.as_mut().expect("it is a pipe");
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&self.heard).contains(text) {
            let length = stderr.read(&mut buffer).expect("a pipe can be read");
            self.heard.extend_from_slice(&buffer[..length]);
            let said = String::from_utf8_lossy(&self.heard);
            assert!(length > 0, "{} ended without {text:?}: {said}", self.line);
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> Ran {
        use std::os::unix::process::ExitStatusExt as _;
        let output = self.child.wait_with_output().expect("our own child");
        let signal = || output.status.signal().map(|signal| 128 + signal);
        Ran {
            line: self.line,
            code: output.status.code().or_else(signal).unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&[self.heard, output.stderr].concat()).into_owned(),
        }
    }
}

impl Ran {
    /// Asserts that it printed `text` on standard error.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "no {text:?} in {self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\nout: {}\nerr: {}", self.line, self.code, self.out, self.err)
    }
}
