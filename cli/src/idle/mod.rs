//! `penstock idle`: who holds GPUs that compute nothing, and what did that cost?
//!
//! Only what was seen counts: a GPU whose utilisation is unknown is listed with `-` where that was
//! asked for, and is never called idle.

mod report;

use clap::Args;
use penstock_proto::v1;
use std::collections::BTreeMap;

use crate::connect::{Client, Patience};
use crate::errors::error;
use crate::output::write_bytes;

const PROGRAM: &str = "penstock idle";

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Only GPUs that have been idle for so many minutes without a break
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    minutes: u64,
    /// Also GPUs of which nothing is known
    #[arg(long)]
    unknown: bool,
    /// Only this user's jobs
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// What notices and [[idle_reclaim]] came to, instead: GPU-hours lost and given back
    #[arg(long)]
    report: bool,
    /// Of the report: runs that ended since then, as sacct -S takes it
    #[arg(long, value_name = "TIME", default_value = "now-7days")]
    since: String,
}

impl Idle {
    /// Lists the holders; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        if self.report {
            return report::run(&self.since, self.user.as_deref());
        }
        let request = v1::ListJobsRequest { full: true, ..v1::ListJobsRequest::default() };
        let answer = Client::open().and_then(|client| {
            client.collect(Patience::READ, |mut rpc| {
                let request = request.clone();
                async move { rpc.list_jobs(request).await }
            })
        });
        match answer {
            Ok(replies) => {
                let jobs = replies.iter().flat_map(|reply| &reply.jobs);
                let held: Vec<_> = jobs.flat_map(holdings).collect();
                write_bytes(self.table(&held).as_bytes());
                0
            }
            Err(failure) => {
                if let Some(detail) = failure.detail() {
                    error(PROGRAM, &detail);
                }
                error(PROGRAM, failure.slurm_text());
                1
            }
        }
    }

    fn shows(&self, one: &Holding<'_>) -> bool {
        let user = self.user.as_ref().is_none_or(|user| *user == one.info.user_name);
        let known = one.usage.utilization_mean.is_some();
        let idle = known && one.usage.idle_now_ms >= self.minutes.saturating_mul(60_000);
        user && if known { idle && one.usage.idle_now_ms > 0 } else { self.unknown }
    }

    fn table(&self, held: &[Holding<'_>]) -> String {
        let mut rows: Vec<&Holding<'_>> = held.iter().filter(|one| self.shows(one)).collect();
        rows.sort_by_key(|one| (std::cmp::Reverse(one.usage.idle_now_ms), one.id));
        if rows.is_empty() {
            return format!("no GPU that is held was idle for {} minutes\n", self.minutes);
        }
        let mut out = format!(
            "{:>10} {:<10} {:<12} {:<16} {:>9} {:>5} {:>10} {:>9} REASON\n",
            "JOBID", "USER", "NODE", "GPU", "IDLE", "MEAN", "MEMORY", "LOST GPUH"
        );
        let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
        for one in rows {
            let usage = one.usage;
            let idle = usage.idle_ms;
            *lost.entry(one.info.user_name.as_str()).or_insert(0) += idle.unwrap_or(0);
            let known = usage.utilization_mean.is_some();
            let now = if known { minutes(usage.idle_now_ms) } else { "-".to_owned() };
            let mean = usage.utilization_mean.map_or_else(|| "-".to_owned(), |m| format!("{m}%"));
            let memory = usage.peak_memory_mib.map_or_else(|| "-".to_owned(), |m| format!("{m}M"));
            let hours = idle.map_or_else(|| "-".to_owned(), hours);
            let (user, node) = (&one.info.user_name, &usage.node);
            out.push_str(&format!(
                "{:>10} {user:<10} {node:<12} {:<16} {now:>9} {mean:>5} {memory:>10} {hours:>9} {}",
                one.id,
                gpu(usage),
                one.reason()
            ));
            out.push('\n');
        }
        let total: u64 = lost.values().sum();
        let each: Vec<String> =
            lost.iter().map(|(user, ms)| format!("{user} {}", hours(*ms))).collect();
        out.push_str(&format!("lost GPU-hours: {} ({})", hours(total), each.join(", ")));
        out.push('\n');
        out
    }
}

/// A GPU that a running job holds.
struct Holding<'a> {
    info: &'a v1::JobInfo,
    id: u32,
    usage: &'a v1::GpuUsage,
}

impl Holding<'_> {
    /// What the job says of idle GPUs, or what is odd about this one.
    fn reason(&self) -> String {
        let spec = self.info.job.as_ref().and_then(|job| job.spec.as_ref());
        let said = spec.map_or("", |spec| spec.idle_ok.as_str());
        let empty = self.usage.empty_ms.is_some_and(|ms| ms > 0 && ms >= self.usage.seen_ms);
        let run = self.info.job.as_ref().and_then(|job| job.run.as_ref());
        if let Some(note) = run.and_then(|run| run.idle.as_ref()) {
            return report::told(note);
        }
        match (said.is_empty(), empty) {
            (false, _) => format!("idle-ok: {said}"),
            (true, true) => "no process".to_owned(),
            (true, false) => String::new(),
        }
    }
}

fn holdings(info: &v1::JobInfo) -> impl Iterator<Item = Holding<'_>> {
    let id = info.job.as_ref().map_or(0, |job| job.id);
    info.gpus.iter().map(move |usage| Holding { info, id, usage })
}

fn gpu(usage: &v1::GpuUsage) -> String {
    let slice = usage.start.map_or_else(String::new, |start| format!("/{start}"));
    format!("{}{slice} {}", usage.gpu, usage.r#type)
}

/// `2h05m`.
fn minutes(ms: u64) -> String {
    let all = ms / 60_000;
    if all >= 60 { format!("{}h{:02}m", all / 60, all % 60) } else { format!("{all}m") }
}

/// Hours with two places.
fn hours(ms: u64) -> String {
    let hundredths = ms / 36_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u32, user: &str, gpus: Vec<v1::GpuUsage>) -> v1::JobInfo {
        v1::JobInfo {
            job: Some(v1::Job { id, spec: Some(v1::JobSpec::default()), ..v1::Job::default() }),
            user_name: user.to_owned(),
            gpus,
            ..v1::JobInfo::default()
        }
    }

    fn usage(gpu: u32, mean: Option<u32>, idle_now_ms: u64) -> v1::GpuUsage {
        v1::GpuUsage {
            node: "n1".to_owned(),
            gpu,
            r#type: "h100".to_owned(),
            utilization_mean: mean,
            idle_ms: mean.map(|_| idle_now_ms),
            idle_now_ms,
            seen_ms: mean.map_or(0, |_| 7_200_000),
            ..v1::GpuUsage::default()
        }
    }

    #[test]
    fn those_idle_for_long_are_listed_with_what_they_cost() {
        let jobs = [
            job(7, "ada", vec![usage(0, Some(0), 7_200_000), usage(1, Some(80), 0)]),
            job(8, "bob", vec![usage(2, Some(3), 900_000), usage(3, None, 0)]),
        ];
        let held: Vec<_> = jobs.iter().flat_map(holdings).collect();
        let idle =
            Idle { minutes: 10, unknown: false, user: None, report: false, since: String::new() };
        let text = idle.table(&held);
        let words: Vec<String> = text
            .lines()
            .skip(1)
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            words,
            [
                "7 ada n1 0 h100 2h00m 0% - 2.00",
                "8 bob n1 2 h100 15m 3% - 0.25",
                "lost GPU-hours: 2.25 (ada 2.00, bob 0.25)",
            ]
        );
        let all = Idle { unknown: true, user: Some("bob".to_owned()), ..idle }.table(&held);
        assert!(all.contains("3 h100") && all.contains('-') && !all.contains("ada"), "{all}");
        let none =
            Idle { minutes: 600, unknown: false, user: None, report: false, since: String::new() };
        let none = none.table(&held);
        assert_eq!(none, "no GPU that is held was idle for 600 minutes\n");
    }
}
