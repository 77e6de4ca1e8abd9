//! How is a job without a script got, held and given back?
//!
//! A stream holds it: while it is open the job stays, and it tells what becomes of it. A controller
//! that restarts loses the stream and waits a while for it to come back.

use std::time::Duration;

use penstock_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::connect::{Client, Patience, StepsRpc, broke_off, is_transient, request_id};
use crate::errors::{RemoteError, error};
use crate::output::note;
use crate::step::signals::Signals;

/// A job that waits for less long than this is not worth a line: the controller plans starts a
/// moment after the submission.
const WORTH_A_LINE: Duration = Duration::from_millis(300);

/// What a job that must start at once gets until it has started.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Pause before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(250);

/// Events that wait to be handled.
const QUEUE: usize = 16;

/// Slurm's text for a job that could not start in time.
const NOT_AT_ONCE: &str = "Immediate execution impossible, insufficient priority";

/// Slurm's text for a job that ended before it began.
const OVER: &str = "Job/step already completing or completed";

/// A job that has its nodes.
#[derive(Debug, Clone)]
pub(crate) struct Allocated {
    pub(crate) job_id: u32,
    /// What the job's own processes get in their environment, NAME=VALUE.
    pub(crate) variables: Vec<String>,
}

/// Keeps a job.
#[derive(Debug)]
pub(crate) struct Holder {
    job_id: u32,
    events: mpsc::Receiver<v1::AllocationEvent>,
    _stream: JoinSet<()>,
}

/// What is said while a job waits; srun and salloc differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) program: &'static str,
    /// What comes before the text of a refused submission.
    pub(crate) refused: &'static str,
    /// salloc tells more.
    pub(crate) salloc: bool,
    pub(crate) quiet: bool,
    /// Seconds in which it must start.
    pub(crate) immediate: Option<u32>,
}

/// Why there is no job; everything was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoJob {
    Failed,
    /// It could not start in time.
    NotAtOnce,
}

impl Holder {
    /// Holds the job from now on.
    pub(crate) fn of(client: &Client, job_id: u32) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let mut stream = JoinSet::new();
        stream.spawn(hold(client.steps(), job_id, sender));
        Self { job_id, events, _stream: stream }
    }

    /// What becomes of it next. Loses nothing when it is dropped.
    pub(crate) async fn next(&mut self) -> v1::AllocationEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Gives the job back, with the status of what it was for.
    ///
    /// # Errors
    /// When the controller cannot be reached or refuses.
    pub(crate) async fn release(&self, client: &Client, status: i32) -> Result<(), RemoteError> {
        let (exit_status, exit_signal) = match status {
            signal @ 129..=192 => (0, signal - 128),
            code => (code & 0xff, 0),
        };
        let request = v1::ReleaseAllocationRequest {
            request_id: request_id(),
            job_id: self.job_id,
            exit_status: exit_status.unsigned_abs(),
            exit_signal: exit_signal.unsigned_abs(),
        };
        client
            .ask_steps(Patience::CHANGE, |mut rpc| {
                let request = request.clone();
                async move { rpc.release_allocation(request).await }
            })
            .await
            .map(|_| ())
    }
}

/// Keeps the stream open until the job is over or nobody listens.
async fn hold(mut rpc: StepsRpc, job_id: u32, events: mpsc::Sender<v1::AllocationEvent>) {
    loop {
        let request = v1::HoldAllocationRequest { job_id };
        let failure = match rpc.hold_allocation(request).await {
            Ok(reply) => match pass_on(reply.into_inner(), &events).await {
                Ok(()) => return,
                Err(status) => status,
            },
            Err(status) => status,
        };
        if !may_come_back(&failure) {
            let kind = v1::allocation_event::Kind::Ended.into();
            events.send(v1::AllocationEvent { kind, ..<_>::default() }).await.ok();
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = events.closed() => return,
        }
    }
}

/// Passes events on; `Ok`: the job is over, or nobody listens.
async fn pass_on(
    mut stream: tonic::Streaming<v1::AllocationEvent>,
    events: &mpsc::Sender<v1::AllocationEvent>,
) -> Result<(), Status> {
    while let Some(event) = stream.message().await? {
        let over = event.kind() == v1::allocation_event::Kind::Ended;
        if events.send(event).await.is_err() || over {
            return Ok(());
        }
    }
    // The controller stops.
    Err(Status::unavailable("the stream ended"))
}

/// Whether a stream that failed may be opened again.
fn may_come_back(status: &Status) -> bool {
    is_transient(status) || broke_off(status) || status.code() == Code::Unavailable
}

/// Submits the job and waits until it has its nodes.
///
/// # Errors
/// When it gets none; everything was said.
pub(crate) async fn get(
    client: &Client,
    pending: Pending,
    spec: v1::JobSpec,
    signals: &mut Signals,
) -> Result<(Allocated, Holder), NoJob> {
    let request = v1::SubmitJobRequest {
        request_id: request_id(),
        spec: Some(spec),
        ..v1::SubmitJobRequest::default()
    };
    let submitted = client.ask(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.submit_job(request).await }
    });
    let reply = submitted.await.map_err(|failure| pending.refuse(&failure))?;
    for warning in &reply.warnings {
        pending.say(warning);
    }
    let mut holder = Holder::of(client, reply.job_id);
    let allocated = wait(client, pending, &mut holder, signals).await?;
    Ok((allocated, holder))
}

async fn wait(
    client: &Client,
    pending: Pending,
    holder: &mut Holder,
    signals: &mut Signals,
) -> Result<Allocated, NoJob> {
    let job_id = holder.job_id;
    let begun = Instant::now();
    let allowed = pending.immediate.map(|secs| Duration::from_secs(secs.into()).max(AT_ONCE));
    let mut told = false;
    loop {
        let tell = (!told && pending.immediate.is_none()).then_some(begun + WORTH_A_LINE);
        tokio::select! {
            event = holder.next() => match event.kind() {
                v1::allocation_event::Kind::Granted => {
                    pending.granted(job_id, told);
                    return Ok(Allocated { job_id, variables: event.variables });
                }
                v1::allocation_event::Kind::Ended => return Err(pending.ended(job_id)),
                _ => {}
            },
            _ = signals.next() => {
                give_up(client, holder).await;
                pending.interrupted(job_id);
                return Err(NoJob::Failed);
            }
            () = until(tell) => {
                told = true;
                pending.queued(job_id);
            }
            () = until(allowed.map(|allowed| begun + allowed)) => {
                give_up(client, holder).await;
                return Err(pending.not_at_once());
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The job is not wanted any more; whoever does not hear of it loses it for want of a holder.
async fn give_up(client: &Client, holder: &Holder) {
    let request = v1::CancelJobsRequest {
        request_id: request_id(),
        filter: Some(v1::JobFilter {
            selectors: vec![holder.job_id.to_string()],
            ..v1::JobFilter::default()
        }),
        ..v1::CancelJobsRequest::default()
    };
    let cancelled = client.ask(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.cancel_jobs(request).await }
    });
    cancelled.await.ok();
}

impl Pending {
    fn say(self, text: &str) {
        if !self.quiet {
            note(&format!("{}: {text}", self.program));
        }
    }

    fn queued(self, job_id: u32) {
        if self.salloc {
            self.say(&format!("Pending job allocation {job_id}"));
        }
        self.say(&format!("job {job_id} queued and waiting for resources"));
    }

    fn granted(self, job_id: u32, queued: bool) {
        if queued {
            self.say(&format!("job {job_id} has been allocated resources"));
        }
        if self.salloc {
            self.say(&format!("Granted job allocation {job_id}"));
        }
    }

    fn ended(self, job_id: u32) -> NoJob {
        if self.immediate.is_some() {
            return self.not_at_once();
        }
        if self.salloc {
            self.say(&format!("Job allocation {job_id} has been revoked."));
        } else {
            self.say("Job has been cancelled");
        }
        error(self.program, &format!("{}: {OVER}", self.refused));
        NoJob::Failed
    }

    fn interrupted(self, job_id: u32) {
        if self.salloc {
            self.say(&format!("Job allocation {job_id} has been revoked."));
            self.say("Job aborted due to signal");
        } else {
            self.say(&format!("Job allocation {job_id} has been revoked"));
            self.say(&format!("Force Terminated JobId={job_id}"));
        }
    }

    fn not_at_once(self) -> NoJob {
        error(self.program, &format!("{}: {NOT_AT_ONCE}", self.refused));
        NoJob::NotAtOnce
    }

    fn refuse(self, failure: &RemoteError) -> NoJob {
        for line in crate::sbatch::refusal_lines(self.refused, failure) {
            error(self.program, &line);
        }
        let text = failure.slurm_text();
        if self.immediate.is_some() && text == NOT_AT_ONCE {
            NoJob::NotAtOnce
        } else {
            NoJob::Failed
        }
    }
}
