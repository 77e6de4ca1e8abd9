//! What no command reaches by itself: suspension, resets of one owner, what the deleted leave.

use super::*;
use crate::command::{Caller, Command, Submission};
use crate::model::{
    Association, Dependency, Details, Inventory, NORMAL_QOS, Partition, Qos, Scheduling, Shape,
};
use crate::scheduler::{Limits, plan};
use penstock_vocab::{GroupId, JobId, JobState, NodeName, PartitionName, SessionId, UserId};

const START: Timestamp = Timestamp::from_secs(1_000_000);
const JOB: JobId = JobId(1);
const ROOT: UsageOwner = UsageOwner::Assoc(AssocId::ROOT);

fn spec() -> JobSpec {
    JobSpec {
        name: "job".into(),
        account: "".into(),
        qos: "".into(),
        partitions: Box::default(),
        shape: Arc::new(Shape::default()),
        time_limit: None,
        begin_time: Timestamp(0),
        hold: false,
        requeue: None,
        nice: 0,
        priority: None,
        comment: "".into(),
        dependency: Dependency::default(),
        kill_on_invalid_dep: false,
        allocation: false,
        no_kill: false,
        reservation: "".into(),
        deadline: None,
        min_time: None,
        signal: None,
        details: Arc::new(Details::default()),
    }
}

/// A cluster of one node on which one job of one CPU runs since [`START`].
fn running(half_life_secs: u32) -> Cluster {
    let mut main = Partition::new(PartitionName::new("main").unwrap());
    main.is_default = true;
    let mut scheduling = Scheduling::default();
    scheduling.fairshare.half_life_secs = half_life_secs;
    let config = Config { partitions: vec![main], scheduling, ..Config::default() };
    let mut cluster = Cluster::new(config.into(), START);
    let inventory = Box::new(Inventory {
        cpus: 4,
        threads_per_core: 1,
        memory: Mib(100),
        ..Default::default()
    });
    let node = NodeName::new("n1").unwrap();
    let session = SessionId(1);
    let register = Command::Register { node, session, inventory, attempts: Vec::new() };
    cluster.execute(START, register).unwrap();
    let caller = Caller { uid: UserId(1), gid: GroupId(1), admin: false, request: None };
    let spec = Arc::new(spec());
    let submission = Submission { spec, array: None, groups: Arc::default(), user: "".into() };
    cluster.execute(START, Command::Submit(caller, Box::new(submission))).unwrap();
    // Charged to an association that no test deletes.
    let job = Job { assoc: AssocId::ROOT, ..(*cluster.jobs[&JOB]).clone() };
    cluster.put_job(job);
    let starts = plan(&cluster, START, Limits::default()).starts;
    cluster.execute(START, Command::Start(starts)).unwrap();
    assert!(cluster.jobs[&JOB].active_run().is_some());
    cluster
}

fn later(secs: u64) -> Timestamp {
    START.plus_secs(secs)
}

fn suspend(cluster: &mut Cluster, now: Timestamp, since: Option<Timestamp>) {
    cluster.now = now;
    let mut job = (*cluster.jobs[&JOB]).clone();
    let mut run = (**job.run.as_ref().unwrap()).clone();
    run.suspended_since = since;
    job.state = if since.is_some() { JobState::Suspended } else { JobState::Running };
    job.run = Some(Arc::new(run));
    cluster.put_job(job);
}

fn cpu(cluster: &Cluster, owner: &UsageOwner, secs: u64) -> u64 {
    cluster.usage(owner, later(secs)).secs(&TresKind::Cpu)
}

#[test]
fn a_suspended_run_is_not_charged() {
    let mut cluster = running(0);
    suspend(&mut cluster, later(10), Some(later(10)));
    assert_eq!(cpu(&cluster, &ROOT, 500), 10);
    assert_eq!(cluster.check(), vec![]);
    suspend(&mut cluster, later(100), None);
    assert_eq!(cpu(&cluster, &ROOT, 107), 17);
    assert_eq!(cluster.check(), vec![]);
}

#[test]
fn a_reset_of_one_leaves_the_others() {
    let mut cluster = running(0);
    let normal = UsageOwner::Qos(NORMAL_QOS.into());
    cluster.now = later(10);
    cluster.reset_usage(ROOT);
    assert_eq!((cpu(&cluster, &ROOT, 13), cpu(&cluster, &normal, 13)), (3, 13));
    // Of one who runs nothing the record goes.
    suspend(&mut cluster, later(20), Some(later(20)));
    cluster.changed.clear();
    cluster.reset_usage(ROOT);
    assert_eq!(cluster.changed, [RecordKey::Usage(ROOT)]);
    assert!(cluster.accounts.stored_usage(&ROOT).is_none());
    cluster.changed.clear();
    cluster.reset_usage(ROOT);
    assert_eq!(cluster.changed, []);
}

#[test]
fn what_a_deleted_association_used_stays_with_its_account() {
    let mut cluster = running(3_600);
    let (lab, alice) = (AssocId(12), AssocId(13));
    cluster.accounts.put_assoc(Association::new(lab, "lab", None, Some(AssocId::ROOT)));
    cluster.accounts.put_assoc(Association::new(alice, "lab", Some("alice"), Some(lab)));
    let owner = UsageOwner::Assoc(alice);
    let tres = BTreeMap::from([(TresKind::Cpu, 1_000 * crate::policy::decay::UNIT_MS)]);
    let used = DecayedUsage { as_of: START, half_life_secs: 3_600, tres, wall: 77 };
    cluster.accounts.usage.insert(owner.clone(), Arc::new(used));
    cluster.now = later(1_800);
    let before = cluster.subtree_usage(lab, later(5_000));
    let root = cluster.subtree_usage(AssocId::ROOT, later(5_000));
    cluster.leave_usage(alice, lab);
    assert!(cluster.accounts.stored_usage(&owner).is_none());
    assert_eq!(cluster.usage(&UsageOwner::Assoc(lab), later(5_000)), before);
    assert_eq!(cluster.subtree_usage(AssocId::ROOT, later(5_000)), root);
    assert!(before.tres[&TresKind::Cpu] > 0);
}

#[test]
fn a_qos_that_ceases_to_decay_keeps_what_it_has_then() {
    let mut cluster = running(3_600);
    let name = NORMAL_QOS;
    let owner = UsageOwner::Qos(name.into());
    suspend(&mut cluster, later(1_000), Some(later(1_000)));
    cluster.now = later(4_600);
    let then = cluster.usage(&owner, later(4_600));
    cluster.settle_qos(name);
    let mut qos = Qos::new(name, 1);
    qos.flags.insert(QosFlag::NoDecay);
    cluster.accounts.qos.insert(name.into(), Arc::new(qos));
    let (have, want) = (cluster.usage(&owner, later(90_000)).wall, then.wall);
    assert!(have.abs_diff(want) <= 2, "{have} {want}");
    assert_eq!(then.wall_mins(), 7);
}
