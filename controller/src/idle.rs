//! Whose GPUs are idle for too long, and what comes next for each of them?
//!
//! A loop that holds what was measured against the rules of the cluster file, and sends what comes next
//! as a command: the cluster checks it against what was said before, writes it down and lets it happen.

use penstock_core::command::{Command, IdleLine, MAX_TARGETS};
use penstock_core::model::{IdleRule, Job, Run, idle_rule};
use penstock_core::policy::idle::{IdleStep, decide};
use penstock_vocab::Timestamp;
use tracing::info;

use crate::rpc::Shared;

/// Looks at every run that holds GPUs. Without rules nothing is looked at.
pub(crate) async fn run(shared: &Shared) {
    let snapshot = shared.snapshot();
    let rules = &snapshot.cluster.config().idle;
    if rules.is_empty() {
        return;
    }
    let now = shared.clock.now();
    let mut lines = Vec::new();
    for (_, _, used) in snapshot.cluster.nodes() {
        for job in used.jobs.iter().filter_map(|id| snapshot.cluster.job(*id)) {
            if let Some(run) = job.active_run().filter(|run| !run.is_ending()) {
                lines.extend(line(shared, rules, (job, run), now));
            }
        }
    }
    // One that is on several nodes comes several times.
    lines.sort_by_key(|line| line.job);
    lines.dedup();
    for part in lines.chunks(MAX_TARGETS) {
        for line in part {
            info!(job = %line.job, rule = %line.rule, step = ?line.step, "{}", line.evidence);
        }
        shared.writer.tell(Command::Idle(part.to_vec())).await;
    }
}

fn line(
    shared: &Shared,
    rules: &[IdleRule],
    (job, run): (&Job, &Run),
    now: Timestamp,
) -> Option<IdleLine> {
    let Some(rule) = idle_rule(rules, job, run) else {
        let note = run.idle.as_ref()?;
        return Some(IdleLine {
            job: job.id,
            attempt: run.attempt,
            rule: note.rule.clone(),
            step: IdleStep::Clear,
            evidence: "no rule counts for it any more".into(),
            lost_ms: 0,
        });
    };
    let held = run.whole_gpus().filter(|held| *held > 0)?;
    let sight = shared.gpus.idle_sight(rule, (job.id, run.attempt), held, now);
    let step = decide(rule, run.idle.as_ref(), &sight, now)?;
    Some(IdleLine {
        job: job.id,
        attempt: run.attempt,
        rule: rule.name.clone(),
        step,
        evidence: sight.evidence().into(),
        lost_ms: sight.lost_ms(),
    })
}
