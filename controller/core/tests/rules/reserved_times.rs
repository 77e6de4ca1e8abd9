//! What do advance reservations mean for what is planned?

use std::collections::BTreeSet;

use penstock_core::Command;
use penstock_core::command::{NodeChoice, ReservationChange, ReservationRequest, Unit};
use penstock_core::model::ReservationFlag;
use penstock_vocab::UserId;

use crate::common::{World, admin, job, node_name, user, world};

fn reserve(w: &mut World, name: &str, after: u64, secs: u64, flags: &[ReservationFlag]) {
    let request = ReservationRequest {
        name: name.into(),
        start: Some(w.now.plus_secs(after)),
        duration_secs: Some(secs),
        nodes: Some(NodeChoice::Named(vec![node_name(1)])),
        users: Some(vec![("u1000".into(), UserId(1000))]),
        flags: Some(BTreeSet::from_iter(flags.iter().copied())),
        ..ReservationRequest::default()
    };
    let change = ReservationChange::Create(Box::new(request));
    w.execute(Command::Reservation(admin(), change)).unwrap();
}

#[test]
fn nobody_else_runs_into_a_reservation() {
    let mut w = world().nodes(1).cpus(4).build();
    reserve(&mut w, "course", 3_600, 3_600, &[]);
    let short = w.submit(&job().by(user(7)).tasks(2).minutes(60));
    let long = w.submit(&job().by(user(7)).tasks(2).minutes(61));
    assert_eq!(w.run_plan(), [short]);
    let plan = w.plan();
    let expected = plan.expected(Unit::Job(long)).unwrap();
    assert_eq!(expected.start, w.now.plus_secs(7_200));
}

#[test]
fn its_own_jobs_run_inside_it_and_end_with_it() {
    let mut w = world().nodes(2).cpus(4).build();
    reserve(&mut w, "course", 600, 3_600, &[]);
    let inside = |minutes| job().minutes(minutes).spec(|s| s.reservation = "course".into());
    let fits = w.submit(&inside(60));
    let too_long = w.submit(&inside(61));
    assert!(w.plan().starts.is_empty());
    let waiting = w.cluster.waiting(Unit::Job(fits), &w.plan()).unwrap();
    assert_eq!(waiting.reason.to_string(), "Reservation");
    assert_eq!(waiting.detail, "reservation course begins in 00:10:00");
    w.wait(600);
    assert_eq!(w.run_plan(), [fits]);
    assert_eq!(w.job(fits).active_run().unwrap().batch_node(), Some(w.index(1)));
    assert!(w.job(too_long).is_pending());
    let stranger = job().by(user(7)).minutes(5).spec(|s| s.reservation = "course".into());
    if let Ok(stranger) = w.try_submit(&stranger) {
        assert!(w.plan().starts.iter().all(|line| line.unit != Unit::Job(stranger)));
    }
}

#[test]
fn a_flexible_one_lets_its_jobs_begin_before_and_beside_it() {
    let mut w = world().nodes(2).cpus(4).build();
    reserve(&mut w, "flexible", 600, 3_600, &[ReservationFlag::Flex]);
    let job = job().tasks(8).nodes(2).minutes(600).spec(|s| s.reservation = "flexible".into());
    let id = w.submit(&job);
    assert_eq!(w.run_plan(), [id]);
}
