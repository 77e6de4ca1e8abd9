//! Which files are the job's standard streams?
//!
//! Opened as the user, in the job's folder: whatever the paths name, the user's own rights decide.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use penstock_proto::v1;
use penstock_vocab::{ArrayTaskId, JobId, PatternFields, StepId, expand_pattern};

use super::LaunchError;

/// The three streams.
pub(super) struct Streams {
    pub(super) stdin: File,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

/// Opens the streams that the job names, or Slurm's defaults.
pub(super) fn open(job: &v1::Job, spec: &v1::JobSpec, node: &str) -> Result<Streams, LaunchError> {
    let names = names(job, spec, node);
    let stdin = File::open(&names.stdin).map_err(|error| failed("input", &names.stdin, error))?;
    let emptied = if spec.open_mode == v1::OpenMode::Append as i32 { 0 } else { libc::O_TRUNC };
    let write = |name: &str| {
        // Both streams may be one file under two names: each write goes to the end, as in Slurm.
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o666).custom_flags(libc::O_NOCTTY | emptied);
        options.open(name)
    };
    let stdout = write(&names.stdout).map_err(|error| failed("output", &names.stdout, error))?;
    let stderr = match &names.stderr {
        None => stdout.try_clone(),
        Some(name) => write(name),
    };
    let stderr = stderr.map_err(|error| {
        failed("error", names.stderr.as_deref().unwrap_or(&names.stdout), error)
    })?;
    Ok(Streams { stdin, stdout, stderr })
}

#[derive(Debug, PartialEq, Eq)]
struct Names {
    stdin: String,
    stdout: String,
    /// `None`: the same as stdout.
    stderr: Option<String>,
}

fn names(job: &v1::Job, spec: &v1::JobSpec, node: &str) -> Names {
    let array = job.array_task_id.map(|task| (JobId(job.array_job_id), ArrayTaskId(task)));
    let fields = PatternFields {
        job_id: JobId(job.id),
        array,
        step: StepId::Batch,
        node_name: node,
        node_index: 0,
        task: 0,
        user: &spec.user_name,
        job_name: &spec.name,
    };
    let default = if array.is_some() { "slurm-%A_%a.out" } else { "slurm-%j.out" };
    let given = |pattern: &str| (!pattern.is_empty()).then(|| expand_pattern(pattern, &fields));
    Names {
        stdin: given(&spec.stdin).unwrap_or_else(|| "/dev/null".to_owned()),
        stdout: given(&spec.stdout).unwrap_or_else(|| expand_pattern(default, &fields)),
        stderr: given(&spec.stderr),
    }
}

fn failed(what: &str, name: &str, error: io::Error) -> LaunchError {
    let text = format!("standard {what} {name:?} cannot be opened: {error}");
    match error.raw_os_error() {
        Some(libc::EIO | libc::ENFILE | libc::ENOMEM | libc::ESTALE) => LaunchError::node(text),
        _ => LaunchError::job(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_slurms() {
        let spec = v1::JobSpec::default();
        let job = v1::Job { id: 5, ..v1::Job::default() };
        let single = names(&job, &spec, "n1");
        assert_eq!((single.stdin.as_str(), single.stdout.as_str()), ("/dev/null", "slurm-5.out"));
        assert_eq!(single.stderr, None);
        let task = v1::Job { id: 7, array_job_id: 5, array_task_id: Some(3), ..job };
        assert_eq!(names(&task, &spec, "n1").stdout, "slurm-5_3.out");
    }

    #[test]
    fn patterns_are_filled_in() {
        let spec = v1::JobSpec {
            name: "train".to_owned(),
            user_name: "ada".to_owned(),
            stdout: "/logs/%u/%x-%5j-%N.out".to_owned(),
            stderr: "err-%a".to_owned(),
            ..v1::JobSpec::default()
        };
        let job = v1::Job { id: 5, ..v1::Job::default() };
        let names = names(&job, &spec, "n1");
        assert_eq!(names.stdout, "/logs/ada/train-00005-n1.out");
        assert_eq!(names.stderr.as_deref(), Some("err-4294967294"));
    }

    #[test]
    fn a_missing_folder_is_the_jobs_fault_and_a_broken_disk_is_not() {
        let error = |code| failed("output", "x", io::Error::from_raw_os_error(code));
        assert!(!error(libc::ENOENT).node_fault && !error(libc::EACCES).node_fault);
        assert!(error(libc::EIO).node_fault);
    }
}
