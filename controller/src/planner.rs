//! When is a plan made, and how is it carried out?
//!
//! The scheduler runs on its own thread, as soon as something may start: it makes a plan from the
//! newest snapshot, publishes it for readers, and sends the starts as commands. The cluster checks
//! each line again, so a plan that is out of date is refused and a new one is made.

use std::sync::Arc;
use std::thread::JoinHandle;

use penstock_core::command::MAX_STARTS;
use penstock_core::scheduler::{Limits, Plan, plan};
use penstock_core::{Command, Reply};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::statistics::{Counter, Statistics};
use crate::writer::{ExecuteError, Snapshot, Writer};

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
        runtime.block_on(run(writer, clock, publisher, stop));
    })?;
    Ok((plans, handle))
}

async fn run(
    writer: Writer,
    clock: Arc<Clock>,
    publisher: watch::Sender<Arc<Plan>>,
    stop: CancellationToken,
) {
    let mut snapshots = writer.watch();
    let mut seen = None;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if seen != Some(snapshot.schedule) {
            seen = Some(snapshot.schedule);
            if carry_out(&writer, &clock, &publisher, &snapshot).await {
                // The plan was cut short or a line was out of date: there is more to do.
                seen = None;
                tokio::task::yield_now().await;
                continue;
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Makes one plan and carries it out; true if another is needed at once.
async fn carry_out(
    writer: &Writer,
    clock: &Clock,
    publisher: &watch::Sender<Arc<Plan>>,
    snapshot: &Snapshot,
) -> bool {
    if snapshot.cluster.queue_is_empty() {
        if publisher.borrow().made_at.0 != 0 {
            publisher.send_replace(Arc::new(Plan::default()));
        }
        return false;
    }
    let mut made = plan(&snapshot.cluster, clock.now(), Limits::default());
    let starts = std::mem::take(&mut made.starts);
    let cut = made.cut;
    debug!(starts = starts.len(), cut, "plan made");
    publisher.send_replace(Arc::new(made));
    let mut answers = Vec::new();
    for lines in starts.chunks(MAX_STARTS) {
        match writer.begin(Command::Start(lines.to_vec()), Vec::new()) {
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
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "starts of a plan were not carried out"),
            Err(_) => return false,
        }
    }
    (cut && started_any) || refused_any
}
