//! Which jobs may hold a CPU together, and whom does it keep waiting?

use penstock_core::command::{MAX_STARTS, Unit};
use penstock_core::model::{Oversubscribe, Partition, Scheduling};
use penstock_core::scheduler::{Limits, Memory, Plan, plan_with};
use penstock_core::{Command, Reply};
use penstock_vocab::{JobId, Timestamp};
use proptest::prelude::*;

use crate::common::{JobBuilder, World, job, partition_name, user, world};

fn forced(jobs: u32) -> impl FnOnce(&mut Partition) {
    move |partition| partition.oversubscribe = Oversubscribe { jobs, forced: true }
}

fn asked(jobs: u32) -> impl FnOnce(&mut Partition) {
    move |partition| partition.oversubscribe = Oversubscribe { jobs, forced: false }
}

fn in_order(scheduling: &mut Scheduling) {
    scheduling.backfill.depth = 64;
    scheduling.backfill.reserve_expansion = 0;
    scheduling.weights.fcfs = true;
}

fn small(cpus: u32, minutes: u64) -> JobBuilder {
    job().memory(1).minutes(minutes).shape(|shape| shape.cpus_per_task = Some(cpus))
}

fn sharing(cpus: u32, minutes: u64) -> JobBuilder {
    small(cpus, minutes).shape(|shape| shape.oversubscribe = true)
}

fn cpus_of(w: &World, id: JobId) -> Vec<usize> {
    w.job(id).active_run().map(|run| run.shares[0].cpus.ones().collect()).unwrap_or_default()
}

fn expected(w: &World, id: JobId) -> Option<Timestamp> {
    w.plan().expected(Unit::Job(id)).map(|expected| expected.start)
}

#[test]
fn a_partition_that_forces_it_gives_each_cpu_to_so_many_jobs() {
    let mut w = world().nodes(1).cpus(2).scheduling(in_order).main(forced(3)).build();
    let jobs: Vec<_> = (0..7).map(|_| w.submit(&small(1, 60))).collect();
    // CPUs of their own come first, then those that the fewest hold.
    assert_eq!(w.run_plan(), jobs[..6]);
    let cpus: Vec<_> = jobs[..6].iter().map(|id| cpus_of(&w, *id)[0]).collect();
    assert_eq!(cpus, [0, 1, 0, 1, 0, 1]);
    assert_eq!(w.cluster.node(w.index(1)).unwrap().1.cpu_count(), 2);
    w.running(jobs[3]);
    w.exit(jobs[3], 0);
    assert_eq!(w.run_plan(), [jobs[6]]);
    assert_eq!(cpus_of(&w, jobs[6]), [1]);
}

#[test]
fn where_it_is_a_wish_only_those_share_that_ask() {
    let mut w = world().nodes(1).cpus(2).scheduling(in_order).main(asked(2)).build();
    let alone = w.submit(&small(1, 60));
    let first = w.submit(&sharing(1, 60));
    let second = w.submit(&sharing(1, 60));
    let third = w.submit(&sharing(1, 60));
    let stranger = w.submit(&small(1, 60));
    assert_eq!(w.run_plan(), [alone, first, second]);
    assert_eq!(cpus_of(&w, first), cpus_of(&w, second));
    // The CPU of the one that did not ask is nobody else's, and it gets none that others hold.
    for id in [third, stranger] {
        assert!(cpus_of(&w, id).is_empty());
    }
    w.running(alone);
    w.exit(alone, 0);
    assert_eq!(w.run_plan(), [third]);
    assert_eq!(cpus_of(&w, third), [0]);
}

#[test]
fn a_whole_node_is_shared_with_nobody() {
    let mut w = world().nodes(1).cpus(2).scheduling(in_order).main(forced(2)).build();
    let whole = w.submit(&small(1, 60).shape(|shape| shape.exclusive = true));
    let next = w.submit(&small(1, 60));
    assert_eq!(w.run_plan(), [whole]);
    w.running(whole);
    w.exit(whole, 0);
    assert_eq!(w.run_plan(), [next]);
}

#[test]
fn memory_is_not_shared_and_without_a_request_it_is_a_part() {
    let mut w = world().nodes(1).cpus(4).memory(400).scheduling(in_order).main(forced(2)).build();
    let half = job().minutes(60).shape(|shape| shape.cpus_per_task = Some(4));
    let jobs: Vec<_> = (0..3).map(|_| w.submit(&half)).collect();
    assert_eq!(w.run_plan(), jobs[..2]);
    for id in &jobs[..2] {
        assert_eq!(w.job(*id).active_run().unwrap().shares[0].memory.0, 200);
    }
}

#[test]
fn a_place_that_was_promised_is_not_put_off_by_one_that_joins() {
    let own = |partition: &mut Partition| partition.nodes = None;
    let mut w =
        world().nodes(1).cpus(2).scheduling(in_order).main(forced(2)).partition("own", own).build();
    let running = w.submit(&small(2, 30));
    let wide = w.submit(&small(2, 30).partition(&["own"]));
    let long = w.submit(&small(1, 31));
    let short = w.submit(&small(1, 30));
    let start = w.now;
    assert_eq!(w.run_plan(), [running, short]);
    assert_eq!(expected(&w, wide), Some(start.plus_secs(30 * 60)));
    w.running(running);
    w.exit(running, 0);
    // The one that joined still holds a CPU of the first, until its limit and no longer.
    assert!(w.run_plan().is_empty());
    assert_eq!(expected(&w, wide), Some(start.plus_secs(30 * 60)));
    w.running(short);
    w.exit(short, 0);
    assert_eq!(w.run_plan(), [wide]);
    assert!(cpus_of(&w, long).is_empty());
    assert_eq!(w.job(wide).active_run().unwrap().partition, partition_name("own"));
}

#[test]
fn what_is_shared_survives_a_restart() {
    let mut w = world().nodes(1).cpus(1).scheduling(in_order).main(forced(2)).build();
    let jobs: Vec<_> = (0..3).map(|_| w.submit(&small(1, 60))).collect();
    assert_eq!(w.run_plan(), jobs[..2]);
    let restored = w.restored();
    let used = restored.node(w.index(1)).unwrap().1;
    assert_eq!((used.cpu_count(), used.joinable(2).count()), (1, 0));
    assert!(restored.check().is_empty());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Submit { partition: usize, cpus: u32, minutes: u64, asks: bool, uid: u32 },
    End(usize),
    Wait(u64),
    Plan,
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (0usize..3, 1u32..4, 1u64..9, any::<bool>(), 1u32..3).prop_map(
        |(partition, cpus, minutes, asks, uid)| Step::Submit {
            partition,
            cpus,
            minutes,
            asks,
            uid,
        },
    );
    prop_oneof![
        4 => submit,
        2 => (0usize..8).prop_map(Step::End),
        1 => (1u64..300).prop_map(Step::Wait),
        3 => Just(Step::Plan),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// `World::execute` counts the holders of each CPU without the help of what is tested; no
    /// line of a plan is refused when it is carried out.
    #[test]
    fn no_cpu_has_more_holders_than_its_partitions_let(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let names = ["main", "wish", "own"];
        let mut w = world()
            .nodes(2)
            .cpus(3)
            .scheduling(in_order)
            .main(forced(3))
            .partition("wish", |partition| {
                partition.nodes = None;
                partition.oversubscribe = Oversubscribe { jobs: 2, forced: false };
            })
            .partition("own", |partition| partition.nodes = None)
            .build();
        let mut memory = Memory::default();
        for step in steps {
            match step {
                Step::Submit { partition, cpus, minutes, asks, uid } => {
                    let one = if asks { sharing(cpus, minutes) } else { small(cpus, minutes) };
                    w.submit(&one.partition(&[names[partition]]).by(user(uid)));
                }
                Step::End(at) => {
                    if let Some(id) = w.active().get(at).copied() {
                        w.running(id);
                        w.exit(id, 0);
                    }
                }
                Step::Wait(secs) => w.wait(secs),
                Step::Plan => {
                    let first = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
                    for lines in first.starts.chunks(MAX_STARTS) {
                        let reply = w.execute(Command::Start(lines.to_vec())).unwrap().reply;
                        let all = matches!(reply, Reply::Started { refused: 0, .. });
                        prop_assert!(all, "{reply:?}");
                    }
                    let second = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
                    // Nobody who started moved a promise ahead of it later.
                    for job in w.cluster.jobs().filter(|job| job.is_pending()) {
                        let of = |plan: &Plan| Some(plan.expected(Unit::Job(job.id))?.start);
                        let (before, after) = (of(&first), of(&second));
                        // Who starts at the second plan could not at the first: by then somebody came whom
                        // it can join. It may take what was promised behind it, not ahead.
                        let starts = second.starts.iter().any(|line| line.unit.id() <= job.id);
                        let kept = before.is_none_or(|before| {
                            starts || after.is_some_and(|at| at <= before)
                        });
                        prop_assert!(kept, "{}: {before:?} became {after:?}", job.id);
                    }
                }
            }
        }
    }
}
