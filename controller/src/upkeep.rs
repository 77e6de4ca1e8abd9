//! What has to be done again and again?
//!
//! Time taking effect, silent agents, ended jobs that go to the history, checkpoints, blobs that
//! nobody names any more, what the calendar brings. Each is a small loop that ends with the
//! controller.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock_core::Command;
use penstock_core::command::{MAX_TARGETS, Unit};
use penstock_vocab::{Millis, NodeName, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::calendar::Calendar;
use crate::convert::record;
use crate::cron_times;
use crate::fence::Fences;
use crate::health::Checks;
use crate::idle;
use crate::listing;
use crate::rpc::Shared;
use crate::store::{CheckpointWriter, Revision};
use crate::trim::{self, Trim};
use crate::writer::{Snapshot, chain};

/// Longest time between two ticks.
const TICK: Duration = Duration::from_secs(1);
/// How often nodes are looked at.
const LIVENESS: Duration = Duration::from_secs(1);
/// How often ended jobs go to the history.
const RETIRE: Duration = Duration::from_millis(500);
/// Most units that go to the history at once.
const RETIRED_AT_ONCE: usize = 5_000;
/// Records that one command takes out at most, steps among them.
const RETIRED_RECORDS: usize = 90;
/// How often it is asked whether a checkpoint is due.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// Redo that makes a checkpoint due: a start reads it all.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// How often old history is dropped.
const FORGET: Duration = Duration::from_secs(3_600);
/// How often scripts and environments that no job names any more are dropped.
const SWEEP: Duration = Duration::from_secs(600);
/// How often GPUs that are held are looked at for idle ones.
const IDLE: Duration = Duration::from_secs(2);
/// How often the calendar is looked at: no finer than its times are.
const CALENDAR: Duration = Duration::from_secs(60);
/// Age, in seconds, at which an order that was not answered is repeated.
const OVERDUE_SECS: u64 = 30;
/// Heartbeats that may fail before a stream is cut.
const HEARTBEATS: u64 = 4;

/// Starts the loops.
pub fn start(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    checkpoints: CheckpointWriter,
    redo_bytes: Arc<AtomicU64>,
    stop: &CancellationToken,
) {
    let each = |every: Duration| (Arc::clone(shared), stop.clone(), every);
    let (a, b, c, d, e) =
        (each(TICK), each(LIVENESS), each(RETIRE), each(CHECKPOINT), each(FORGET));
    tasks.spawn(async move { tick(&a.0, &a.1).await });
    tasks.spawn(async move { every(b.2, &b.1, || liveness(&b.0)).await });
    tasks.spawn(async move { every(c.2, &c.1, || retire(&c.0)).await });
    tasks.spawn(async move {
        every(d.2, &d.1, || checkpoint_if_due(&d.0, &checkpoints, &redo_bytes)).await;
    });
    tasks.spawn(async move { every(e.2, &e.1, || forget(&e.0)).await });
    let (fences, g) = (Fences::default(), each(LIVENESS));
    tasks.spawn(async move { every(g.2, &g.1, || fences.run(&g.0)).await });
    let (calendar, h) = (Calendar::new(shared), each(CALENDAR));
    tasks.spawn(async move { every(h.2, &h.1, || calendar.run(&h.0)).await });
    let k = each(LIVENESS);
    tasks.spawn(async move { every(k.2, &k.1, || cron_times::extend(&k.0)).await });
    let i = each(LIVENESS);
    tasks.spawn(async move { every(i.2, &i.1, || steps(&i.0)).await });
    let j = each(trim::LOOK);
    tasks.spawn(async move { trim_memory(&j.0, &j.1).await });
    let k = each(IDLE);
    tasks.spawn(async move { every(k.2, &k.1, || idle::run(&k.0)).await });
    let (checks, l) = (Checks::default(), each(LIVENESS));
    tasks.spawn(async move { every(l.2, &l.1, || async { checks.run(&l.0) }).await });
    let f = each(SWEEP);
    tasks.spawn(async move { every(f.2, &f.1, || sweep(&f.0)).await });
}

async fn every<F: Future<Output = ()>>(
    every: Duration,
    stop: &CancellationToken,
    mut act: impl FnMut() -> F,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => act().await,
            () = stop.cancelled() => return,
        }
    }
}

/// Lets time take effect: at the next begin time, and once a second for what is swept slowly.
async fn tick(shared: &Shared, stop: &CancellationToken) {
    let mut snapshots = shared.writer.watch();
    loop {
        let now = shared.clock.now();
        let wake = snapshots.borrow_and_update().cluster.next_wake();
        let wait = wake.map_or(TICK, |at| at.since(now).to_std().min(TICK));
        tokio::select! {
            () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {
                if let Err(error) = shared.writer.execute(Command::Tick).await {
                    warn!(%error, "a tick was not carried out");
                }
            }
            changed = snapshots.changed(), if wake.is_none() => {
                if changed.is_err() {
                    return;
                }
                // A new begin time may lie nearer than the tick; do not spin on every change.
                tokio::task::yield_now().await;
            }
            () = stop.cancelled() => return,
        }
    }
}

async fn liveness(shared: &Shared) {
    let now = shared.clock.now();
    let file = shared.file();
    let patience = HEARTBEATS * u64::from(file.policy.heartbeat_secs) + 10;
    let timeout = u64::from(file.policy.node_timeout_secs);
    shared.links.cut_silent(now, patience.min(timeout));
    let snapshot = shared.snapshot();
    repeat_orders(shared, &snapshot, now);
    close_lost_sessions(shared, &snapshot).await;
    let up: Vec<NodeName> = snapshot
        .cluster
        .nodes()
        .filter(|(_, node, _)| node.registered.is_some() && node.down.is_none())
        .filter(|(_, node, _)| node.session.is_none() && !node.admin.powered_down)
        .map(|(_, node, _)| node.name.clone())
        .collect();
    for node in shared.links.silent_nodes(up.iter(), now, shared.started, timeout) {
        warn!(%node, silent_secs = timeout, "node is down: it does not respond; its jobs stay");
        shared.writer.tell(Command::Silent { node }).await;
    }
    end_leases(shared, &snapshot, now).await;
}

/// Jobs that nobody holds are cancelled; what is kept of steps that ended is dropped.
async fn steps(shared: &Shared) {
    let snapshot = shared.snapshot();
    let cluster = &snapshot.cluster;
    let desk = &shared.steps;
    for jobs in
        desk.holders.abandoned(cluster, shared.clock.now(), shared.started).chunks(MAX_TARGETS)
    {
        warn!(jobs = ?jobs.iter().map(|id| id.0).collect::<Vec<_>>(), "nobody holds these jobs");
        shared.writer.tell(Command::Abandoned(jobs.to_vec())).await;
    }
    let carried = cluster.live_steps().map(|step| step.ticket).collect();
    desk.secrets.sweep(&carried);
    desk.watches.sweep();
}

/// Runs on silent nodes have ended with their leases.
async fn end_leases(shared: &Shared, snapshot: &Snapshot, now: Timestamp) {
    for (index, node, used) in snapshot.cluster.nodes().filter(|(_, _, used)| !used.jobs.is_empty())
    {
        let silence = shared.links.silence(node.name.as_str(), now, shared.started);
        let Some(silent_secs) = silence.map(Millis::as_secs) else { continue };
        if snapshot.cluster.has_lease_over(index, silent_secs) {
            let (node, jobs) = (node.name.clone(), used.jobs.len());
            warn!(%node, silent_secs, jobs, "leases are over: jobs there have ended");
            shared.writer.tell(Command::LeasesOver { node, silent_secs }).await;
        }
    }
}

/// Orders that were not answered for long go out again: a stream may live on and drop one.
fn repeat_orders(shared: &Shared, snapshot: &Arc<Snapshot>, now: Timestamp) {
    for (index, order) in snapshot.cluster.overdue_orders(now, OVERDUE_SECS) {
        if let Some((node, _)) = snapshot.cluster.node(index) {
            shared.links.order(&node.name, order, snapshot);
        }
    }
}

/// A session whose stream is gone without the cluster having taken note of it.
async fn close_lost_sessions(shared: &Shared, snapshot: &Snapshot) {
    for (_, node, _) in snapshot.cluster.nodes() {
        if let Some(session) = node.session
            && !shared.links.is_open(node.name.as_str(), session)
        {
            shared.writer.tell(Command::Disconnected { node: node.name.clone(), session }).await;
        }
    }
}

/// Ended jobs go to the history; only when that is durable are they forgotten here.
async fn retire(shared: &Arc<Shared>) {
    let snapshot = shared.snapshot();
    // The snapshot's own time stands still while nothing happens.
    let cluster = &snapshot.cluster;
    let units: Vec<Unit> = cluster.retirable(shared.clock.now()).take(RETIRED_AT_ONCE).collect();
    let crons: Vec<_> = cluster.crons_with_runs().take(RETIRED_AT_ONCE).cloned().collect();
    if units.is_empty() && crons.is_empty() {
        return;
    }
    let mut entries: Vec<_> =
        units.iter().flat_map(|unit| listing::history_entries(cluster, *unit)).collect();
    entries.extend(crons.iter().flat_map(|job| listing::earlier_entries(cluster, job)));
    let history = shared.history.clone();
    let appended = tokio::task::spawn_blocking(move || history.append(&entries)).await;
    match appended {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            warn!(error = %chain(&error), "ended jobs can't go to the history yet; they stay");
            return;
        }
        Err(_) => return,
    }
    for job in &crons {
        if let Some(last) = job.earlier_runs.iter().map(|run| run.attempt).max() {
            shared.writer.tell(Command::ForgetRuns(job.id, last)).await;
        }
    }
    for part in retirements(&snapshot, &units) {
        shared.writer.tell(Command::Retire(part)).await;
    }
}

/// Units in portions whose records one command takes out, steps among them. A job with more steps than
/// that stands in several.
fn retirements(snapshot: &Snapshot, units: &[Unit]) -> Vec<Vec<Unit>> {
    let (mut portions, mut portion, mut records) = (Vec::new(), Vec::new(), 0);
    for unit in units {
        let steps = match unit {
            Unit::Job(id) => snapshot.cluster.steps_of(*id).count(),
            Unit::Array(_) => 0,
        };
        if records + 1 + steps > RETIRED_RECORDS || portion.len() == MAX_TARGETS {
            portions.push(std::mem::take(&mut portion));
            records = 0;
        }
        for _ in 0..steps / RETIRED_RECORDS {
            portions.push(vec![*unit]);
        }
        portion.push(*unit);
        records += 1 + steps % RETIRED_RECORDS;
    }
    portions.push(portion);
    portions.retain(|portion| !portion.is_empty());
    portions
}

async fn checkpoint_if_due(
    shared: &Arc<Shared>,
    checkpoints: &CheckpointWriter,
    redo_bytes: &AtomicU64,
) {
    if redo_bytes.load(Ordering::Relaxed) >= CHECKPOINT_BYTES {
        let (shared, checkpoints) = (Arc::clone(shared), checkpoints.clone());
        let task = tokio::task::spawn_blocking(move || checkpoint(&shared, &checkpoints));
        if task.await.is_err() {
            warn!("a checkpoint broke off; the older ones stay in force");
        }
    }
}

/// Writes every record of the newest snapshot.
pub fn checkpoint(shared: &Shared, checkpoints: &CheckpointWriter) {
    let snapshot = shared.snapshot();
    let cluster = &snapshot.cluster;
    let records = cluster
        .record_keys()
        .filter_map(|key| Some((record::key(&key), record::value(cluster, &key)?)));
    match checkpoints.write(Revision(snapshot.sequence), records) {
        Ok(done) => info!(records = done.records, sequence = snapshot.sequence, "checkpoint"),
        Err(error) => {
            warn!(error = %chain(&error), "no checkpoint was written; the older ones stay in force");
        }
    }
}

async fn forget(shared: &Arc<Shared>) {
    let days = shared.file().policy.history_days;
    if days == 0 {
        return;
    }
    let before: Timestamp = shared.clock.now().minus_secs(u64::from(days) * 86_400);
    let history = shared.history.clone();
    match tokio::task::spawn_blocking(move || history.forget_before(before.0)).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(lines)) => info!(lines, "old history was dropped"),
        Ok(Err(error)) => warn!(error = %chain(&error), "old history can't be dropped"),
    }
}

async fn sweep(shared: &Arc<Shared>) {
    let freed = shared.writer.sweep_blobs(live_blobs).await;
    if freed > 0 {
        info!(freed, "scripts and environments of forgotten jobs were dropped");
    }
}

async fn trim_memory(shared: &Shared, stop: &CancellationToken) {
    let mut trim = Trim::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(trim::LOOK) => {}
            () = stop.cancelled() => return,
        }
        if trim.is_due(shared.snapshot().sequence) {
            // A panic there would be the C library's; it is no reason to end.
            let _done = tokio::task::spawn_blocking(trim::give_back).await;
        }
    }
}

/// Blobs that some record names.
fn live_blobs(cluster: &penstock_core::Cluster) -> BTreeSet<[u8; 32]> {
    let specs = cluster.jobs().map(|job| &job.spec).chain(cluster.arrays().map(|a| &a.spec));
    specs.flat_map(|spec| [spec.details.script.0, spec.details.environment.0]).collect()
}
