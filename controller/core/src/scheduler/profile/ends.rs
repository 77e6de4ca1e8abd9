//! When does what runs now end at the latest?

use penstock_vocab::Timestamp;

use super::FAR;
use crate::model::{Job, Run, RunStage};

/// Beyond its limit and the time that killing it takes, a run is given so long, in seconds, before
/// it counts as one whose end nobody knows: its node is silent, or its process can't be killed.
const OVERDUE_SECS: u64 = 60;

/// When a run ends at the latest, and whether that depends on `now`, so that it has to be asked
/// again. [`FAR`] if nobody knows.
pub(in crate::scheduler) fn run_end(
    job: &Job,
    run: &Run,
    now: Timestamp,
    kill_wait_secs: u32,
) -> (i64, bool) {
    let kill_wait = u64::from(kill_wait_secs);
    let soon = now.plus_secs(kill_wait.max(1));
    let ending = matches!(run.stage, RunStage::Ending(_));
    let Some(end) = job.ends_by(now) else {
        return if ending { (soon.0, true) } else { (FAR, false) };
    };
    let late = end.plus_secs(kill_wait + OVERDUE_SECS) < now;
    if end > now && ending {
        (end.min(soon).0, true)
    } else if end > now {
        (end.0.min(FAR), run.suspended_since.is_some())
    } else if late && !ending {
        (FAR, true)
    } else {
        (soon.0, true)
    }
}
