//! What does a task's prolog change, and how does its epilog run?
//!
//! The prolog runs as the user, before the task and in its place; its lines `export NAME=VALUE`, `unset
//! NAME` and `print TEXT` act on the task (srun(1), `--task-prolog`). What it writes to stderr goes
//! where the task's goes. A batch script is a task too. The site's own go round those of the user.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use crate::launch::environment::Variables;

/// Longest output that is looked at.
const MAX_OUTPUT: u64 = 1 << 20;

/// Runs the site's prolog and then the user's, and does what they say; the exit code that the task
/// ends with, if one failed. Text that is empty names none.
pub(super) fn prologs(site: &str, own: &str, vars: &mut Variables) -> Result<(), i32> {
    let all = [(site, "TaskProlog"), (own, "--task-prolog")];
    let given = all.into_iter().filter(|(program, _)| !program.is_empty());
    given.into_iter().try_for_each(|(program, name)| prolog(program, name, vars))
}

/// Runs the user's epilog and then the site's, as the last that this process does. Never returns.
pub(super) fn epilogs(site: &str, own: &str, vars: &Variables) -> ! {
    let given = [own, site].into_iter().filter(|program| !program.is_empty());
    let mut code = 0;
    for program in given {
        let mut command = Command::new(program);
        command.env_clear().envs(vars.pairs()).env("SLURM_SCRIPT_CONTEXT", "epilog_task");
        command.stdin(Stdio::null());
        code = match command.status() {
            Ok(status) => status.code().unwrap_or(1),
            Err(error) => {
                complain(&format!("task epilog {program} cannot be run: {error}"));
                1
            }
        };
    }
    std::process::exit(code)
}

/// Runs `program` and does what it says; the exit code that the task ends with, if it failed.
fn prolog(program: &str, name: &str, vars: &mut Variables) -> Result<(), i32> {
    let ran = output_of(program, vars);
    let (output, status) = ran.map_err(|error| {
        complain(&format!("task prolog {program} cannot be run: {error}"));
        error.raw_os_error().unwrap_or(1)
    })?;
    apply(&output, vars, &mut io::stdout());
    let code = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => code,
        (None, signal) => signal.unwrap_or(0) + 128,
    };
    complain(&format!("{name} failed status={code}"));
    Err(code)
}

fn output_of(program: &str, vars: &Variables) -> io::Result<(Vec<u8>, std::process::ExitStatus)> {
    let mut command = Command::new(program);
    command.env_clear().envs(vars.pairs()).env("SLURM_SCRIPT_CONTEXT", "prolog_task");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_OUTPUT).read_to_end(&mut output)?;
    }
    Ok((output, child.wait()?))
}

fn apply(output: &[u8], vars: &mut Variables, stdout: &mut impl io::Write) {
    for line in output.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii_start();
        let behind = |word: &str| {
            let rest = line.strip_prefix(word.as_bytes())?;
            rest.first().is_some_and(u8::is_ascii_whitespace).then(|| rest.trim_ascii_start())
        };
        if let Some(entry) = behind("export") {
            vars.put(entry.trim_ascii_end());
        } else if let Some(name) = behind("unset") {
            vars.unset(name.trim_ascii_end());
        } else if let Some(text) = behind("print") {
            // A task whose output nobody takes is not stopped by that.
            let _gone = stdout.write_all(text).and_then(|()| stdout.write_all(b"\n"));
        }
    }
}

/// Writes a line for the user to stderr.
pub(super) fn complain(line: &str) {
    let _gone = io::stderr().write_all(format!("slurmstepd: error: {line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_act_and_others_do_not() {
        let mut vars = Variables::default();
        vars.set("OLD", "x");
        vars.set("KEPT", "x");
        let text =
            b"export A=b c \n  unset OLD\nprint hello you\nexported=1\nunset\nexport nothing\n";
        let mut printed = Vec::new();
        apply(text, &mut vars, &mut printed);
        assert_eq!(printed, b"hello you\n");
        let block: Vec<_> =
            vars.into_block().into_iter().map(|entry| entry.into_string().unwrap()).collect();
        assert_eq!(block, ["A=b c", "KEPT=x"]);
    }
}
