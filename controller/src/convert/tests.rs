use std::sync::Arc;

use bytes::Bytes;
use penstock_core::Cluster;
use penstock_core::cluster::Records;
use penstock_core::command::{
    AttemptPhase, Command, NodeAction, Order, OrderKind, RecordKey, Target,
};
use penstock_core::model::{BlobId, Config, EndCause, MemoryRequest};
use penstock_core::refusal::Refusal;
use penstock_proto::{RECORD_FORMAT, v1};
use penstock_vocab::*;
use proptest::prelude::*;
use prost::Message;

use super::generate::Dice;
use super::record::{Loader, describe, key, value};
use super::spec::{spec_from_wire, spec_to_wire, submission};
use super::{
    RecordError, accounts, answer, array, cron, host, job, node, reservation, step, update, wire,
};
use crate::listing::world::{ALICE, World, config, job as request, world};
use crate::store::Key;

fn blobs() -> (BlobId, BlobId) {
    (BlobId([1; 32]), BlobId([2; 32]))
}

/// Records in which the nodes have the places that they have in the world.
fn places() -> Records {
    let mut records = Records::default();
    for place in 1..=4 {
        records.node_index(&NodeName::new(&format!("n{place}")).unwrap());
    }
    records
}

proptest! {
    #[test]
    fn what_is_stored_comes_back_as_it_was(seed: u64) {
        let dice = &mut Dice(seed);
        let cluster = Cluster::new(Arc::new(config()), Timestamp(1));
        let bytes = |message: &v1::Job| Bytes::from(message.encode_to_vec());

        let value = dice.job();
        let wire = v1::Job::decode(bytes(&job::job_to_wire(&cluster, &value))).unwrap();
        prop_assert_eq!(job::job_from_record(wire, &mut places()), Ok(value));

        let value = dice.array();
        let wire = array::array_to_wire(&value);
        prop_assert_eq!(array::array_from_wire(wire, &mut places()), Ok(value));

        let value = dice.step();
        let wire = step::step_to_wire(&cluster, &value);
        let back = v1::Step::decode(Bytes::from(wire.encode_to_vec())).unwrap();
        prop_assert_eq!(step::step_from_wire(back, &mut places()), Ok(value));

        let value = dice.stored_node();
        prop_assert_eq!(node::node_from_wire(node::node_to_wire(&value)), Ok(value));

        let value = dice.host();
        prop_assert_eq!(host::host_from_wire(host::host_to_wire(&value)), Ok(value));

        let value = dice.token();
        prop_assert_eq!(host::token_from_wire(host::token_to_wire(&value)), Ok(value));

        let value = dice.answer();
        prop_assert_eq!(answer::answer_from_wire(answer::answer_to_wire(&value)), Ok(value));

        let value = dice.account();
        prop_assert_eq!(accounts::account_from_wire(accounts::account_to_wire(&value)), value);

        let value = dice.account_user();
        prop_assert_eq!(accounts::user_from_wire(accounts::user_to_wire(&value)), Ok(value));

        let value = dice.association();
        let back = accounts::association_from_wire(accounts::association_to_wire(&value));
        prop_assert_eq!(back, Ok(value));

        let value = dice.qos();
        prop_assert_eq!(accounts::qos_from_wire(accounts::qos_to_wire(&value)), Ok(value));

        let value = dice.stored_usage();
        let back = accounts::usage_from_wire(accounts::usage_to_wire(&value.0, &value.1));
        prop_assert_eq!(back, Ok(value));

        let value = dice.reservation();
        let back = reservation::reservation_from_wire(reservation::reservation_to_wire(&value));
        prop_assert_eq!(back, Ok(value));

        let value = dice.crontab();
        prop_assert_eq!(cron::crontab_from_wire(cron::crontab_to_wire(&value)), value);

        let value = dice.spec();
        let back = spec_from_wire(spec_to_wire(&value), &mut PartitionName::new);
        prop_assert_eq!(back, Ok(value));

        let value = dice.indices();
        let back = array::indices_from_wire(&array::indices_to_wire(&value));
        prop_assert_eq!(back, Ok(value));
    }

    #[test]
    fn foreign_bytes_never_break_the_loader(table in 0u8..18, id: [u8; 20], bytes: Vec<u8>) {
        let key = Key::from_bytes([vec![table], id.to_vec()].concat().into()).unwrap();
        let value = Bytes::from(bytes);
        let _refused = Loader::new().take(&key, &value);
        prop_assert!(!describe(&key, &value).is_empty());
    }
}

/// A world in which there is one of everything that is stored.
fn full_world() -> World {
    let mut world = world();
    let held = v1::JobSpec { hold: true, ..request("held", "alice") };
    world.submit(held);
    let array = v1::JobSpec {
        array: "0-9%2".into(),
        gres_per_node: vec![v1::GresCount { name: "gpu".into(), count: 1, ..Default::default() }],
        ..request("array", "bob")
    };
    world.submit(array);
    let ends = world.submit(request("ends", "alice"));
    let again = world.submit(request("again", "alice"));
    world.schedule();
    world.report(ends, AttemptPhase::Running);
    world.end(ends, 3);
    world.requeue(again);
    world.end(again, 0);
    let secret_hash = [9; 32];
    let caller = World::caller(0, Some(77));
    let role = penstock_core::model::HostRole::Login;
    let id: Box<str> = "token".into();
    world.run(Command::CreateToken {
        caller,
        id: id.clone(),
        secret_hash,
        role,
        uses: 2,
        valid_secs: 60,
    });
    let host = "login1".into();
    world.run(Command::Join { token_id: id, secret_hash, host, key_hash: [3; 32] });
    world
}

#[test]
fn a_cluster_comes_back_from_its_records_in_key_order() {
    let World { cluster, now, .. } = full_world();
    let mut stored: Vec<_> = cluster
        .record_keys()
        .map(|record| (key(&record), value(&cluster, &record).expect("it is there")))
        .collect();
    stored.sort();
    let tables: Vec<_> = stored.iter().map(|(key, _)| key.table()).collect();
    assert_eq!(tables.first(), Some(&1));
    assert!((1..=7).all(|table| tables.contains(&table)), "{tables:?}");

    let mut loader = Loader::new();
    for (key, value) in &stored {
        loader.take(key, value).unwrap();
    }
    assert_eq!(loader.last_time(), now);
    let restored = Cluster::restore(loader.finish(), Arc::new(config()), now);
    for record in cluster.record_keys() {
        assert_eq!(value(&cluster, &record), value(&restored, &record), "{record:?}");
    }
    assert!(cluster.jobs().eq(restored.jobs()));
    assert!(cluster.arrays().eq(restored.arrays()));
    assert_eq!(restored.job_count(), cluster.job_count());
    let gone = RecordKey::Job(JobId(4_000));
    assert_eq!(value(&cluster, &gone), None);
}

#[test]
fn equal_requests_share_their_memory() {
    let mut world = world();
    world.submit(v1::JobSpec { array: "0-7".into(), ..request("array", "alice") });
    world.schedule();
    let mut loader = Loader::new();
    for record in world.cluster.record_keys() {
        loader.take(&key(&record), &value(&world.cluster, &record).unwrap()).unwrap();
    }
    let records = loader.finish();
    assert!(records.jobs.len() > 1);
    assert!(records.jobs.iter().all(|job| Arc::ptr_eq(&job.spec, &records.jobs[0].spec)));
}

#[test]
fn records_that_this_version_cannot_read_are_named() {
    let world = full_world();
    let record = RecordKey::Job(JobId(1));
    let (key, value) = (key(&record), value(&world.cluster, &record).unwrap());
    let changed = |change: &dyn Fn(&mut v1::JobRecord)| {
        let mut record = v1::JobRecord::decode(value.clone()).unwrap();
        change(&mut record);
        Bytes::from(record.encode_to_vec())
    };
    let take = |value: &Bytes| Loader::new().take(&key, value).unwrap_err();

    let newer = take(&changed(&|record| record.format = RECORD_FORMAT + 1));
    assert!(matches!(newer, RecordError::Newer { format, .. } if format == RECORD_FORMAT + 1));
    assert!(newer.to_string().contains("job 1"), "{newer}");

    for value in [
        changed(&|record| record.job = None),
        changed(&|record| record.format = 0),
        changed(&|record| record.job.as_mut().unwrap().state = 99),
        changed(&|record| record.job.as_mut().unwrap().hold = 99),
        changed(&|record| record.job.as_mut().unwrap().spec = None),
        changed(&|record| record.job.as_mut().unwrap().array_task_id = Some(1)),
    ] {
        let error = take(&value);
        assert!(matches!(error, RecordError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains("job 1"), "{error}");
    }
    let broken = take(&Bytes::from_static(b"\xff\xff"));
    assert!(matches!(broken, RecordError::Undecodable { .. }), "{broken}");
    let strange = Key::of(99, &[1]);
    let error = Loader::new().take(&strange, &value).unwrap_err();
    assert!(matches!(error, RecordError::UnknownKey { .. }), "{error}");
}

#[test]
fn what_a_submission_may_not_say_is_refused_with_slurms_text() {
    type Change = fn(&mut v1::JobSpec);
    let cases: [(&str, Change); 20] = [
        ("Invalid job array specification", |spec| spec.array = "1-".into()),
        ("Job dependency problem", |spec| spec.dependency = "afterok:x".into()),
        ("Invalid feature specification", |spec| spec.constraint = "a&".into()),
        ("Invalid partition name specified", |spec| spec.partitions = vec!["a b".into()]),
        ("Invalid node name specified", |spec| spec.required_nodes = vec!["n[1-2]".into()]),
        ("Invalid generic resource (gres) specification", |spec| {
            spec.gpus_total = Some(v1::GresCount { name: "g p".into(), ..Default::default() });
        }),
        ("Node count specification invalid", |spec| spec.ntasks = Some(0)),
        ("Node count specification invalid", |spec| spec.cpus_per_task = Some(0)),
        ("Node count specification invalid", |spec| spec.ntasks_per_node = Some(0)),
        ("Node count specification invalid", |spec| (spec.nodes_min, spec.nodes_max) = (3, 2)),
        ("Invalid job request", |spec| spec.name = "x".repeat(1025)),
        ("Invalid job request", |spec| spec.comment = "x".repeat((64 << 10) + 1)),
        ("Invalid job request", |spec| spec.work_dir = "a\0b".into()),
        ("Invalid job request", |spec| spec.script_arguments = vec![String::new(); 10_001]),
        ("Invalid job request", |spec| {
            (spec.mem_per_cpu_mib, spec.mem_per_node_mib) = (Some(1), Some(1));
        }),
        ("Invalid job request", |spec| spec.time_limit_secs = Some(u64::MAX)),
        ("Invalid job request", |spec| spec.begin_time_ms = -1),
        ("Invalid job request", |spec| spec.open_mode = 99),
        ("Invalid job request", |spec| {
            spec.signal = Some(v1::SignalRequest { signal: 65, ..Default::default() });
        }),
        ("Invalid job request", |spec| spec.partitions = vec!["main".into(); 65]),
    ];
    let (script, environment) = blobs();
    assert!(submission(request("good", "alice"), script, environment).is_ok());
    for (text, change) in cases {
        let mut spec = request("bad", "alice");
        change(&mut spec);
        let shown = format!("{:.300}", format!("{spec:?}"));
        let refusal = submission(spec, script, environment).expect_err(&shown);
        assert_eq!(refusal.slurm_text(), text, "{refusal}");
        assert!(!refusal.to_string().is_empty());
    }
}

#[test]
fn a_submission_is_read_in_full() {
    let spec = v1::JobSpec {
        array: "0-7:2%3".into(),
        mem_per_node_mib: Some(0),
        time_limit_secs: Some(0),
        script_hash: Bytes::from_static(&[5; 32]),
        ..request("full", "alice")
    };
    let (script, environment) = blobs();
    let (spec, array) = submission(spec, script, environment).unwrap();
    let array = array.unwrap();
    assert_eq!((array.tasks.to_string().as_str(), array.throttle), ("0,2,4,6", 3));
    assert_eq!(spec.shape.memory, MemoryRequest::WholeNode);
    assert_eq!(spec.time_limit, Some(Walltime::Unlimited));
    assert_eq!((spec.details.script, spec.details.environment), (script, environment));
}

#[test]
fn selectors_become_targets_and_back() {
    let cluster = Cluster::new(Arc::new(Config::default()), Timestamp(0));
    for (text, shown) in [("12", "12"), ("12_*", "12"), ("12_3", "12_3"), ("12_[1-3]", "12_[1-3]")]
    {
        let target = wire::selector(text).unwrap();
        assert_eq!(wire::target_name(&cluster, &target), shown);
    }
    assert_eq!(wire::selector("12").unwrap(), Target::Id(JobId(12)));
    assert!(wire::selectors(&["12".into(), "x".into()]).is_err());
}

#[test]
fn reports_need_a_phase_and_ended_ones_a_result() {
    let report =
        |phase, result| v1::AttemptReport { job_id: 7, attempt: 2, phase, result, step: None };
    let ended = v1::AttemptPhase::Ended as i32;
    assert!(wire::report_from_wire(report(0, None)).is_err());
    assert!(wire::report_from_wire(report(99, None)).is_err());
    assert!(wire::report_from_wire(report(ended, None)).is_err());
    let result = v1::RunResult { wait_status: 3 << 8, lost: true, ..Default::default() };
    let read = wire::report_from_wire(report(ended, Some(result))).unwrap();
    let AttemptPhase::Ended(result) = read.phase else { panic!("it ended") };
    assert_eq!((read.job, read.attempt), (JobId(7), Attempt(2)));
    assert_eq!((result.exit, result.lost), (ExitCode::exited(3), true));
}

#[test]
fn orders_and_launches_carry_what_the_job_says() {
    let mut world = world();
    let id = world.submit(request("runs", "alice"));
    world.schedule();
    let job = Arc::clone(world.cluster.job(id).unwrap());
    let order = |kind| Order { job: id, attempt: Attempt(1), step: None, kind };
    let to_wire = |kind| wire::order_to_wire(&world.cluster, &order(kind), 30);
    assert!(to_wire(OrderKind::Launch).is_none());
    let Some(v1::controller_message::Body::Terminate(end)) =
        to_wire(OrderKind::Terminate(EndCause::TimeLimit))
    else {
        panic!("an order to end")
    };
    assert_eq!((end.cause(), end.kill_wait_secs), (v1::EndCause::TimeLimit, 30));
    let Some(v1::controller_message::Body::SetLimit(limit)) = to_wire(OrderKind::SetLimit) else {
        panic!("a new limit")
    };
    assert_eq!(limit.time_limit_secs, 600);

    let script = Bytes::from_static(b"#!/bin/sh\n");
    let launch = wire::launch(&world.cluster, &job, script, Bytes::new(), 30, Vec::new()).unwrap();
    let run = launch.job.unwrap().run.unwrap();
    assert_eq!((launch.attempt, run.shares[0].node.as_str()), (1, "n1"));
    assert_eq!(
        (run.shares[0].cpu_ranges.as_slice(), launch.cluster.as_str()),
        (&[0, 0][..], "demo")
    );
}

#[test]
fn updates_are_read_and_their_faults_refused() {
    let read = update::job_update_from_wire(v1::JobUpdate {
        partition: Some("gpu,main".into()),
        time_limit_secs: Some(0),
        nodes_min: Some(2),
        required_nodes: Some("n[1-2]".into()),
        gres: Some("gpu:2".into()),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(read.partitions.unwrap().len(), 2);
    assert_eq!(read.time_limit, Some(Walltime::Unlimited));
    assert_eq!((read.nodes, read.required.unwrap().len()), (Some((2, 0)), 2));
    assert_eq!(read.gres.unwrap()[0].count, 2);
    let dependency = Some("foo:1".into());
    let bad = update::job_update_from_wire(v1::JobUpdate { dependency, ..Default::default() });
    assert_eq!(bad.unwrap_err().slurm_text(), "Job dependency problem");

    let world = world();
    let request = v1::UpdateNodeRequest {
        nodes: "ALL".into(),
        action: v1::NodeAction::Drain as i32,
        reason: "fan".into(),
        features: Some("a, b".into()),
        ..Default::default()
    };
    let (nodes, update) = update::node_update_from_wire(&world.cluster, request.clone()).unwrap();
    assert_eq!((nodes.len(), update.action), (4, Some(NodeAction::Drain)));
    assert_eq!(update.features.unwrap().len(), 2);
    for (nodes, action) in [("n[1", 1), ("n1", 99)] {
        let request = v1::UpdateNodeRequest { nodes: nodes.into(), action, ..request.clone() };
        assert!(update::node_update_from_wire(&world.cluster, request).is_err());
    }
}

#[test]
fn inventories_beyond_belief_are_refused() {
    let good = v1::Inventory { cpus: 4, memory_mib: 100, ..Default::default() };
    assert!(wire::inventory_from_wire(good.clone()).is_ok());
    let gres = |count| v1::GresCount { name: "gpu".into(), count, ..Default::default() };
    for bad in [
        v1::Inventory { cpus: 0, ..good.clone() },
        v1::Inventory { cpus: 1 << 20, ..good.clone() },
        v1::Inventory { gres: vec![gres(1 << 40)], ..good.clone() },
        v1::Inventory { features: vec!["x".into(); 1000], ..good.clone() },
        v1::Inventory { os: "x".repeat(5000), ..good },
    ] {
        assert!(wire::inventory_from_wire(bad).is_err());
    }
}

#[test]
fn a_refusal_keeps_its_words_over_a_restart() {
    let mut world = world();
    let caller = World::caller(ALICE, Some(5));
    let targets = vec![Target::Id(JobId(99))];
    world.run(Command::Cancel(caller, targets));
    let given = world.cluster.answer(UserId(ALICE), caller.request.unwrap()).unwrap();
    let back = answer::answer_from_wire(answer::answer_to_wire(given)).unwrap();
    let penstock_core::Reply::Targets(results) = back.reply else { panic!("targets") };
    let refusal = results[0].refusal.as_ref().unwrap();
    let fresh = Refusal::InvalidJobId(JobId(99));
    assert_eq!(refusal.kind(), fresh.kind());
    assert_eq!(refusal.slurm_text(), fresh.slurm_text());
    assert_eq!(refusal.to_string(), fresh.to_string());
}
