//! `scontrol listpids` and `pidinfo`: which processes of this node belong to which job?
//!
//! Processes are found by their environment, which only their user and root may read. A task's first
//! process is told with its place in the step, its descendants without.

use std::path::Path;

use penstock_proto::v1;
use penstock_vocab::{JobSelector, StepId, StepSelector};

use crate::connect::{Client, Patience};
use crate::listing::{Clock, now_ms};
use crate::output::{print_line, write_bytes};

use super::{FAILED, PROGRAM, Voice};

/// A process of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    job: u32,
    step: String,
    node: String,
    /// Number of the task on the node and in the step, of its first process.
    task: Option<(String, String)>,
}

/// `listpids [JOB[.STEP]] [NODE]`.
pub(super) fn list(words: &[String], voice: Voice) -> i32 {
    let wanted = match words.first().map(|word| read_wanted(word)) {
        None => None,
        Some(Some(wanted)) => Some(wanted),
        Some(None) => {
            voice.say(&format!("\"{}\" does not look like a jobid", words[0]));
            return FAILED;
        }
    };
    let node = words.get(1);
    let mut found = processes(Path::new("/proc"));
    found.retain(|process| {
        wanted.as_ref().is_none_or(|(job, step)| {
            *job == process.job && step.as_ref().is_none_or(|step| *step == process.step)
        }) && node.is_none_or(|node| *node == process.node)
    });
    found.sort_by_key(|process| (process.job, process.step.clone(), process.pid));
    print_line("PID      JOBID    STEPID   LOCALID GLOBALID");
    let lines: String = found.iter().map(line).collect();
    write_bytes(lines.as_bytes());
    if !found.is_empty() {
        return 0;
    }
    let node = node.map_or("(null)", String::as_str);
    match wanted {
        Some((job, Some(step))) => {
            voice.say(&format!("StepId={job}.{step} does not exist on node {node}."));
        }
        Some((job, None)) => {
            voice.say(&format!("There are no steps for job {job} on node {node}."))
        }
        None => voice.say(&format!("There are no steps on node {node}.")),
    }
    FAILED
}

fn line(process: &Process) -> String {
    let (local, global) = match &process.task {
        Some((local, global)) => (local.as_str(), global.as_str()),
        None => ("-", "-"),
    };
    let (pid, job, step) = (process.pid, process.job, &process.step);
    format!("{pid:<8} {job:<8} {step:<8} {local:<7} {global:<8}\n")
}

/// `pidinfo PID`: the job of a process and when it ends.
pub(super) fn info(words: &[String], voice: Voice) -> i32 {
    let Some(word) = words.first() else {
        voice.say("missing argument for keyword:pidinfo");
        return FAILED;
    };
    let pid = word.parse::<u32>().ok();
    let found = pid.and_then(|pid| process(&Path::new("/proc").join(word), pid));
    let Some(found) = found else {
        voice.say("Failed to locate job for requested pid");
        return FAILED;
    };
    let filter = v1::JobFilter { selectors: vec![found.job.to_string()], ..Default::default() };
    let request = v1::ListJobsRequest { filter: Some(filter), full: true, ..Default::default() };
    let replies = Client::open().and_then(|client| {
        client.collect(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.list_jobs(request).await }
        })
    });
    let replies = match replies {
        Ok(replies) => replies,
        Err(failure) => {
            voice.report(&format!("{PROGRAM}: error: slurm_load_jobs"), &failure);
            return FAILED;
        }
    };
    let info = replies.iter().flat_map(|reply| &reply.jobs).next();
    let run = info.and_then(|info| info.job.as_ref()?.run.as_ref());
    let limit = info.and_then(|info| info.job.as_ref()).map_or(0, |job| job.time_limit_secs);
    let clock = Clock::from_env(now_ms());
    match run {
        Some(run) if limit > 0 => {
            let limit_ms = i64::try_from(limit.saturating_mul(1000)).unwrap_or(i64::MAX);
            let end = run.start_ms.saturating_add(limit_ms);
            let left = end.saturating_sub(clock.now_ms()).max(0) / 1000;
            print_line(&format!("Slurm JobId={} ends at {}", found.job, clock.date_of(end)));
            print_line(&format!("slurm_get_rem_time is {left}"));
        }
        _ => print_line(&format!("Slurm JobId={} has no time limit", found.job)),
    }
    0
}

/// A job, or one step of it by the word that its processes have for it.
fn read_wanted(word: &str) -> Option<(u32, Option<String>)> {
    if let Ok(JobSelector::Job(job)) = word.parse::<JobSelector>() {
        return Some((job.0, None));
    }
    let step = word.parse::<StepSelector>().ok()?;
    let name = match step.step {
        StepId::Batch => "batch".to_owned(),
        other => other.to_string(),
    };
    Some((step.job.0, Some(name)))
}

/// The processes of jobs whose environment may be read, as /proc lists them.
fn processes(proc: &Path) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        process(&entry.path(), pid)
    });
    pids.collect()
}

fn process(folder: &Path, pid: u32) -> Option<Process> {
    let environment = std::fs::read(folder.join("environ")).ok()?;
    let group = std::fs::read_to_string(folder.join("stat")).ok()?;
    of_environment(&environment, &group, pid)
}

/// What the environment and the line of `stat` say.
fn of_environment(environment: &[u8], stat: &str, pid: u32) -> Option<Process> {
    let text = |name: &str| {
        let mut lines = environment.split(|byte| *byte == 0);
        let value =
            lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let job = text("SLURM_JOB_ID")?.parse().ok()?;
    // Only what runs on a node has its name; salloc's shell has not.
    let node = text("SLURMD_NODENAME")?;
    let step = text("SLURM_STEP_ID").unwrap_or_else(|| "batch".to_owned());
    // The first process of a task leads its session, and those that it starts do not.
    let session = stat.rsplit(')').next()?.split_whitespace().nth(3)?;
    let first = session.parse::<u32>() == Ok(pid);
    let task = first.then(|| {
        let number = |name| text(name).unwrap_or_else(|| "0".to_owned());
        (number("SLURM_LOCALID"), number("SLURM_PROCID"))
    });
    Some(Process { pid, job, step, node, task })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_environment() {
        let environment = b"HOME=/\0SLURM_JOB_ID=12\0SLURMD_NODENAME=n1\0SLURM_PROCID=3\0";
        let first = of_environment(environment, "77 (a b) S 1 77 77 0", 77).expect("of a job");
        assert_eq!(line(&first), "77       12       batch    0       3       \n");
        let child = of_environment(environment, "78 (a) b) S 77 77 77 0", 78).expect("of a job");
        assert_eq!(line(&child), "78       12       batch    -       -       \n");
        assert_eq!(of_environment(b"HOME=/\0", "1 (a) S 0 1 1 0", 1), None);
        assert_eq!(of_environment(b"SLURM_JOB_ID=x\0", "", 1), None);
    }

    #[test]
    fn jobs_and_steps_are_named() {
        assert_eq!(read_wanted("12"), Some((12, None)));
        assert_eq!(read_wanted("12.3"), Some((12, Some("3".into()))));
        assert_eq!(read_wanted("12.batch"), Some((12, Some("batch".into()))));
        assert_eq!(read_wanted("foo"), None);
    }
}
