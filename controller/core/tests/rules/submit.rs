//! What is refused at submission, and in which words? What is accepted, and in which order does it go?

use penstock_core::command::{Target, Unit};
use penstock_core::model::{Hold, PartitionState};
use penstock_core::{Command, Reply};
use penstock_vocab::{JobId, JobState, Mib, PartitionName, Timestamp};

use crate::common::{JobBuilder, World, admin, asking, job, user, world};

fn refused(world: &mut World, job: &JobBuilder) -> String {
    world.try_submit(job).unwrap_err().to_string()
}

#[test]
fn requests_that_can_never_be_met_say_what_there_is() {
    let mut w = world().nodes(2).cpus(4).memory(4_000).gpus(2).build();
    let cases = [
        (job().tasks(9), "needs 9 CPUs; partition main has 2 nodes with 8 CPUs"),
        (job().nodes(3), "needs 3 CPUs, 3 nodes; partition main has 2 nodes"),
        (job().memory(4_001), "of memory a node; partition main has 2 nodes"),
        (job().gres("gpu:3"), "; 4 gpu in all, 2 on one node"),
        (job().gres("fpga:1"), "no node has the generic resource fpga"),
        (job().constraint("h100"), "no node has the feature \"h100\""),
        (job().on(&[7]), "there is no node n7"),
        (job().partition(&["other"]), "invalid partition specified: other"),
        (job().spec(|s| s.priority = Some(1)), "only admins may set a priority"),
        (job().spec(|s| s.nice = -1), "only admins may set a negative nice value"),
        (job().array(0, 1_000_001, 0), "array index 1000001 is too large; the highest is 1000000"),
        (job().after("afterok:77"), "the dependency names job 77, which does not exist"),
        (job().after("afterok:1"), "the dependency names job 1, which does not exist"),
    ];
    for (request, text) in cases {
        let said = refused(&mut w, &request);
        assert!(said.contains(text), "{said:?} does not say {text:?}");
    }
    assert_eq!(w.cluster.next_job_id(), 1, "no number was used up");
}

#[test]
fn memory_that_no_node_has_is_told_apart() {
    let mut w = world().memory(4_000).build();
    let refusal = w.try_submit(&job().memory(5_000)).unwrap_err();
    assert_eq!(refusal.kind(), "MemoryNeverFits");
    let mut w = world().memory(4_000).main(|p| p.max_mem_per_node = Some(Mib(1_000))).build();
    w.submit(&job().memory(1_000));
    let said = refused(&mut w, &job().memory(1_001));
    assert!(said.contains("at most"), "{said}");
}

#[test]
fn partitions_let_in_whom_they_should() {
    let mut w = world()
        .partition("shut", |p| p.state = PartitionState::Drain)
        .partition("staff", |p| p.allow_groups = vec!["staff".into()])
        .partition("paid", |p| p.allow_accounts = vec!["acme".into()])
        .partition("root", |p| p.root_only = true)
        .build();
    let staff = JobBuilder { groups: vec!["staff".into()], ..job().partition(&["staff"]) };
    let cases = [
        (job().partition(&["shut"]), Some("partition shut is DRAIN and takes no jobs")),
        (job().partition(&["staff"]), Some("partition staff is not open to you: members of staff")),
        (staff, None),
        (job().partition(&["paid"]), Some("account \"users\" may not use partition paid")),
        (job().partition(&["paid"]).spec(|s| s.account = "acme".into()), None),
        (job().partition(&["root"]), Some("partition root is not open to you: admins only")),
        (job().partition(&["root"]).by(admin()), None),
    ];
    for (request, refusal) in cases {
        let result = w.try_submit(&request).err().map(|why| why.to_string());
        match refusal {
            Some(text) => {
                assert!(result.as_ref().is_some_and(|said| said.contains(text)), "{result:?}")
            }
            None => assert_eq!(result, None),
        }
    }
    let mut w = world().main(|p| p.is_default = false).build();
    assert_eq!(
        refused(&mut w, &job()),
        "no partition was named and the cluster has no default partition"
    );
}

#[test]
fn more_nodes_than_tasks_are_lowered_with_a_warning() {
    let mut w = world().nodes(4).build();
    let request = job().nodes(4).tasks(2);
    let command = Command::Submit(request.caller, Box::new(request.submission()));
    let Reply::Submitted { job, warnings } = w.execute(command).unwrap().reply else { panic!() };
    assert_eq!(*warnings[0], *"can't run 2 processes on 4 nodes, setting nnodes to 2");
    w.run_plan();
    assert_eq!(w.job(job).active_run().unwrap().shares.len(), 2);
}

#[test]
fn a_cluster_holds_so_many_jobs_and_no_more() {
    let mut w = world().policy(|policy| policy.max_jobs = 2).build();
    w.submit(&job());
    w.submit(&job().array(0, 100, 0));
    let said = refused(&mut w, &job());
    assert!(said.contains("holds 2 jobs"), "{said}");
}

#[test]
fn the_same_request_twice_is_one_job() {
    let mut w = world().build();
    let request = job().by(asking(user(1000), 42));
    let first = w.submit(&request);
    w.advance(599);
    assert_eq!(w.submit(&request), first);
    assert_eq!(w.cluster.job_count(), 1);
    // Another user's request of the same number is another request.
    assert_ne!(w.submit(&job().by(asking(user(1001), 42))), first);
    // After ten minutes it is forgotten.
    w.wait(1);
    assert_ne!(w.submit(&request), first);
}

#[test]
fn answers_are_forgotten_however_many_there_are() {
    let mut w = world().build();
    for number in 0..300 {
        w.submit(&job().by(asking(user(1000), number)));
    }
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(600)));
    w.advance(600);
    let mut ticks = 0;
    while w.cluster.next_wake().is_some_and(|at| at <= w.now) {
        w.execute(Command::Tick).unwrap();
        ticks += 1;
    }
    assert!(ticks <= 6, "{ticks}");
    let answers =
        w.cluster.record_keys().filter(|k| matches!(k, penstock_core::RecordKey::Answer(..)));
    assert_eq!(answers.count(), 0);
}

#[test]
fn jobs_go_by_tier_then_priority_then_submission() {
    let mut w = world().nodes(0).partition("fast", |p| p.priority_tier = 7).build();
    w.register(1, Vec::new());
    let late = |w: &mut World, job: &JobBuilder| {
        w.advance(1);
        w.submit(job)
    };
    let first = late(&mut w, &job());
    let nice = late(&mut w, &job().spec(|s| s.nice = 5));
    let third = late(&mut w, &job());
    let fixed = late(&mut w, &job().by(admin()).spec(|s| s.priority = Some(5_000_000)));
    let tier = late(&mut w, &job().partition(&["fast"]));
    let order: Vec<_> = w.plan().order().map(|unit| unit.id()).collect();
    assert_eq!(order, [tier, fixed, first, third, nice]);
    assert_eq!(w.run_plan().len(), 4);
    assert_eq!(w.state(nice), JobState::Pending);
}

#[test]
fn nobody_passes_a_job_that_waits_for_resources_in_its_partition() {
    let strict = |s: &mut penstock_core::model::Scheduling| s.backfill.depth = 0;
    let mut w = world().nodes(2).cpus(4).partition("other", |_| ()).scheduling(strict).build();
    let running = w.submit(&job().tasks(2));
    let big = w.submit(&job().tasks(8));
    let small = w.submit(&job());
    let elsewhere = w.submit(&job().partition(&["other"]));
    assert_eq!(w.run_plan(), [running, elsewhere]);
    let plan = w.plan();
    let reason = |id| w.cluster.waiting(Unit::Job(id), &plan).unwrap();
    assert_eq!(reason(big).reason.to_string(), "Resources");
    assert_eq!(reason(big).detail, "needs 8 CPUs; 5 CPUs free on 2 nodes that accept work");
    assert_eq!(reason(small).reason.to_string(), "Priority");
}

#[test]
fn a_job_that_waits_for_a_drained_node_closes_nothing() {
    let mut w = world().nodes(2).build();
    w.node_action(2, penstock_core::command::NodeAction::Drain);
    let waits = w.submit(&job().on(&[2]));
    let next = w.submit(&job());
    assert_eq!(w.run_plan(), [next]);
    let waiting = w.cluster.waiting(Unit::Job(waits), &w.plan()).unwrap();
    assert_eq!(waiting.reason.to_string(), "ReqNodeNotAvail");
    assert!(waiting.detail.ends_with("out of service: n2"), "{}", waiting.detail);
}

#[test]
fn partitions_that_start_nothing_say_so() {
    let mut w = world().main(|p| p.state = PartitionState::Down).build();
    let waits = w.submit(&job());
    assert!(w.run_plan().is_empty());
    let waiting = w.cluster.waiting(Unit::Job(waits), &w.plan()).unwrap();
    assert_eq!(waiting.reason.to_string(), "PartitionDown");
}

#[test]
fn a_begin_time_is_kept() {
    let mut w = world().build();
    let begin = Timestamp(w.now.0 + 10_000);
    let later = w.submit(&job().spec(|s| s.begin_time = begin));
    assert_eq!(w.cluster.next_wake(), Some(begin));
    w.wait(9);
    assert!(w.run_plan().is_empty());
    w.wait(1);
    assert_eq!(w.run_plan(), [later]);
}

#[test]
fn many_begin_times_that_come_at_once_take_several_ticks() {
    let mut w = world().build();
    let later = job().spec(|s| s.begin_time = Timestamp(w.now.0 + 1_000));
    for _ in 0..5_000 {
        let command = Command::Submit(later.caller, Box::new(later.submission()));
        w.cluster.execute(w.now, command).unwrap();
    }
    w.advance(1);
    for queued in [4_096, 5_000] {
        assert!(w.cluster.next_wake().is_some());
        w.cluster.execute(w.now, Command::Tick).unwrap();
        assert_eq!(w.cluster.queue().count(), queued);
    }
    assert_eq!(w.cluster.next_wake(), None);
}

#[test]
fn a_hold_is_released_by_who_may() {
    let mut w = world().build();
    let held = w.submit(&job().spec(|s| s.hold = true));
    assert!(w.run_plan().is_empty());
    let set = |w: &mut World, caller, hold| {
        let command = Command::SetHold(caller, vec![Target::Id(held)], hold);
        let reply = w.execute(command).unwrap().reply;
        crate::common::refusal_of(&reply).map(|why| why.to_string())
    };
    assert!(set(&mut w, user(7), Hold::None).unwrap().contains("belongs to uid 1000"));
    assert_eq!(set(&mut w, admin(), Hold::Admin), None);
    let refusal = set(&mut w, user(1000), Hold::None).unwrap();
    assert_eq!(refusal, format!("job {held} is held by an admin, who alone can release it"));
    assert_eq!(set(&mut w, admin(), Hold::None), None);
    assert_eq!(w.run_plan(), [held]);
    assert_eq!(set(&mut w, admin(), Hold::User), Some(format!("job {held} is no longer pending")));
}

#[test]
fn a_job_tries_its_partitions_in_their_order() {
    let small = |p: &mut penstock_core::model::Partition| {
        p.nodes = Some(vec![crate::common::node_name(1)]);
    };
    let mut w = world().nodes(2).cpus(4).partition("small", small).build();
    let first = w.submit(&job().tasks(3).partition(&["small", "main"]));
    let second = w.submit(&job().tasks(3).partition(&["small", "main"]));
    w.run_plan();
    let partition = |id: JobId| w.job(id).active_run().unwrap().partition.clone();
    assert_eq!(partition(first), PartitionName::new("small").unwrap());
    assert_eq!(partition(second), PartitionName::new("main").unwrap());
}
