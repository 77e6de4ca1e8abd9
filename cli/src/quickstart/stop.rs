//! How does a quickstart's cluster end and leave nothing behind?
//!
//! Jobs first: they are cancelled through the controller and awaited, since a shepherd outlives its
//! agent. Then the agents end, then the controller. The folder with its history stays.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::Starter;
use super::failure::Failure;
use super::files;
use super::interrupt::Interrupt;
use super::layout::Layout;
use super::options::Claims;
use super::process::{self, Held};
use super::registry::{CONTROLLER, Registry};
use super::remote::Remote;
use super::talk::Talk;
use super::tidy;

/// Longest wait for cancelled jobs: `kill_wait_secs` of the file quickstart writes is 5.
const JOBS_PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for a quickstart in the foreground to stop its own cluster.
const OTHER_PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at whether all jobs have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `--stop`: ends the folder's cluster, whoever started it.
pub(super) fn from_outside(
    layout: &Layout,
    interrupt: &Interrupt,
    talk: Talk,
) -> Result<i32, Failure> {
    let mut asked = false;
    if let Some(other) =
        Registry::read(layout).other_quickstart().and_then(|id| id.hold("quickstart"))
    {
        talk.say(&format!("asking the quickstart with pid {} to end", other.pid));
        process::ask_to_end(other, OTHER_PATIENCE, interrupt)?;
        asked = true;
    }
    let _lock = layout.lock()?;
    let mut registry = Registry::read(layout);
    if registry.hold_daemons().is_empty() && shepherds(layout.dir()).is_empty() {
        tidy::remove_leftovers(layout, files::read_endpoints(layout).ok().flatten().as_ref());
        layout.mark_detached(false)?;
        registry.forget_self()?;
        let what = if asked { "it has stopped the cluster in" } else { "nothing runs in" };
        talk.say(&format!("{what} {}", layout.dir().display()));
        return Ok(0);
    }
    shut_down(layout, &mut registry, interrupt, talk)?;
    Ok(0)
}

/// How many nodes must be up so that every job can be ended, where not all of those are: only a
/// controller and the agents that hold the jobs can.
fn missed(layout: &Layout, registry: &Registry) -> Option<u32> {
    let name = |number: u32| format!("node{number}");
    let holds = |number: &u32| tidy::holds_jobs(layout, &name(*number));
    let holders: Vec<u32> = (1..=layout.known_nodes()).filter(holds).collect();
    let dead = |name: &str| registry.living(name).is_none();
    let jobs_run = || !shepherds(layout.dir()).is_empty();
    let missed =
        (dead(CONTROLLER) && jobs_run()) || holders.iter().any(|number| dead(&name(*number)));
    missed.then(|| holders.last().copied().unwrap_or(1))
}

/// Cancels the jobs, awaits their end, and ends every process of the folder.
pub(super) fn shut_down(
    layout: &Layout,
    registry: &mut Registry,
    interrupt: &Interrupt,
    talk: Talk,
) -> Result<(), Failure> {
    if let Some(nodes) = missed(layout, registry) {
        talk.say("starting what is missing, to end the jobs in order");
        let mut starter = Starter { layout, registry, interrupt, talk };
        if let Err(failure) = starter.ensure(nodes, Claims::default(), None) {
            failure.report();
        }
    }
    let endpoints = files::read_endpoints(layout).ok().flatten();
    if let (Some(endpoints), Some(_)) = (&endpoints, registry.living(CONTROLLER)) {
        // A controller that does not answer keeps nobody from ending the processes.
        if let Err(failure) = end_jobs(&endpoints.socket, interrupt, talk) {
            failure.report();
        }
    }
    let daemons = registry.hold_daemons();
    let count = daemons.len();
    let (controller, agents): (Vec<Held>, Vec<Held>) =
        daemons.into_iter().partition(|daemon| daemon.name == CONTROLLER);
    tidy::await_spools(layout, &agents, interrupt);
    process::end(agents, interrupt)?;
    process::end(controller, interrupt)?;
    tidy::remove_leftovers(layout, endpoints.as_ref());
    layout.mark_detached(false)?;
    registry.forget_self()?;
    let left = shepherds(layout.dir());
    if !left.is_empty() {
        talk.warn(&format!(
            "quickstart: warning: {} job(s) did not end; their shepherds are the processes {}",
            left.len(),
            left.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        ));
    }
    if count > 0 {
        talk.say(&format!(
            "stopped {count} process(es); state stays in {}",
            layout.dir().display()
        ));
    }
    Ok(())
}

fn end_jobs(socket: &Path, interrupt: &Interrupt, talk: Talk) -> Result<(), Failure> {
    let remote = Remote::at(socket)?;
    let active = remote.active_jobs()?;
    if active == 0 {
        return Ok(());
    }
    talk.say(&format!("cancelling {active} job(s); Ctrl-C: do not wait for them"));
    remote.cancel_all()?;
    let deadline = Instant::now() + JOBS_PATIENCE;
    while remote.active_jobs()? > 0 && Instant::now() < deadline {
        if interrupt.pause(LOOK_EVERY).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Pids of the shepherds that work in a folder below `dir`: each lives in its attempt's.
fn shepherds(dir: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let verb = line.split(|byte| *byte == 0).nth(1);
        verb == Some(b"shepherd")
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut pids: Vec<i32> =
        entries.filter_map(Result::ok).filter_map(pid).filter(is_ours).collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_shepherds_of_this_folder_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let start = |folder: &str| {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("shepherd"), "read line\n").unwrap();
            let mut command = Command::new("sh");
            command.arg("shepherd").arg("-").current_dir(&folder).stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut ours = start("qs/node1/state/spool/1.1");
        let mut other = start("qs-other/node1/state/spool/1.1");
        assert_eq!(shepherds(&dir.join("qs")), [ours.id().cast_signed()]);
        for child in [&mut ours, &mut other] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert_eq!(shepherds(&dir.join("qs")), [0; 0]);
    }
}
