//! Do jobs of crontabs come again, under one number, until their owner wants something else?

use penstock_core::command::{Caller, CrontabRequest, JobUpdate, Target};
use penstock_core::model::{CronJob, MAX_CRON_JOBS, MAX_CRON_TIMES};
use penstock_core::{Command, Refusal, Reply};
use penstock_vocab::{Attempt, CronSpec, JobId, JobState, Timestamp, UserId};

use crate::common::{JobBuilder, World, admin, job, refusal_of, user, world};

fn cron(w: &World, after: &[u64]) -> CronJob {
    CronJob {
        spec: CronSpec::parse("* * * * *").unwrap(),
        zone: "".into(),
        lines: (2, 3),
        upcoming: after.iter().map(|secs| w.now.plus_secs(*secs)).collect(),
    }
}

fn request(owner: u32, text: &str, jobs: Vec<(&JobBuilder, CronJob)>) -> CrontabRequest {
    CrontabRequest {
        owner: UserId(owner),
        gid: user(owner).gid,
        text: text.into(),
        jobs: jobs.into_iter().map(|(job, cron)| (job.submission(), cron)).collect(),
    }
}

fn try_set(
    w: &mut World,
    caller: Caller,
    text: &str,
    jobs: Vec<(&JobBuilder, CronJob)>,
) -> Result<Vec<JobId>, Refusal> {
    let command = Command::SetCrontab(caller, Box::new(request(1000, text, jobs)));
    match w.execute(command)?.reply {
        Reply::SubmittedMany(made) => Ok(made.into_iter().map(|id| id.unwrap()).collect()),
        other => panic!("{other:?}"),
    }
}

fn set(w: &mut World, text: &str, jobs: Vec<(&JobBuilder, CronJob)>) -> Vec<JobId> {
    try_set(w, user(1000), text, jobs).unwrap()
}

/// One job that comes at these seconds from now.
fn with_one(after: &[u64]) -> (World, JobId) {
    let mut w = world().nodes(1).cpus(4).build();
    let times = cron(&w, after);
    let one = job();
    let id = set(&mut w, "* * * * * x\n", vec![(&one, times)])[0];
    (w, id)
}

#[test]
fn a_job_runs_at_its_times_and_keeps_its_number() {
    let (mut w, id) = with_one(&[60, 120, 180]);
    assert!(w.run_plan().is_empty(), "not before its time");
    for round in 1..=2 {
        w.wait(60);
        assert_eq!(w.run_plan(), [id], "round {round}");
        w.running(id);
        w.exit(id, 3);
        let record = w.job(id);
        assert_eq!((record.state, record.restarts), (JobState::Pending, 0));
        let ended = record.earlier_runs.last().unwrap();
        assert_eq!((ended.end_state, ended.attempt), (Some(JobState::Failed), Attempt(round)));
        assert!(w.run_plan().is_empty());
    }
    assert_eq!(w.job(id).not_before, w.now.plus_secs(60));
    let restored = w.restored();
    assert!(restored.check().is_empty());
    assert_eq!(restored.job(id), w.cluster.job(id));
}

#[test]
fn a_time_that_passes_while_it_runs_is_left_out() {
    let (mut w, id) = with_one(&[60, 120, 180, 240]);
    w.wait(60);
    assert_eq!(w.run_plan(), [id]);
    w.running(id);
    w.wait(130);
    w.exit(id, 0);
    assert_eq!(w.job(id).not_before, w.now.plus_secs(50));
}

#[test]
fn a_job_that_knows_no_more_times_waits_for_some() {
    let (mut w, id) = with_one(&[60]);
    assert_eq!(w.cluster.crons_to_extend(1).count(), 1);
    w.wait(60);
    assert_eq!(w.run_plan(), [id]);
    w.running(id);
    w.exit(id, 0);
    w.wait(3_600);
    assert!(w.run_plan().is_empty());
    let times = [60, 120].map(|secs| w.now.plus_secs(secs));
    w.execute(Command::ExtendCron(id, times.to_vec())).unwrap();
    assert_eq!(w.job(id).not_before, times[0]);
    // What is known already is not told twice, and never more than are kept.
    let many: Vec<_> = (1..=MAX_CRON_TIMES as u64).map(|n| w.now.plus_secs(60 * n)).collect();
    w.execute(Command::ExtendCron(id, many.clone())).unwrap();
    let cron = w.job(id).cron.clone().unwrap();
    assert_eq!(*cron.upcoming, many[1..]);
    for wrong in [vec![w.now, w.now], many.iter().rev().copied().collect()] {
        w.execute(Command::ExtendCron(id, wrong)).unwrap_err();
    }
    w.execute(Command::ExtendCron(JobId(99), times.to_vec())).unwrap_err();
}

#[test]
fn a_new_crontab_takes_the_place_of_the_old_one() {
    let (mut w, first) = with_one(&[60]);
    let times = cron(&w, &[60]);
    let (one, later) = (job(), cron(&w, &[3_600]));
    let made = set(&mut w, "a\nb\n", vec![(&one, times), (&one, later)]);
    let (runs, waits) = (made[0], made[1]);
    assert_eq!(w.state(first), JobState::Cancelled);
    w.wait(60);
    assert_eq!(w.run_plan(), [runs]);
    w.running(runs);
    set(&mut w, "", Vec::new());
    assert!(w.cluster.crontab(UserId(1000)).is_none());
    assert_eq!(w.state(waits), JobState::Cancelled);
    assert_eq!(w.state(runs), JobState::Running, "what runs ends as any job does");
    w.exit(runs, 0);
    assert_eq!(w.state(runs), JobState::Completed);
}

#[test]
fn a_crontab_with_one_bad_line_changes_nothing() {
    let (mut w, first) = with_one(&[60]);
    let times = cron(&w, &[60]);
    let bad = job().spec(|s| s.partitions = [crate::common::partition_name("nope")].into());
    let good = job();
    let jobs = vec![(&good, times.clone()), (&bad, CronJob { lines: (7, 9), ..times.clone() })];
    let why = try_set(&mut w, user(1000), "x\n", jobs).unwrap_err();
    assert!(matches!(&why, Refusal::CrontabLine { lines: (7, 9), .. }), "{why:?}");
    assert_eq!(why.slurm_text(), "Invalid partition name specified");
    assert_eq!(w.state(first), JobState::Pending);
    assert_eq!(&*w.cluster.crontab(UserId(1000)).unwrap().text, "* * * * * x\n");
    let many = vec![(&good, times); MAX_CRON_JOBS + 1];
    try_set(&mut w, user(1000), "x\n", many).unwrap_err();
}

#[test]
fn the_largest_crontab_fits_into_one_command() {
    let mut w = world().nodes(1).cpus(4).build();
    for _ in 0..2 {
        let times = cron(&w, &[60]);
        let one = job();
        let command = Command::SetCrontab(
            user(1000),
            Box::new(request(1000, "x\n", vec![(&one, times); MAX_CRON_JOBS])),
        );
        let outcome = w.execute(command).unwrap();
        assert!(outcome.changed.len() <= 100, "{}", outcome.changed.len());
    }
}

#[test]
fn nobody_sets_the_crontab_of_another_but_an_admin_and_jobs_are_the_owners() {
    let mut w = world().nodes(1).cpus(4).build();
    let times = cron(&w, &[60]);
    let one = job();
    let why = try_set(&mut w, user(7), "x\n", vec![(&one, times.clone())]).unwrap_err();
    assert_eq!(why.kind(), "AccessDenied");
    let made = try_set(&mut w, admin(), "x\n", vec![(&one, times.clone())]).unwrap();
    assert_eq!(w.job(made[0]).uid, UserId(1000));
    // An admin's rights do not pass to the jobs of others.
    let dear = job().spec(|s| s.priority = Some(9));
    let why = try_set(&mut w, admin(), "x\n", vec![(&dear, times)]).unwrap_err();
    assert_eq!(why.kind(), "AccessDenied");
}

#[test]
fn only_who_says_so_ends_a_job_that_comes_again() {
    for runs in [false, true] {
        let (mut w, id) = with_one(&[60, 120]);
        if runs {
            w.wait(60);
            assert_eq!(w.run_plan(), [id]);
            w.running(id);
        }
        let why = w.cancel(user(1000), Target::Id(id)).unwrap();
        assert_eq!(why.slurm_text(), "Cannot cancel scrontab jobs without --cron flag.");
        let stranger = Command::CancelCron(user(7), vec![Target::Id(id)]);
        let why = refusal_of(&w.execute(stranger).unwrap().reply).unwrap();
        assert_eq!(why.kind(), "AccessDenied");
        let command = Command::CancelCron(user(1000), vec![Target::Id(id)]);
        assert_eq!(refusal_of(&w.execute(command).unwrap().reply), None);
        if runs {
            w.exit(id, 0);
        }
        assert_eq!(w.state(id), JobState::Cancelled);
        assert!(w.job(id).is_over() && w.job(id).cron.is_none());
        assert_eq!(*w.cluster.crontab(UserId(1000)).unwrap().disabled, [(2, 3)]);
    }
}

#[test]
fn such_a_job_is_changed_by_its_crontab_alone() {
    let (mut w, id) = with_one(&[60]);
    let update = JobUpdate { name: Some("x".into()), ..JobUpdate::default() };
    let why = w.update(user(1000), Target::Id(id), update).unwrap();
    assert_eq!(why.slurm_text(), "Cannot modify scrontab jobs through scontrol");
    let hold = penstock_core::model::Hold::User;
    let command = Command::SetHold(user(1000), vec![Target::Id(id)], hold);
    let why = refusal_of(&w.execute(command).unwrap().reply).unwrap();
    assert_eq!(why.kind(), "CronUnchangeable");
}

#[test]
fn runs_that_the_history_has_are_forgotten() {
    let (mut w, id) = with_one(&[60, 120, 180]);
    for _ in 0..2 {
        w.wait(60);
        assert_eq!(w.run_plan(), [id]);
        w.running(id);
        w.exit(id, 0);
    }
    assert_eq!(w.cluster.crons_with_runs().count(), 1);
    w.execute(Command::ForgetRuns(id, Attempt(1))).unwrap();
    let left: Vec<_> = w.job(id).earlier_runs.iter().map(|run| run.attempt.0).collect();
    assert_eq!(left, [2]);
    w.execute(Command::ForgetRuns(id, Attempt(2))).unwrap();
    assert_eq!(w.cluster.crons_with_runs().count(), 0);
    let plain = w.submit(&job());
    w.execute(Command::ForgetRuns(plain, Attempt(9))).unwrap_err();
}

#[test]
fn a_requeue_of_such_a_run_is_soon() {
    let (mut w, id) = with_one(&[60, 3_660]);
    w.wait(60);
    assert_eq!(w.run_plan(), [id]);
    w.running(id);
    assert_eq!(w.requeue(user(1000), Target::Id(id), false), None);
    w.exit(id, 0);
    w.wait(10);
    assert_eq!(w.run_plan(), [id]);
    w.running(id);
    w.exit(id, 0);
    assert_eq!(w.job(id).not_before, Timestamp(crate::common::START.plus_secs(3_660).0));
}
