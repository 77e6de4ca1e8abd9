//! What may be answered when? Who may join, and what does the check see?

use penstock_core::command::Target;
use penstock_core::ledger::{Answer, CommitLimits, Ledger};
use penstock_core::model::HostRole;
use penstock_core::{Cluster, Command, Effect, RecordKey, Refusal, Reply};
use penstock_vocab::JobId;

use crate::common::{World, admin, asking, audit, job, refusal_of, user, world};

const LIMITS: CommitLimits = CommitLimits { records: 1_000, commands: 100 };

fn submit() -> Command {
    Command::Submit(user(1000), Box::new(job().submission()))
}

fn refused() -> Command {
    let beyond = job().tasks(99);
    Command::Submit(user(1000), Box::new(beyond.submission()))
}

fn ledger(w: &World) -> Ledger<u32> {
    Ledger::new(w.cluster.clone(), 7, 10)
}

#[test]
fn nothing_is_answered_or_seen_before_the_commit_is_durable() {
    let mut w = world().build();
    w.know_the_user();
    let mut ledger = ledger(&w);
    assert!(ledger.begin(w.now, LIMITS).is_none());
    ledger.push(1, submit()).unwrap();
    ledger.push(2, refused()).unwrap();
    let commit = ledger.begin(w.now, LIMITS).unwrap();
    assert_eq!(commit.sequence, 8);
    assert_eq!(commit.changed, [RecordKey::Job(JobId(1)), RecordKey::Counters]);
    assert!(commit.cluster.job(JobId(1)).is_some());
    assert!(ledger.durable().job(JobId(1)).is_none());
    // Only one commit is in flight.
    ledger.push(3, submit()).unwrap();
    assert!(!ledger.has_work());
    assert!(ledger.begin(w.now, LIMITS).is_none());
    let published = ledger.finish();
    assert!(published.snapshot.job(JobId(1)).is_some());
    assert_eq!(published.sequence, 8);
    assert!(published.effects.contains(&Effect::Schedule));
    let [(1, Answer::Done(Reply::Submitted { .. })), (2, Answer::Refused(_))] =
        &published.answers[..]
    else {
        panic!("{:?}", published.answers)
    };
    assert_eq!(ledger.begin(w.now, LIMITS).unwrap().sequence, 9);
}

#[test]
fn a_commit_that_was_not_applied_never_happened() {
    let w = world().build();
    let mut ledger = ledger(&w);
    ledger.push(1, submit()).unwrap();
    let commit = ledger.begin(w.now, LIMITS).unwrap();
    assert_eq!(ledger.abort(!commit.changed.is_empty()), [1]);
    assert_eq!(ledger.sequence(), 7);
    assert_eq!(audit::dump(ledger.durable()), audit::dump(&w.cluster));
    ledger.push(2, submit()).unwrap();
    let commit = ledger.begin(w.now, LIMITS).unwrap();
    assert_eq!((commit.sequence, commit.cluster.job_count()), (8, 1));
    assert!(commit.cluster.job(JobId(1)).is_some(), "the number was not used up");
}

#[test]
fn a_refusal_or_a_read_needs_no_commit() {
    let w = world().build();
    let mut ledger = ledger(&w);
    ledger.push(1, refused()).unwrap();
    ledger.push(2, Command::Tick).unwrap();
    let commit = ledger.begin(w.now, LIMITS).unwrap();
    assert!(commit.changed.is_empty());
    assert_eq!(commit.sequence, 7);
    assert_eq!(ledger.finish().answers.len(), 2);
}

#[test]
fn a_panic_is_survived_and_kept() {
    let w = world().build();
    let mut ledger = ledger(&w);
    for (token, command) in [(1, submit()), (2, Command::Panic), (3, submit())] {
        ledger.push(token, command).unwrap();
    }
    ledger.begin(w.now, LIMITS).unwrap();
    let poison = ledger.take_poison();
    assert_eq!(poison.len(), 1);
    assert_eq!(poison[0].command, "Panic");
    assert_eq!(poison[0].message, "a command asked for a panic");
    let published = ledger.finish();
    assert_eq!(published.snapshot.job_count(), 2);
    assert_eq!(published.answers[1].1, Answer::Panicked(poison[0].message.clone()));
    assert!(ledger.take_poison().is_empty());
    assert_eq!(published.snapshot.check(), []);
}

fn submitted(job: u32) -> Reply {
    Reply::Submitted { job: JobId(job), warnings: Vec::new() }
}

#[test]
fn bounds_hold() {
    let mut w = world().build();
    w.know_the_user();
    let mut ledger = ledger(&w);
    for token in 0..10 {
        ledger.push(token, submit()).unwrap();
    }
    let (token, _) = ledger.push(10, submit()).unwrap_err();
    assert_eq!(token, 10);
    // Each changes two records, so a third one would be too many; it goes into the next commit.
    let few = CommitLimits { records: 5, commands: 100 };
    assert_eq!(ledger.begin(w.now, few).unwrap().cluster.job_count(), 2);
    assert_eq!(ledger.finish().answers.len(), 2);
    // One that alone is too large goes alone.
    let least = CommitLimits { records: 1, commands: 100 };
    assert_eq!(ledger.begin(w.now, least).unwrap().cluster.job_count(), 3);
    assert_eq!(ledger.finish().answers, [(2, Answer::Done(submitted(3)))]);
    let few = CommitLimits { records: 500, commands: 2 };
    ledger.begin(w.now, few).unwrap();
    assert_eq!(ledger.finish().answers.len(), 2);
}

#[test]
fn a_repeated_request_within_one_commit_is_one_job() {
    let w = world().build();
    let mut ledger = ledger(&w);
    let again = || Command::Submit(asking(user(1000), 5), Box::new(job().submission()));
    ledger.push(1, again()).unwrap();
    ledger.push(2, again()).unwrap();
    ledger.begin(w.now, LIMITS).unwrap();
    let published = ledger.finish();
    assert_eq!(published.answers[0].1, published.answers[1].1);
    assert_eq!(published.snapshot.job_count(), 1);
}

fn join(token: &str, secret: u8, host: &str, key: u8) -> Command {
    let (secret_hash, key_hash) = ([secret; 32], [key; 32]);
    Command::Join { token_id: token.into(), secret_hash, host: host.into(), key_hash }
}

fn with_token(uses: u32) -> World {
    let mut w = world().build();
    let command = Command::CreateToken {
        caller: admin(),
        id: "t".into(),
        secret_hash: [1; 32],
        role: HostRole::Login,
        uses,
        valid_secs: 60,
    };
    w.execute(command).unwrap();
    w
}

#[test]
fn a_token_lets_so_many_hosts_in_for_so_long() {
    let mut w = with_token(2);
    let kind = |w: &mut World, command| w.execute(command).map_err(|why| why.kind().to_owned());
    assert_eq!(kind(&mut w, join("x", 1, "a", 1)).unwrap_err(), "InvalidToken");
    assert_eq!(kind(&mut w, join("t", 2, "a", 1)).unwrap_err(), "InvalidToken");
    assert_eq!(kind(&mut w, join("t", 1, "a b", 1)).unwrap_err(), "InvalidName");
    let joined = kind(&mut w, join("t", 1, "a", 1)).unwrap();
    assert_eq!(joined.reply, Reply::Joined(HostRole::Login));
    assert_eq!(kind(&mut w, join("t", 1, "a", 2)).unwrap_err(), "HostNameTaken");
    kind(&mut w, join("t", 1, "b", 2)).unwrap();
    assert_eq!(kind(&mut w, join("t", 1, "c", 3)).unwrap_err(), "InvalidToken");
    assert!(w.cluster.token("t").is_none());
    let mut w = with_token(2);
    w.advance(60);
    let expired = w.execute(join("t", 1, "a", 1)).unwrap_err();
    assert_eq!(expired.to_string(), "the join token is not valid: it has expired");
}

#[test]
fn a_join_whose_answer_got_lost_can_be_repeated_though_the_token_is_used_up() {
    let mut w = with_token(1);
    w.execute(join("t", 1, "a", 1)).unwrap();
    let again = w.execute(join("t", 1, "a", 1)).unwrap();
    assert_eq!((again.reply, again.changed.len()), (Reply::Joined(HostRole::Login), 0));
}

#[test]
fn hosts_are_revoked_and_reset_by_admins() {
    let mut w = with_token(5);
    w.execute(join("t", 1, "a", 1)).unwrap();
    let refusal = w.execute(Command::RevokeHost(user(1), "a".into())).unwrap_err();
    assert_eq!(refusal.kind(), "AccessDenied");
    let revoked = w.execute(Command::RevokeHost(admin(), "a".into())).unwrap();
    assert_eq!(revoked.effects, [Effect::CutHost("a".into())]);
    assert_eq!(w.execute(join("t", 1, "a", 1)).unwrap_err(), Refusal::HostRevoked("a".into()));
    w.execute(Command::ResetHost(admin(), "a".into())).unwrap();
    w.execute(join("t", 1, "a", 2)).unwrap();
    assert_eq!(w.cluster.host_by_key(&[2; 32]).unwrap().name, "a".into());
}

#[test]
fn a_refused_target_is_no_obstacle_to_the_others() {
    let mut w = world().build();
    let id = w.submit(&job());
    let targets = vec![Target::Id(JobId(99)), Target::Id(id)];
    let reply = w.execute(Command::Cancel(user(1000), targets)).unwrap().reply;
    assert_eq!(refusal_of(&reply).unwrap().to_string(), "there is no job 99");
    assert!(w.job(id).is_over());
    let many = vec![Target::Id(id); 46];
    assert_eq!(w.execute(Command::Cancel(admin(), many)).unwrap_err().kind(), "TooManyItems");
}

/// Builds a cluster from records that contradict each other.
fn restored(change: impl Fn(&mut penstock_core::model::Job)) -> Vec<String> {
    let mut w = world().build();
    let id = w.submit(&job().on(&[1]));
    let other = w.submit(&job().on(&[1]));
    w.run_plan();
    let mut records = w.records();
    let shares = w.job(other).active_run().unwrap().shares.clone();
    for job in &mut records.jobs {
        if job.id == id {
            // The same CPUs as the other one.
            let run = std::sync::Arc::make_mut(job.run.as_mut().unwrap());
            run.shares = shares.clone();
            change(job);
        }
    }
    let cluster = Cluster::restore(records, std::sync::Arc::clone(w.cluster.config()), w.now);
    cluster.check().iter().map(ToString::to_string).collect()
}

#[test]
fn the_check_sees_what_is_given_out_twice_and_what_contradicts_itself() {
    let twice = "on node n1 two runs hold the same CPU";
    let of = |change: fn(&mut penstock_core::model::Job)| restored(change);
    assert_eq!(of(|_| ()), [twice]);
    let pending = of(|job| job.state = penstock_vocab::JobState::Pending);
    assert_eq!(pending, [twice, "job 1 is pending and holds resources"]);
    let no_run = of(|job| job.run = None);
    assert_eq!(no_run, ["job 1 runs and holds nothing"]);
    let no_end = of(|job| {
        job.run = None;
        job.state = penstock_vocab::JobState::Failed;
    });
    assert_eq!(no_end, ["job 1 is over and has no end"]);
    let newer = of(|job| job.last_attempt = penstock_vocab::Attempt(0));
    assert_eq!(newer, [twice, "job 1 has a run newer than its newest attempt"]);
}
