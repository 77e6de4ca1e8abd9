use penstock_proto::v1::step_frame::{Credit, Exited, Finished, InputData, Output, Started};

use super::*;

/// Two nodes with two tasks each.
fn session(habits: Habits) -> Session {
    let layout = Layout {
        name: "5.0".into(),
        nodes: vec!["n1".into(), "n2".into()],
        tasks: vec![vec![0, 1], vec![2, 3]],
        kill_wait_secs: 5,
    };
    Session::new(layout, habits)
}

fn running(habits: Habits) -> Session {
    let mut session = session(habits);
    for node in 0..2 {
        session.on_connected(node);
        session.on_frame(node, Frame::Started(Started::default()), 0);
    }
    assert!(session.take_acts().is_empty());
    session
}

fn exited(session: &mut Session, node: usize, task: u32, wait_status: i32, now_ms: u64) {
    session.on_frame(
        node,
        Frame::Exited(Exited { task, wait_status, out_of_memory: false }),
        now_ms,
    );
}

fn finished(session: &mut Session) {
    for node in 0..2 {
        session.on_frame(node, Frame::Finished(Finished {}), 0);
    }
}

/// Acts in short: `say ...`, `error ...`, `out ...`, `signal 9`, `end step`.
fn told(session: &mut Session) -> Vec<String> {
    let short = |act| match act {
        Act::Write { stderr, data } => {
            let text = String::from_utf8_lossy(&data).into_owned();
            format!("{} {text}", if stderr { "err" } else { "out" })
        }
        Act::Say(text) => format!("say {text}"),
        Act::Error(text) => format!("error {text}"),
        Act::Line(text) => format!("line {text}"),
        Act::Signal(to, signal) => format!("signal {signal} {to:?}"),
        Act::Input(node, input) => {
            let end = if input.end { " end" } else { "" };
            format!("input {} Node({node}) {:?}{end}", input.data.len(), input.task)
        }
        Act::Window(size) => format!("window {}x{}", size.columns, size.rows),
        Act::EndStep => "end step".to_owned(),
    };
    session.take_acts().into_iter().map(short).collect()
}

#[test]
fn a_step_that_goes_well_says_nothing() {
    let mut session = running(Habits::default());
    let output = Output { task: 2, stderr: false, data: "hi\n".into(), end: false };
    session.on_frame(1, Frame::Output(output), 1);
    assert_eq!(told(&mut session), ["out hi\n"]);
    for (node, task) in [(0, 0), (0, 1), (1, 2), (1, 3)] {
        assert!(!session.is_over());
        exited(&mut session, node, task, 0, 2);
    }
    finished(&mut session);
    assert!(session.is_over());
    assert_eq!(session.finish(), 0);
    assert!(told(&mut session).is_empty());
}

#[test]
fn ends_are_gathered_and_told_by_node() {
    let mut session = running(Habits::default());
    exited(&mut session, 0, 0, 2 << 8, 10);
    exited(&mut session, 0, 1, 2 << 8, 20);
    assert!(told(&mut session).is_empty());
    assert_eq!(session.next_tick_ms(), Some(10 + TELL_AFTER_MS));
    session.on_tick(10 + TELL_AFTER_MS);
    assert_eq!(told(&mut session), ["error n1: tasks 0-1: Exited with exit code 2"]);
    exited(&mut session, 1, 2, 9, 100);
    exited(&mut session, 1, 3, 9, 100);
    finished(&mut session);
    assert_eq!(session.finish(), 137);
    assert_eq!(
        told(&mut session),
        ["error n2: tasks 2-3: Killed", "say Force Terminated StepId=5.0"]
    );
}

#[test]
fn one_interrupt_reports_and_two_end() {
    let mut session = running(Habits::default());
    exited(&mut session, 0, 0, 0, 0);
    session.on_signal(libc::SIGINT, 5_000);
    assert_eq!(
        told(&mut session),
        [
            "say interrupt (one more within 1 sec to abort)",
            "say StepId=5.0 tasks 1-3: running",
            "say StepId=5.0 task 0: exited",
        ]
    );
    session.on_signal(libc::SIGINT, 7_000);
    assert_eq!(told(&mut session)[0], "say interrupt (one more within 1 sec to abort)");
    session.on_signal(libc::SIGINT, 7_900);
    assert_eq!(
        told(&mut session),
        [
            "say sending Ctrl-C to StepId=5.0",
            "signal 2 All",
            "say forcing job termination",
            "end step",
            "say Job step aborted: Waiting up to 7 seconds for job step to finish.",
        ]
    );
    session.on_tick(7_900 + KILL_AFTER_MS);
    assert_eq!(told(&mut session), ["signal 9 All"]);
    for (node, task) in [(0, 1), (1, 2), (1, 3)] {
        exited(&mut session, node, task, 2, 8_000);
    }
    finished(&mut session);
    // Who ended them knows it.
    assert_eq!(session.finish(), 130);
    assert!(told(&mut session).is_empty());
}

#[test]
fn a_step_that_does_not_end_is_left_to_the_controller() {
    let mut session = running(Habits::default());
    session.on_signal(libc::SIGTERM, 0);
    assert_eq!(told(&mut session).len(), 3);
    session.on_tick(6_999);
    assert!(!session.is_over());
    session.on_tick(7_000);
    assert!(session.is_over());
    assert!(
        told(&mut session).contains(&"error Timed out waiting for job step to complete".into())
    );
    assert_eq!(session.next_tick_ms(), None);
    assert_eq!(session.finish(), 137);
}

#[test]
fn other_signals_go_to_the_tasks() {
    let mut session = running(Habits::default());
    session.on_signal(libc::SIGUSR1, 0);
    assert_eq!(told(&mut session), ["signal 10 All"]);
    let mut at_once = running(Habits { disable_status: true, ..Habits::default() });
    at_once.on_signal(libc::SIGINT, 0);
    assert_eq!(told(&mut at_once), ["say sending Ctrl-C to StepId=5.0", "signal 2 All"]);
    let mut quits = running(Habits { quit_on_interrupt: true, ..Habits::default() });
    quits.on_signal(libc::SIGINT, 0);
    assert_eq!(told(&mut quits)[2], "say forcing job termination");
}

#[test]
fn a_bad_exit_ends_the_others_once() {
    let mut session = running(Habits { kill_on_bad_exit: true, ..Habits::default() });
    exited(&mut session, 0, 0, 5 << 8, 0);
    exited(&mut session, 1, 2, 5 << 8, 0);
    assert_eq!(
        told(&mut session),
        [
            "error n1: task 0: Exited with exit code 5",
            "say launch/slurm: _step_signal: Terminating StepId=5.0",
            "end step",
        ]
    );
    exited(&mut session, 0, 1, 15, 10);
    exited(&mut session, 1, 3, 15, 10);
    finished(&mut session);
    assert_eq!(session.finish(), 143);
    assert_eq!(
        told(&mut session).last().map(String::as_str),
        Some("say Force Terminated StepId=5.0")
    );
}

#[test]
fn the_others_are_waited_for_as_long_as_was_said() {
    let mut session = running(Habits { max_wait_secs: 2, ..Habits::default() });
    exited(&mut session, 0, 0, 0, 1_000);
    exited(&mut session, 0, 1, 0, 1_500);
    session.on_tick(2_999);
    assert!(told(&mut session).is_empty());
    session.on_tick(3_000);
    assert_eq!(
        told(&mut session),
        [
            "say First task exited 2s ago",
            "say StepId=5.0 tasks 2-3: running",
            "say StepId=5.0 tasks 0-1: exited",
            "say launch/slurm: _step_signal: Terminating StepId=5.0",
            "end step",
            "say Job step aborted: Waiting up to 7 seconds for job step to finish.",
        ]
    );
}

#[test]
fn a_node_that_fails_is_told_and_ends_the_step() {
    let failed = v1::StepEvent { node: "n2".into(), node_failed: true, ..v1::StepEvent::default() };
    let mut session = running(Habits::default());
    session.on_step_event(&failed, 0);
    assert_eq!(
        told(&mut session),
        [
            "error Node failure on n2",
            "say Job step aborted: Waiting up to 7 seconds for job step to finish.",
        ]
    );
    let mut goes_on = running(Habits { no_kill: true, ..Habits::default() });
    goes_on.on_step_event(&failed, 0);
    assert_eq!(told(&mut goes_on), ["error Node failure on n2"]);
    exited(&mut goes_on, 0, 0, 0, 1);
    exited(&mut goes_on, 0, 1, 0, 1);
    goes_on.on_frame(0, Frame::Finished(Finished {}), 1);
    assert!(goes_on.is_over());
}

#[test]
fn a_launch_that_fails_ends_the_step_with_1() {
    let mut session = session(Habits::default());
    session.on_connected(0);
    let result = v1::RunResult { launch_error: "no such user".into(), ..v1::RunResult::default() };
    let event = v1::StepEvent {
        node: "n2".into(),
        phase: v1::StepPhase::Ended.into(),
        result: Some(result),
        ..v1::StepEvent::default()
    };
    session.on_step_event(&event, 0);
    assert_eq!(
        told(&mut session),
        [
            "error Task launch for StepId=5.0 failed on node n2: no such user",
            "error Application launch failed: no such user",
            "end step",
            "say Job step aborted: Waiting up to 7 seconds for job step to finish.",
        ]
    );
    session.on_closed(0);
    session.on_frame(0, Frame::Finished(Finished {}), 0);
    assert!(session.is_over());
    assert_eq!(session.finish(), 1);
}

#[test]
fn input_goes_as_fast_as_the_slowest_node_takes_it() {
    let mut session = session(Habits::default());
    session.on_connected(0);
    assert!(!session.wants_input(), "one node is not there yet");
    session.on_connected(1);
    assert!(session.wants_input());
    let window = usize::try_from(INPUT_WINDOW_BYTES).expect("small");
    session.on_input(&Bytes::from(vec![b'x'; window]));
    assert_eq!(
        told(&mut session),
        [format!("input {window} Node(0) None"), format!("input {window} Node(1) None")]
    );
    assert!(!session.wants_input());
    session.on_frame(0, Frame::Credit(Credit { bytes: 10 }), 0);
    assert!(!session.wants_input(), "the other has no room");
    session.on_frame(1, Frame::Credit(Credit { bytes: 10 }), 0);
    assert!(session.wants_input());
    session.on_input(&Bytes::new());
    assert_eq!(told(&mut session), ["input 0 Node(0) None end", "input 0 Node(1) None end"]);
    assert!(!session.wants_input());
}

#[test]
fn input_for_one_task_goes_to_its_node() {
    let mut session = running(Habits { input: InputTo::Task(3), ..Habits::default() });
    session.on_input(&"abc".into());
    assert_eq!(told(&mut session), ["input 3 Node(1) Some(3)"]);
    let mut none = running(Habits { input: InputTo::None, ..Habits::default() });
    assert!(!none.wants_input());
    none.on_input(&"abc".into());
    assert!(told(&mut none).is_empty());
    assert_eq!(InputData::default().task, None);
}

#[test]
fn a_reader_that_left_is_met_as_in_a_pipeline() {
    let mut session = running(Habits::default());
    session.on_reader_gone();
    assert_eq!(told(&mut session), ["signal 13 All"]);
    for (node, task) in [(0, 0), (0, 1), (1, 2), (1, 3)] {
        exited(&mut session, node, task, 13, 0);
    }
    finished(&mut session);
    assert_eq!(session.finish(), 141);
    assert!(told(&mut session).is_empty());
}

#[test]
fn a_job_that_ends_elsewhere_is_waited_for() {
    let mut session = running(Habits::default());
    let ending =
        v1::StepEvent { ending: v1::EndCause::Cancelled.into(), ..v1::StepEvent::default() };
    session.on_step_event(&ending, 0);
    session.on_step_event(&ending, 0);
    session.on_job_event(v1::allocation_event::Kind::Ending, 0);
    assert_eq!(
        told(&mut session),
        ["say Job step aborted: Waiting up to 7 seconds for job step to finish."]
    );
    exited(&mut session, 0, 0, 15, 10);
    session.on_job_event(v1::allocation_event::Kind::Ended, 20);
    assert!(!session.is_over(), "connections are open");
    session.on_closed(0);
    session.on_closed(1);
    assert!(session.is_over());
    assert_eq!(session.finish(), 143);
    assert_eq!(told(&mut session), ["error n1: task 0: Terminated"]);
}

#[test]
fn who_only_looks_on_ends_nothing() {
    let habits = Habits { looks_on: true, ..Habits::default() };
    let mut session = running(habits);
    exited(&mut session, 0, 0, 3 << 8, 0);
    session.on_tick(1_000);
    session.on_signal(libc::SIGUSR1, 0);
    assert!(told(&mut session).is_empty());
    session.on_signal(libc::SIGINT, 0);
    assert!(session.is_over());
    assert!(told(&mut session).is_empty());
}
