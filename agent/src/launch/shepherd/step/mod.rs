//! How does this node's part of a step run, from srun's call to the record of its end?
//!
//! The shepherd of a step is like that of a batch script ([`super`]) but for what it starts: it calls
//! srun ([`line`]), hears from it what to run, forks one process for each task ([`spawn`]), and
//! carries their input and output ([`run`]).
//!
//! srun's death is the tasks' end: they get SIGTERM, and SIGKILL after the job's `kill_wait`. What srun
//! does not take holds the tasks back, within [`HELD_BACK_BYTES`] of what they wrote.

mod binding;
mod dialler;
mod facts;
mod files;
mod gpus;
mod labels;
mod line;
mod numbers;
mod pmi;
mod pmix;
mod relay;
mod rest;
mod run;
mod spawn;
mod start;
mod talk;
mod task;

use std::fs::File;

use penstock_supervisor::RunResult;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::charge::{self, Ready};
use super::control::Link;
use super::{LaunchError, failed, hosts, limits, user};
use crate::launch::cgroup::Limits;
use crate::launch::record::{Intent, News};
use crate::sys::SingleThreaded;

pub(crate) use facts::Facts;
pub use pmix::version as pmix_version;
pub(super) use rest::Rest;
use spawn::Common;

/// Bytes of output that wait for srun beyond which no more is read from any task of this node.
const HELD_BACK_BYTES: usize = 256 << 10;

/// Runs the step that `intent` tells of. Gives back how it ended, the claim, and what is left of its
/// output where srun has not taken it yet.
pub(super) fn attempt(
    alone: SingleThreaded,
    intent: Intent,
    claim: File,
    link: &mut Link,
) -> (RunResult, File, Option<Rest>) {
    let (ready, common) = match prepare(intent, link) {
        Ok(prepared) => prepared,
        Err(error) => return (failed(error), claim, None),
    };
    match run::Step::new(alone, common, ready, claim) {
        Ok(step) => step.run(link),
        Err((error, claim)) => (failed(error), claim, None),
    }
}

fn prepare(intent: Intent, link: &mut Link) -> Result<(Ready, Common), LaunchError> {
    let facts = Facts::of(&intent)?;
    let launch = &facts.launch;
    let lease = charge::hold_lease(&intent, launch.lease_secs)?;
    let identity = user::identify(facts.uid, launch.gid, &launch.user_name)?;
    let of_attempt = limits(&intent, launch.job_share.as_ref());
    let memory_bytes = facts.share.memory_mib.saturating_mul(1 << 20);
    // Without CPUs of its own it has the job's.
    let cpus = match crate::inventory::cpu_list(&intent.step_cpus) {
        own if own.is_empty() => of_attempt.cpus.clone(),
        own => own,
    };
    let of_part = Limits { memory_bytes, cpus, processes: 0 };
    let part = facts.key();
    let ready = Ready::make(&intent, part, lease, &of_attempt, &of_part)?;
    if !launch.hosts.is_empty()
        && let Err(why) = hosts::make_private(&launch.hosts)
    {
        link.tell(News::Notice(why));
    }
    let ends_with_shepherd = ready.ends_with_shepherd();
    let files = more_files();
    let common = Common {
        intent,
        facts,
        identity,
        ends_with_shepherd,
        files,
        launch_address: None,
        oci: None,
    };
    Ok((ready, common))
}

/// Lets this process have as many descriptors as it may, three for each task; the limit before.
fn more_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // With fewer, a step of many tasks fails later, and says so.
    let _kept = setrlimit(Resource::Nofile, most);
    before
}
