//! FCFS and EASY as the textbooks have them, on identical units: free units are a number, running
//! jobs and waiting jobs are lists.
//!
//! EASY is Lifka's (1995): the head of the queue gets a shadow time, the earliest requested end at
//! which it fits; the extra units are what is then free beyond it. Another job goes ahead if it ends
//! by the shadow time, or takes no more than the extra units.

/// A job of a reference schedule. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) submit: i64,
    pub(crate) run: i64,
    /// At least `run`.
    pub(crate) request: i64,
    pub(crate) size: u64,
}

/// Start of each job, in strict order of submission. Jobs are given in that order.
pub(crate) fn fcfs(jobs: &[Job], units: u64) -> Vec<i64> {
    schedule(jobs, units, false)
}

/// Start of each job under EASY. Jobs are given in the order of submission.
pub(crate) fn easy(jobs: &[Job], units: u64) -> Vec<i64> {
    schedule(jobs, units, true)
}

fn schedule(jobs: &[Job], units: u64, backfill: bool) -> Vec<i64> {
    let mut starts = vec![i64::MIN; jobs.len()];
    let mut running: Vec<usize> = Vec::new();
    let mut waiting: Vec<usize> = Vec::new();
    let mut next = 0;
    loop {
        let ends = running.iter().map(|job| starts[*job] + jobs[*job].run);
        let submits = jobs.get(next).map(|job| job.submit);
        let Some(now) = ends.chain(submits).min() else { break };
        running.retain(|job| starts[*job] + jobs[*job].run > now);
        while jobs.get(next).is_some_and(|job| job.submit == now) {
            waiting.push(next);
            next += 1;
        }
        let taken: u64 = running.iter().map(|job| jobs[*job].size).sum();
        let mut free = units - taken;
        while let Some(head) = waiting.first().copied()
            && jobs[head].size <= free
        {
            waiting.remove(0);
            free -= jobs[head].size;
            starts[head] = now;
            running.push(head);
        }
        if backfill && !waiting.is_empty() {
            fill(jobs, &mut starts, &mut running, &mut waiting, now, free);
        }
    }
    starts
}

/// One sweep over those behind the head.
fn fill(
    jobs: &[Job],
    starts: &mut [i64],
    running: &mut Vec<usize>,
    waiting: &mut Vec<usize>,
    now: i64,
    mut free: u64,
) {
    let head = jobs[waiting[0]];
    let mut ends: Vec<(i64, u64)> =
        running.iter().map(|job| (starts[*job] + jobs[*job].request, jobs[*job].size)).collect();
    ends.sort_unstable();
    let mut then = free;
    let mut shadow = i64::MAX;
    for (end, size) in &ends {
        // All that end by the shadow time count, also those that end at it.
        if then >= head.size && *end > shadow {
            break;
        }
        then += size;
        if then >= head.size && shadow == i64::MAX {
            shadow = *end;
        }
    }
    let mut extra = then - head.size;
    let behind: Vec<usize> = waiting[1..].to_vec();
    for candidate in behind {
        let job = jobs[candidate];
        let in_time = now + job.request <= shadow;
        if job.size > free || !(in_time || job.size <= extra) {
            continue;
        }
        free -= job.size;
        if !in_time {
            extra -= job.size;
        }
        starts[candidate] = now;
        running.push(candidate);
        waiting.retain(|job| *job != candidate);
    }
}

/// Jobs by hand, to see that the reference itself is right.
#[test]
fn easy_fills_up_to_the_shadow_time_and_into_the_extra_units() {
    let job = |submit, run, size| Job { submit, run, request: run, size };
    let jobs = [
        job(0, 10, 6), // runs
        job(1, 10, 8), // head: shadow time 10, 2 extra units
        job(2, 8, 4),  // ends at the shadow time: ahead
        job(3, 8, 2),  // does not end by then, and nothing is free
        job(3, 90, 2), // behind
    ];
    assert_eq!(fcfs(&jobs, 10), [0, 10, 20, 20, 20]);
    assert_eq!(easy(&jobs, 10), [0, 10, 2, 10, 18]);
    let jobs = [job(0, 10, 6), job(1, 10, 8), job(2, 90, 2), job(2, 90, 2)];
    assert_eq!(easy(&jobs, 10), [0, 10, 2, 20]);
}
