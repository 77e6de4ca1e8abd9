//! Does each rule hold, one by one?

use penstock_vocab::{Attempt, JobId, Millis, SessionId, Signal, Timestamp};

use crate::*;

type Out = Output<&'static str>;

struct World {
    agent: Supervisor<&'static str>,
    now: Timestamp,
    session: SessionId,
}

fn key(job: u32, attempt: u32) -> AttemptKey {
    AttemptKey::new(JobId(job), Attempt(attempt))
}

fn position(id: &str, sequence: u64) -> StorePosition {
    StorePosition { id: StoreId::new(id.as_bytes()), sequence }
}

fn world_with(recovery: Recovery) -> World {
    let mut world =
        World { agent: Supervisor::new(), now: Timestamp(1_000), session: SessionId(0) };
    world.input(Input::Recovered(recovery));
    world
}

/// An agent that starts empty and has its first session.
fn world() -> World {
    let mut world = world_with(Recovery::default());
    world.welcome("store", 1);
    world
}

impl World {
    fn input(&mut self, input: Input<&'static str>) -> Vec<Out> {
        self.agent.handle(self.now, input)
    }

    fn welcome(&mut self, store: &str, sequence: u64) -> Vec<Out> {
        self.session = SessionId(self.session.0 + 1);
        let (session, store) = (self.session, position(store, sequence));
        let asked = self.now;
        self.input(Input::Welcome(Welcome { session, store, asked, fresh: false }))
    }

    fn order(&mut self, order: Order<&'static str>) -> Vec<Out> {
        self.input(Input::Order { session: self.session, order })
    }

    fn launch(&mut self, key: AttemptKey) -> Vec<Out> {
        self.order(Order::Launch { key, limit_serial: 1, lease: None, payload: "job" })
    }

    fn terminate(&mut self, key: AttemptKey) -> Vec<Out> {
        self.order(Order::Terminate { key, cause: EndCause::Cancelled, kill_wait_secs: 30 })
    }

    fn acknowledge(&mut self, key: AttemptKey) -> Vec<Out> {
        self.order(Order::Acknowledge { key })
    }

    fn started(&mut self, key: AttemptKey) -> Vec<Out> {
        self.input(Input::Host(HostEvent::Started(key)))
    }

    fn ended(&mut self, key: AttemptKey) -> Vec<Out> {
        self.input(Input::Host(HostEvent::Ended(key, RunResult::default())))
    }

    fn run(&mut self, key: AttemptKey) {
        assert_eq!(self.launch(key), [Output::Start(key, "job")]);
        assert_eq!(self.started(key), [self.reports(key, ReportedPhase::Running)]);
    }

    fn reports(&self, key: AttemptKey, phase: ReportedPhase) -> Out {
        Output::Report(self.session, AttemptReport { key, phase })
    }

    fn reports_end(&self, key: AttemptKey) -> Out {
        self.reports(key, ReportedPhase::Ended(RunResult::default()))
    }

    fn reports_never(&self, key: AttemptKey) -> Out {
        self.reports(key, ReportedPhase::NeverStarted)
    }
}

fn killed(key: AttemptKey) -> Out {
    Output::Terminate { key, cause: EndCause::Cancelled, kill_wait_secs: 30 }
}

fn ignored(key: AttemptKey, why: Ignored) -> Out {
    Output::Ignored { key: Some(key), why }
}

#[test]
fn a_job_runs_ends_and_is_forgotten() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    let end = w.reports_end(k);
    assert_eq!(w.ended(k), [end]);
    assert_eq!(w.acknowledge(k), [Output::Forget(k)]);
    assert_eq!(w.agent.held_count(), 0);
    assert_eq!(w.agent.reports(), []);
}

#[test]
fn a_known_launch_reports_its_phase_and_starts_nothing() {
    let mut w = world();
    let k = key(7, 0);
    assert_eq!(w.launch(k), [Output::Start(k, "job")]);
    assert_eq!(w.launch(k), [], "nothing is known yet");
    w.started(k);
    let running = w.reports(k, ReportedPhase::Running);
    assert_eq!(w.launch(k), [running]);
    w.ended(k);
    let end = w.reports_end(k);
    assert_eq!(w.launch(k), [end]);
    w.acknowledge(k);
    assert_eq!(w.launch(k), [ignored(k, Ignored::WrongPhase)], "late in the same session");
}

#[test]
fn a_failed_start_is_an_end_with_the_reason() {
    let mut w = world();
    let k = key(7, 0);
    w.launch(k);
    let failed = HostEvent::StartFailed { key: k, error: "disk full".into(), node_fault: true };
    let result =
        RunResult { launch_error: "disk full".into(), node_fault: true, ..RunResult::default() };
    let report = w.reports(k, ReportedPhase::Ended(result));
    assert_eq!(w.input(Input::Host(failed)), [report]);
}

#[test]
fn a_full_spool_asks_for_a_drain_while_somebody_hears_it() {
    let mut w = world();
    let drain = Output::Drain(w.session, SPOOL_FULL);
    assert_eq!(w.input(Input::Host(HostEvent::SpoolFull)), [drain]);
    w.input(Input::Disconnected);
    assert_eq!(w.input(Input::Host(HostEvent::SpoolFull)), []);
}

#[test]
fn terminate_before_its_launch_leaves_a_tombstone_until_a_new_session() {
    let mut w = world();
    let k = key(7, 2);
    let never = w.reports_never(k);
    assert_eq!(w.terminate(k), [Output::WriteTombstone(k), never.clone()]);
    assert_eq!(w.launch(k), std::slice::from_ref(&never));
    assert_eq!(w.acknowledge(k), [], "the tombstone stays for this session");
    assert_eq!(w.launch(k), [never], "still");
    assert_eq!(w.welcome("store", 1), [Output::RemoveTombstone(k)]);
}

#[test]
fn a_tombstone_that_nobody_acknowledged_outlives_the_session() {
    let mut w = world();
    let k = key(7, 2);
    w.terminate(k);
    let again = w.welcome("store", 1);
    assert_eq!(again, [w.reports_never(k)]);
    let never = w.reports_never(k);
    assert_eq!(w.launch(k), [never]);
}

#[test]
fn an_attempt_older_than_one_seen_never_starts() {
    let mut w = world();
    w.run(key(7, 1));
    let never = w.reports_never(key(7, 0));
    assert_eq!(w.launch(key(7, 0)), std::slice::from_ref(&never));
    w.ended(key(7, 1));
    w.acknowledge(key(7, 1));
    w.acknowledge(key(7, 0));
    assert_eq!(w.launch(key(7, 0)), [ignored(key(7, 0), Ignored::WrongPhase)]);
}

#[test]
fn a_newer_attempt_waits_until_the_earlier_one_is_gone() {
    let mut w = world();
    w.run(key(7, 0));
    assert_eq!(w.launch(key(7, 1)), []);
    let limit = TimeLimit { limit_secs: 60, serial: 4 };
    assert_eq!(w.order(Order::SetLimit { key: key(7, 1), limit }), []);
    let end = w.reports_end(key(7, 0));
    let expect = [end, Output::Start(key(7, 1), "job"), Output::SetLimit(key(7, 1), limit)];
    assert_eq!(w.ended(key(7, 0)), expect);
}

#[test]
fn a_waiting_launch_ends_by_terminate_by_a_newer_one_or_with_its_session() {
    let mut w = world();
    w.run(key(7, 0));
    w.launch(key(7, 1));
    let never = w.reports_never(key(7, 1));
    assert_eq!(w.launch(key(7, 2)), [never]);
    let never = w.reports_never(key(7, 2));
    assert_eq!(w.terminate(key(7, 2)), [Output::WriteTombstone(key(7, 2)), never]);
    assert_eq!(w.launch(key(7, 3)), []);
    w.welcome("store", 1);
    let end = w.reports_end(key(7, 0));
    assert_eq!(w.ended(key(7, 0)), [end], "attempt 3 belonged to the old session");
}

fn step(job: u32, attempt: u32, step: u32) -> AttemptKey {
    AttemptKey::of_step(JobId(job), Attempt(attempt), step)
}

#[test]
fn keys_stand_in_order_and_have_names() {
    let keys =
        [key(7, 0), step(7, 0, 0), step(7, 0, u32::MAX), key(7, 1), step(7, 1, 3), key(8, 0)];
    assert!(keys.is_sorted());
    assert_eq!(keys.map(|key| key.to_string())[3..5], ["7.1", "7.1.3"]);
}

#[test]
fn the_parts_of_one_attempt_run_side_by_side_and_end_on_their_own() {
    let mut w = world();
    for k in [step(7, 0, 1), key(7, 0), step(7, 0, 0)] {
        w.run(k);
    }
    let end = w.reports_end(key(7, 0));
    assert_eq!(w.ended(key(7, 0)), [end]);
    assert_eq!(w.terminate(step(7, 0, 1)), [killed(step(7, 0, 1))]);
    assert_eq!(w.acknowledge(key(7, 0)), [Output::Forget(key(7, 0))]);
    assert_eq!(w.terminate(step(7, 0, 0)), [killed(step(7, 0, 0))]);
    let never = w.reports_never(step(7, 0, 2));
    let buried = [Output::WriteTombstone(step(7, 0, 2)), never.clone()];
    assert_eq!(w.terminate(step(7, 0, 2)), buried);
    assert_eq!(w.launch(step(7, 0, 2)), [never]);
}

#[test]
fn all_parts_of_a_newer_attempt_wait_until_each_part_of_the_earlier_one_is_gone() {
    let mut w = world();
    for k in [key(7, 0), step(7, 0, u32::MAX)] {
        w.run(k);
    }
    for k in [step(7, 1, 0), key(7, 1)] {
        assert_eq!(w.launch(k), []);
    }
    let end = w.reports_end(key(7, 0));
    assert_eq!(w.ended(key(7, 0)), [end], "the step of attempt 0 goes on");
    let last = step(7, 0, u32::MAX);
    let end = w.reports_end(last);
    let expect = [end, Output::Start(key(7, 1), "job"), Output::Start(step(7, 1, 0), "job")];
    assert_eq!(w.ended(last), expect);
}

#[test]
fn a_newer_attempt_gives_up_all_parts_that_wait_of_an_older_one() {
    let mut w = world();
    w.run(key(7, 0));
    for k in [key(7, 1), step(7, 1, 0)] {
        assert_eq!(w.launch(k), []);
    }
    let never = [w.reports_never(key(7, 1)), w.reports_never(step(7, 1, 0))];
    assert_eq!(w.launch(step(7, 2, 0)), never);
    assert_eq!(w.launch(key(7, 2)), [], "it waits beside its step");
    let never = w.reports_never(step(7, 1, 4));
    assert_eq!(w.launch(step(7, 1, 4)), [never], "older than a step that was seen");
}

#[test]
fn a_step_that_was_acknowledged_keeps_earlier_attempts_from_starting() {
    let mut w = world();
    w.run(step(7, 1, 3));
    w.ended(step(7, 1, 3));
    assert_eq!(w.acknowledge(step(7, 1, 3)), [Output::Forget(step(7, 1, 3))]);
    let never = w.reports_never(key(7, 0));
    assert_eq!(w.launch(key(7, 0)), [never]);
    assert_eq!(w.launch(step(7, 1, 4)), [Output::Start(step(7, 1, 4), "job")]);
}

#[test]
fn too_many_waiting_launches_are_left_to_the_controller() {
    let mut w = world();
    let jobs = u32::try_from(MAX_WAITING).expect("fits");
    for job in 0..=jobs {
        w.run(key(job, 0));
    }
    for job in 0..jobs {
        assert_eq!(w.launch(key(job, 1)), []);
    }
    assert_eq!(w.launch(key(jobs, 1)), [ignored(key(jobs, 1), Ignored::Full)]);
}

#[test]
fn a_full_agent_answers_no_new_attempt() {
    let mut w = world();
    for job in 0..u32::try_from(MAX_HELD).expect("fits") {
        w.terminate(key(job, 0));
    }
    let k = key(999_999, 0);
    assert_eq!(w.launch(k), [ignored(k, Ignored::Full)]);
    assert_eq!(w.terminate(k), [ignored(k, Ignored::Full)]);
    w.acknowledge(key(0, 0));
    assert_eq!(w.launch(k), [Output::Start(k, "job")]);
}

#[test]
fn terminate_is_passed_on_as_often_as_it_comes() {
    let mut w = world();
    let k = key(7, 0);
    w.launch(k);
    assert_eq!(w.terminate(k), [killed(k)], "while it is being started");
    w.started(k);
    assert_eq!(w.terminate(k), [killed(k)]);
    w.ended(k);
    let end = w.reports_end(k);
    assert_eq!(w.terminate(k), [end]);
}

#[test]
fn messages_of_other_sessions_are_dropped() {
    let mut w = world();
    let k = key(7, 0);
    let old = Input::Order { session: SessionId(0), order: Order::Acknowledge { key: k } };
    assert_eq!(w.input(old), [ignored(k, Ignored::OtherSession)]);
    w.input(Input::Disconnected);
    assert_eq!(w.launch(k), [ignored(k, Ignored::OtherSession)], "no session goes on");
    assert_eq!(w.agent.session(), None);
}

#[test]
fn a_late_welcome_revives_no_old_session_unless_the_transport_vouches() {
    let mut w = world();
    w.welcome("store", 1);
    let mut late = Welcome {
        session: SessionId(1),
        store: position("store", 1),
        asked: Timestamp(1_000),
        fresh: false,
    };
    let why = Ignored::OtherSession;
    assert_eq!(w.input(Input::Welcome(late.clone())), [Output::Ignored { key: None, why }]);
    assert_eq!(w.agent.session(), Some(SessionId(2)));
    late.fresh = true;
    assert_eq!(w.input(Input::Welcome(late)), []);
    assert_eq!(w.agent.session(), Some(SessionId(1)));
}

#[test]
fn everything_is_reported_again_in_a_new_session() {
    let mut w = world();
    w.run(key(1, 0));
    w.run(key(2, 0));
    w.input(Input::Disconnected);
    assert_eq!(w.ended(key(2, 0)), [], "nobody to tell");
    assert_eq!(w.agent.reports().len(), 2);
    let again = w.welcome("store", 2);
    let expect = [
        Output::PersistStore(position("store", 2)),
        w.reports(key(1, 0), ReportedPhase::Running),
        w.reports_end(key(2, 0)),
    ];
    assert_eq!(again, expect);
}

#[test]
fn ends_are_reported_on_a_timer_ever_more_seldom_until_acknowledged() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    assert_eq!(w.agent.next_tick(), None);
    w.ended(k);
    let end = w.reports_end(k);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let due = w.agent.next_tick().expect("a report is due");
        waits.push(due.since(w.now).0);
        w.now = due.minus(penstock_vocab::Millis(1));
        assert_eq!(w.input(Input::Tick), [], "too early");
        w.now = due;
        assert_eq!(w.input(Input::Tick), std::slice::from_ref(&end));
    }
    assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    w.acknowledge(k);
    w.now = w.now.plus_secs(3_600);
    assert_eq!(w.input(Input::Tick), []);
    assert_eq!(w.agent.next_tick(), None);
}

#[test]
fn one_tick_repeats_a_bounded_number_of_reports_and_the_rest_later() {
    let mut w = world();
    let jobs = MAX_REPORTS_PER_TICK + 10;
    for job in 0..u32::try_from(jobs).expect("fits") {
        w.run(key(job, 0));
        w.ended(key(job, 0));
    }
    let mut reported = Vec::new();
    for _ in 0..2 {
        w.now = w.now.plus_secs(3);
        reported.push(w.input(Input::Tick).len());
    }
    assert_eq!(reported, [MAX_REPORTS_PER_TICK, 10]);
}

#[test]
fn an_unclaimed_intent_is_locked_and_never_started() {
    let k = key(7, 0);
    let mut w = world_with(Recovery::default());
    let again =
        Input::Recovered(Recovery { found: vec![Found::Unclaimed(k)], ..Recovery::default() });
    let why = Ignored::NotRecovered;
    assert_eq!(w.input(again), [Output::Ignored { key: None, why }], "only once");

    let mut agent = Supervisor::<&str>::new();
    let recovery = Recovery { found: vec![Found::Unclaimed(k)], ..Recovery::default() };
    assert_eq!(agent.handle(w.now, Input::Recovered(recovery)), [Output::TakeLock(k)]);
    w.agent = agent;
    w.welcome("store", 1);
    assert_eq!(w.agent.reports(), [], "not decided");
    assert_eq!(w.launch(k), []);
    let never = w.reports_never(k);
    assert_eq!(w.input(Input::Host(HostEvent::LockTaken(k))), std::slice::from_ref(&never));
    assert_eq!(w.launch(k), [never]);
    assert_eq!(w.acknowledge(k), [Output::Forget(k)]);
}

#[test]
fn a_shepherd_faster_than_the_lock_is_adopted_and_a_kept_terminate_carried_out() {
    let k = key(7, 0);
    let mut w = world_with(Recovery { found: vec![Found::Unclaimed(k)], ..Recovery::default() });
    w.welcome("store", 1);
    assert_eq!(w.terminate(k), []);
    let running = w.reports(k, ReportedPhase::Running);
    assert_eq!(w.started(k), [killed(k), running]);
}

#[test]
fn what_the_last_agent_left_is_known() {
    let lost = RunResult { lost: true, ..RunResult::default() };
    let found = vec![
        Found::Running(key(1, 0)),
        Found::Ended(key(2, 0), lost.clone()),
        Found::Tombstone(key(3, 4)),
        Found::NeverStarted(key(4, 0)),
    ];
    let mut w = world_with(Recovery { found, store: Some(position("store", 5)), leases: false });
    let phases: Vec<_> = w.agent.reports().into_iter().map(|report| report.phase).collect();
    let never = ReportedPhase::NeverStarted;
    let expect = [ReportedPhase::Running, ReportedPhase::Ended(lost), never.clone(), never];
    assert_eq!(phases, expect);
    w.welcome("store", 5);
    let never = w.reports_never(key(3, 3));
    assert_eq!(w.launch(key(3, 3)), [never], "older than the tombstone");
    assert_eq!(w.terminate(key(1, 0)), [killed(key(1, 0))]);
}

#[test]
fn before_the_spool_was_read_nothing_is_done() {
    let mut agent = Supervisor::<&str>::new();
    let welcome = Welcome {
        session: SessionId(1),
        store: position("store", 1),
        asked: Timestamp(1_000),
        fresh: true,
    };
    let why = Ignored::NotRecovered;
    let ignored = [Output::Ignored { key: None, why }];
    assert_eq!(agent.handle(Timestamp(1), Input::Welcome(welcome)), ignored);
}

#[test]
fn a_process_that_outlives_sigkill_drains_the_node() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    let result = RunResult { unkillable: true, ..RunResult::default() };
    let report = w.reports(k, ReportedPhase::Ended(result.clone()));
    let expect = [report, Output::Drain(w.session, KILL_TASK_FAILED)];
    assert_eq!(w.input(Input::Host(HostEvent::Ended(k, result))), expect);
}

#[test]
fn an_impossible_start_is_ended_at_once() {
    let mut w = world();
    let k = key(7, 0);
    w.terminate(k);
    let kill = Output::Terminate { key: k, cause: EndCause::Other, kill_wait_secs: 0 };
    assert_eq!(w.started(k), [ignored(k, Ignored::StartedTooLate), kill]);
    assert_eq!(w.ended(k), [ignored(k, Ignored::WrongPhase), Output::Forget(k)]);
}

#[test]
fn a_shepherd_nobody_knows_is_adopted() {
    let mut w = world();
    let running = w.reports(key(1, 0), ReportedPhase::Running);
    assert_eq!(w.started(key(1, 0)), [running]);
    let end = w.reports_end(key(2, 0));
    assert_eq!(w.ended(key(2, 0)), [end]);
}

#[test]
fn orders_to_running_attempts_need_one_that_runs() {
    let mut w = world();
    let k = key(7, 0);
    let request = SignalRequest { signal: Signal::HUP, batch_only: true, full: false };
    let signal = Order::Signal { key: k, request };
    let suspend = Order::Suspend { key: k, suspend: true };
    assert_eq!(w.order(signal.clone()), [ignored(k, Ignored::Unknown)]);
    w.run(k);
    assert_eq!(w.order(signal.clone()), [Output::Signal(k, request)]);
    assert_eq!(w.order(suspend.clone()), [Output::Suspend(k, true)]);
    assert_eq!(w.acknowledge(k), [ignored(k, Ignored::WrongPhase)]);
    w.ended(k);
    assert_eq!(w.order(signal), [ignored(k, Ignored::WrongPhase)]);
    assert_eq!(w.order(suspend), [ignored(k, Ignored::WrongPhase)]);
}

#[test]
fn an_older_time_limit_is_dropped() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    let limit = |serial| TimeLimit { limit_secs: 60, serial };
    let set = |serial| Order::SetLimit { key: k, limit: limit(serial) };
    assert_eq!(w.order(set(3)), [Output::SetLimit(k, limit(3))]);
    assert_eq!(w.order(set(2)), [ignored(k, Ignored::OldLimit)]);
    assert_eq!(w.order(set(3)), [ignored(k, Ignored::OldLimit)]);
    assert_eq!(w.order(set(4)), [Output::SetLimit(k, limit(4))]);
}

#[test]
fn an_older_store_ends_nothing_until_confirmed() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    let newer = Input::StoreSequence { session: w.session, sequence: 9 };
    assert_eq!(w.input(newer), [Output::PersistStore(position("store", 9))]);
    let why = Distrust::OlderStore { seen: 9, found: 4 };
    let met = w.welcome("store", 4);
    assert_eq!(met[0], Output::Withheld { key: None, why: why.clone() });
    let withheld = [Output::Withheld { key: Some(k), why }];
    assert_eq!(w.terminate(k), withheld);
    assert_eq!(w.order(Order::Suspend { key: k, suspend: true }), withheld);
    let limit = TimeLimit { limit_secs: 1, serial: 2 };
    assert_eq!(w.order(Order::SetLimit { key: k, limit }), withheld);
    let own = key(8, 0);
    w.run(own);
    assert_eq!(w.terminate(own), [killed(own)], "its own jobs it may end");
    assert!(w.agent.awaits_confirmation());
    assert_eq!(w.input(Input::Confirmed), [Output::PersistStore(position("store", 4))]);
    assert_eq!(w.terminate(k), [killed(k)]);
}

#[test]
fn an_end_that_was_ordered_before_the_older_store_came_is_carried_out() {
    let k = key(7, 0);
    let found = vec![Found::Unclaimed(k)];
    let mut w = world_with(Recovery { found, ..Recovery::default() });
    w.welcome("store", 9);
    assert_eq!(w.terminate(k), [], "nobody knows yet whether it started");
    w.welcome("store", 4);
    assert_eq!(w.started(k), [killed(k), w.reports(k, ReportedPhase::Running)]);
}

#[test]
fn another_store_neither_ends_nor_forgets_what_it_did_not_launch() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    w.ended(k);
    w.welcome("other", 100);
    let (expected, found) = (StoreId::new(b"store"), StoreId::new(b"other"));
    let withheld = Output::Withheld { key: Some(k), why: Distrust::OtherStore { expected, found } };
    assert_eq!(w.acknowledge(k), std::slice::from_ref(&withheld));
    assert_eq!(w.launch(k), [withheld], "its job 7 is another one");
    w.run(key(8, 0));
    w.welcome("other", 101);
    assert_eq!(w.terminate(key(8, 0)), [killed(key(8, 0))], "the doubt is the same as before");
    let back = w.welcome("store", 1);
    assert!(!back.iter().any(|out| matches!(out, Output::Withheld { .. })));
    assert_eq!(w.acknowledge(k), [Output::Forget(k)]);
}

#[test]
fn an_agent_with_nothing_to_lose_takes_any_store() {
    let mut w = world();
    assert_eq!(w.welcome("other", 1), [Output::PersistStore(position("other", 1))]);
    assert!(!w.agent.awaits_confirmation());
    assert_eq!(w.agent.store(), Some(&position("other", 1)));
}

#[test]
fn the_doubt_ends_with_what_it_protected() {
    let mut w = world();
    let k = key(7, 0);
    w.run(k);
    w.input(Input::StoreSequence { session: w.session, sequence: 9 });
    w.welcome("store", 4);
    w.ended(k);
    let adopted = Output::PersistStore(position("store", 4));
    assert_eq!(w.acknowledge(k), [Output::Forget(k), adopted]);
    assert!(!w.agent.awaits_confirmation());
}

fn leased(key: AttemptKey) -> Order<&'static str> {
    Order::Launch { key, limit_serial: 1, lease: Some(Millis(20_000)), payload: "job" }
}

impl World {
    fn renewed(&mut self, sent: Timestamp) -> Vec<Out> {
        self.input(Input::Renewed { session: self.session, sent })
    }
}

#[test]
fn where_no_attempt_holds_a_lease_none_is_spoken_of() {
    let mut w = world();
    w.run(key(7, 0));
    w.now = Timestamp(5_000);
    assert_eq!(w.renewed(Timestamp(4_000)), []);
}

#[test]
fn leases_count_from_what_was_sent_and_are_said_before_the_start() {
    let mut w = world();
    w.now = Timestamp(9_000);
    assert_eq!(w.renewed(Timestamp(6_000)), []);
    let k = key(7, 0);
    assert_eq!(w.order(leased(k)), [Output::Renew(Timestamp(6_000)), Output::Start(k, "job")]);
    assert_eq!(w.renewed(Timestamp(8_000)), [Output::Renew(Timestamp(8_000))]);
    assert_eq!(w.renewed(Timestamp(7_000)), [], "a late answer");
    assert_eq!(w.renewed(Timestamp(9_001)), [], "nobody sends in the future");
}

#[test]
fn a_launch_that_comes_after_its_lease_starts_nothing_until_it_is_said_again() {
    let mut w = world();
    let k = key(7, 0);
    w.now = Timestamp(21_000);
    assert_eq!(w.order(leased(k)), [ignored(k, Ignored::NoLease)], "registered 20 s before");
    assert_eq!(w.renewed(Timestamp(20_500)), []);
    assert_eq!(w.order(leased(k)), [Output::Renew(Timestamp(20_500)), Output::Start(k, "job")]);
}

#[test]
fn answers_of_another_session_renew_nothing() {
    let mut w = world();
    let old = w.session;
    w.order(leased(key(7, 0)));
    w.now = Timestamp(9_000);
    assert_eq!(w.input(Input::Renewed { session: SessionId(old.0 + 1), sent: w.now }), []);
    let out = w.welcome("store", 2);
    assert!(out.contains(&Output::Renew(Timestamp(9_000))), "registering is asking: {out:?}");
    assert_eq!(w.input(Input::Renewed { session: old, sent: w.now }), []);
}

#[test]
fn an_agent_that_finds_leases_goes_on_to_renew_them() {
    let found = vec![Found::Running(key(7, 0))];
    let mut w = world_with(Recovery { found, leases: true, ..Recovery::default() });
    w.now = Timestamp(3_000);
    assert!(w.welcome("store", 1).contains(&Output::Renew(Timestamp(3_000))));
}
