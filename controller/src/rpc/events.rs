//! Calls that are answered for as long as somebody listens.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::cluster::Cluster;
use penstock_core::model::Job;
use penstock_core::scheduler::Plan;
use penstock_proto::v1;
use penstock_proto::v1::events_server::Events;
use penstock_vocab::{JobId, PendingReason};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::service::Service;
use super::shared::Shared;
use super::status::refused;
use crate::events::{Event, Lagged, Seat, Subject};
use crate::identity::{Action, caller_of};
use crate::listing::{self, View, Watched};

type Replies = Pin<Box<dyn Stream<Item = Result<v1::WatchJobsReply, Status>> + Send>>;

/// Parts that may wait for a slow reader; then the events wait in their ring, until that is past them.
const PARTS: usize = 8;
/// Events of one part.
const EVENTS: usize = 256;
/// Jobs in one part of the whole.
const JOBS_PER_PART: usize = 1_000;
/// Waiting jobs whose reasons are followed: reasons are looked for anew with each plan.
const REASONS: usize = 2_000;
/// Least time between two looks at reasons.
const REASON_PAUSE: Duration = Duration::from_millis(500);

#[tonic::async_trait]
impl Events for Service {
    type WatchJobsStream = Replies;

    async fn watch_jobs(
        &self,
        r: Request<v1::WatchJobsRequest>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        watch_jobs(&self.0, &r)
    }
}

fn watch_jobs(
    shared: &Arc<Shared>,
    request: &Request<v1::WatchJobsRequest>,
) -> Result<Response<Replies>, Status> {
    let caller = caller_of(request)?;
    shared.allow(caller, Action::ReadListing)?;
    let message = request.get_ref().clone();
    let watched = Watched::new(&message).map_err(|refusal| refused(&refusal))?;
    let Some(seat) = shared.events.admit(caller.uid) else {
        let text =
            "too many commands follow the queue already; end some of them, or ask again later";
        return Err(Status::resource_exhausted(text));
    };
    let (sender, receiver) = mpsc::channel(PARTS);
    let watcher = Watcher {
        shared: Arc::clone(shared),
        seen: message.after,
        message,
        watched: Arc::new(watched),
        reasons: BTreeMap::new(),
        sender,
        _seat: seat,
    };
    tokio::spawn(watcher.run());
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

/// One who follows.
struct Watcher {
    shared: Arc<Shared>,
    message: v1::WatchJobsRequest,
    watched: Arc<Watched>,
    /// Number of the newest event that was told; 0: none, the whole comes first.
    seen: u64,
    /// The reason last told of what waits, by id and whether it is the rest of an array.
    reasons: BTreeMap<(u32, bool), String>,
    sender: mpsc::Sender<Result<v1::WatchJobsReply, Status>>,
    _seat: Seat,
}

impl Watcher {
    async fn run(mut self) {
        let mut news = self.shared.events.watch();
        let mut plans = self.shared.plans.clone();
        let mut looked = Instant::now();
        let mut planned = false;
        loop {
            news.mark_unchanged();
            if !self.tell_events().await {
                return;
            }
            if planned && looked.elapsed() >= REASON_PAUSE {
                (planned, looked) = (false, Instant::now());
                if !self.tell_reasons().await {
                    return;
                }
            }
            let pause = REASON_PAUSE.saturating_sub(looked.elapsed());
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    planned = true;
                }
                () = tokio::time::sleep(pause), if planned => {}
                () = self.sender.closed() => return,
            }
        }
    }

    /// Tells the events after the last one that was told; false if nobody listens.
    async fn tell_events(&mut self) -> bool {
        loop {
            let events = match self.seen {
                0 => Err(Lagged),
                seen => self.shared.events.since(seen, EVENTS),
            };
            let Ok(events) = events else {
                if !self.tell_whole().await {
                    return false;
                }
                continue;
            };
            let Some(last) = events.last().map(|event| event.sequence) else { return true };
            let full = events.len() == EVENTS;
            for reply in self.replies(&events) {
                if self.sender.send(Ok(reply)).await.is_err() {
                    return false;
                }
            }
            self.seen = last;
            if !full {
                return true;
            }
        }
    }

    /// A part for the events of each instant.
    fn replies(&mut self, events: &[Event]) -> Vec<v1::WatchJobsReply> {
        let (snapshot, plan) = (self.shared.snapshot(), self.shared.plan());
        let view = View { cluster: &snapshot.cluster, plan: &plan };
        let mut replies = Vec::new();
        for of_instant in events.chunk_by(|one, next| one.at == next.at) {
            let mut reply = v1::WatchJobsReply::default();
            let unplanned = of_instant.iter().any(|event| event.at > plan.made_at);
            for event in of_instant {
                (reply.sequence, reply.at_ms) = (event.sequence, event.at.0);
                match &event.subject {
                    Subject::Job(job) => reply.jobs.extend(self.watched.job(&view, job)),
                    Subject::Array(array) => reply.jobs.extend(self.watched.array(&view, array)),
                    Subject::JobGone(id) | Subject::ArrayGone(id) => reply.gone.push(id.0),
                }
            }
            if unplanned {
                reply.jobs.iter_mut().for_each(unknown_reason);
            }
            reply.jobs.iter().for_each(|info| self.note_reason(info));
            reply.gone.iter().for_each(|id| {
                self.reasons.remove(&(*id, false));
                self.reasons.remove(&(*id, true));
            });
            if !reply.jobs.is_empty() || !reply.gone.is_empty() {
                replies.push(reply);
            }
        }
        replies
    }

    fn note_reason(&mut self, info: &v1::JobInfo) {
        let Some(key) = key_of(info) else { return };
        let waits = info.job.as_ref().is_some_and(|job| job.run.is_none() && job.end_ms == 0);
        if waits && (self.reasons.len() < REASONS || self.reasons.contains_key(&key)) {
            self.reasons.insert(key, info.reason.clone());
        } else {
            self.reasons.remove(&key);
        }
    }

    /// Tells of what waits for another reason than it did.
    async fn tell_reasons(&mut self) -> bool {
        let (snapshot, plan) = (self.shared.snapshot(), self.shared.plan());
        let reply = self.changed_reasons(&snapshot.cluster, &plan);
        if reply.jobs.is_empty() {
            return true;
        }
        reply.jobs.iter().for_each(|info| self.note_reason(info));
        self.sender.send(Ok(reply)).await.is_ok()
    }

    fn changed_reasons(&self, cluster: &Cluster, plan: &Plan) -> v1::WatchJobsReply {
        let view = View { cluster, plan };
        let mut jobs = Vec::new();
        for ((id, array), told) in &self.reasons {
            let info = if *array {
                cluster.array(JobId(*id)).and_then(|array| self.watched.array(&view, array))
            } else {
                let waits = |job: &&Arc<Job>| job.is_pending();
                let job = cluster.job(JobId(*id)).filter(waits);
                job.and_then(|job| self.watched.job(&view, job))
            };
            jobs.extend(info.filter(|info| info.reason != *told));
        }
        let at_ms = self.shared.clock.now().0;
        v1::WatchJobsReply { sequence: self.seen, jobs, at_ms, ..Default::default() }
    }

    /// Tells what there is; false if nobody listens.
    async fn tell_whole(&mut self) -> bool {
        // First the number: what comes between the two is told twice rather than never.
        let sequence = self.shared.events.newest();
        let (snapshot, plan) = (self.shared.snapshot(), self.shared.plan());
        let request = v1::ListJobsRequest {
            filter: self.message.filter.clone(),
            all_states: true,
            full: self.message.full,
            expand_arrays: false,
        };
        let at_ms = self.shared.clock.now().0;
        let sender = self.sender.clone();
        let told = tokio::task::spawn_blocking(move || {
            let view = View { cluster: &snapshot.cluster, plan: &plan };
            whole(
                &view,
                &request,
                &sender,
                v1::WatchJobsReply { sequence, at_ms, ..Default::default() },
            )
        });
        match told.await {
            Ok(Some(reasons)) => {
                self.reasons = reasons;
                self.seen = sequence;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }
}

/// Sends the whole in parts; what waits, with its reasons. `None`: nobody listens, or it can't be listed.
fn whole(
    view: &View<'_>,
    request: &v1::ListJobsRequest,
    sender: &mpsc::Sender<Result<v1::WatchJobsReply, Status>>,
    outline: v1::WatchJobsReply,
) -> Option<BTreeMap<(u32, bool), String>> {
    let mut list = match listing::list_jobs(view, request) {
        Ok(list) => list,
        Err(refusal) => {
            drop(sender.blocking_send(Err(refused(&refusal))));
            return None;
        }
    };
    let mut reasons = BTreeMap::new();
    let unknown = list.unknown().to_vec();
    let mut first = Some(v1::WatchJobsReply { whole: true, unknown, ..outline.clone() });
    loop {
        let jobs: Vec<_> = list.by_ref().take(JOBS_PER_PART).collect();
        for info in &jobs {
            let waits = info.job.as_ref().is_some_and(|job| job.run.is_none() && job.end_ms == 0);
            if let Some(key) = key_of(info).filter(|_| waits && reasons.len() < REASONS) {
                reasons.insert(key, info.reason.clone());
            }
        }
        let more = jobs.len() == JOBS_PER_PART;
        let part = first.take().unwrap_or_else(|| outline.clone());
        sender.blocking_send(Ok(v1::WatchJobsReply { jobs, more, ..part })).ok()?;
        if !more {
            return Some(reasons);
        }
    }
}

/// A plan that is older than the change can't tell what a job waits for: the next one does.
fn unknown_reason(info: &mut v1::JobInfo) {
    let waits = info.job.as_ref().is_some_and(|job| job.run.is_none() && job.end_ms == 0);
    if waits && info.reason == PendingReason::Priority.name() {
        PendingReason::None.name().clone_into(&mut info.reason);
        info.reason_detail.clear();
    }
}

/// Which line it is: by id, and whether it is what waits of an array.
fn key_of(info: &v1::JobInfo) -> Option<(u32, bool)> {
    let job = info.job.as_ref()?;
    Some((job.id, info.pending_tasks.is_some()))
}
