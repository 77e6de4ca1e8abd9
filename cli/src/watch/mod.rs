//! `penstock watch`: what becomes of jobs, told as it happens?

pub(crate) mod follow;
mod lines;

use std::ops::ControlFlow;

use penstock_proto::v1;
use penstock_vocab::JobSelector;

use crate::connect::{Client, Patience};
use crate::errors::error;
use crate::listing::{Clock, now_ms};
use crate::output::{note, print_line};

use self::follow::{Change, Known, News, follow};
use self::lines::{Look, exit, is_over};

pub(crate) use self::lines::json;

const PROGRAM: &str = "penstock watch";
const FAILED: i32 = 1;
/// What the shell adds to the signal that ended a program.
const BY_SIGNAL: u32 = 128;

/// What `penstock watch` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Jobs: 12, 12_3, 12_[1-5]; ends with the last of them, and with its exit status. Without any: all
    /// jobs of yours, until it is interrupted
    jobs: Vec<String>,
    /// Jobs of everybody, where none are named
    #[arg(short, long)]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Watch {
    /// Follows; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        if let Some(wrong) = self.jobs.iter().find(|text| text.parse::<JobSelector>().is_err()) {
            error(PROGRAM, &format!("Invalid job id {wrong}"));
            return FAILED;
        }
        let own = self.jobs.is_empty() && !self.all;
        let filter = v1::JobFilter {
            selectors: self.jobs.clone(),
            uids: own.then(|| nix::unistd::getuid().as_raw()).into_iter().collect(),
            ..v1::JobFilter::default()
        };
        let request = v1::WatchJobsRequest { filter: Some(filter), full: false, after: 0 };
        let client = match Client::open() {
            Ok(client) => client,
            Err(problem) => {
                problem.report(PROGRAM, "");
                return FAILED;
            }
        };
        let mut told = Told { watch: &self, lost: false, first: true, status: 0 };
        match follow(&client, &request, None, &mut |news| told.tell(news)) {
            Ok(End::Status(status)) => status,
            Ok(End::Unknown) => self.of_the_past(&client),
            Err(problem) => {
                problem.report(PROGRAM, "");
                FAILED
            }
        }
    }

    /// Jobs that ended so long ago that only accounting knows them.
    fn of_the_past(&self, client: &Client) -> i32 {
        let request = v1::ListAccountingRequest {
            selectors: self.jobs.clone(),
            all_users: true,
            ..v1::ListAccountingRequest::default()
        };
        let replies = client.collect(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.list_accounting(request).await }
        });
        let infos: Vec<_> = match replies {
            Ok(replies) => replies.into_iter().flat_map(|reply| reply.jobs).collect(),
            Err(problem) => {
                problem.report(PROGRAM, "");
                return FAILED;
            }
        };
        if infos.is_empty() {
            error(PROGRAM, &format!("Invalid job id specified: {}", self.jobs.join(" ")));
            return FAILED;
        }
        let clock = Clock::from_env(now_ms());
        for info in &infos {
            let at_ms = info.job.as_ref().map_or(0, end_of);
            print_line(&if self.json {
                json(info, at_ms)
            } else {
                lines::text(info, at_ms, &clock)
            });
        }
        infos.iter().map(status_of).max().unwrap_or(0)
    }
}

fn end_of(job: &v1::Job) -> i64 {
    job.run.as_ref().map_or(job.end_ms, |run| run.end_ms)
}

/// The exit status that stands for a job's end.
fn status_of(info: &v1::JobInfo) -> i32 {
    let state = info.job.as_ref().map_or(0, |job| job.state);
    let completed = state == penstock_vocab::JobState::Completed.code();
    let code = match exit(info) {
        (0, 0) if completed => 0,
        (0, 0) => 1,
        (0, signal) => BY_SIGNAL.saturating_add(signal),
        (status, _) => status,
    };
    i32::try_from(code).unwrap_or(FAILED)
}

/// Why following ends.
enum End {
    Status(i32),
    /// Accounting has to tell how it ended.
    Unknown,
}

struct Told<'w> {
    watch: &'w Watch,
    /// Some job went out of sight before it was seen to end.
    lost: bool,
    first: bool,
    /// Highest status of those that ended.
    status: i32,
}

impl Told<'_> {
    fn tell(&mut self, news: News<'_>) -> ControlFlow<End> {
        match news {
            News::Lost => {
                note(&format!("{PROGRAM}: the controller does not answer; waiting for it"));
                ControlFlow::Continue(())
            }
            News::Quiet(_) => ControlFlow::Continue(()),
            News::Changed(known, changes, at_ms) => self.changed(known, changes, at_ms),
        }
    }

    fn changed(&mut self, known: &Known, changes: &[Change], at_ms: i64) -> ControlFlow<End> {
        let clock = Clock::from_env(now_ms());
        let named = !self.watch.jobs.is_empty();
        let first = std::mem::take(&mut self.first);
        for change in changes {
            let (before, info) = match change {
                Change::Now(before, info) => (before, info),
                Change::Gone(last) => {
                    self.lost |= !is_over(last);
                    continue;
                }
            };
            let new = before.as_ref().is_none_or(|before| Look::of(before) != Look::of(info));
            // Whoever follows everything wants no past.
            let past = first && !named && is_over(info);
            if !new || past {
                continue;
            }
            let json_line = || json(info, at_ms);
            print_line(&if self.watch.json {
                json_line()
            } else {
                lines::text(info, at_ms, &clock)
            });
            if is_over(info) {
                self.status = self.status.max(status_of(info));
            }
        }
        if !named {
            return ControlFlow::Continue(());
        }
        // Tasks that were cancelled before they started were never seen either.
        if !known.jobs.values().all(|info| is_over(info)) {
            ControlFlow::Continue(())
        } else if known.jobs.is_empty() || self.lost {
            ControlFlow::Break(End::Unknown)
        } else {
            ControlFlow::Break(End::Status(self.status))
        }
    }
}
