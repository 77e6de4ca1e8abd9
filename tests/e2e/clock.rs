//! What does a wall clock do to jobs that is set while they run?

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, JobView, Options, PATIENCE, WallClock, submit, wait_until};

const HOUR: i64 = 3_600;

/// Jobs that must run to their end after each change of the clock.
const JOBS_EACH: u32 = 15;

/// `1-02:03:04` in seconds.
fn seconds(walltime: &str) -> u64 {
    let (days, rest) = walltime.split_once('-').unwrap_or(("0", walltime));
    let number = |text: &str| text.parse::<u64>().expect("a number");
    rest.split(':').fold(number(days) * 24, |sum, part| sum * 60 + number(part))
}

/// What listings say of a job that runs cannot be off by more than the test takes.
#[track_caller]
fn check_times(cluster: &Cluster, job: &JobView, begun: Instant, first: i64) {
    let lasted = begun.elapsed().as_secs();
    let run = seconds(job.get("RunTime"));
    assert!(run <= lasted + 1, "it ran {run} s after {lasted} s");
    let squeue = cluster.squeue(&format!("-j {} -o %M", job.get("JobId")));
    assert!(seconds(squeue.trim()) <= lasted + 2, "squeue: {squeue}");
    let submitted = submit_time(cluster, job.get("JobId"));
    let since = submitted - first;
    assert!((0..=i64::try_from(lasted).expect("small") + 1).contains(&since), "{since} s later");
}

/// When a job was submitted, seconds since the epoch.
fn submit_time(cluster: &Cluster, id: &str) -> i64 {
    let said =
        cluster.cmd("squeue").env("SLURM_TIME_FORMAT", "%s").arg("-h").words("-t all -o %V -j");
    said.arg(id).ok().trim().parse().expect("seconds")
}

/// Submits short jobs until it is stopped; counts those that were taken.
struct Load {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let sbatch = cluster.detached("sbatch");
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&taken));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sbatch().words("--parsable -J short --wrap").arg("true").ok();
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, taken, thread }
    }

    fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("each submission was taken");
        self.taken.load(Ordering::Relaxed)
    }
}

fn completed(cluster: &Cluster) -> u32 {
    let listed = cluster.squeue("-t CD -n short -o %i");
    u32::try_from(listed.lines().count()).expect("few")
}

#[test]
fn a_wall_clock_that_jumps_by_an_hour_ends_no_job_and_takes_no_node_down() {
    let clock = Arc::new(WallClock::new());
    let options = Options {
        clock: Some(Arc::clone(&clock)),
        ..Options::one_node(4).policy("node_timeout_secs = 15")
    };
    let mut cluster = Cluster::start(options);
    let begun = Instant::now();
    let long = cluster.wrap("-t 5", "while [ ! -e go ]; do sleep 0.05; done; exit 3").id();
    let limited = submit(&cluster, |spec| spec.time_limit_secs = Some(8), "exec sleep 300");
    for id in [long, limited] {
        cluster.await_state(id, "RUNNING");
    }
    let first = submit_time(&cluster, &long.to_string());
    let load = Load::start(&cluster);
    for (turn, ahead) in [HOUR, -HOUR].into_iter().enumerate() {
        clock.set(ahead);
        let (taken, done) = (load.taken(), completed(&cluster));
        wait_until("jobs are taken and run to their end", 2 * PATIENCE, || {
            let state = cluster.node_state("n1");
            assert!(!state.contains("DOWN") && !state.contains("NOT_RESPONDING"), "{state}");
            load.taken() >= taken + JOBS_EACH && completed(&cluster) >= done + JOBS_EACH
        });
        let late = cluster.wrap("", "exec sleep 300").id();
        let late = cluster.await_state(late, "RUNNING");
        check_times(&cluster, &late, begun, first);
        check_times(&cluster, &cluster.job(long), begun, first);
        cluster.cmd("scancel").arg(late.get("JobId")).ok();
        let said = cluster.controller.as_ref().map(|daemon| daemon.log()).unwrap_or_default();
        assert_eq!(said.matches("the wall clock was set").count(), turn + 1, "{said}");
    }
    // An agent that comes anew, while the clock is wrong.
    cluster.kill_agent(0);
    cluster.restart_agent(0, None);
    assert_eq!(cluster.await_end(limited).end(), "TIMEOUT 0:15 TimeLimit");
    let held = seconds(cluster.job(limited).get("RunTime"));
    assert!((8..60).contains(&held), "its limit was 8 s, it ran {held} s");
    fs::write(cluster.work().join("go"), "").expect("written");
    assert_eq!(cluster.await_end(long).end(), "FAILED 3:0 NonZeroExitCode");
    let taken = load.stop();
    wait_until("every job ends well", 2 * PATIENCE, || completed(&cluster) == taken);
    let log = cluster.controller.as_ref().map(|daemon| daemon.log()).unwrap_or_default();
    assert!(!log.contains("node is down"), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(3_600));
}
