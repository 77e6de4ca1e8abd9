//! Is everybody charged for what they use, while they use it, and never twice?

use penstock_core::command::AttemptPhase;
use penstock_core::model::{
    AssocId, Association, DecayedUsage, NORMAL_QOS, Qos, QosFlag, UsageOwner,
};
use penstock_core::{Cluster, Command, RecordKey};
use penstock_vocab::{JobId, Timestamp, TresKind};
use proptest::prelude::*;

use crate::common::{JobBuilder, World, audit, job, world};

const ALICE: AssocId = AssocId(3);
const BOB: AssocId = AssocId(4);
const HOUR: u64 = 3_600;

/// A world with the account `lab` (2) of alice and bob, and the QOS `half` and `budget`.
fn accounts(half_life_secs: u32) -> World {
    let mut w =
        world().nodes(4).gpus(2).scheduling(|s| s.fairshare.half_life_secs = half_life_secs);
    w = w.partition("other", |p| p.qos = Some("budget".into()));
    let mut w = w.build();
    w.reload(4, |records| {
        let assocs = &mut records.accounts.assocs;
        assocs.push(Association::new(AssocId(2), "lab", None, Some(AssocId::ROOT)));
        assocs.push(Association::new(ALICE, "lab", Some("alice"), Some(AssocId(2))));
        assocs.push(Association::new(BOB, "lab", Some("bob"), Some(AssocId(2))));
        let mut half = Qos::new("half", 2);
        half.usage_factor = 500_000;
        let mut budget = Qos::new("budget", 3);
        budget.flags.insert(QosFlag::NoDecay);
        records.accounts.qos.extend([half, budget]);
    });
    w
}

/// Submits a job, makes it this association's, and starts it.
fn start(w: &mut World, assoc: AssocId, job: &JobBuilder) -> JobId {
    let id = w.submit(job);
    w.reload(4, |records| {
        let job = records.jobs.iter_mut().find(|job| job.id == id).unwrap();
        job.assoc = assoc;
    });
    assert_eq!(w.run_plan(), [id]);
    id
}

fn assoc(id: AssocId) -> UsageOwner {
    UsageOwner::Assoc(id)
}

fn qos(name: &str) -> UsageOwner {
    UsageOwner::Qos(name.into())
}

fn gpu() -> TresKind {
    "gres/gpu".parse().unwrap()
}

#[test]
fn a_job_is_charged_while_it_runs_and_nothing_is_written_meanwhile() {
    let mut w = accounts(0);
    let id = start(&mut w, ALICE, &job().tasks(3).memory(100).gres("gpu:1"));
    let stored = w.cluster.accounts().stored_usage(&assoc(ALICE)).cloned().unwrap();
    assert_eq!((stored.as_of, stored.wall), (w.now, 0));
    w.wait(10);
    let used = w.cluster.usage(&assoc(ALICE), w.now);
    let kinds = [TresKind::Cpu, TresKind::Mem, TresKind::Node, TresKind::Billing, gpu()];
    assert_eq!(kinds.map(|kind| used.secs(&kind)), [30, 1_000, 10, 30, 10]);
    assert_eq!(w.cluster.accounts().stored_usage(&assoc(ALICE)), Some(&stored));
    w.advance(50);
    w.exit(id, 0);
    w.advance(1_000);
    let used = w.cluster.usage(&assoc(ALICE), w.now);
    assert_eq!((used.secs(&TresKind::Cpu), used.wall_mins()), (180, 1));
    // The QOS is charged the same; nobody else is.
    assert_eq!(w.cluster.usage(&qos(NORMAL_QOS), w.now), used);
    assert_eq!(w.cluster.usage(&assoc(BOB), w.now).secs(&TresKind::Cpu), 0);
    assert_eq!(w.cluster.subtree_usage(AssocId(2), w.now), used);
    assert_eq!(w.cluster.subtree_usage(AssocId::ROOT, w.now), used);
}

#[test]
fn a_start_and_an_end_write_one_record_for_each_who_is_charged() {
    let mut w = accounts(60);
    let id = w.submit(&job());
    let charged = w.job(id).assoc;
    let lines = w.plan().starts;
    let changed = w.execute(Command::Start(lines)).unwrap().changed;
    let usage: Vec<_> =
        changed.iter().filter(|key| matches!(key, RecordKey::Usage(_))).cloned().collect();
    let want = [assoc(charged), qos(NORMAL_QOS)].map(RecordKey::Usage);
    assert_eq!(usage, want);
    // The launch changes no rate.
    let before = audit::dump(&w.cluster);
    w.running(id);
    let after = audit::dump(&w.cluster);
    for key in want {
        assert_eq!(before.get(&key), after.get(&key));
    }
}

#[test]
fn billing_follows_the_weights_at_the_start() {
    let mut w = accounts(0);
    let mut config = (**w.cluster.config()).clone();
    config.scheduling.fairshare.billing = [(TresKind::Cpu, 1_000_000), (gpu(), 10_000_000)].into();
    w.execute(Command::Configure(config.into())).unwrap();
    let id = start(&mut w, ALICE, &job().tasks(2).gres("gpu:2"));
    assert_eq!(w.job(id).active_run().unwrap().billing, 22);
    let mut config = (**w.cluster.config()).clone();
    config.scheduling.fairshare.billing.clear();
    w.execute(Command::Configure(config.into())).unwrap();
    w.advance(5);
    assert_eq!(w.cluster.usage(&assoc(ALICE), w.now).secs(&TresKind::Billing), 110);
    let billing = w.cluster.billing_usage(&assoc(ALICE), w.now);
    assert_eq!(penstock_core::policy::decay::whole_secs(billing), 110);
}

#[test]
fn typed_devices_count_under_both_names_and_licences_too() {
    let mut w = accounts(0);
    let id = start(&mut w, ALICE, &job().gres("gpu:2"));
    let mut typed = w.job(id).run.as_deref().unwrap().clone();
    typed.shares[0].gres[0].name = penstock_vocab::GresName::new("gpu", Some("h100")).unwrap();
    let spec = job().shape(|shape| shape.licenses = [("matlab".into(), 3)].into()).spec;
    let tres = Cluster::run_tres(&typed, &spec);
    assert_eq!(
        tres.to_string(),
        "billing=1,cpu=1,gres/gpu=2,gres/gpu:h100=2,license/matlab=3,mem=1000M,node=1"
    );
}

#[test]
fn a_factor_of_the_qos_holds_for_runs_that_start_under_it() {
    let mut w = accounts(0);
    start(&mut w, ALICE, &job().spec(|spec| spec.qos = "half".into()));
    w.advance(100);
    w.reload(4, |records| {
        let half = records.accounts.qos.iter_mut().find(|qos| &*qos.name == "half").unwrap();
        half.usage_factor = 0;
    });
    w.advance(100);
    for owner in [assoc(ALICE), qos("half")] {
        assert_eq!(w.cluster.usage(&owner, w.now).secs(&TresKind::Cpu), 100, "{owner:?}");
    }
    start(&mut w, BOB, &job().spec(|spec| spec.qos = "half".into()));
    w.advance(100);
    assert_eq!(w.cluster.usage(&assoc(BOB), w.now).secs(&TresKind::Cpu), 0);
}

#[test]
fn usage_halves_in_a_half_life_but_not_where_the_qos_keeps_it() {
    let mut w = accounts(3_600);
    let id = start(&mut w, ALICE, &job().partition(&["other"]));
    w.advance(1);
    w.exit(id, 0);
    w.advance(10 * HOUR);
    let after = |w: &World, owner: &UsageOwner| w.cluster.billing_usage(owner, w.now);
    let (one, kept) = (after(&w, &assoc(ALICE)), after(&w, &qos("budget")));
    w.advance(HOUR);
    assert!(after(&w, &assoc(ALICE)).abs_diff(one / 2) < 4, "{one}");
    assert_eq!(after(&w, &qos("budget")), kept);
    assert_eq!(w.cluster.usage(&qos("budget"), w.now).secs(&TresKind::Cpu), 1);
}

#[test]
fn a_partition_that_gets_a_qos_is_charged_to_it_from_then_on() {
    let mut w = accounts(0);
    start(&mut w, ALICE, &job());
    w.advance(10);
    let set = |w: &mut World, name: Option<&str>| {
        let mut config = (**w.cluster.config()).clone();
        config.partitions[0].qos = name.map(Into::into);
        w.execute(Command::Configure(config.into())).unwrap();
    };
    set(&mut w, Some("half"));
    w.advance(7);
    set(&mut w, None);
    w.advance(100);
    let cpu = |owner| w.cluster.usage(&owner, w.now).secs(&TresKind::Cpu);
    assert_eq!((cpu(assoc(ALICE)), cpu(qos("half"))), (117, 7));
}

#[test]
fn another_half_life_keeps_the_worth_of_what_was_used() {
    let mut w = accounts(3_600);
    let id = start(&mut w, ALICE, &job());
    w.advance(1_000);
    w.exit(id, 0);
    let before = w.cluster.billing_usage(&assoc(ALICE), w.now);
    for half_life in [0, 86_400, 10, 7 * 86_400] {
        let mut config = (**w.cluster.config()).clone();
        config.scheduling.fairshare.half_life_secs = half_life;
        w.execute(Command::Configure(config.into())).unwrap();
        let after = w.cluster.billing_usage(&assoc(ALICE), w.now);
        assert!(after.abs_diff(before) < 1_000, "{half_life}: {after} {before}");
    }
    // It is written by the new one when it next changes.
    start(&mut w, ALICE, &job());
    let stored = w.cluster.accounts().stored_usage(&assoc(ALICE)).unwrap();
    assert_eq!(stored.half_life_secs, 7 * 86_400);
}

#[test]
fn a_reset_leaves_nothing_but_what_is_kept() {
    let mut w = accounts(3_600);
    let id = start(&mut w, ALICE, &job().partition(&["other"]));
    w.advance(50);
    let changed = w.execute(Command::ResetUsage).unwrap().changed;
    assert_eq!(changed, [RecordKey::Counters]);
    let cpu = |w: &World, owner: &UsageOwner| w.cluster.usage(owner, w.now).secs(&TresKind::Cpu);
    assert_eq!((cpu(&w, &assoc(ALICE)), cpu(&w, &qos("budget"))), (0, 50));
    assert_eq!(cpu(&w, &qos(NORMAL_QOS)), 0);
    w.advance(20);
    w.exit(id, 0);
    let restored = w.restored();
    for cluster in [&w.cluster, &restored] {
        let cpu = |owner| cluster.usage(&owner, w.now).secs(&TresKind::Cpu);
        assert_eq!((cpu(assoc(ALICE)), cpu(qos("budget"))), (19, 70));
    }
}

#[test]
fn time_that_the_clock_stood_behind_counts_as_nothing() {
    let mut w = accounts(3_600);
    let id = start(&mut w, ALICE, &job());
    w.advance(100);
    // The newest pair lies ahead of the clock.
    let ahead = w.now.plus_secs(40);
    w.reload(4, |records| {
        for (_, usage) in &mut records.accounts.usage {
            *usage = DecayedUsage { as_of: ahead, ..DecayedUsage::default() };
        }
    });
    let cpu = |w: &World| w.cluster.usage(&assoc(ALICE), w.now).secs(&TresKind::Cpu);
    assert_eq!(cpu(&w), 0);
    w.advance(30);
    w.exit(id, 0);
    assert_eq!(cpu(&w), 0);
    w.advance(30);
    assert_eq!(cpu(&w), 0);
}

#[test]
fn a_requeued_run_is_charged_for_as_long_as_it_ran() {
    let mut w = accounts(0);
    let id = start(&mut w, ALICE, &job());
    w.advance(30);
    w.requeue(crate::common::admin(), penstock_core::command::Target::Job(id), false);
    w.advance(10);
    w.report(id, AttemptPhase::Ended(Box::default()));
    w.wait(1_000);
    let cpu = |w: &World| w.cluster.usage(&assoc(ALICE), w.now).secs(&TresKind::Cpu);
    assert_eq!(cpu(&w), 40);
    assert_eq!(w.run_plan(), [id]);
    w.advance(5);
    assert_eq!(cpu(&w), 45);
}

#[derive(Debug, Clone)]
enum Step {
    Start(bool, u32, bool),
    End(prop::sample::Index),
    Wait(u64),
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn usage_adds_up_and_a_restart_changes_no_bit(
        steps in prop::collection::vec(
            prop_oneof![
                3 => (any::<bool>(), 1..3u32, any::<bool>())
                    .prop_map(|(alice, tasks, half)| Step::Start(alice, tasks, half)),
                2 => any::<prop::sample::Index>().prop_map(Step::End),
                3 => (0..100_000u64).prop_map(Step::Wait),
                1 => Just(Step::Restart),
            ],
            1..25,
        ),
        half_life in prop_oneof![Just(0u32), Just(3_600), Just(86_400)],
    ) {
        let mut w = accounts(half_life);
        // Whose, CPUs times factor, from, to.
        let mut ran: Vec<(AssocId, JobId, f64, Timestamp, Option<Timestamp>)> = Vec::new();
        for step in steps {
            match step {
                Step::Start(alice, tasks, half) => {
                    let who = if alice { ALICE } else { BOB };
                    let job = job().tasks(tasks).memory(1);
                    let job = if half { job.spec(|s| s.qos = "half".into()) } else { job };
                    if w.active().len() >= 4 { continue; }
                    let id = start(&mut w, who, &job);
                    let rate = f64::from(tasks) * if half { 0.5 } else { 1.0 };
                    ran.push((who, id, rate, w.now, None));
                }
                Step::End(which) => {
                    let active = w.active();
                    if active.is_empty() { continue; }
                    let id = *which.get(&active);
                    w.exit(id, 0);
                    let run = ran.iter_mut().find(|run| run.1 == id).unwrap();
                    run.4 = Some(w.now);
                }
                Step::Wait(ms) => w.now = Timestamp(w.now.0 + i64::try_from(ms).unwrap()),
                Step::Restart => {
                    let (before, later) = (w.cluster.clone(), w.now.plus_secs(HOUR));
                    w.reload(4, |_| ());
                    for (owner, _) in before.accounts().all_usage() {
                        let again = w.cluster.usage(owner, later);
                        prop_assert_eq!(before.usage(owner, later), again);
                    }
                }
            }
        }
        for who in [ALICE, BOB] {
            let want: f64 = ran.iter().filter(|run| run.0 == who).map(|run| {
                integral(run.2, run.3, run.4.unwrap_or(w.now), w.now, half_life)
            }).sum();
            let used = w.cluster.usage(&assoc(who), w.now);
            let have = used.tres.get(&TresKind::Cpu).copied().unwrap_or(0);
            let have = float(have) / float(penstock_core::policy::decay::UNIT_MS);
            prop_assert!((have - want).abs() <= want.max(1.0) * 1e-9, "{have} {want}");
        }
        let later = w.now.plus_secs(HOUR);
        let restored = w.restored();
        for (owner, stored) in w.cluster.accounts().all_usage() {
            prop_assert_eq!(w.cluster.usage(owner, later), restored.usage(owner, later));
            prop_assert_eq!(Some(stored), restored.accounts().stored_usage(owner));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared with floats up to 1e-9")]
fn float(n: u128) -> f64 {
    n as f64
}

/// What a rate comes to in unit-milliseconds, as of `now`, in floating point.
fn integral(rate: f64, from: Timestamp, to: Timestamp, now: Timestamp, half_life: u32) -> f64 {
    let ms = |length: penstock_vocab::Millis| float(length.0.into());
    if half_life == 0 {
        return rate * ms(to.since(from));
    }
    let (half_life, ln2) = (f64::from(half_life) * 1_000.0, std::f64::consts::LN_2);
    let length = -f64::exp_m1(-ln2 * ms(to.since(from)) / half_life) * half_life / ln2;
    rate * length * f64::exp2(-ms(now.since(to)) / half_life)
}

#[test]
fn a_store_without_usage_begins_to_count_at_the_next_change() {
    let mut w = accounts(0);
    let id = start(&mut w, ALICE, &job());
    w.advance(100);
    w.reload(4, |records| records.accounts.usage.clear());
    w.advance(100);
    w.exit(id, 0);
    let used = w.cluster.usage(&assoc(ALICE), w.now);
    assert_eq!(used.secs(&TresKind::Cpu), 0);
}
