use bytes::Bytes;
use penstock_core::command::{AttemptPhase, Command, NodeAction, NodeUpdate, Target, Unit};
use penstock_proto::v1;
use penstock_vocab::*;

use super::world::{ALICE, BOB, World, job, world};
use super::*;
use crate::store::{HistoryEntry, HistoryQuery, StoreError};

/// Jobs 1 (runs), 2 (held), 3 (array of bob's, 2 of 6 at once), 4 (failed), 5 (gpu partition, waits
/// for 1); 6 and 7 are tasks of 3.
fn queue() -> World {
    let mut world = world();
    world.submit(v1::JobSpec { ntasks: Some(6), cpus_per_task: Some(2), ..job("big", "alice") });
    world.submit(v1::JobSpec { hold: true, ..job("held", "alice") });
    let gpus = v1::GresCount { name: "gpu".into(), r#type: "h100".into(), count: 1 };
    let array = v1::JobSpec {
        array: "0-5%2".into(),
        gres_per_node: vec![gpus],
        mem_per_node_mib: Some(500),
        ..job("sweep", "bob")
    };
    world.submit(array);
    let failed = world.submit(job("failed", "bob"));
    world.submit(v1::JobSpec {
        partitions: vec!["gpu".into()],
        dependency: "afterok:1".into(),
        ..job("later", "alice")
    });
    world.schedule();
    world.report(JobId(1), AttemptPhase::Running);
    world.end(failed, 3);
    world.wait(10);
    world
}

fn list(world: &World, filter: v1::JobFilter) -> Vec<v1::JobInfo> {
    let request = v1::ListJobsRequest { filter: Some(filter), ..Default::default() };
    list_jobs(&world.view(), &request).unwrap().collect()
}

/// `id`, `id_task` or `id_[tasks]`, as squeue shows it.
fn shown(info: &v1::JobInfo) -> String {
    let job = info.job.as_ref().unwrap();
    match (job.array_task_id, &info.pending_tasks) {
        (Some(task), _) => format!("{}_{task}", job.array_job_id),
        (None, Some(runs)) => {
            let tasks = crate::convert::array::indices_from_wire(runs).unwrap();
            format!("{}_[{tasks}]", job.array_job_id)
        }
        (None, None) => job.id.to_string(),
    }
}

fn ids(infos: &[v1::JobInfo]) -> String {
    infos.iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn texts(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn filters_select_what_they_say() {
    let world = queue();
    let none = v1::JobFilter::default;
    for (filter, selected) in [
        (none(), "1 2 5 3_0 3_1 3_[2-5]"),
        (v1::JobFilter { selectors: texts("3"), ..none() }, "3_0 3_1 3_[2-5]"),
        (v1::JobFilter { selectors: texts("3_*"), ..none() }, "3_0 3_1 3_[2-5]"),
        (v1::JobFilter { selectors: texts("3_4"), ..none() }, "3_4"),
        (v1::JobFilter { selectors: texts("3_[1-3] 3_2 1"), ..none() }, "1 3_1 3_[2-3]"),
        (v1::JobFilter { selectors: texts("4"), ..none() }, ""),
        (v1::JobFilter { users: texts("bob"), ..none() }, "3_0 3_1 3_[2-5]"),
        (v1::JobFilter { users: texts("1002"), ..none() }, "3_0 3_1 3_[2-5]"),
        (v1::JobFilter { uids: vec![ALICE], ..none() }, "1 2 5"),
        (
            v1::JobFilter {
                uids: vec![ALICE],
                users: texts("bob"),
                names: texts("held sweep"),
                ..none()
            },
            "2 3_0 3_1 3_[2-5]",
        ),
        (v1::JobFilter { partitions: texts("gpu"), ..none() }, "5"),
        (v1::JobFilter { partitions: texts("main"), ..none() }, "1 2 3_0 3_1 3_[2-5]"),
        (v1::JobFilter { accounts: texts("bob-account"), ..none() }, "3_0 3_1 3_[2-5]"),
        (v1::JobFilter { qos: texts("normal"), names: texts("big"), ..none() }, "1"),
        (v1::JobFilter { qos: texts("high"), ..none() }, ""),
        (v1::JobFilter { states: texts("PD"), ..none() }, "2 5 3_[2-5]"),
        (v1::JobFilter { states: texts("CONFIGURING"), ..none() }, ""),
        (v1::JobFilter { states: texts("F R"), ..none() }, "1 4 3_0 3_1"),
        (v1::JobFilter { nodes: texts("n[1-2]"), ..none() }, "1"),
        (v1::JobFilter { nodes: texts("n9"), ..none() }, ""),
    ] {
        let mut found = list(&world, filter.clone());
        found.sort_by_key(|info| {
            let job = info.job.as_ref().unwrap();
            (job.array_job_id, info.pending_tasks.is_some(), job.id)
        });
        assert_eq!(ids(&found), selected, "{filter:?}");
    }
}

#[test]
fn unknown_selectors_are_told_and_bad_texts_refused() {
    let world = queue();
    let request = |filter| v1::ListJobsRequest { filter: Some(filter), ..Default::default() };
    let filter = v1::JobFilter { selectors: texts("1 99 3_2 3_9 4"), ..Default::default() };
    let view = world.view();
    let list = list_jobs(&view, &request(filter)).unwrap();
    assert_eq!(list.unknown(), texts("99 3_9"));
    for filter in [
        v1::JobFilter { selectors: texts("x"), ..Default::default() },
        v1::JobFilter { states: texts("sleeping"), ..Default::default() },
        v1::JobFilter { nodes: texts("n["), ..Default::default() },
    ] {
        assert!(list_jobs(&world.view(), &request(filter)).is_err());
    }
}

#[test]
fn ended_jobs_show_on_request_and_arrays_can_be_expanded() {
    let mut world = queue();
    let request = v1::ListJobsRequest { all_states: true, ..Default::default() };
    let found: Vec<_> = list_jobs(&world.view(), &request).unwrap().collect();
    assert!(found.iter().any(|info| shown(info) == "4" && info.reason == "NonZeroExitCode"));
    let request = v1::ListJobsRequest { expand_arrays: true, ..Default::default() };
    let found: Vec<_> = list_jobs(&world.view(), &request).unwrap().collect();
    assert!(ids(&found).ends_with("3_2 3_3 3_4 3_5"), "{}", ids(&found));
    world.cancel(ALICE, vec![Target::Id(JobId(1))]);
    let states = v1::JobFilter { states: texts("CG"), ..Default::default() };
    assert_eq!(ids(&list(&world, states)), "1");
    assert!(ids(&list(&world, v1::JobFilter::default())).starts_with("1 "), "still completing");
}

#[test]
fn lines_say_why_a_job_waits_and_what_it_has() {
    let world = queue();
    let request = v1::ListJobsRequest { full: true, ..Default::default() };
    let found: Vec<_> = list_jobs(&world.view(), &request).unwrap().collect();
    let line = |id: &str| found.iter().find(|info| shown(info) == id).unwrap();

    let big = line("1");
    assert_eq!((big.reason.as_str(), big.nodelist.as_str()), ("None", "n[1-3]"));
    assert_eq!((big.num_nodes, big.num_cpus, big.num_tasks), (3, 12, 6));
    assert_eq!(big.tres_allocated, "billing=12,cpu=12,mem=1200M,node=3");
    assert_eq!((big.memory_mib, big.batch_host.as_str()), (1200, "n1"));
    assert_eq!((big.user_name.as_str(), big.group_name.as_str()), ("alice", "users"));
    assert_eq!(big.job.as_ref().unwrap().run.as_ref().unwrap().shares.len(), 3);

    let held = line("2");
    assert_eq!((held.reason.as_str(), held.priority), ("JobHeldUser", 0));
    assert_eq!(held.job.as_ref().unwrap().eligible_ms, 0);
    assert_eq!(held.partition, "main");

    let later = line("5");
    assert_eq!((later.reason.as_str(), later.partition.as_str()), ("Dependency", "gpu"));
    assert_eq!(later.dependency, "afterok:1(unfulfilled)");
    assert!(later.priority > 0);

    let rest = line("3_[2-5]");
    assert_eq!(rest.reason, "JobArrayTaskLimit");
    assert_eq!(rest.tres_requested, "billing=1,cpu=1,gres/gpu=1,gres/gpu:h100=1,mem=500M,node=1");
    assert_eq!((rest.nodelist.as_str(), rest.tres_allocated.as_str()), ("", ""));
    assert!(rest.job.as_ref().unwrap().eligible_ms > 0);
    assert_eq!(rest.job.as_ref().unwrap().array.as_ref().unwrap().throttle, 2);
}

#[test]
fn brief_lines_agree_with_full_ones() {
    let world = queue();
    let lines = |full| {
        let request = v1::ListJobsRequest { full, all_states: true, ..Default::default() };
        list_jobs(&world.view(), &request).unwrap().collect::<Vec<_>>()
    };
    for (brief, full) in lines(false).into_iter().zip(lines(true)) {
        assert_eq!(shown(&brief), shown(&full));
        assert_eq!(brief.nodelist, full.nodelist);
        assert_eq!((brief.num_nodes, brief.num_cpus), (full.num_nodes, full.num_cpus));
        assert_eq!((&brief.reason, brief.priority), (&full.reason, full.priority));
        let (brief, full) = (brief.job.unwrap(), full.job.unwrap());
        assert_eq!((brief.state, brief.flags), (full.state, full.flags));
        assert_eq!(brief.spec.unwrap().name, full.spec.unwrap().name);
        assert_eq!(brief.run.map(|run| run.start_ms), full.run.map(|run| run.start_ms));
    }
}

#[test]
fn nodes_tell_their_state_and_what_is_taken() {
    let mut world = queue();
    let update = NodeUpdate {
        action: Some(NodeAction::Drain),
        reason: "bad fan".into(),
        ..NodeUpdate::default()
    };
    let nodes = vec![NodeName::new("n4").unwrap()];
    world.run(Command::UpdateNode(World::caller(0, None), nodes, Box::new(update)));
    let request = v1::ListNodesRequest { nodes: "n[1,4],n9".into() };
    let load = |index: penstock_core::model::NodeIndex| (index.0 == 0).then_some((150, 77));
    let reply = list_nodes(&world.cluster, &request, &load).unwrap();
    assert_eq!(reply.unknown, ["n9"]);
    let [n1, n4] = &reply.nodes[..] else { panic!("two nodes") };
    assert_eq!((n1.state.as_str(), n1.cpus_allocated, n1.load_centi), ("ALLOCATED", 4, Some(150)));
    assert_eq!(n1.partitions, ["main"]);
    assert_eq!(n1.cfg_tres, "cpu=4,mem=4000M,billing=4,gres/gpu=2,gres/gpu:h100=2");
    assert_eq!(n1.alloc_tres, "cpu=4,mem=400M");
    assert_eq!((n4.state.as_str(), n4.free_memory_mib), ("MIXED+DRAIN", None));
    assert_eq!((n4.partitions.join(" "), n4.weight), ("main gpu".into(), 4));
    assert_eq!(n4.alloc_tres, "cpu=2,mem=1000M,gres/gpu=2,gres/gpu:h100=2");
    assert_eq!((n4.gres_used[0].ids.as_slice(), n4.features[0].as_str()), (&[0, 1][..], "ib"));
    assert_eq!((n4.reason_user.as_str(), n1.reason_user.as_str()), ("root", ""));
    let all = v1::ListNodesRequest::default();
    assert_eq!(list_nodes(&world.cluster, &all, &|_| None).unwrap().nodes.len(), 4);
    let bad = v1::ListNodesRequest { nodes: "n[".into() };
    assert!(list_nodes(&world.cluster, &bad, &|_| None).is_err());
}

#[test]
fn partitions_tell_what_their_nodes_have() {
    let world = world();
    let list = |names: &str| {
        let request = v1::ListPartitionsRequest { partitions: texts(names) };
        list_partitions(&world.cluster, &request).partitions
    };
    assert_eq!(list("").len(), 2);
    assert!(list("nosuch").is_empty());
    let gpu = &list("gpu")[0];
    assert_eq!((gpu.total_nodes, gpu.total_cpus, gpu.max_time_secs), (2, 8, 3600));
    assert_eq!(gpu.nodes, ["n3", "n4"]);
    assert_eq!(gpu.tres, "cpu=8,mem=8000M,node=2,billing=8,gres/gpu=4,gres/gpu:h100=4");
    assert!(list("main")[0].is_default && !gpu.is_default);
}

/// A history in memory, and what was asked of it.
#[derive(Default)]
struct Past {
    lines: Vec<HistoryEntry>,
    asked: Vec<HistoryQuery>,
}

impl Past {
    /// Moves what may retire out of the cluster into the history.
    fn retire(&mut self, world: &mut World) {
        world.wait(1_000);
        loop {
            world.run(Command::Tick);
            let units: Vec<Unit> = world.cluster.retirable(world.now).collect();
            if units.is_empty() {
                return;
            }
            for unit in &units {
                self.lines.extend(history_entries(&world.cluster, *unit));
            }
            world.run(Command::Retire(units));
        }
    }

    fn scan(
        &mut self,
        query: &HistoryQuery,
        each: &mut dyn FnMut(Bytes),
    ) -> Result<(), StoreError> {
        self.asked.push(query.clone());
        for line in &self.lines {
            let wanted = query.jobs.as_ref().is_none_or(|jobs| jobs.contains(&line.job))
                && query.uid.is_none_or(|uid| uid == line.uid)
                && (query.from_ms..=query.to_ms).contains(&line.end_ms);
            if wanted {
                each(line.body.clone());
            }
        }
        Ok(())
    }

    fn list(&mut self, world: &World, request: v1::ListAccountingRequest) -> Vec<v1::JobInfo> {
        self.asked.clear();
        accounting(&world.view(), &request, &mut |query, each| self.scan(query, each)).unwrap()
    }
}

fn states(infos: &[v1::JobInfo]) -> String {
    let line = |info: &v1::JobInfo| {
        let job = info.job.as_ref().unwrap();
        let state = JobState::from_code(job.state).unwrap();
        format!("{}:{}", shown(info), display_state(state, JobFlags::from_bits(job.flags)))
    };
    infos.iter().map(line).collect::<Vec<_>>().join(" ")
}

/// Job 1 was requeued and then completed, job 2 was cancelled before it started, array 3 ran one
/// task and had the rest cancelled; then everything went to the history. Job 5 is live.
fn past() -> (World, Past) {
    let mut world = world();
    world.submit(job("again", "alice"));
    world.submit(v1::JobSpec { hold: true, ..job("never", "alice") });
    world.submit(v1::JobSpec { array: "0-3%1".into(), ..job("sweep", "bob") });
    world.schedule();
    world.requeue(JobId(1));
    world.end(JobId(1), 0);
    world.cancel(BOB, vec![Target::Id(JobId(3))]);
    world.end(JobId(4), 0);
    world.cancel(ALICE, vec![Target::Id(JobId(2))]);
    world.wait(100);
    world.run(Command::Tick);
    world.schedule();
    world.wait(5);
    world.end(JobId(1), 0);
    let mut past = Past::default();
    past.retire(&mut world);
    let live = world.submit(job("live", "alice"));
    world.schedule();
    world.report(live, AttemptPhase::Running);
    world.wait(10);
    (world, past)
}

#[test]
fn live_jobs_and_history_are_listed_together() {
    let (world, mut past) = past();
    assert_eq!(world.cluster.job_count(), 1, "the rest is history");
    let none = v1::ListAccountingRequest::default;
    let all = past.list(&world, none());
    assert_eq!(states(&all), "1:COMPLETED 2:CANCELLED 3_[1-3]:CANCELLED 3_0:COMPLETED 5:RUNNING");
    let twice = v1::ListAccountingRequest { duplicates: true, ..none() };
    let all = past.list(&world, twice);
    assert_eq!(
        states(&all),
        "1:REQUEUED 1:COMPLETED 2:CANCELLED 3_[1-3]:CANCELLED 3_0:COMPLETED 5:RUNNING"
    );
    let record = |at: usize| all[at].job.as_ref().unwrap();
    assert_eq!(record(0).run.as_ref().unwrap().end_cause(), v1::EndCause::Requeue);
    assert_eq!((all[1].nodelist.as_str(), all[1].num_cpus), ("n1", 1));
    assert_eq!(all[1].tres_allocated, "billing=1,cpu=1,mem=100M,node=1");
    assert!(record(2).run.is_none() && record(2).end_ms > 0);
    assert_eq!((record(2).cancelled_by_uid, record(3).cancelled_by_uid), (ALICE, BOB));
}

#[test]
fn requeued_runs_of_live_jobs_are_told_alike() {
    let mut world = world();
    let id = world.submit(job("again", "alice"));
    world.schedule();
    world.requeue(id);
    world.end(id, 0);
    let mut past = Past::default();
    let none = v1::ListAccountingRequest::default;
    assert_eq!(states(&past.list(&world, none())), "1:PENDING");
    let twice = v1::ListAccountingRequest { duplicates: true, ..none() };
    assert_eq!(states(&past.list(&world, twice)), "1:REQUEUED 1:PENDING");
}

#[test]
fn live_wins_over_a_history_that_is_ahead_of_the_retiring() {
    let mut world = world();
    let id = world.submit(job("once", "alice"));
    world.schedule();
    world.end(id, 1);
    let mut past =
        Past { lines: history_entries(&world.cluster, Unit::Job(id)), asked: Vec::new() };
    let all =
        past.list(&world, v1::ListAccountingRequest { duplicates: true, ..Default::default() });
    assert_eq!(states(&all), "1:FAILED");
}

#[test]
fn accounting_is_filtered_by_selector_state_user_and_window() {
    let (world, mut past) = past();
    let none = v1::ListAccountingRequest::default;
    let end = world.now.0;
    for (request, selected) in [
        (v1::ListAccountingRequest { selectors: texts("1"), ..none() }, "1:COMPLETED"),
        (
            v1::ListAccountingRequest { selectors: texts("3"), ..none() },
            "3_[1-3]:CANCELLED 3_0:COMPLETED",
        ),
        (v1::ListAccountingRequest { selectors: texts("3_[2-9]"), ..none() }, "3_[2-3]:CANCELLED"),
        (v1::ListAccountingRequest { selectors: texts("3_0"), ..none() }, "3_0:COMPLETED"),
        (v1::ListAccountingRequest { selectors: texts("5 77"), ..none() }, "5:RUNNING"),
        (
            v1::ListAccountingRequest { uids: vec![BOB], ..none() },
            "3_[1-3]:CANCELLED 3_0:COMPLETED",
        ),
        (
            v1::ListAccountingRequest { users: texts("alice"), ..none() },
            "1:COMPLETED 2:CANCELLED 5:RUNNING",
        ),
        (
            v1::ListAccountingRequest { states: texts("CA"), ..none() },
            "2:CANCELLED 3_[1-3]:CANCELLED",
        ),
        (v1::ListAccountingRequest { states: texts("RQ"), ..none() }, "1:REQUEUED"),
        (
            v1::ListAccountingRequest { names: texts("never live"), ..none() },
            "2:CANCELLED 5:RUNNING",
        ),
        (v1::ListAccountingRequest { partitions: texts("gpu"), ..none() }, ""),
        (
            v1::ListAccountingRequest { nodes: texts("n1"), names: texts("again"), ..none() },
            "1:COMPLETED",
        ),
        (v1::ListAccountingRequest { from_ms: end - 1000, to_ms: end, ..none() }, "5:RUNNING"),
        (
            v1::ListAccountingRequest { to_ms: end - 20_000, states: texts("R"), ..none() },
            "1:COMPLETED 3_0:COMPLETED",
        ),
    ] {
        assert_eq!(states(&past.list(&world, request.clone())), selected, "{request:?}");
    }
    let bad = v1::ListAccountingRequest { states: texts("x"), ..none() };
    let refused = accounting(&world.view(), &bad, &mut |_, _| Ok(()));
    assert!(matches!(refused, Err(ListError::Refused(_))));
}

#[test]
fn a_plain_job_is_found_without_a_search_through_all_of_history() {
    let (world, mut past) = past();
    past.list(&world, v1::ListAccountingRequest { selectors: texts("1"), ..Default::default() });
    assert_eq!(past.asked.len(), 1);
    assert_eq!(past.asked[0].jobs, Some(vec![1]));
    past.list(&world, v1::ListAccountingRequest { selectors: texts("3"), ..Default::default() });
    assert_eq!(past.asked.len(), 2);
    assert!(past.asked[1].from_ms > 0, "not older than the array");
    past.list(&world, v1::ListAccountingRequest { uids: vec![BOB], ..Default::default() });
    assert_eq!(past.asked[0].uid, Some(BOB));
}

#[test]
fn a_line_of_a_newer_version_is_an_error_and_not_a_gap() {
    let (world, mut past) = past();
    let newer = v1::HistoryRecord { format: 99, ..Default::default() };
    past.lines[0].body = Bytes::from(prost::Message::encode_to_vec(&newer));
    let request = v1::ListAccountingRequest::default();
    let error = accounting(&world.view(), &request, &mut |query, each| past.scan(query, each));
    assert!(matches!(error, Err(ListError::Record(_))));
}

#[test]
fn each_line_of_a_unit_has_a_name_of_its_own() {
    let (_, past) = past();
    let mut names: Vec<_> = past.lines.iter().map(|line| (line.job, line.attempt)).collect();
    assert_eq!(names.len(), 5);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5, "{names:?}");
}

/// A job of alice's on two nodes with step 0 (ended with 3) and step 1 (runs).
fn job_with_steps(world: &mut World) -> JobId {
    let id = world.submit(v1::JobSpec { nodes_min: 2, ntasks: Some(2), ..job("steps", "alice") });
    world.schedule();
    let create = || {
        let spec = penstock_core::model::StepSpec { nodes_min: Some(1), ..Default::default() };
        Command::CreateStep(World::caller(ALICE, None), id, spec.into(), 1)
    };
    world.run(create());
    world.run(create());
    end_step(world, id, 0, 3);
    id
}

fn end_step(world: &mut World, id: JobId, number: u32, status: u8) {
    let number = penstock_core::model::StepNumber(number);
    let step = world.cluster.steps_of(id).find(|step| step.key.number == number).unwrap();
    let node = world.cluster.node(step.shares[0].share.node).unwrap().0.name.clone();
    let exit = ExitCode::exited(status);
    let result = penstock_core::model::RunResult { exit, ..Default::default() };
    let phase = AttemptPhase::Ended(Box::new(result));
    let (attempt, step) = (step.key.attempt, Some(number));
    let report = penstock_core::command::AttemptReport { job: id, attempt, step, phase };
    world.run(Command::Report { node, session: SessionId(1), report });
}

#[test]
fn accounting_tells_of_steps_before_and_after_a_job_retires() {
    let mut world = world();
    let id = job_with_steps(&mut world);
    let mut past = Past::default();
    let told = |past: &mut Past, world: &World| -> Vec<(u32, u32)> {
        let lines = past.list(world, v1::ListAccountingRequest::default());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].job.as_ref().unwrap().run.as_ref().unwrap().derived_status, 3);
        lines[0].steps.iter().map(|step| (step.step, step.state)).collect()
    };
    let (failed, completed) = (JobState::Failed.code(), JobState::Completed.code());
    assert_eq!(told(&mut past, &world), [(0, failed), (1, JobState::Running.code())]);
    end_step(&mut world, id, 1, 0);
    world.end(id, 0);
    past.retire(&mut world);
    assert!(world.cluster.job(id).is_none());
    assert_eq!(told(&mut past, &world), [(0, failed), (1, completed)]);
}

#[test]
fn steps_are_listed_by_filter_and_by_number() {
    let mut world = world();
    let id = job_with_steps(&mut world);
    let list = |selectors: &[&str], uids: &[u32], all| {
        let filter = v1::JobFilter {
            selectors: selectors.iter().map(ToString::to_string).collect(),
            uids: uids.to_vec(),
            ..Default::default()
        };
        let request = v1::ListStepsRequest { filter: Some(filter), all };
        let steps = list_steps(&world.view(), &request).unwrap();
        steps.iter().map(|info| info.step.as_ref().unwrap().step).collect::<Vec<_>>()
    };
    assert_eq!(list(&[], &[], false), [1]);
    assert_eq!(list(&[], &[], true), [0, 1]);
    assert_eq!(list(&["1.0"], &[], true), [0]);
    assert_eq!(list(&["1.0"], &[], false), [0; 0]);
    assert_eq!(list(&["1"], &[ALICE], false), [1]);
    assert_eq!(list(&[], &[BOB], true), [0; 0]);
    let request = v1::ListStepsRequest::default();
    let line = &list_steps(&world.view(), &request).unwrap()[0];
    assert_eq!((line.partition.as_str(), line.nodelist.as_str()), ("main", "n2"));
    assert!(line.tres_allocated.starts_with("cpu=1,mem="), "{}", line.tres_allocated);
    let targets = |texts: &[&str]| {
        let selectors = texts.iter().map(ToString::to_string).collect();
        let filter = v1::JobFilter { selectors, ..Default::default() };
        targets_and_steps(&world.view(), &filter).unwrap()
    };
    let step = Target::Step(id, penstock_core::model::StepNumber(1));
    assert_eq!(targets(&["1.1"]), std::slice::from_ref(&step));
    assert_eq!(targets(&["1", "1.1"]), [Target::Id(id), step]);
    let full = v1::ListJobsRequest { full: true, ..Default::default() };
    let steps = |request| list_jobs(&world.view(), request).unwrap().next().unwrap().steps.len();
    assert_eq!((steps(&full), steps(&v1::ListJobsRequest::default())), (2, 0));
}
