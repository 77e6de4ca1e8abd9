//! How do the core's words become the supervisor's, and back? In the daemons the wire stands between.

use penstock_core::Cluster;
use penstock_core::command::{AttemptPhase, AttemptReport, Order, OrderKind};
use penstock_core::model::{EndCause, RunResult, StepKey, StepNumber, Usage};
use penstock_supervisor::{
    AttemptKey, AttemptReport as HostReport, EndCause as HostCause, Order as HostOrder,
    ReportedPhase, SignalRequest, TimeLimit,
};
use penstock_vocab::{ExitCode, Millis, Signal};

use crate::event::Payload;

/// Seconds from SIGTERM to SIGKILL.
pub(crate) const KILL_WAIT_SECS: u32 = 5;

pub(crate) fn report(report: HostReport) -> AttemptReport {
    let HostReport { key: AttemptKey { job, attempt, step }, phase } = report;
    let phase = match phase {
        ReportedPhase::Running => AttemptPhase::Running,
        ReportedPhase::NeverStarted => AttemptPhase::NeverStarted,
        ReportedPhase::Ended(result) => AttemptPhase::Ended(Box::new(RunResult {
            exit: ExitCode::from_wait_status(result.wait_status),
            out_of_memory: result.out_of_memory,
            time_limit: result.time_limit,
            unkillable: result.unkillable,
            launch_error: result.launch_error.into(),
            node_fault: result.node_fault,
            lost: result.lost,
            fenced: result.fenced,
            devices_changed: result.devices_changed,
            usage: Usage::default(),
            elapsed_ms: result.elapsed.0,
            ..RunResult::default()
        })),
    };
    AttemptReport { job, attempt, step: step.map(StepNumber), phase }
}

/// An order as it goes out; `None` if it is no longer wanted.
pub(crate) fn order(cluster: &Cluster, order: &Order) -> Option<HostOrder<Payload>> {
    let key = AttemptKey {
        step: order.step.map(|number| number.0),
        ..AttemptKey::new(order.job, order.attempt)
    };
    Some(match order.kind {
        OrderKind::Launch => {
            let job = cluster.job(order.job)?;
            let run = job.active_run().filter(|run| run.attempt == order.attempt)?;
            if let Some(number) = order.step {
                let key = StepKey { job: order.job, attempt: order.attempt, number };
                // What the daemon kept apart of it went with the daemon.
                if cluster.step(key)?.ticket == 0 {
                    let end = OrderKind::Terminate(EndCause::LaunchFailed);
                    return self::order(cluster, &Order { kind: end, ..order.clone() });
                }
            }
            let lease = run.lease.map(|lease| Millis::from_secs(u64::from(lease.secs)));
            let slices = crate::cuts::slices_of(cluster, job);
            let payload = Payload { lease, slices };
            HostOrder::Launch { key, limit_serial: job.limit_serial, lease, payload }
        }
        OrderKind::Terminate(cause) => {
            HostOrder::Terminate { key, cause: host_cause(cause), kill_wait_secs: KILL_WAIT_SECS }
        }
        OrderKind::Signal(signal) => HostOrder::Signal {
            key,
            request: SignalRequest {
                signal: u8::try_from(signal.signal).ok().and_then(Signal::new)?,
                batch_only: signal.batch_only,
                full: signal.full,
            },
        },
        OrderKind::SetLimit => {
            let job = cluster.job(order.job)?;
            let limit_secs = job.time_limit.as_secs().unwrap_or(0);
            HostOrder::SetLimit { key, limit: TimeLimit { limit_secs, serial: job.limit_serial } }
        }
        OrderKind::Suspend => HostOrder::Suspend { key, suspend: true },
        OrderKind::Resume => HostOrder::Suspend { key, suspend: false },
        OrderKind::Acknowledge => HostOrder::Acknowledge { key },
    })
}

fn host_cause(cause: EndCause) -> HostCause {
    match cause {
        EndCause::Cancelled => HostCause::Cancelled,
        EndCause::TimeLimit => HostCause::TimeLimit,
        EndCause::NodeFail => HostCause::NodeFail,
        EndCause::Requeue => HostCause::Requeue,
        EndCause::RequeueHold => HostCause::RequeueHold,
        EndCause::Exited
        | EndCause::LaunchFailed
        | EndCause::OutOfMemory
        | EndCause::Preempted
        | EndCause::PreemptedRequeue
        | EndCause::Deadline => HostCause::Other,
    }
}
