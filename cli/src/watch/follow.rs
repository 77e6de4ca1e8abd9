//! How does a command stay up to date without asking again?
//!
//! One call that the controller answers for as long as both last. When it breaks, it is made again, and what
//! was told is compared with what there is then: nothing that still holds is told twice.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use penstock_proto::v1;
use penstock_proto::v1::events_client::EventsClient;
use penstock_vocab::JobState;
use tonic::{Code, Status};

use crate::connect::Client;
use crate::errors::RemoteError;

/// First pause before the call is made again; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long nobody may answer the first call.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Which line: the id, and whether it is what waits of an array.
pub(crate) type Key = (u32, bool);

/// What is known of the jobs that are followed.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Jobs and what waits of arrays, as last told.
    pub(crate) jobs: BTreeMap<Key, Rc<v1::JobInfo>>,
    /// Selectors that named no job when the whole was told last.
    pub(crate) unknown: Vec<String>,
    /// Of a whole that is being told: what has come so far.
    coming: Option<BTreeMap<Key, Rc<v1::JobInfo>>>,
}

/// One change of a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// It was as given, if it was known, and became as given.
    Now(Option<Rc<v1::JobInfo>>, Rc<v1::JobInfo>),
    /// It went to the history, as last told.
    Gone(Rc<v1::JobInfo>),
}

impl Known {
    /// Takes one message; what it changed, once it is whole.
    pub(crate) fn take(&mut self, reply: v1::WatchJobsReply) -> Option<Vec<Change>> {
        if reply.whole {
            self.coming = Some(BTreeMap::new());
            self.unknown = reply.unknown;
        }
        let jobs = reply.jobs.into_iter().filter_map(|info| Some((key_of(&info)?, Rc::new(info))));
        if let Some(coming) = &mut self.coming {
            coming.extend(jobs);
            if reply.more {
                return None;
            }
            let whole = self.coming.take().unwrap_or_default();
            return Some(self.replace(whole));
        }
        let mut changes = Vec::new();
        for (key, info) in jobs {
            self.put(key, info, &mut changes);
        }
        for id in reply.gone {
            self.remove((id, false), &mut changes);
            self.remove((id, true), &mut changes);
        }
        Some(changes)
    }

    fn put(&mut self, key: Key, info: Rc<v1::JobInfo>, changes: &mut Vec<Change>) {
        if info.pending_tasks.as_ref().is_some_and(|tasks| tasks.runs.is_empty()) {
            // Nothing of the array waits any more; its tasks are lines of their own.
            self.jobs.remove(&key);
            return;
        }
        let before = self.jobs.insert(key, Rc::clone(&info));
        changes.push(Change::Now(before, info));
    }

    fn remove(&mut self, key: Key, changes: &mut Vec<Change>) {
        if let Some(last) = self.jobs.remove(&key) {
            changes.push(Change::Gone(last));
        }
    }

    fn replace(&mut self, whole: BTreeMap<Key, Rc<v1::JobInfo>>) -> Vec<Change> {
        let mut changes = Vec::new();
        let gone: Vec<Key> =
            self.jobs.keys().filter(|key| !whole.contains_key(key)).copied().collect();
        for (key, info) in whole {
            self.put(key, info, &mut changes);
        }
        for key in gone {
            self.remove(key, &mut changes);
        }
        changes
    }
}

fn key_of(info: &v1::JobInfo) -> Option<Key> {
    let job = info.job.as_ref()?;
    // Tasks that were cancelled before they started are no line of their own.
    let cancelled = job.state == JobState::Cancelled.code() && info.pending_tasks.is_some();
    (!cancelled).then_some((job.id, info.pending_tasks.is_some()))
}

/// What happened while a command followed.
pub(crate) enum News<'n> {
    /// Lines changed at that time.
    Changed(&'n Known, &'n [Change], i64),
    /// Nothing changed for the time that was asked for.
    Quiet(&'n Known),
    /// The controller does not answer any more; it is asked again until it does.
    Lost,
}

/// Follows until `tell` breaks off; returns what it broke off with.
///
/// # Errors
/// When the controller refuses, or does not answer at first.
pub(crate) fn follow<T>(
    client: &Client,
    request: &v1::WatchJobsRequest,
    every: Option<Duration>,
    tell: &mut dyn FnMut(News<'_>) -> ControlFlow<T>,
) -> Result<T, RemoteError> {
    client.run(async {
        let mut known = Known::default();
        let (mut pause, mut answered) = (FIRST_PAUSE, false);
        let begun = std::time::Instant::now();
        loop {
            let mut heard = false;
            let ended = once(client, request, every, &mut known, tell, &mut heard).await;
            if heard {
                (answered, pause) = (true, FIRST_PAUSE);
            }
            let problem = match ended {
                Ok(ControlFlow::Break(done)) => return Ok(done),
                Ok(ControlFlow::Continue(())) => None,
                Err(status) => Some(status),
            };
            let lasting = problem.as_ref().is_some_and(|status| !may_pass(status));
            let never = !answered && begun.elapsed() >= FIRST_ANSWER;
            if let Some(status) = problem.filter(|_| lasting || never) {
                return Err(client.explain(&status));
            }
            if answered
                && pause == FIRST_PAUSE
                && let ControlFlow::Break(done) = tell(News::Lost)
            {
                return Ok(done);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    })
}

/// Whether the call may be made again: the controller restarts, or the way to it is broken.
fn may_pass(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// One call, until it breaks.
async fn once<T>(
    client: &Client,
    request: &v1::WatchJobsRequest,
    every: Option<Duration>,
    known: &mut Known,
    tell: &mut dyn FnMut(News<'_>) -> ControlFlow<T>,
    heard: &mut bool,
) -> Result<ControlFlow<T>, Status> {
    let mut rpc = EventsClient::new(client.channel())
        .max_decoding_message_size(penstock_proto::MAX_MESSAGE_BYTES);
    let mut stream = rpc.watch_jobs(request.clone()).await?.into_inner();
    loop {
        let message = match every {
            None => stream.message().await?,
            Some(every) => match tokio::time::timeout(every, stream.message()).await {
                Ok(message) => message?,
                Err(_) => {
                    if let ControlFlow::Break(done) = tell(News::Quiet(known)) {
                        return Ok(ControlFlow::Break(done));
                    }
                    continue;
                }
            },
        };
        let Some(reply) = message else { return Ok(ControlFlow::Continue(())) };
        *heard = true;
        let at_ms = reply.at_ms;
        let Some(changes) = known.take(reply) else { continue };
        if let ControlFlow::Break(done) = tell(News::Changed(known, &changes, at_ms)) {
            return Ok(ControlFlow::Break(done));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u32, state: JobState) -> v1::JobInfo {
        let job = v1::Job { id, state: state.code(), ..v1::Job::default() };
        v1::JobInfo { job: Some(job), ..v1::JobInfo::default() }
    }

    fn whole(jobs: Vec<v1::JobInfo>, first: bool, more: bool) -> v1::WatchJobsReply {
        v1::WatchJobsReply { whole: first, more, jobs, ..v1::WatchJobsReply::default() }
    }

    #[test]
    fn a_whole_in_parts_takes_the_place_of_what_was_known() {
        let mut known = Known::default();
        let (one, two) = (info(1, JobState::Running), info(2, JobState::Pending));
        assert_eq!(known.take(whole(vec![one.clone()], true, true)), None);
        let changes = known.take(whole(vec![two.clone()], false, false)).expect("whole");
        let now = |info: &v1::JobInfo| Change::Now(None, Rc::new(info.clone()));
        assert_eq!(changes, [now(&one), now(&two)]);
        // After a break: one has gone meanwhile, two runs.
        let runs = info(2, JobState::Running);
        let changes = known.take(whole(vec![runs.clone()], true, false)).expect("whole");
        let now = Change::Now(Some(Rc::new(two)), Rc::new(runs));
        assert_eq!(changes, [now, Change::Gone(Rc::new(one))]);
    }

    #[test]
    fn changes_come_one_by_one() {
        let mut known = Known::default();
        known.take(whole(vec![info(1, JobState::Pending)], true, false));
        let reply = v1::WatchJobsReply {
            jobs: vec![info(1, JobState::Running), info(1, JobState::Completed)],
            gone: vec![1, 9],
            ..v1::WatchJobsReply::default()
        };
        let changes = known.take(reply).expect("whole");
        assert_eq!(changes.len(), 3);
        assert!(matches!(&changes[2], Change::Gone(last)
            if last.job.as_ref().is_some_and(|job| job.state == JobState::Completed.code())));
        assert!(known.jobs.is_empty());
    }

    #[test]
    fn an_array_of_which_nothing_waits_is_no_line() {
        let mut known = Known::default();
        let mut rest = info(7, JobState::Pending);
        rest.pending_tasks = Some(v1::IndexRuns { runs: vec![0, 3, 1] });
        known.take(whole(vec![rest.clone()], true, false));
        assert!(known.jobs.contains_key(&(7, true)));
        rest.pending_tasks = Some(v1::IndexRuns::default());
        let reply = v1::WatchJobsReply { jobs: vec![rest], ..v1::WatchJobsReply::default() };
        assert_eq!(known.take(reply), Some(Vec::new()));
        assert!(known.jobs.is_empty());
    }
}
