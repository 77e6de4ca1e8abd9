//! How does the controller run a program of the site, without being held up by it?

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// What is kept of a program's output, bytes of each stream.
const MAX_OUTPUT: usize = 1_000;
/// How long its output is waited for once it has ended: a child may hold the streams open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// `PATH` of such programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `program` with these arguments and variables and nothing else. `limit`: how long it may take;
/// then it is killed with its process group.
///
/// # Errors
/// With how it ended and the end of what it wrote, unless that was exit status 0.
pub(crate) async fn run(
    program: &Path,
    arguments: &[String],
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    limit: Option<Duration>,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).envs(variables).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut said = (Vec::new(), Vec::new());
    let status = {
        let reading = async { tokio::join!(tail(out, &mut said.0), tail(err, &mut said.1)) };
        tokio::pin!(reading);
        let mut read = false;
        let ended = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut reading, if !read => read = true,
                }
            }
        };
        let status = match limit {
            Some(limit) => tokio::time::timeout(limit, ended).await.ok(),
            None => Some(ended.await),
        };
        if let Some(group) = group.filter(|_| status.is_none()) {
            let _none_left = killpg(group, Signal::SIGKILL);
        }
        if !read {
            let _some_is_enough = tokio::time::timeout(LAST_WORDS, reading).await;
        }
        status
    };
    let how = match status {
        Some(Ok(status)) if status.success() => return Ok(()),
        Some(Ok(status)) => status.to_string(),
        Some(Err(error)) => error.to_string(),
        None => format!("no end within {} s", limit.unwrap_or_default().as_secs()),
    };
    said.0.extend(said.1);
    let said = String::from_utf8_lossy(&said.0);
    let said = said.trim();
    let said = if said.is_empty() { String::new() } else { format!("; it wrote: {said}") };
    Err(format!("{}: {how}{said}", program.display()))
}

/// Reads all and keeps the end of it.
async fn tail(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        kept.extend_from_slice(&buffer[..length]);
        let over = kept.len().saturating_sub(MAX_OUTPUT);
        kept.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Option<Duration>) -> Result<(), String> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        run(Path::new("/bin/sh"), &arguments, [], limit).await
    }

    #[tokio::test]
    async fn what_a_program_wrote_and_how_it_ended_is_told() {
        assert_eq!(sh("exit 0", None).await, Ok(()));
        let failed = sh("echo one; echo two >&2; exit 3", None).await.unwrap_err();
        assert_eq!(failed, "/bin/sh: exit status: 3; it wrote: one\ntwo");
        // A child that keeps the streams is not waited for.
        assert_eq!(sh("sleep 60 & exit 0", None).await, Ok(()));
        let slow = sh("sleep 60", Some(Duration::from_millis(50))).await.unwrap_err();
        assert!(slow.contains("no end within 0 s"), "{slow}");
        assert!(run(Path::new("/nowhere"), &[], [], None).await.is_err());
    }
}
