//! How does a test type a command?

use std::ffi::OsStr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A command that is about to be run.
pub(crate) struct Cmd {
    command: Command,
    line: String,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    line: String,
    /// Exit status; 128 and the number of the signal that ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Cmd {
    /// `program` with nothing of this process's environment but what every program needs.
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
        Self { command, line: program.display().to_string() }
    }

    /// Adds arguments; a string is split at blanks, so that tests read like a terminal.
    pub(crate) fn words(mut self, words: &str) -> Self {
        for word in words.split_whitespace() {
            self = self.arg(word);
        }
        self
    }

    /// Adds one argument as it is.
    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&word.as_ref().to_string_lossy());
        self.command.arg(word);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it there.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it as this user, and the group of the same number.
    pub(crate) fn uid(mut self, uid: Option<u32>) -> Self {
        if let Some(uid) = uid {
            self.command.uid(uid).gid(uid);
        }
        self
    }

    /// Starts it and comes back at once; what it prints can be read.
    pub(crate) fn spawn(mut self) -> Child {
        let pipes = self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        pipes.spawn().expect("the command starts")
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        let line = self.line.clone();
        Ran::of(self.spawn(), line)
    }

    /// Runs it to its end, which must be a good one.
    #[track_caller]
    pub(crate) fn ok(self) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, 0, "{ran}");
        ran
    }
}

impl Ran {
    /// Waits for the end of `child`, and reads the rest of what it prints.
    pub(crate) fn of(child: Child, line: impl Into<String>) -> Self {
        let output = child.wait_with_output().expect("our own child");
        let signal = || output.status.signal().map(|signal| 128 + signal);
        Self {
            line: line.into(),
            code: output.status.code().or_else(signal).unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts that these texts are in its standard output, in this order.
    #[track_caller]
    pub(crate) fn shows(&self, texts: &[&str]) {
        let mut rest = self.out.as_str();
        for text in texts {
            let Some((_, after)) = rest.split_once(text) else {
                panic!("no {text:?} in its place in {self}");
            };
            rest = after;
        }
    }

    /// Asserts that it printed `text` on standard error.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        assert!(self.err.contains(text), "no {text:?} in {self}");
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\nout: {}\nerr: {}", self.line, self.code, self.out, self.err)
    }
}
