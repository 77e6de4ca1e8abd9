//! Whatever is submitted, started, ended, moved and changed in whatever order: no start and no
//! submission goes beyond a limit, the tree stays a tree, and what is counted is what is there. The
//! reference counts from the records of the jobs each time.

use std::collections::BTreeMap;

use penstock_core::accounts::{
    AccountChange, AssocSettings, EditMode, Limit, LimitEdit, MAX_ACCOUNT_CHANGES, QosSettings,
};
use penstock_core::command::{JobUpdate, StartLine, Target};
use penstock_core::model::{AssocId, Association, Enforcement, Job, Qos, QosFlag};
use penstock_core::{Cluster, Command};
use penstock_vocab::{JobId, PartitionName, TresKind, UserId, Walltime};
use proptest::prelude::*;

use crate::common::accounts::{
    account, add_user, list, member, place, qos, set_account, set_parent,
};
use crate::common::{World, admin, audit, job, partition_name, user, world};

const ACCOUNTS: [&str; 5] = ["root", "a", "b", "c", "d"];
const USERS: [&str; 3] = ["u0", "u1", "u2"];
const QOS: [&str; 3] = ["normal", "x", "part"];

#[derive(Debug, Clone)]
enum Step {
    Submit { user: u8, account: u8, qos: u8, tasks: u8, minutes: u8, array: u8, other: bool },
    Plan(bool),
    StalePlan,
    End(u8),
    Cancel(u32),
    Requeue(u32),
    Wait(u16),
    Update(u32, u8, u8),
    Change(Vec<AccountChange>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (b, n) = (any::<u8>(), any::<u32>());
    prop_oneof![
        6 => (b, b, b, b, 1..90u8, b, any::<bool>()).prop_map(
            |(user, account, qos, tasks, minutes, array, other)| Step::Submit {
                user, account, qos, tasks, minutes, array, other
            }
        ),
        5 => any::<bool>().prop_map(Step::Plan),
        3 => Just(Step::StalePlan),
        4 => b.prop_map(Step::End),
        1 => n.prop_map(Step::Cancel),
        1 => n.prop_map(Step::Requeue),
        2 => any::<u16>().prop_map(Step::Wait),
        1 => (n, b, b).prop_map(|(job, account, qos)| Step::Update(job, account, qos)),
        4 => prop::collection::vec(any_change(), 1..3).prop_map(Step::Change),
    ]
}

fn any_change() -> impl Strategy<Value = AccountChange> {
    let name = |names: &'static [&'static str]| prop::sample::select(names);
    let value = || prop_oneof![Just(None), (0..6u64).prop_map(Some)];
    prop_oneof![
        1 => (name(&ACCOUNTS), name(&ACCOUNTS)).prop_map(|(one, above)| account(one, above)),
        1 => (name(&ACCOUNTS), name(&ACCOUNTS)).prop_map(|(one, above)| set_parent(one, above)),
        1 => (name(&ACCOUNTS), name(&USERS)).prop_map(|(account, user)| member(account, user)),
        4 => (name(&ACCOUNTS), any_limit(), value()).prop_map(|(account, limit, value)| {
            set_account(account, one_limit(limit, value))
        }),
        2 => (name(&ACCOUNTS), name(&USERS), any_limit(), value()).prop_map(
            |(account, user, limit, value)| {
                AccountChange::ModifyAssoc(place(account, user), one_limit(limit, value))
            }
        ),
        3 => (name(&QOS), any_qos_limit(), value()).prop_map(|(name, limit, value)| {
            let limits = vec![LimitEdit { limit, value }];
            let settings = QosSettings { limits, ..QosSettings::default() };
            AccountChange::ModifyQos(name.into(), Box::new(settings))
        }),
        1 => (name(&ACCOUNTS), 0..3u8, name(&QOS)).prop_map(|(account, mode, qos)| {
            let mode = [EditMode::Set, EditMode::Add, EditMode::Remove][usize::from(mode)];
            let qos = Some(list(mode, &[qos]));
            set_account(account, AssocSettings { qos, ..AssocSettings::default() })
        }),
        1 => (name(&ACCOUNTS)).prop_map(|name| AccountChange::DeleteAccount(name.into())),
        1 => (name(&ACCOUNTS), name(&USERS)).prop_map(|(account, user)| {
            AccountChange::DeleteAssoc(place(account, user))
        }),
        1 => name(&USERS).prop_map(|name| AccountChange::DeleteUser(name.into())),
        1 => (0..3usize).prop_map(|n| add_user(USERS[n], 1000 + u32::try_from(n).unwrap())),
        1 => name(&QOS).prop_map(|name| AccountChange::DeleteQos(name.into())),
        1 => name(&QOS).prop_map(|name| qos(name, [])),
        1 => (name(&ACCOUNTS)).prop_map(|name| AccountChange::ResetAccountUsage(name.into())),
        1 => (name(&ACCOUNTS), name(&USERS)).prop_map(|(account, user)| {
            AccountChange::AddCoordinators(account.into(), vec![user.into()])
        }),
    ]
}

fn one_limit((limit, scale): (Limit, u64), value: Option<u64>) -> AssocSettings {
    let limits = vec![LimitEdit { limit, value: value.map(|value| value * scale) }];
    AssocSettings { limits, ..AssocSettings::default() }
}

/// Limits of associations that no QOS sets in this test.
fn any_limit() -> impl Strategy<Value = (Limit, u64)> {
    let cpu = TresKind::Cpu;
    prop::sample::select(vec![
        (Limit::GrpJobs, 1),
        (Limit::GrpSubmitJobs, 2),
        (Limit::MaxJobs, 1),
        (Limit::MaxSubmitJobs, 2),
        (Limit::GrpTres(cpu.clone()), 2),
        (Limit::GrpTresRunMins(cpu.clone()), 60),
        (Limit::GrpTresMins(cpu), 60),
        (Limit::MaxWall, 20),
    ])
}

fn any_qos_limit() -> impl Strategy<Value = Limit> {
    prop::sample::select(vec![
        Limit::GrpTres(TresKind::Node),
        Limit::MaxTresPerUser(TresKind::Cpu),
        Limit::MaxTresPerAccount(TresKind::Node),
        Limit::MaxJobsPerAccount,
        Limit::MaxSubmitJobsPerAccount,
    ])
}

fn start() -> World {
    let mut w = world()
        .nodes(3)
        .partition("other", |p| p.qos = Some("part".into()))
        .scheduling(|s| s.enforce = Enforcement::None)
        .build();
    w.change(vec![account("a", ""), account("b", "a"), qos("x", []), qos("part", [])]).unwrap();
    w
}

fn act(w: &mut World, step: Step, old: &mut Vec<StartLine>) {
    let id = |w: &World, n: u32| JobId(n % w.cluster.next_job_id().max(2));
    match step {
        Step::Submit { user: who, account, qos, tasks, minutes, array, other } => {
            let name = |names: &[&str], n: u8| -> Box<str> {
                names.get(usize::from(n) % (names.len() + 1)).copied().unwrap_or("").into()
            };
            let mut request = job()
                .by(user(1000 + u32::from(who % 3)))
                .tasks(u32::from(tasks % 4) + 1)
                .minutes(minutes.into())
                .spec(|s| {
                    s.account = name(&ACCOUNTS, account);
                    s.qos = name(&QOS, qos);
                });
            if array.is_multiple_of(4) {
                request = request.array(0, u32::from(array) / 64, 0);
            }
            if other {
                request = request.partition(&["other"]);
            }
            drop(w.try_submit(&request));
        }
        Step::Plan(at_once) => {
            *old = w.plan().starts;
            if at_once {
                w.run_plan();
            }
        }
        Step::StalePlan => {
            let lines = old.iter().take(40).cloned().collect();
            w.execute(Command::Start(lines)).unwrap();
        }
        Step::End(n) => {
            let active = w.active();
            if let Some(id) = active.get(usize::from(n) % active.len().max(1)) {
                w.exit(*id, n % 2);
            }
        }
        Step::Cancel(n) => drop(w.cancel(admin(), Target::Id(id(w, n)))),
        Step::Requeue(n) => drop(w.requeue(admin(), Target::Id(id(w, n)), false)),
        Step::Wait(secs) => w.wait(u64::from(secs) / 32),
        Step::Update(n, account, qos) => {
            let update = JobUpdate {
                account: ACCOUNTS.get(usize::from(account) % 7).map(|name| (*name).into()),
                qos: QOS.get(usize::from(qos) % 4).map(|name| (*name).into()),
                partitions: (qos > 200).then(|| vec![partition_name("other")]),
                ..JobUpdate::default()
            };
            if update != JobUpdate::default() {
                w.update(admin(), Target::Id(id(w, n)), update);
            }
        }
        Step::Change(changes) => drop(w.change(changes)),
    }
}

/// What a limit names, and whose use it limits.
type Key = (String, &'static str);

/// Everything that is in use and limited, counted the slow way: value and limit.
fn in_use(cluster: &Cluster) -> BTreeMap<Key, (u64, u64)> {
    let mut found = BTreeMap::new();
    for assoc in cluster.accounts().all_assocs() {
        count_assoc(cluster, assoc, &mut found);
    }
    for qos in cluster.accounts().all_qos() {
        count_qos(cluster, qos, &mut found);
    }
    found
}

/// A job, or so many waiting tasks: who, in which partition's name, what it holds.
struct Counted<'a> {
    assoc: AssocId,
    uid: UserId,
    account: &'a str,
    qos: &'a str,
    partition: PartitionName,
    jobs: u64,
    run: Option<(u64, u64, u64)>,
}

fn live(cluster: &Cluster) -> Vec<Counted<'_>> {
    let first = |spec: &penstock_core::model::JobSpec| {
        let named = spec.partitions.first().cloned();
        named.unwrap_or_else(|| partition_name("main"))
    };
    let jobs = cluster.jobs().filter(|job| !job.is_over()).map(|job: &std::sync::Arc<Job>| {
        let run = job.active_run().map(|run| {
            let nodes = u64::try_from(run.shares.len()).unwrap();
            let limit = job.time_limit.as_secs().unwrap_or(365 * 86_400);
            let end = run.start_time.plus_secs(limit);
            let left = end.since(cluster.now()).0;
            (u64::from(run.cpu_count()), nodes, u64::from(run.cpu_count()) * left)
        });
        let of_run = job.active_run().map(|run| run.partition.clone());
        Counted {
            assoc: job.assoc,
            uid: job.uid,
            account: &job.spec.account,
            qos: &job.spec.qos,
            partition: of_run.unwrap_or_else(|| first(&job.spec)),
            jobs: 1,
            run,
        }
    });
    let arrays = cluster.arrays().map(|array| Counted {
        assoc: array.assoc,
        uid: array.uid,
        account: &array.spec.account,
        qos: &array.spec.qos,
        partition: first(&array.spec),
        jobs: array.pending.len(),
        run: None,
    });
    jobs.chain(arrays).collect()
}

fn count_assoc(cluster: &Cluster, assoc: &Association, found: &mut BTreeMap<Key, (u64, u64)>) {
    let name = format!("{:?} {:?}", assoc.account, assoc.user);
    let below = |id: AssocId| {
        let mut at = cluster.accounts().assoc(id);
        while let Some(level) = at {
            if level.id == assoc.id {
                return true;
            }
            at = level.parent.and_then(|parent| cluster.accounts().assoc(parent));
        }
        false
    };
    let all = live(cluster);
    let mine: Vec<_> = all.iter().filter(|one| below(one.assoc)).collect();
    let running: Vec<_> = mine.iter().filter_map(|one| one.run).collect();
    let queued: u64 = mine.iter().map(|one| one.jobs).sum();
    let runs = u64::try_from(running.len()).unwrap();
    let cpus: u64 = running.iter().map(|run| run.0).sum();
    let run_ms: u64 = running.iter().map(|run| run.2).sum();
    let mut note = |what, value: u64, limit: Option<u64>| {
        if let Some(limit) = limit {
            found.insert((name.clone(), what), (value, limit));
        }
    };
    let group = &assoc.group;
    note("GrpJobs", runs, group.jobs.map(u64::from));
    note("GrpSubmitJobs", queued, group.submit_jobs.map(u64::from));
    note("GrpTRES cpu", cpus, group.tres.get(&TresKind::Cpu).copied());
    let mins = group.tres_run_mins.get(&TresKind::Cpu);
    note("GrpTRESRunMins cpu", run_ms, mins.map(|mins| mins * 60_000));
    if assoc.user.is_some() {
        // The nearest one that sets it.
        let mut at = Some(assoc);
        let (mut jobs, mut submits) = (None, None);
        while let Some(level) = at {
            jobs = jobs.or(level.each.jobs);
            submits = submits.or(level.each.submit_jobs);
            at = level.parent.and_then(|id| cluster.accounts().assoc(id)).map(|level| &**level);
        }
        note("MaxJobs", runs, jobs.map(u64::from));
        note("MaxSubmitJobs", queued, submits.map(u64::from));
    }
}

fn count_qos(cluster: &Cluster, qos: &Qos, found: &mut BTreeMap<Key, (u64, u64)>) {
    let all = live(cluster);
    let in_it = |one: &&Counted<'_>| {
        let of_partition = cluster.partition(&one.partition).and_then(|p| p.qos.as_deref());
        *one.qos == *qos.name || of_partition == Some(&*qos.name)
    };
    let mine: Vec<_> = all.iter().filter(in_it).collect();
    let mut note = |who: String, what, value: u64, limit: Option<u64>| {
        if let Some(limit) = limit {
            found.insert((format!("QOS {} {who}", qos.name), what), (value, limit));
        }
    };
    // A limit that an earlier place sets is not looked at here.
    let bound = |one: &Counted<'_>, sets: &dyn Fn(&Qos) -> bool| {
        let named = |name: &str| cluster.accounts().qos(name).map(|qos| &**qos);
        let own = named(one.qos);
        let of_partition = cluster.partition(&one.partition).and_then(|p| named(p.qos.as_deref()?));
        let over = own.is_some_and(|own| own.has(QosFlag::OverPartQos));
        let (first, second) = if over { (own, of_partition) } else { (of_partition, own) };
        let is_second = second.is_some_and(|second| second.name == qos.name);
        !(is_second && first.is_some_and(|first| first.name != qos.name && sets(first)))
    };
    let node = TresKind::Node;
    let sets = |qos: &Qos| qos.group.tres.contains_key(&TresKind::Node);
    let bounded = mine.iter().filter(|one| bound(one, &sets));
    let nodes: u64 = bounded.filter_map(|one| one.run).map(|run| run.1).sum();
    note(String::new(), "GrpTRES node", nodes, qos.group.tres.get(&node).copied());
    let sets = |qos: &Qos| qos.per_user.tres.contains_key(&TresKind::Cpu);
    for uid in mine.iter().map(|one| one.uid) {
        let of = mine.iter().filter(|one| one.uid == uid && bound(one, &sets));
        let cpus = of.filter_map(|one| one.run);
        let limit = qos.per_user.tres.get(&TresKind::Cpu).copied();
        note(format!("uid {uid}"), "MaxTRESPU cpu", cpus.map(|run| run.0).sum(), limit);
    }
    for account in mine.iter().map(|one| one.account) {
        let of = |sets: &dyn Fn(&Qos) -> bool| -> Vec<_> {
            let of = mine.iter().filter(|one| one.account == account);
            of.filter(|one| bound(one, sets)).collect()
        };
        let (who, each) = (format!("account {account}"), &qos.per_account);
        let runs = of(&|qos: &Qos| qos.per_account.tres.contains_key(&TresKind::Node));
        let nodes = runs.iter().filter_map(|one| one.run).map(|run| run.1).sum();
        note(who.clone(), "MaxTRESPA node", nodes, each.tres.get(&node).copied());
        let runs = of(&|qos: &Qos| qos.per_account.jobs.is_some());
        let count = runs.iter().filter(|one| one.run.is_some()).count();
        let count = u64::try_from(count).unwrap();
        note(who.clone(), "MaxJobsPA", count, each.jobs.map(u64::from));
        let queued = of(&|qos: &Qos| qos.per_account.submit_jobs.is_some());
        let queued = queued.iter().map(|one| one.jobs).sum();
        note(who, "MaxSubmitPA", queued, each.submit_jobs.map(u64::from));
    }
}

/// Nothing that is limited grew beyond its limit.
fn limits_hold(cluster: &Cluster, before: &BTreeMap<Key, (u64, u64)>, step: &str) {
    for (key, (value, limit)) in in_use(cluster) {
        let had = before.get(&key).map_or(0, |(value, _)| *value);
        assert!(value <= limit.max(had), "{key:?} is {value}, may be {limit}, after {step}");
    }
}

/// Every record that another names exists.
fn names_exist(cluster: &Cluster) {
    let accounts = cluster.accounts();
    for assoc in accounts.all_assocs() {
        assert!(accounts.account(&assoc.account).is_some(), "{assoc:?}");
        assert!(assoc.user.as_ref().is_none_or(|user| accounts.user(user).is_some()), "{assoc:?}");
        let named = assoc.qos.iter().flatten().chain(&assoc.default_qos);
        assert!(named.into_iter().all(|qos| accounts.qos(qos).is_some()), "{assoc:?}");
    }
    for account in accounts.all_accounts() {
        assert!(accounts.account_assoc(&account.name).is_some(), "{account:?}");
        assert!(account.coordinators.iter().all(|user| accounts.user(user).is_some()));
    }
    // What ended may be requeued although its account is gone.
    for job in cluster.jobs().filter(|job| !job.is_over() && job.restarts == 0) {
        assert!(accounts.assoc(job.assoc).is_some(), "job {} lost its association", job.id);
    }
}

proptest! {
    #[test]
    fn no_interleaving_goes_beyond_a_limit(steps in prop::collection::vec(any_step(), 1..100)) {
        let mut w = start();
        let mut old = Vec::new();
        for step in steps {
            // Lowered limits and moved accounts don't touch what runs; a requeue of what ended is
            // no submission.
            let grows = matches!(step, Step::Change(_) | Step::Requeue(_));
            let text = format!("{step:?}");
            let before = in_use(&w.cluster);
            act(&mut w, step, &mut old);
            if !grows {
                limits_hold(&w.cluster, &before, &text);
            }
            names_exist(&w.cluster);
        }
        let restored = w.restored();
        prop_assert_eq!(restored.check(), vec![]);
        prop_assert_eq!(audit::dump(&restored), audit::dump(&w.cluster));
        prop_assert_eq!(restored.limits(), w.cluster.limits());
        // The dump makes the same tree.
        let dump = w.cluster.accounts().dump();
        let mut fresh = start();
        fresh.cluster = Cluster::new(w.cluster.config().clone(), w.now);
        for part in dump.chunks(MAX_ACCOUNT_CHANGES) {
            fresh.change(part.to_vec()).unwrap();
        }
        prop_assert_eq!(fresh.cluster.accounts().dump(), dump);
    }
}

#[test]
fn a_year_counts_for_a_job_without_a_limit() {
    let mut w = start();
    let run_mins = Limit::GrpTresRunMins(TresKind::Cpu);
    let limits = vec![LimitEdit { limit: run_mins, value: Some(365 * 24 * 60) }];
    w.change(vec![set_account("a", AssocSettings { limits, ..AssocSettings::default() })]).unwrap();
    let request = job().spec(|s| {
        s.account = "a".into();
        s.time_limit = Some(Walltime::Unlimited);
    });
    let first = w.submit(&request);
    w.submit(&request);
    assert_eq!(w.run_plan(), [first]);
}
