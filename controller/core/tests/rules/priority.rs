//! Is the priority the sum of its factors, as Slurm's formula has them?

use penstock_core::Command;
use penstock_core::command::{JobUpdate, Target, Unit};
use penstock_core::model::{AssocId, Association, Hold, Qos, Scheduling, UsageOwner, Weights};
use penstock_core::policy::{FairShare, PriorityInputs, Scale};
use penstock_vocab::{JobId, Mib, Timestamp, TresKind, Walltime};
use proptest::prelude::*;

use crate::common::accounts::{account, add_user, member};
use crate::common::{JobBuilder, World, admin, job, user, world};

/// No weight at all, no base.
fn nothing() -> Weights {
    Weights {
        fcfs: false,
        age: 0,
        max_age_secs: 7 * 86_400,
        fairshare: 0,
        job_size: 0,
        favor_small: false,
        partition: 0,
        qos: 0,
        assoc: 0,
        tres: std::collections::BTreeMap::new(),
        expansion: 0,
        expansion_cap: 100,
        small_area: 0,
        base: 0,
    }
}

fn with(weights: Weights) -> impl FnOnce(&mut Scheduling) {
    move |scheduling| scheduling.weights = weights
}

fn scale(w: &World) -> (FairShare, Scale) {
    let fair = FairShare::new(&w.cluster, w.now);
    let scale = Scale::new(&w.cluster, &fair, w.now);
    (fair, scale)
}

fn inputs(w: &World, id: JobId) -> PriorityInputs {
    scale(w).1.prepare(&w.cluster, Unit::Job(id)).unwrap()
}

fn priority(w: &World, id: JobId) -> u32 {
    scale(w).1.priority(&inputs(w, id))
}

/// The priority of a job under these weights, after so many seconds.
fn of(weights: Weights, job: &JobBuilder, secs: u64) -> u32 {
    let mut w = entered(weights);
    let id = w.submit(job);
    w.advance(secs);
    priority(&w, id)
}

/// Four nodes, and one user whom somebody has entered.
fn entered(weights: Weights) -> World {
    let mut w = world().nodes(4).scheduling(with(weights)).build();
    w.change(vec![account("lab", "root"), add_user("1000", 1000), member("lab", "1000")]).unwrap();
    w
}

#[test]
fn shares_that_nobody_gave_count_for_nothing() {
    let weights = Weights { fairshare: 10_000, ..nothing() };
    let mut w = world().nodes(4).scheduling(with(weights.clone())).build();
    let id = w.submit(&job());
    assert_eq!(priority(&w, id), 1);
    let mut w = entered(weights);
    let id = w.submit(&job());
    assert_eq!(priority(&w, id), 10_000);
}

#[test]
fn slurms_observed_priorities_come_out() {
    let weights = Weights {
        age: 1_000,
        fairshare: 10_000,
        job_size: 100,
        partition: 1_000,
        qos: 1_000,
        ..nothing()
    };
    // 4 nodes x 4 CPUs, one partition, a QOS of priority 0, the only user.
    assert_eq!(of(weights.clone(), &job(), 0), 11_015);
    assert_eq!(of(weights.clone(), &job().nodes(2).tasks(3), 0), 11_034);
    // More CPUs than there are: the whole of the factor.
    let mut w = entered(weights);
    let id = w.submit(&job());
    w.reload(4, |records| {
        let job = &mut records.jobs[0];
        let mut spec = (*job.spec).clone();
        std::sync::Arc::make_mut(&mut spec.shape).ntasks = Some(100);
        job.spec = spec.into();
    });
    assert_eq!(priority(&w, id), 11_100);
}

#[test]
fn each_factor_gives_its_weight_times_its_part() {
    let day = 86_400;
    let hour = job().minutes(60);
    let limited = |secs| job().spec(|spec| spec.time_limit = Some(Walltime::Limited(secs)));
    let table: [(Weights, JobBuilder, u64, u32); 18] = [
        // Nothing at all is still 1.
        (nothing(), job(), 0, 1),
        (Weights { base: 500, ..nothing() }, job(), 9 * day, 500),
        (Weights { base: 500, ..nothing() }, job().spec(|s| s.nice = 100), 0, 400),
        (Weights { base: 500, ..nothing() }, job().spec(|s| s.nice = 2_000), 0, 1),
        (Weights { base: 500, ..nothing() }, job().by(admin()).spec(|s| s.nice = -7), 0, 507),
        (Weights { age: 7_000, ..nothing() }, job(), day, 1_000),
        (Weights { age: 7_000, ..nothing() }, job(), 8 * day, 7_000),
        (Weights { age: 7_000, max_age_secs: 0, ..nothing() }, job(), 1, 7_000),
        (Weights { job_size: 1_000, ..nothing() }, job().nodes(4).tasks(16), 0, 1_000),
        (Weights { job_size: 1_600, favor_small: true, ..nothing() }, job(), 0, 1_350),
        // (wait + limit) / limit, capped at 10, over 10.
        (Weights { expansion: 1_000, expansion_cap: 10, ..nothing() }, hour.clone(), 0, 100),
        (Weights { expansion: 1_000, expansion_cap: 10, ..nothing() }, hour.clone(), 3_600, 200),
        (Weights { expansion: 1_000, expansion_cap: 10, ..nothing() }, hour, day, 1_000),
        (Weights { expansion: 1_000, expansion_cap: 10, ..nothing() }, job(), day, 100),
        // 2^12 and 2^15 of 2^40 CPU-seconds; halfway between 2^6 and 2^7 on a line; no limit.
        (Weights { small_area: 4_000, ..nothing() }, limited(4_096), 0, 2_800),
        (Weights { small_area: 4_000, ..nothing() }, limited(4_096).tasks(8), day, 2_500),
        (Weights { small_area: 4_000, ..nothing() }, limited(96), 0, 3_350),
        (Weights { small_area: 4_000, ..nothing() }, job(), 0, 1),
    ];
    for (weights, job, secs, want) in table {
        assert_eq!(of(weights.clone(), &job, secs), want, "{weights:?} {secs}");
    }
}

#[test]
fn partitions_weigh_by_the_highest_factor() {
    let weights = Weights { partition: 1_000, ..nothing() };
    let mut w =
        world().scheduling(with(weights)).partition("high", |p| p.priority_job_factor = 4).build();
    let low = w.submit(&job());
    let high = w.submit(&job().partition(&["high"]));
    let both = w.submit(&job().partition(&["main", "high"]));
    assert_eq!([low, high, both].map(|id| priority(&w, id)), [250, 1_000, 1_000]);
}

#[test]
fn resources_weigh_by_their_part_of_the_partition() {
    let tres = [(TresKind::Cpu, 1_000), (TresKind::Mem, 100), ("gres/gpu".parse().unwrap(), 10)];
    let weights = Weights { tres: tres.into(), ..nothing() };
    let mut w = world().nodes(4).gpus(2).scheduling(with(weights)).build();
    // 16 CPUs, 16,000 MiB, 8 GPUs.
    let id = w.submit(&job().tasks(4).memory(4_000).gres("gpu:2"));
    assert_eq!(priority(&w, id), 250 + 25 + 2);
    let (fair, scale) = scale(&w);
    let factors = scale.factors(&w.cluster, &fair, Unit::Job(id)).unwrap();
    let points: Vec<_> =
        factors.tres.iter().map(|(kind, f)| (kind.to_string(), f.points())).collect();
    let want = [("cpu", 250), ("mem", 25), ("gres/gpu", 2)];
    assert_eq!(points, want.map(|(kind, points)| (kind.to_owned(), points)));
    assert!(factors.tres.iter().all(|(_, factor)| factor.millionths == 250_000));
}

/// alice (2) has used nothing, bob (3) something; QOS `high` of priority 40, `low` of 10.
fn accounts(weights: Weights) -> World {
    let mut w = world().nodes(4).scheduling(with(weights)).build();
    w.reload(4, |records| {
        for (id, name, priority) in [(2, "alice", 5), (3, "bob", 20)] {
            let mut assoc = Association::new(AssocId(id), "root", Some(name), Some(AssocId::ROOT));
            assoc.priority = priority;
            records.accounts.assocs.push(assoc);
        }
        for (name, id, priority) in [("high", 2, 40), ("low", 3, 10)] {
            let mut qos = Qos::new(name, id);
            qos.priority = priority;
            records.accounts.qos.push(qos);
        }
        let used = [(TresKind::Billing, 1 << 90)].into();
        let used = penstock_core::model::DecayedUsage {
            as_of: Timestamp(1),
            tres: used,
            ..Default::default()
        };
        records.accounts.usage.push((UsageOwner::Assoc(AssocId(3)), used));
    });
    w
}

fn submit_as(w: &mut World, assoc: u32, job: &JobBuilder) -> JobId {
    let id = w.submit(job);
    w.reload(4, |records| {
        records.jobs.iter_mut().find(|job| job.id == id).unwrap().assoc = AssocId(assoc);
    });
    id
}

#[test]
fn fair_share_association_and_qos_count() {
    let in_qos = |name: &str| job().spec(|spec| spec.qos = name.into());
    let mut w = accounts(Weights { fairshare: 1_000, ..nothing() });
    let jobs = [1, 2, 3].map(|assoc| submit_as(&mut w, assoc, &job()));
    assert_eq!(jobs.map(|id| priority(&w, id)), [1_000, 1_000, 333]);
    let mut w = accounts(Weights { assoc: 1_000, ..nothing() });
    let jobs = [1, 2, 3].map(|assoc| submit_as(&mut w, assoc, &job()));
    assert_eq!(jobs.map(|id| priority(&w, id)), [1, 250, 1_000]);
    let mut w = accounts(Weights { qos: 1_000, ..nothing() });
    let jobs = ["", "low", "high"].map(|name| submit_as(&mut w, 2, &in_qos(name)));
    assert_eq!(jobs.map(|id| priority(&w, id)), [1, 250, 1_000]);
}

#[test]
fn fixed_wins_and_held_is_nothing() {
    let mut w = world().scheduling(with(Weights { base: 900, ..nothing() })).build();
    let id = w.submit(&job());
    w.update(admin(), Target::Job(id), JobUpdate { priority: Some(7), ..JobUpdate::default() });
    assert_eq!(priority(&w, id), 7);
    w.execute(Command::SetHold(admin(), vec![Target::Job(id)], Hold::User)).unwrap();
    assert_eq!(priority(&w, id), 0);
    let (fair, scale) = scale(&w);
    let factors = scale.factors(&w.cluster, &fair, Unit::Job(id)).unwrap();
    assert!(factors.held);
    assert_eq!((factors.fixed, factors.priority), (Some(7), 0));
    w.execute(Command::SetHold(admin(), vec![Target::Job(id)], Hold::None)).unwrap();
    assert_eq!(priority(&w, id), 7);
    w.run_plan();
    assert_eq!(scale.prepare(&w.cluster, Unit::Job(id)), None);
}

#[test]
fn age_counts_only_while_a_job_could_run() {
    // A point for each second.
    let weights = Weights { age: 1_000_000, max_age_secs: 1_000_000, ..nothing() };
    let mut w = world().scheduling(with(weights)).build();
    let begin = w.now.plus_secs(100);
    let late = w.submit(&job().spec(|spec| spec.begin_time = begin));
    let held = w.submit(&job().spec(|spec| spec.hold = true));
    let first = w.submit(&job());
    let after = w.submit(&job().after(&format!("afterok:{first}")));
    let delayed = w.submit(&job().after(&format!("after:{first}+2")));
    assert_eq!(w.run_plan(), [first]);
    w.wait(50);
    assert_eq!([late, after, delayed].map(|id| priority(&w, id)), [1, 1, 1]);
    w.execute(Command::SetHold(user(1000), vec![Target::Job(held)], Hold::None)).unwrap();
    w.wait(100);
    w.exit(first, 0);
    w.wait(10);
    let ages = [late, held, after, delayed].map(|id| priority(&w, id));
    assert_eq!(ages, [60, 110, 10, 40]);
    w.run_plan();
    assert_eq!(w.job(after).eligible_time, Some(w.now.minus_secs(10)));
    assert_eq!(w.job(late).eligible_time, Some(begin));
}

#[test]
fn first_come_first_served_looks_at_no_weight() {
    let weights = Weights { fcfs: true, ..Weights::default() };
    let base = weights.base;
    assert_eq!(of(weights.clone(), &job().spec(|s| s.nice = 50).minutes(1), 90_000), base);
    assert_eq!(of(Weights { base: 0, ..weights }, &job(), 0), 1);
}

#[test]
fn jobs_of_equal_users_keep_the_order_of_submission() {
    let mut w = world().build();
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(w.submit(&job().minutes(60)));
        w.advance(37);
    }
    w.advance(10_000);
    let priorities: Vec<_> = jobs.iter().map(|id| priority(&w, *id)).collect();
    assert!(priorities.is_sorted_by(|a, b| a >= b), "{priorities:?}");
    assert!(priorities[0] > priorities[19]);
}

#[test]
fn inputs_outlive_a_scale_of_the_same_basis() {
    let mut w = world().build();
    let id = w.submit(&job());
    let old = scale(&w).1;
    let kept = inputs(&w, id);
    w.advance(5_000);
    let new = scale(&w).1;
    assert!(new.same_basis(&old));
    assert_eq!(new.priority(&kept), priority(&w, id));
    assert!(new.priority(&kept) > old.priority(&kept));
    let mut config = (**w.cluster.config()).clone();
    config.scheduling.weights.base += 1;
    w.execute(Command::Configure(config.into())).unwrap();
    assert!(!scale(&w).1.same_basis(&new));
}

#[test]
fn arrays_have_a_priority_too() {
    let mut w = world().scheduling(with(Weights { base: 90, ..nothing() })).build();
    let id = w.submit(&job().array(0, 9, 0));
    let (fair, scale) = scale(&w);
    let unit = Unit::Array(id);
    assert_eq!(scale.priority(&scale.prepare(&w.cluster, unit).unwrap()), 90);
    assert_eq!(scale.factors(&w.cluster, &fair, unit).unwrap().priority, 90);
    assert_eq!(scale.prepare(&w.cluster, Unit::Array(JobId(99))), None);
}

fn any_weights() -> impl Strategy<Value = Weights> {
    let weight = prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()];
    (prop::collection::vec(weight, 11), any::<bool>()).prop_map(|(w, favor_small)| Weights {
        fcfs: false,
        age: w[0],
        max_age_secs: w[1],
        fairshare: w[2],
        job_size: w[3],
        favor_small,
        partition: w[4],
        qos: w[5],
        assoc: w[6],
        tres: [(TresKind::Cpu, w[7]), (TresKind::Billing, w[7]), (TresKind::Mem, w[7])].into(),
        expansion: w[8],
        expansion_cap: w[9],
        small_area: w[10],
        base: w[9],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_the_sum_of_its_factors_and_never_overflows(
        weights in any_weights(),
        nice in any::<i32>(),
        limit in prop_oneof![Just(None), (1..u64::MAX).prop_map(Some)],
        wait in any::<i64>(),
        tasks in 1..16u32,
    ) {
        let mut w = accounts(weights.clone());
        let spec = job().by(admin()).tasks(tasks).memory(100).spec(|spec| {
            spec.nice = nice;
            spec.qos = "low".into();
        });
        let id = submit_as(&mut w, 3, &spec);
        w.reload(4, |records| {
            records.jobs[0].time_limit = limit.map_or(Walltime::Unlimited, Walltime::Limited);
        });
        w.now = Timestamp(wait);
        let (fair, scale) = scale(&w);
        let factors = scale.factors(&w.cluster, &fair, Unit::Job(id)).unwrap();
        let tres = factors.tres.iter().map(|(_, factor)| factor);
        let all = [
            &factors.age, &factors.assoc, &factors.fairshare, &factors.job_size,
            &factors.partition, &factors.qos, &factors.expansion, &factors.small_area,
        ];
        let all: Vec<_> = all.into_iter().chain(tres).collect();
        prop_assert!(all.iter().all(|factor| factor.millionths <= 1_000_000));
        let sum: i128 = all.iter().map(|factor| i128::from(factor.micro_points)).sum();
        let want = (i128::from(weights.base) * 1_000_000 + sum).div_euclid(1_000_000)
            - i128::from(nice);
        let want = u32::try_from(want.clamp(1, u32::MAX.into())).unwrap();
        prop_assert_eq!(factors.priority, want);
        prop_assert_eq!(scale.priority(&scale.prepare(&w.cluster, Unit::Job(id)).unwrap()), want);
    }
}

#[test]
fn memory_that_nobody_stated_follows_the_partition() {
    let weights = Weights { tres: [(TresKind::Mem, 16_000)].into(), ..nothing() };
    let mut w = world()
        .nodes(4)
        .scheduling(with(weights))
        .main(|p| p.def_mem_per_cpu = Some(Mib(250)))
        .build();
    let id = w.submit(&job().tasks(2));
    assert_eq!(priority(&w, id), 500);
}
