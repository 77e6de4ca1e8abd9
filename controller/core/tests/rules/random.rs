//! Whatever is asked in whatever order, what is derived stays true, a refusal changes nothing, every
//! change is announced, and a restart brings the same cluster back.

use penstock_core::Command;
use penstock_core::command::{
    AttemptPhase, JobUpdate, NodeAction, NodeChoice, NodeUpdate, PreemptLine, ReservationChange,
    ReservationRequest, SignalOrder, Target, Unit,
};
use penstock_core::model::{Hold, PreemptBy, PreemptMode, ReservationFlag, RunResult};
use penstock_vocab::{ExitCode, IndexSet, JobId, Mib, Timestamp, Walltime};
use proptest::prelude::*;

use crate::common::{JobBuilder, World, admin, asking, audit, job, node_name, says, user, world};

/// One step; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Submit { shape: u8, dependency: u8, on: u32, array: u8, hold: bool, request: u8 },
    Cancel(u32, u8),
    Hold(u32, u8, u8),
    Requeue(u32, u8, bool),
    Update(u32, u8, u8),
    Node(u32, u8),
    Register(u32, bool, bool),
    Gone(u32, bool),
    Fenced(u32),
    Report(u32, u8, u8),
    StrayReport(u32, u32, u8),
    Plan(u8),
    StalePlan,
    Tick(u8),
    Retire,
    Signal(u32, u8),
    Configure(bool),
    ResetUsage,
    Suspend(u32, u8, bool),
    Checkpoint(u32),
    Preempt(u32, u32, u8),
    Reserve(u32, u8, u8, u8),
    Rereserve(u8, u8, u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (b, n) = (any::<u8>(), any::<u32>());
    prop_oneof![
        4 => (b, 0..18u8, n, b, prop::bool::weighted(0.1), b).prop_map(
            |(shape, dependency, on, array, hold, request)| Step::Submit {
                shape, dependency, on, array, hold, request
            }
        ),
        2 => (n, b).prop_map(|(job, kind)| Step::Cancel(job, kind)),
        1 => (n, b, b).prop_map(|(job, kind, hold)| Step::Hold(job, kind, hold)),
        1 => (n, b, any::<bool>()).prop_map(|(job, kind, hold)| Step::Requeue(job, kind, hold)),
        2 => (n, b, b).prop_map(|(job, kind, what)| Step::Update(job, kind, what)),
        1 => (n, b).prop_map(|(node, what)| Step::Node(node, what)),
        2 => (n, any::<bool>(), any::<bool>()).prop_map(|(node, b, k)| Step::Register(node, b, k)),
        1 => (n, any::<bool>()).prop_map(|(node, silent)| Step::Gone(node, silent)),
        1 => n.prop_map(Step::Fenced),
        8 => (n, b, b).prop_map(|(job, phase, how)| Step::Report(job, phase, how)),
        1 => (n, n, b).prop_map(|(job, node, phase)| Step::StrayReport(job, node, phase)),
        5 => b.prop_map(Step::Plan),
        1 => Just(Step::StalePlan),
        3 => b.prop_map(Step::Tick),
        2 => Just(Step::Retire),
        1 => (n, b).prop_map(|(job, kind)| Step::Signal(job, kind)),
        1 => any::<bool>().prop_map(Step::Configure),
        1 => Just(Step::ResetUsage),
        2 => (n, b, any::<bool>()).prop_map(|(job, kind, on)| Step::Suspend(job, kind, on)),
        1 => n.prop_map(Step::Checkpoint),
        2 => (n, n, b).prop_map(|(victim, unit, how)| Step::Preempt(victim, unit, how)),
        2 => (n, b, b, b).prop_map(|(n, when, nodes, flags)| Step::Reserve(n, when, nodes, flags)),
        1 => (b, b, b).prop_map(|(which, what, how)| Step::Rereserve(which, what, how)),
    ]
}

const NODES: u32 = 3;

fn start() -> World {
    let policy = |policy: &mut penstock_core::model::Policy| {
        policy.min_job_age_secs = 20;
        policy.requeue_delay_secs = 5;
        policy.max_requeues = 2;
    };
    let scheduling = |scheduling: &mut penstock_core::model::Scheduling| {
        scheduling.licenses = [("x".into(), 2)].into();
        scheduling.preemption.by = PreemptBy::PartitionPriority;
        scheduling.preemption.mode = PreemptMode::Requeue;
    };
    world()
        .nodes(NODES)
        .gpus(2)
        .policy(policy)
        .scheduling(scheduling)
        .main(|p| p.grace_secs = 3)
        .partition("high", |p| {
            p.priority_tier = 9;
            p.preempt_mode = Some(PreemptMode::Suspend);
        })
        .partition("top", |p| p.priority_tier = 99)
        .build()
}

fn id_of(world: &World, number: u32) -> JobId {
    JobId(number % world.cluster.next_job_id().max(2))
}

fn target(world: &World, number: u32, kind: u8) -> Target {
    let id = id_of(world, number);
    match kind % 4 {
        0 => Target::Job(id),
        1 if kind > 200 => Target::Tasks(id, IndexSet::from_range(0, 80, 1)),
        1 => Target::Tasks(id, IndexSet::from_range(u32::from(kind) / 64, 4, 1)),
        2 => Target::Tasks(id, [u32::from(kind) / 16].into_iter().collect()),
        _ => Target::Id(id),
    }
}

fn submission(world: &World, step: (u8, u8, u32, u8, bool, u8)) -> JobBuilder {
    let (shape, dependency, on, array, hold, request) = step;
    let on = id_of(world, on);
    let mut job = match shape % 8 {
        0 | 1 => job(),
        2 => job().tasks(u32::from(shape) / 16 + 1),
        3 => job().nodes(2).tasks(3),
        4 => job().gres("gpu:1"),
        5 => job().memory(u64::from(shape) * 20),
        6 if shape <= 128 => job().shape(|shape| shape.exclusive = true),
        6 if shape > 128 => job().shape(|shape| shape.licenses = [("x".into(), 1)].into()),
        _ if shape > 200 => job().partition(&["top"]).tasks(4),
        _ => job().partition(&["high", "main"]).on(&[1]),
    };
    job = match request % 8 {
        0 => job.spec(|spec| spec.deadline = Some(world.now.plus_secs(40))),
        1 => job.minutes(1).spec(|spec| spec.deadline = Some(world.now.plus_secs(80))),
        2 => job.spec(|spec| spec.reservation = "r_1".into()),
        3 => job.minutes(1),
        _ => job,
    };
    job = match dependency {
        0 => job.after(&format!("afterok:{on}")),
        1 => job.after(&format!("afterany:{on}")).spec(|spec| spec.kill_on_invalid_dep = true),
        2 => job.after(&format!("afternotok:{on}")).spec(|spec| spec.kill_on_invalid_dep = true),
        3 => job.after(&format!("after:{on}+1?afterok:{on}_2")),
        5 => job.after("singleton"),
        6 => job.after(&format!("aftercorr:{on}")),
        7 => job.after(&format!("aftercorr:{on}")).spec(|spec| spec.kill_on_invalid_dep = true),
        8 => job.after(&format!("aftercorr:{on}?singleton")),
        4 => job.spec(|spec| spec.begin_time = Timestamp(world.now.0 + 7_000)),
        _ => job,
    };
    if array.is_multiple_of(3) {
        let last = if array > 200 { 70 } else { u32::from(array) / 32 + 1 };
        job = job.array(0, last, u32::from(array) % 4);
    }
    job = job.spec(|spec| spec.name = ["a", "b", "c", "d"][usize::from(shape / 64)].into());
    let caller = if request < 128 { asking(job.caller, u128::from(request)) } else { job.caller };
    job.spec(|spec| spec.hold = hold).by(caller)
}

fn update(what: u8) -> JobUpdate {
    let empty = JobUpdate::default();
    match what % 9 {
        0 => JobUpdate { ntasks: Some(u32::from(what) / 8), ..empty },
        1 => JobUpdate { time_limit: Some(Walltime::from_minutes(u64::from(what))), ..empty },
        2 => JobUpdate { priority: Some(u32::from(what)), ..empty },
        3 => JobUpdate { throttle: Some(u32::from(what) / 64), ..empty },
        4 => JobUpdate { mem_per_node: Some(Mib(u64::from(what) * 30)), ..empty },
        5 => JobUpdate {
            begin_time: Some(Timestamp(1_000_000_000 + i64::from(what) * 1000)),
            ..empty
        },
        6 => {
            let text = format!("afterany:{}", what / 32 + 1);
            let dependency = penstock_core::model::Dependency::parse(&text).unwrap();
            JobUpdate { dependency: Some(dependency), ..empty }
        }
        7 if what > 200 => {
            let deadline = Some(Timestamp(1_000_030_000 + i64::from(what) * 100));
            JobUpdate { deadline, ..empty }
        }
        7 if what > 150 => JobUpdate { reservation: Some("".into()), ..empty },
        7 => JobUpdate { requeue: Some(what > 100), ..empty },
        _ => JobUpdate { nice: Some(i32::from(what)), ..empty },
    }
}

fn node_action(what: u8) -> NodeUpdate {
    let action = match what % 8 {
        0 => NodeAction::Drain,
        1 => NodeAction::Down,
        2 => NodeAction::Fail,
        3 | 4 => NodeAction::Resume,
        5 => NodeAction::Undrain,
        6 => NodeAction::PowerDown,
        _ => NodeAction::PowerUp,
    };
    NodeUpdate { action: Some(action), reason: "why".into(), ..NodeUpdate::default() }
}

fn phase(number: u8, how: u8) -> AttemptPhase {
    match number % 4 {
        0 => AttemptPhase::Running,
        1 => AttemptPhase::NeverStarted,
        _ => AttemptPhase::Ended(Box::new(RunResult {
            exit: ExitCode::exited(how % 2),
            lost: how % 16 == 3,
            out_of_memory: how % 16 == 5,
            time_limit: how % 16 == 7,
            launch_error: if how % 16 == 9 { "no such directory".into() } else { "".into() },
            node_fault: how % 32 == 9,
            ..RunResult::default()
        })),
    }
}

fn act(world: &mut World, step: Step, old_plan: &mut Vec<penstock_core::command::StartLine>) {
    match step {
        Step::Submit { shape, dependency, on, array, hold, request } => {
            let job = submission(world, (shape, dependency, on, array, hold, request));
            drop(world.try_submit(&job));
        }
        Step::Cancel(number, kind) => {
            let target = target(world, number, kind);
            world.cancel(user(1000), target);
        }
        Step::Hold(number, kind, hold) => {
            let hold = [Hold::None, Hold::User, Hold::Admin, Hold::None][usize::from(hold % 4)];
            let targets = vec![target(world, number, kind)];
            world.execute(Command::SetHold(admin(), targets, hold)).unwrap();
        }
        Step::Requeue(number, kind, hold) => {
            let target = target(world, number, kind);
            world.requeue(admin(), target, hold);
        }
        Step::Update(number, kind, what) => {
            let target = target(world, number, kind);
            world.update(admin(), target, update(what));
        }
        Step::Node(node, what) => {
            let names = vec![node_name(node % NODES + 1)];
            let update = Box::new(node_action(what));
            world.execute(Command::UpdateNode(admin(), names, update)).unwrap();
        }
        Step::Fenced(node) => {
            world.execute(Command::Fenced { node: node_name(node % NODES + 1) }).unwrap();
        }
        Step::Signal(number, kind) => {
            let targets = vec![target(world, number, kind)];
            let order = SignalOrder { signal: 10, batch_only: false, full: false };
            world.execute(Command::Signal(admin(), targets, order)).unwrap();
        }
        Step::Suspend(number, kind, suspend) => {
            let targets = vec![target(world, number, kind)];
            world.execute(Command::Suspend(admin(), targets, suspend)).unwrap();
        }
        Step::Checkpoint(number) => {
            let id = id_of(world, number);
            drop(world.execute(Command::CheckpointDone(user(1000), id)));
        }
        Step::Preempt(victim, unit, how) => {
            let (victim, id) = (id_of(world, victim), id_of(world, unit));
            let for_unit = if how > 200 { Unit::Array(id) } else { Unit::Job(id) };
            let mode = [PreemptMode::Cancel, PreemptMode::Requeue, PreemptMode::Suspend];
            let mode = mode[usize::from(how % 3)];
            let line = PreemptLine { victim, for_unit, mode, grace_secs: u32::from(how % 5) };
            world.execute(Command::Preempt(vec![line])).unwrap();
        }
        Step::Reserve(..) | Step::Rereserve(..) => act_on_reservations(world, &step),
        other => act_on_runs(world, other, old_plan),
    }
}

fn act_on_reservations(world: &mut World, step: &Step) {
    let change = match *step {
        Step::Reserve(count, when, nodes, flags) => {
            ReservationChange::Create(Box::new(reservation(world, count, (when, nodes, flags))))
        }
        Step::Rereserve(which, what, how) => {
            let name: Box<str> = format!("r_{}", which % 3 + 1).into();
            let now = world.now;
            match what % 4 {
                0 => ReservationChange::Delete(name),
                1 => {
                    let times = (1..3).map(|n| now.plus_secs(u64::from(how) * n));
                    let times = times.map(|at| (at, at.plus_secs(5))).collect();
                    ReservationChange::Extend(name, times)
                }
                _ => {
                    let request = reservation(world, u32::from(how), (how, what, which));
                    ReservationChange::Update(name, Box::new(request))
                }
            }
        }
        _ => return,
    };
    drop(world.execute(Command::Reservation(admin(), change)));
}

fn reservation(
    world: &World,
    count: u32,
    (when, nodes, flags): (u8, u8, u8),
) -> ReservationRequest {
    let start = world.now.plus_secs(u64::from(when % 16) * 4);
    let end = start.plus_secs(u64::from(when / 16) * 4 + 1);
    let chosen = ReservationFlag::ALL.iter().map(|(flag, _)| *flag);
    // It is refused, and would hide the others.
    let chosen = chosen.filter(|flag| *flag != ReservationFlag::AnyNodes);
    let flags = chosen.enumerate().filter(|(at, _)| (flags >> (at % 8)) & 1 == 1);
    let flags: std::collections::BTreeSet<_> = flags.map(|(_, flag)| flag).take(3).collect();
    ReservationRequest {
        start: Some(start),
        end: Some(end),
        upcoming: count.is_multiple_of(3).then(|| vec![(end.plus_secs(5), end.plus_secs(9))]),
        nodes: Some(match nodes % 4 {
            0 => NodeChoice::All,
            1 => NodeChoice::Named(vec![node_name(u32::from(nodes) % NODES + 1)]),
            _ => NodeChoice::Count(count % 3 + 1),
        }),
        partition: Some(crate::common::partition_name("main")),
        users: Some(vec![("r".into(), penstock_vocab::UserId(1000))]),
        licenses: (nodes > 220).then(|| vec![("x".into(), 1)]),
        flags: Some(flags),
        purge_after: Some(Walltime::Limited(4)),
        ..ReservationRequest::default()
    }
}

fn act_on_runs(
    world: &mut World,
    step: Step,
    old_plan: &mut Vec<penstock_core::command::StartLine>,
) {
    match step {
        Step::Register(node, reboot, known) => register(world, node % NODES + 1, reboot, known),
        Step::Gone(node, true) => world.silence(node % NODES + 1),
        Step::Gone(node, false) => world.disconnect(node % NODES + 1),
        Step::Report(number, what, how) => {
            let active = world.active();
            if active.is_empty() {
                return;
            }
            let id = active[number as usize % active.len()];
            let job = world.job(id);
            let batch = job.active_run().unwrap().batch_node().unwrap();
            if world.cluster.node(batch).unwrap().0.session.is_some() {
                world.report(id, phase(what, how));
            }
        }
        Step::StrayReport(number, node, what) => {
            let node = node_name(node % NODES + 1);
            let session = world.cluster.node_by_name(&node).unwrap().1.session;
            let report = says(id_of(world, number), u32::from(what) / 64, phase(what, what));
            let session = session.unwrap_or_default();
            drop(world.execute(Command::Report { node, session, report }));
        }
        Step::Plan(rest) => {
            *old_plan = world.plan().starts;
            if rest > 40 {
                world.run_plan();
            }
        }
        Step::StalePlan => {
            let lines = old_plan.iter().take(40).cloned().collect();
            world.execute(Command::Start(lines)).unwrap();
        }
        Step::Tick(secs) => world.wait(u64::from(secs) / 8),
        Step::Retire => {
            let units: Vec<Unit> = world.cluster.retirable(world.now).take(40).collect();
            world.execute(Command::Retire(units)).unwrap();
        }
        Step::Configure(up) => {
            let mut config = (**world.cluster.config()).clone();
            config.partitions[1].priority_tier = if up { 9 } else { 0 };
            config.partitions[0].qos = up.then(|| "main".into());
            world.execute(Command::Configure(config.into())).unwrap();
        }
        Step::ResetUsage => {
            world.execute(Command::ResetUsage).unwrap();
        }
        _ => unreachable!("the others are done by the caller"),
    }
}

/// The node knows all of its launched attempts, or none.
fn register(world: &mut World, number: u32, reboot: bool, known: bool) {
    let index = world.index(number);
    let runs = world.cluster.jobs_on(index);
    let attempts = runs
        .iter()
        .filter_map(|job| job.active_run().map(|run| (job.id, run)))
        .filter(|(_, run)| known && run.batch_node() == Some(index))
        .map(|(id, run)| says(id, run.attempt.0, AttemptPhase::Running))
        .collect();
    if reboot {
        world.reboot(number, attempts);
    } else {
        world.register(number, attempts);
    }
}

proptest! {
    #[test]
    fn random_commands_keep_every_invariant(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut world = start();
        let mut old_plan = Vec::new();
        for step in steps {
            let running = audit::running_tasks(&world.cluster);
            let before = world.cluster.clone();
            act(&mut world, step, &mut old_plan);
            audit::starts_were_due(&before, &world.cluster);
            audit::reservations_hold(&before, &world.cluster);
            audit::throttles_hold(&world.cluster, &running);
        }
        let restored = world.restored();
        prop_assert_eq!(restored.check(), vec![]);
        prop_assert_eq!(audit::dump(&restored), audit::dump(&world.cluster));
        let units = |cluster: &penstock_core::Cluster| {
            let mut settled = cluster.clone();
            settled.execute(world.now, Command::Tick).unwrap();
            settled.queue().map(|(unit, _)| unit).collect::<Vec<_>>()
        };
        prop_assert_eq!(units(&restored), units(&world.cluster));
        let later = world.now.plus_secs(100_000);
        for (owner, _) in world.cluster.accounts().all_usage() {
            prop_assert_eq!(restored.usage(owner, later), world.cluster.usage(owner, later));
        }
    }
}
