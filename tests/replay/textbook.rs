//! Do `--policy fcfs` and `--policy easy` reproduce the textbook schedules, job by job?

use std::path::Path;

use proptest::prelude::*;

use crate::binary::{dumped, excerpt, file};
use crate::reference::{self, Job};
use crate::traces::{ALCF, Columns, SWF, jobs, text, trace};

type Reference = fn(&[Job], u64) -> Vec<i64>;

const TEXTBOOK: [(&str, Reference); 2] = [("fcfs", reference::fcfs), ("easy", reference::easy)];

/// Compares a replay with a reference; the first difference is told.
fn compare(
    path: &Path,
    names: &[String],
    jobs: &[Job],
    units: u64,
    (policy, reference): (&str, Reference),
) {
    let cluster = format!("units:{units}");
    let most = jobs.len().to_string();
    let lines = dumped(path, &["--cluster", &cluster, "--policy", policy, "--jobs", &most]);
    assert_eq!(lines.len(), jobs.len(), "{policy}: not the same jobs");
    for (((line, name), job), start) in
        lines.iter().zip(names).zip(jobs).zip(reference(jobs, units))
    {
        assert_eq!((&line.job, line.submit, line.units), (name, job.submit, job.size));
        assert_eq!(line.start, Some(start), "{policy}: job {name} starts elsewhere: {job:?}");
        assert_eq!(line.end, Some(start + job.run), "{policy}: job {name} ends elsewhere");
    }
}

fn reproduces(path: &Path, columns: &Columns, units: u64, most: usize) {
    let (names, jobs) = jobs(&text(path), columns, units, most);
    assert!(jobs.len() > 300, "only {} jobs", jobs.len());
    let waits =
        |starts: &[i64]| starts.iter().zip(&jobs).filter(|(s, job)| **s > job.submit).count();
    let (strict, filled) = (reference::fcfs(&jobs, units), reference::easy(&jobs, units));
    // Were there no queue, any scheduler would do.
    assert!(waits(&strict) > jobs.len() / 10 && strict != filled, "hardly a job waits");
    for policy in TEXTBOOK {
        compare(path, &names, &jobs, units, policy);
    }
}

#[test]
fn textbook_schedules_are_reproduced_on_the_excerpt() {
    reproduces(&excerpt(), &SWF, 512, 600);
    reproduces(&excerpt(), &SWF, 1_024, 600);
}

#[test]
fn textbook_schedules_are_reproduced_on_an_sp2() {
    if let Some(path) = trace("sdsc_sp2_last_10k.swf.gz") {
        reproduces(&path, &SWF, 128, 1_000);
    }
}

#[test]
fn textbook_schedules_are_reproduced_on_theta() {
    if let Some(path) = trace("theta_argonne.swf.gz") {
        reproduces(&path, &ALCF, 4_392, 1_000);
    }
}

fn workload() -> impl Strategy<Value = Vec<Job>> {
    let job = (0i64..8, 1i64..30, 0i64..20, 1u64..=10);
    proptest::collection::vec(job, 1..60).prop_map(|jobs| {
        let mut submit = 100;
        jobs.into_iter()
            .map(|(pause, run, more, size)| {
                // Often at the same instant, so that the order within one is tested.
                submit += (pause - 3).max(0);
                let more = if more < 8 { 0 } else { more };
                Job { submit, run, request: run + more, size }
            })
            .collect()
    })
}

/// A workload as SWF.
fn swf(jobs: &[Job]) -> String {
    let line = |(at, job): (usize, &Job)| {
        let Job { submit, run, request, size } = job;
        format!("{at} {submit} -1 {run} {size} -1 -1 {size} {request} -1 1 1 1 -1 -1 -1 -1 -1\n")
    };
    jobs.iter().enumerate().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn textbook_schedules_are_reproduced_on_any_workload(jobs in workload()) {
        let file = file(&swf(&jobs));
        let names: Vec<String> = (0..jobs.len()).map(|at| at.to_string()).collect();
        for policy in TEXTBOOK {
            compare(file.path(), &names, &jobs, 10, policy);
        }
    }
}
