//! How do the messages of the stream become inputs of the supervisor, and its outputs messages?
//!
//! The only place of the agent's link that knows both vocabularies.

use penstock_proto::v1;
use penstock_supervisor::{
    AttemptKey, AttemptReport, EndCause, Order, ReportedPhase, SignalRequest, StoreId,
    StorePosition, TimeLimit,
};
use penstock_vocab::{Attempt, JobId, Millis, SessionId, Signal};

use crate::launch::{Part, Wired as _, result_to_wire};
use crate::report::Vitals;

/// Why a message of the controller is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConvertError {
    /// A kind of message that this version does not know.
    #[error("the message has no body that this version knows; update this host")]
    NoBody,
    /// A launch of nothing.
    #[error("the launch names no step")]
    NoStep,
    /// Not a signal of Linux.
    #[error("signal {0} does not exist")]
    Signal(u32),
}

/// A session as the controller opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) store: StorePosition,
    /// Seconds between heartbeats, at least 1.
    pub(crate) heartbeat_secs: u32,
    pub(crate) cluster: String,
}

/// What a message of the controller says.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The registration is accepted.
    Opened(Opened),
    /// A heartbeat is answered.
    HeartbeatReply {
        /// The session it belongs to.
        session: SessionId,
        /// When the heartbeat was sent, as this agent said in it.
        sent: Millis,
        /// The newest sequence of the controller's store.
        store_sequence: u64,
    },
    /// A GPU is to be cut anew.
    Reshape {
        /// The session it belongs to.
        session: SessionId,
        /// How.
        order: Box<v1::ReshapeGpu>,
    },
    /// Whoever runs a job is to be told something.
    Notice {
        /// The session it belongs to.
        session: SessionId,
        /// What.
        notice: Box<v1::Notice>,
    },
    /// The program that says whether the node is well is to run.
    HealthCheck {
        /// The session it belongs to.
        session: SessionId,
        /// Which.
        order: v1::RunHealthCheck,
    },
    /// Something is to be done.
    Order {
        /// The session it belongs to.
        session: SessionId,
        /// What.
        order: Order<Box<Part>>,
    },
    /// A part is to be measured.
    Measure {
        /// The session it belongs to.
        session: SessionId,
        /// Which.
        part: v1::MeasurePart,
    },
    /// Somebody else wants to listen to a step.
    Attach {
        /// The session it belongs to.
        session: SessionId,
        /// Whom its shepherd is to connect to.
        listener: Box<v1::AttachListener>,
    },
    /// The maker of a step has this for its shepherd.
    Relay {
        /// The session it belongs to.
        session: SessionId,
        /// What.
        frame: Box<v1::RelayFrame>,
    },
}

/// What `job_id`, `attempt` and `step` name: a step's part, or without a step the batch script.
pub(crate) const fn attempt_key(job_id: u32, attempt: u32, step: Option<u32>) -> AttemptKey {
    AttemptKey { job: JobId(job_id), attempt: Attempt(attempt), step }
}

impl TryFrom<v1::ControllerMessage> for Incoming {
    type Error = ConvertError;

    fn try_from(message: v1::ControllerMessage) -> Result<Self, ConvertError> {
        use v1::controller_message::Body;

        let session = SessionId(message.session);
        let order = match message.body.ok_or(ConvertError::NoBody)? {
            Body::Welcome(welcome) => return Ok(Self::Opened(opened(welcome))),
            Body::Heartbeat(v1::HeartbeatReply { sent_boottime_ms, store_sequence }) => {
                let sent = Millis(sent_boottime_ms);
                return Ok(Self::HeartbeatReply { session, sent, store_sequence });
            }
            Body::Attach(listener) => {
                return Ok(Self::Attach { session, listener: Box::new(listener) });
            }
            Body::Measure(part) => return Ok(Self::Measure { session, part }),
            Body::Relay(frame) => return Ok(Self::Relay { session, frame: Box::new(frame) }),
            Body::Notice(notice) => {
                return Ok(Self::Notice { session, notice: Box::new(notice) });
            }
            Body::HealthCheck(order) => return Ok(Self::HealthCheck { session, order }),
            Body::Reshape(order) => {
                return Ok(Self::Reshape { session, order: Box::new(order) });
            }
            Body::Launch(launch) => order_of(launch.limit_serial, launch.lease_secs, launch),
            Body::LaunchStep(launch) if launch.step.is_none() => return Err(ConvertError::NoStep),
            Body::LaunchStep(launch) => order_of(launch.limit_serial, launch.lease_secs, launch),
            Body::LaunchHook(launch) => order_of(0, 0, launch),
            Body::Terminate(it) => Order::Terminate {
                key: attempt_key(it.job_id, it.attempt, it.step),
                cause: end_cause(it.cause()),
                kill_wait_secs: it.kill_wait_secs,
            },
            Body::Signal(it) => Order::Signal {
                key: attempt_key(it.job_id, it.attempt, it.step),
                request: SignalRequest {
                    signal: signal(it.signal)?,
                    batch_only: it.batch_only,
                    full: it.full,
                },
            },
            Body::SetLimit(it) => Order::SetLimit {
                key: attempt_key(it.job_id, it.attempt, it.step),
                limit: TimeLimit { limit_secs: it.time_limit_secs, serial: it.limit_serial },
            },
            Body::Acknowledge(it) => {
                Order::Acknowledge { key: attempt_key(it.job_id, it.attempt, it.step) }
            }
            Body::Suspend(it) => Order::Suspend {
                key: attempt_key(it.job_id, it.attempt, it.step),
                suspend: it.suspend,
            },
        };
        Ok(Self::Order { session, order })
    }
}

fn order_of(limit_serial: u32, lease_secs: u32, part: impl Into<Part>) -> Order<Box<Part>> {
    let part = part.into();
    Order::Launch {
        key: part.key(),
        limit_serial,
        lease: Some(Millis::from_secs(u64::from(lease_secs))).filter(|lease| *lease > Millis::ZERO),
        payload: Box::new(part),
    }
}

fn opened(welcome: v1::Welcome) -> Opened {
    Opened {
        session: SessionId(welcome.session),
        store: StorePosition {
            id: StoreId::new(&welcome.store_id),
            sequence: welcome.store_sequence,
        },
        heartbeat_secs: welcome.heartbeat_secs.max(1),
        cluster: welcome.cluster,
    }
}

fn signal(number: u32) -> Result<Signal, ConvertError> {
    u8::try_from(number).ok().and_then(Signal::new).ok_or(ConvertError::Signal(number))
}

/// Causes that only a host can find out are not orders; a controller that names one is obeyed.
fn end_cause(cause: v1::EndCause) -> EndCause {
    match cause {
        v1::EndCause::Cancelled => EndCause::Cancelled,
        v1::EndCause::TimeLimit => EndCause::TimeLimit,
        v1::EndCause::NodeFail => EndCause::NodeFail,
        v1::EndCause::Requeue => EndCause::Requeue,
        v1::EndCause::RequeueHold => EndCause::RequeueHold,
        v1::EndCause::Unspecified
        | v1::EndCause::Exited
        | v1::EndCause::LaunchFailed
        | v1::EndCause::OutOfMemory
        | v1::EndCause::Preempted
        | v1::EndCause::PreemptedRequeue
        | v1::EndCause::Deadline => EndCause::Other,
    }
}

/// A message of `session`; 0 before the controller has given one.
fn message(session: SessionId, body: v1::agent_message::Body) -> v1::AgentMessage {
    v1::AgentMessage { session: session.0, body: Some(body) }
}

/// The first message of a stream.
pub(crate) fn register_message(register: v1::Register) -> v1::AgentMessage {
    message(SessionId(0), v1::agent_message::Body::Register(register))
}

/// A heartbeat sent at `boottime`.
pub(crate) fn heartbeat_message(
    session: SessionId,
    vitals: Vitals,
    boottime: Millis,
) -> v1::AgentMessage {
    let heartbeat = v1::Heartbeat {
        load_centi: vitals.load_centi,
        free_memory_mib: vitals.free_memory.0,
        sent_boottime_ms: boottime.0,
    };
    message(session, v1::agent_message::Body::Heartbeat(heartbeat))
}

/// A report about one attempt.
pub(crate) fn report_message(session: SessionId, report: AttemptReport) -> v1::AgentMessage {
    message(session, v1::agent_message::Body::Report(attempt_report(report)))
}

/// The wish to be drained.
pub(crate) fn drain_message(session: SessionId, reason: &str) -> v1::AgentMessage {
    let drain = v1::DrainRequest { reason: reason.to_owned() };
    message(session, v1::agent_message::Body::Drain(drain))
}

/// What was measured of GPUs, and what happened to them.
pub(crate) fn gpu_report_message(session: SessionId, report: v1::GpuReport) -> v1::AgentMessage {
    message(session, v1::agent_message::Body::Gpus(report))
}

/// What parts that run used until now.
pub(crate) fn usage_message(session: SessionId, parts: Vec<v1::PartUsage>) -> v1::AgentMessage {
    message(session, v1::agent_message::Body::Usage(v1::UsageReport { parts }))
}

/// How a GPU is cut now.
pub(crate) fn gpu_layout_message(session: SessionId, layout: v1::GpuLayout) -> v1::AgentMessage {
    message(session, v1::agent_message::Body::GpuLayout(layout))
}

/// As it stands in a report or a registration.
pub(crate) fn attempt_report(report: AttemptReport) -> v1::AttemptReport {
    let (phase, result) = match report.phase {
        ReportedPhase::Running => (v1::AttemptPhase::Running, None),
        ReportedPhase::Ended(result) => (v1::AttemptPhase::Ended, Some(result_to_wire(&result))),
        ReportedPhase::NeverStarted => (v1::AttemptPhase::NeverStarted, None),
    };
    v1::AttemptReport {
        job_id: report.key.job.0,
        attempt: report.key.attempt.0,
        phase: phase.into(),
        result,
        step: report.key.step,
    }
}

#[cfg(test)]
mod tests {
    use penstock_supervisor::RunResult;
    use v1::controller_message::Body;

    use super::*;

    fn incoming(body: Body) -> Result<Incoming, ConvertError> {
        Incoming::try_from(v1::ControllerMessage { session: 9, body: Some(body) })
    }

    fn order(body: Body) -> Order<Box<Part>> {
        match incoming(body) {
            Ok(Incoming::Order { session: SessionId(9), order }) => order,
            other => panic!("no order of session 9: {other:?}"),
        }
    }

    #[test]
    fn orders_keep_their_attempt_and_their_values() {
        let key = attempt_key(7, 2, None);
        let launch = v1::Launch { job_id: 7, attempt: 2, limit_serial: 3, ..Default::default() };
        for (lease_secs, lease) in [(0, None), (20, Some(Millis(20_000)))] {
            let launch = v1::Launch { lease_secs, ..launch.clone() };
            let payload = Box::new(Part::from(launch.clone()));
            let expect = Order::Launch { key, limit_serial: 3, lease, payload };
            assert_eq!(order(Body::Launch(launch)), expect);
        }

        let cause = v1::EndCause::TimeLimit.into();
        let it = v1::Terminate { job_id: 7, attempt: 2, cause, kill_wait_secs: 5, step: None };
        let expect = Order::Terminate { key, cause: EndCause::TimeLimit, kill_wait_secs: 5 };
        assert_eq!(order(Body::Terminate(it)), expect);

        let it = v1::SetLimit {
            job_id: 7,
            attempt: 2,
            time_limit_secs: 60,
            limit_serial: 4,
            step: None,
        };
        let limit = TimeLimit { limit_secs: 60, serial: 4 };
        assert_eq!(order(Body::SetLimit(it)), Order::SetLimit { key, limit });

        let it = v1::SignalAttempt {
            job_id: 7,
            attempt: 2,
            signal: 10,
            batch_only: true,
            full: false,
            step: None,
        };
        let signal = Signal::new(10).expect("in range");
        let request = SignalRequest { signal, batch_only: true, full: false };
        assert_eq!(order(Body::Signal(it)), Order::Signal { key, request });

        let it = v1::Suspend { job_id: 7, attempt: 2, suspend: true, step: None };
        assert_eq!(order(Body::Suspend(it)), Order::Suspend { key, suspend: true });

        let it = v1::Acknowledge { job_id: 7, attempt: 2, step: None };
        assert_eq!(order(Body::Acknowledge(it)), Order::Acknowledge { key });
    }

    #[test]
    fn orders_and_reports_of_steps_keep_their_number() {
        let key = attempt_key(7, 2, Some(0));
        let (job_id, attempt, step) = (7, 2, Some(0));
        let bodies = [
            Body::Terminate(v1::Terminate { job_id, attempt, step, ..Default::default() }),
            Body::SetLimit(v1::SetLimit { job_id, attempt, step, ..Default::default() }),
            Body::Suspend(v1::Suspend { job_id, attempt, step, suspend: true }),
            Body::Acknowledge(v1::Acknowledge { job_id, attempt, step }),
            Body::Signal(v1::SignalAttempt {
                job_id,
                attempt,
                step,
                signal: 10,
                ..Default::default()
            }),
        ];
        for body in bodies {
            assert_eq!(order(body).key(), key);
        }
        let step = v1::Step { job_id, attempt, step: 0, ..Default::default() };
        let launch = v1::LaunchStep { step: Some(step), lease_secs: 20, ..Default::default() };
        let payload = Box::new(Part::from(launch.clone()));
        let expect = Order::Launch { key, limit_serial: 0, lease: Some(Millis(20_000)), payload };
        assert_eq!(order(Body::LaunchStep(launch)), expect);
        let nothing = incoming(Body::LaunchStep(v1::LaunchStep::default()));
        assert_eq!(nothing.err(), Some(ConvertError::NoStep));
        let report = AttemptReport { key, phase: ReportedPhase::Running };
        assert_eq!(attempt_report(report).step, Some(0));
    }

    #[test]
    fn causes_of_newer_versions_are_obeyed() {
        let it = v1::Terminate { job_id: 1, attempt: 0, cause: 999, kill_wait_secs: 0, step: None };
        let Order::Terminate { cause, .. } = order(Body::Terminate(it)) else {
            panic!("no terminate")
        };
        assert_eq!(cause, EndCause::Other);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let empty = v1::ControllerMessage { session: 1, body: None };
        assert_eq!(Incoming::try_from(empty).err(), Some(ConvertError::NoBody));
        for number in [0, 65, 256 + 9, u32::MAX] {
            let it = v1::SignalAttempt { signal: number, ..Default::default() };
            assert_eq!(incoming(Body::Signal(it)).err(), Some(ConvertError::Signal(number)));
        }
    }

    #[test]
    fn a_welcome_opens_a_session_with_a_heartbeat_of_at_least_a_second() {
        let welcome = v1::Welcome { session: 4, store_id: vec![1].into(), ..Default::default() };
        let Ok(Incoming::Opened(opened)) = incoming(Body::Welcome(welcome)) else {
            panic!("no session")
        };
        assert_eq!((opened.session, opened.heartbeat_secs), (SessionId(4), 1));
        assert_eq!(opened.store, StorePosition { id: StoreId::new(&[1]), sequence: 0 });
    }

    #[test]
    fn reports_carry_phase_and_result() {
        let key = attempt_key(7, 2, None);
        for (phase, expect, has_result) in [
            (ReportedPhase::Running, v1::AttemptPhase::Running, false),
            (ReportedPhase::NeverStarted, v1::AttemptPhase::NeverStarted, false),
            (ReportedPhase::Ended(RunResult::default()), v1::AttemptPhase::Ended, true),
        ] {
            let report = attempt_report(AttemptReport { key, phase });
            assert_eq!((report.job_id, report.attempt), (7, 2));
            assert_eq!((report.phase(), report.result.is_some()), (expect, has_result));
        }
    }
}
