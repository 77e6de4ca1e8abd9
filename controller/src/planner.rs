//! When is a plan made, and how is it carried out?
//!
//! The scheduler runs on its own thread, as soon as something may start: it makes a plan from the
//! newest snapshot, publishes it for readers, and sends the starts as commands. The cluster checks
//! each line again, so a plan that is out of date is refused and a new one is made.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_core::command::{MAX_STARTS, MAX_TARGETS};
use penstock_core::scheduler::{Limits, Memory, Plan, plan_with};
use penstock_core::{Command, Reply};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::statistics::{Counter, Statistics};
use crate::writer::{ExecuteError, Snapshot, Writer};

/// A plan is made so often while jobs wait, whatever happens.
const REPLAN: Duration = Duration::from_secs(5);
/// However near a promised start is.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// Starts the scheduler's thread; plans come by the receiver.
///
/// # Errors
/// If the system makes no thread.
pub fn spawn(
    writer: Writer,
    statistics: Arc<Statistics>,
    clock: Arc<Clock>,
    runtime: Handle,
    stop: CancellationToken,
) -> std::io::Result<(watch::Receiver<Arc<Plan>>, JoinHandle<()>)> {
    let (publisher, plans) = watch::channel(Arc::new(Plan::default()));
    let handle = std::thread::Builder::new().name("scheduler".into()).spawn(move || {
        runtime.block_on(run(writer, statistics, clock, publisher, stop));
    })?;
    Ok((plans, handle))
}

async fn run(
    writer: Writer,
    statistics: Arc<Statistics>,
    clock: Arc<Clock>,
    publisher: watch::Sender<Arc<Plan>>,
    stop: CancellationToken,
) {
    let mut snapshots = writer.watch();
    let mut planner = Planner { writer, clock, statistics, publisher, memory: Memory::new() };
    let mut seen = None;
    let mut again = tokio::time::Instant::now() + REPLAN;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if seen != Some(snapshot.schedule) {
            seen = Some(snapshot.schedule);
            let more = planner.carry_out(&snapshot).await;
            again = tokio::time::Instant::now() + planner.patience();
            if more {
                // The plan was cut short or a line was out of date: there is more to do.
                seen = None;
                tokio::task::yield_now().await;
                continue;
            }
        }
        let waits = !snapshot.cluster.queue_is_empty();
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            // Time alone changes priorities, and brings places reserved in time.
            () = tokio::time::sleep_until(again), if waits => seen = None,
            () = stop.cancelled() => return,
        }
    }
}

/// What plans are made with.
struct Planner {
    writer: Writer,
    clock: Arc<Clock>,
    statistics: Arc<Statistics>,
    publisher: watch::Sender<Arc<Plan>>,
    memory: Memory,
}

impl Planner {
    /// How long to wait for something to change before the next plan: until the nearest start that is
    /// promised, and some seconds at most.
    fn patience(&self) -> Duration {
        let now = self.clock.now();
        let plan = self.publisher.borrow();
        let next = plan.all_expected().map(|(_, expected)| expected.start).min();
        let wait = next.map_or(REPLAN, |at| at.since(now).to_std());
        wait.clamp(SHORTEST_WAIT, REPLAN)
    }

    /// Makes one plan and carries it out; true if another is needed at once.
    async fn carry_out(&mut self, snapshot: &Snapshot) -> bool {
        if snapshot.cluster.queue_is_empty() {
            if self.publisher.borrow().made_at.0 != 0 {
                self.publisher.send_replace(Arc::new(Plan::default()));
            }
            return false;
        }
        let begun = Instant::now();
        let now = self.clock.now();
        let mut made = plan_with(&mut self.memory, &snapshot.cluster, now, Limits::default());
        self.statistics.time("plan", begun.elapsed());
        self.count(&made);
        let starts = std::mem::take(&mut made.starts);
        let preempt = std::mem::take(&mut made.preempt);
        let reshapes = std::mem::take(&mut made.reshapes);
        let cut = made.cut;
        debug!(starts = starts.len(), preempt = preempt.len(), cut, "plan made");
        self.publisher.send_replace(Arc::new(made));
        let begun = Instant::now();
        let commands = starts
            .chunks(MAX_STARTS)
            .map(|lines| Command::Start(lines.to_vec()))
            .chain(preempt.chunks(MAX_TARGETS).map(|lines| Command::Preempt(lines.to_vec())))
            .chain(reshapes.chunks(MAX_TARGETS).map(|lines| Command::Reshape(lines.to_vec())));
        let mut answers = Vec::new();
        for command in commands {
            match self.writer.begin(command, Vec::new()) {
                Ok(answer) => answers.push(answer),
                Err(ExecuteError::Full) => break,
                Err(_) => return false,
            }
        }
        let (mut started_any, mut refused_any) = (false, false);
        for answer in answers {
            match answer.await {
                Ok(Ok(Reply::Started { started, refused })) => {
                    started_any |= started > 0;
                    refused_any |= refused > 0;
                    self.statistics.count(Counter::RefusedLines, u64::from(refused));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => warn!(%error, "a part of a plan was not carried out"),
                Err(_) => return false,
            }
        }
        self.statistics.time("start", begun.elapsed());
        (cut && started_any) || refused_any
    }

    fn count(&self, made: &Plan) {
        self.statistics.count(Counter::Plans, 1);
        self.statistics.count(Counter::PlansCut, u64::from(made.cut));
        self.statistics.count(Counter::FullPlans, u64::from(!made.cut));
        let ahead = made.starts.iter().filter(|line| line.backfill).count();
        self.statistics.count(Counter::Backfilled, ahead as u64);
        self.statistics.count(Counter::Preempted, made.preempt.len() as u64);
    }
}
