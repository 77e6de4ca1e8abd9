//! Where does a quickstart of a test live?

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::cleanup;
use super::command::{Cmd, Ran};
use super::process::{self, Process};
use super::wait::{wait_for, wait_until};
use super::{NOBODY, is_root};

/// A folder for one quickstart, and one for the jobs' files. All of it ends when this is dropped.
pub(crate) struct Home {
    _folder: tempfile::TempDir,
    /// Its path, resolved.
    root: PathBuf,
    /// Where the quickstart is.
    dir: PathBuf,
    program: PathBuf,
    uid: Option<u32>,
}

impl Home {
    /// A home with nothing in it.
    pub(crate) fn new() -> Self {
        Self::at("qs", None)
    }

    /// A home whose quickstart has its files in `name` below it, and is `uid`'s.
    fn at(name: &str, uid: Option<u32>) -> Self {
        let folder = tempfile::Builder::new().prefix("pst-qs-").tempdir().expect("a folder");
        // As quickstart resolves it too.
        let root = fs::canonicalize(folder.path()).expect("it is there");
        let work = root.join("work");
        fs::create_dir(&work).expect("new");
        for (dir, mode) in [(&root, 0o755), (&work, 0o1777)] {
            fs::set_permissions(dir, Permissions::from_mode(mode)).expect("our own folder");
            if uid.is_some() {
                chown(dir, uid, uid).expect("root gives away");
            }
        }
        let program = PathBuf::from(env!("CARGO_BIN_EXE_penstock"));
        Self { _folder: folder, dir: root.join(name), root, program, uid }
    }

    /// A home whose quickstart has its files in `name` below it.
    pub(crate) fn named(name: &str) -> Self {
        Self::at(name, None)
    }

    /// A home of the account `nobody`, whose processes are that account's. Says that the test is
    /// skipped where this process can't become another user.
    pub(crate) fn of_nobody() -> Option<Self> {
        let known = nix::unistd::User::from_uid(NOBODY.into()).ok().flatten();
        if !is_root() || known.is_none_or(|user| user.name != "nobody") {
            println!("skipped: not root, or no second user `nobody`");
            return None;
        }
        let mut home = Self::at("qs", Some(NOBODY));
        if !runs_as_nobody(&home.program) {
            // Built where others can't go.
            let copy = home.root.join("penstock");
            fs::copy(&home.program, &copy).expect("copied");
            assert!(runs_as_nobody(&copy), "{}", copy.display());
            home.program = copy;
        }
        Some(home)
    }

    /// What is given as `--dir`.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where commands and jobs run.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// A program, as the home's user runs it.
    fn cmd(&self, program: &Path) -> Cmd {
        let cmd = Cmd::new(program).dir(&self.work()).uid(self.uid);
        cmd.env("HOME", &self.root).env("USER", if self.uid.is_some() { "nobody" } else { "root" })
    }

    /// `penstock quickstart WORDS --dir DIR`.
    pub(crate) fn quickstart(&self, words: &str) -> Cmd {
        self.cmd(&self.program).arg("quickstart").words(words).arg("--dir").arg(&self.dir)
    }

    /// A script for `sh`, for which `$penstock` and `$dir` are set and nothing else.
    pub(crate) fn sh(&self, script: &str) -> Cmd {
        let cmd = self.cmd(Path::new("/bin/sh")).arg("-ec").arg(script);
        cmd.env("penstock", &self.program).env("dir", &self.dir)
    }

    /// A command from `DIR/bin`, as the shell has it after `eval`.
    pub(crate) fn tool(&self, name: &str) -> Cmd {
        let cmd = self.cmd(&self.dir.join("bin").join(name));
        cmd.env("PENSTOCK_CONFIG", self.dir.join("cluster.toml"))
    }

    /// Submits a script to be run by bash; returns the job's id.
    #[track_caller]
    pub(crate) fn submit(&self, words: &str, script: &str) -> u32 {
        let file = self.work().join("script.sh");
        fs::write(&file, format!("#!/bin/bash\n{script}\n")).expect("written");
        let ran = self.tool("sbatch").words("--parsable").words(words).arg(&file).ok();
        ran.out.trim().parse().unwrap_or_else(|_| panic!("no job id in {ran}"))
    }

    /// `sacct -nPX -o state,exitcode` of a job.
    #[track_caller]
    pub(crate) fn end(&self, id: u32) -> String {
        let words = format!("-n -P -X -o state,exitcode -j {id}");
        self.tool("sacct").words(&words).ok().out.trim().to_owned()
    }

    /// Waits until `squeue` shows the job in this state.
    #[track_caller]
    pub(crate) fn await_state(&self, id: u32, state: &str) {
        wait_until(format!("job {id} is {state}"), || {
            let words = format!("-h -t all -o %T -j {id}");
            self.tool("squeue").words(&words).run().out.trim() == state
        });
    }

    /// Names and pids of the processes that `--status` calls running.
    #[track_caller]
    pub(crate) fn running(&self) -> Vec<(String, u32)> {
        let ran = self.quickstart("--status").run();
        let of_line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let running = words.get(2) == Some(&"running");
            running.then(|| (words[0].to_owned(), words[1].parse().expect("a pid")))
        };
        ran.out.lines().filter_map(of_line).collect()
    }

    /// The process that `--status` calls by this name, which must run.
    #[track_caller]
    pub(crate) fn process(&self, name: &str) -> Process {
        let pid = self.running().into_iter().find(|(found, _)| found == name);
        let pid = pid.unwrap_or_else(|| panic!("no {name} runs")).1;
        Process::hold(pid).expect("it runs")
    }

    /// All processes of the cluster, jobs included.
    pub(crate) fn processes(&self) -> Vec<Process> {
        process::of(&self.dir).into_iter().filter_map(Process::hold).collect()
    }

    /// Asserts that processes, cgroups and sockets of the cluster are gone.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let left = cleanup::left(&self.dir);
        assert!(left.is_empty(), "left: {left:#?}");
    }

    /// A file in the work folder; empty where it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.work().join(name)).unwrap_or_default()
    }

    /// Starts a quickstart that serves, and reads what it says until it serves.
    pub(crate) fn serve(&self, words: &str) -> Serving {
        let mut child = self.quickstart(words).spawn();
        let pipe = child.stdout.take().expect("it is piped");
        let mut serving = Serving { child, lines: BufReader::new(pipe), said: String::new() };
        let begun = |serving: &mut Serving| {
            let read = serving.lines.read_line(&mut serving.said).expect("UTF-8");
            (read == 0 || serving.said.contains("Serving until")).then_some(read > 0)
        };
        let serves = wait_for("quickstart serves", || begun(&mut serving));
        if !serves {
            let said = serving.said.clone();
            panic!("{said}{}", Ran::of(serving.child, "quickstart"));
        }
        serving
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folders = fs::read_dir(&self.dir).into_iter().flatten().flatten();
            for log in folders.map(|entry| entry.path().join("log")) {
                let Ok(text) = fs::read_to_string(&log) else { continue };
                let lines: Vec<&str> = text.lines().collect();
                let end = lines[lines.len().saturating_sub(30)..].join("\n");
                println!("--- {}\n{end}", log.display());
            }
        }
        cleanup::clean(&self.dir);
    }
}

/// A quickstart in the foreground.
pub(crate) struct Serving {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    /// What it has said.
    pub(crate) said: String,
}

impl Serving {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        Process::hold(self.child.id()).expect("our own child").signal(Signal::INT);
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ran {
        std::io::Read::read_to_string(&mut self.lines, &mut self.said).expect("UTF-8");
        let mut ran = Ran::of(self.child, "quickstart");
        ran.out = self.said;
        ran
    }
}

fn runs_as_nobody(program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.uid(NOBODY).gid(NOBODY).status().is_ok_and(|status| status.success())
}
