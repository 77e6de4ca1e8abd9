//! What came of telling users about idle GPUs, and of taking them back?
//!
//! From the accounting: the runs to which something was said, what was lost by then, and what others got
//! because they ended. What ended by itself after a notice counts as given back by its user.

use std::collections::BTreeMap;

use penstock_proto::v1;

use super::{PROGRAM, hours};
use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::output::write_bytes;
use crate::when::{Looking, parse_when};

/// Prints the report; returns the exit status.
pub(super) fn run(since: &str, user: Option<&str>) -> i32 {
    let from_ms = match parse_when(since, &jiff::ZonedDateTime::now(), Looking::Back) {
        Ok(at) => at.as_millisecond(),
        Err(problem) => {
            error(PROGRAM, &problem.to_string());
            return 1;
        }
    };
    match ask(from_ms) {
        Ok(jobs) => {
            let mine = |info: &&v1::JobInfo| user.is_none_or(|user| user == info.user_name);
            write_bytes(table(jobs.iter().filter(mine)).as_bytes());
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

fn ask(from_ms: i64) -> Result<Vec<v1::JobInfo>, RemoteError> {
    let request = v1::ListAccountingRequest {
        from_ms,
        all_users: true,
        duplicates: true,
        ..v1::ListAccountingRequest::default()
    };
    let replies = Client::open()?.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_accounting(request).await }
    })?;
    Ok(replies.into_iter().flat_map(|reply| reply.jobs).collect())
}

/// What was said to a run: `notice 1, cancel`, `cancelled`.
pub(super) fn told(note: &v1::IdleNote) -> String {
    let dry = if note.dry_run { " (dry run)" } else { "" };
    match (note.acted_ms, note.action.as_str()) {
        (0, "notify") => format!("notice {}{dry}", note.warned),
        (0, action) => format!("notice {}, then {action}{dry}", note.warned),
        (_, "preemptible") => format!("may be preempted{dry}"),
        (_, "requeue") => format!("requeued{dry}"),
        (_, _) => format!("cancelled{dry}"),
    }
}

/// Sums of one rule or user.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    runs: u32,
    acted: u32,
    lost_ms: u64,
    freed_ms: u64,
}

impl Sum {
    fn add(&mut self, note: &v1::IdleNote) {
        self.runs += 1;
        self.acted += u32::from(note.acted_ms != 0);
        self.lost_ms = self.lost_ms.saturating_add(note.lost_ms);
        self.freed_ms = self.freed_ms.saturating_add(note.freed_ms);
    }

    fn line(self, name: &str) -> String {
        let (lost, freed) = (hours(self.lost_ms), hours(self.freed_ms));
        format!("{name:<24} {:>6} {:>6} {lost:>10} {freed:>10}\n", self.runs, self.acted)
    }
}

fn table<'a>(jobs: impl Iterator<Item = &'a v1::JobInfo>) -> String {
    let (mut rules, mut users) = (BTreeMap::new(), BTreeMap::new());
    let mut all = Sum::default();
    for info in jobs {
        let run = info.job.as_ref().and_then(|job| job.run.as_ref());
        let Some(note) = run.and_then(|run| run.idle.as_ref()) else { continue };
        let dry = if note.dry_run { " (dry run)" } else { "" };
        let rule = format!("rule {}{dry}", note.rule);
        rules.entry(rule).or_insert_with(Sum::default).add(note);
        let user = format!("user {}", info.user_name);
        users.entry(user).or_insert_with(Sum::default).add(note);
        if !note.dry_run {
            all.add(note);
        }
    }
    if rules.is_empty() {
        return "nobody was told of idle GPUs in that time\n".to_owned();
    }
    let mut out = format!(
        "{:<24} {:>6} {:>6} {:>10} {:>10}\n",
        "", "RUNS", "ENDED", "LOST GPUH", "FREED GPUH"
    );
    for (name, sum) in rules.into_iter().chain(users) {
        out.push_str(&sum.line(&name));
    }
    let (runs, acted) = (all.runs, all.acted);
    out.push_str(&format!(
        "{runs} runs were told, something was done to {acted}; recovered: {} GPU-hours\n",
        hours(all.freed_ms)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(user: &str, note: Option<v1::IdleNote>) -> v1::JobInfo {
        let run = v1::Run { idle: note, ..v1::Run::default() };
        v1::JobInfo {
            user_name: user.to_owned(),
            job: Some(v1::Job { run: Some(run), ..v1::Job::default() }),
            ..v1::JobInfo::default()
        }
    }

    fn note(dry_run: bool, acted_ms: i64) -> v1::IdleNote {
        v1::IdleNote {
            rule: "short".to_owned(),
            warned: 2,
            action: "cancel".to_owned(),
            dry_run,
            acted_ms,
            lost_ms: 3_600_000,
            freed_ms: if acted_ms == 0 { 0 } else { 7_200_000 },
            ..v1::IdleNote::default()
        }
    }

    #[test]
    fn what_was_recovered_is_summed_without_what_was_only_tried_out() {
        let jobs = [
            job("ada", Some(note(false, 5))),
            job("ada", Some(note(false, 0))),
            job("bob", Some(note(true, 5))),
            job("bob", None),
        ];
        let text = table(jobs.iter());
        let words: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            words,
            [
                "RUNS ENDED LOST GPUH FREED GPUH",
                "rule short 2 1 2.00 2.00",
                "rule short (dry run) 1 1 1.00 2.00",
                "user ada 2 1 2.00 2.00",
                "user bob 1 1 1.00 2.00",
                "2 runs were told, something was done to 1; recovered: 2.00 GPU-hours",
            ]
        );
        assert_eq!(told(&note(false, 0)), "notice 2, then cancel");
        assert_eq!(told(&note(true, 3)), "cancelled (dry run)");
        assert_eq!(table([].iter()), "nobody was told of idle GPUs in that time\n");
    }
}
