//! Who gets which signal when, and when is it over?

use proptest::prelude::*;

use super::*;

const CONT: Action = Action::Signal(Signal::CONT, Target::Everything);
const TERM: Action = Action::Signal(Signal::TERM, Target::Everything);

fn secs(secs: u64) -> Millis {
    Millis::from_secs(secs)
}

fn terms(limit_secs: Option<u64>, warning: Option<&str>) -> Terms {
    let warning = warning.map(|text| text.parse().expect("valid"));
    Terms {
        limit_secs,
        limit_serial: 1,
        kill_wait_secs: 30,
        unkillable_secs: UNKILLABLE_SECS,
        warning,
        lease_until: None,
    }
}

/// Starts at second 100 and feeds inputs at later seconds; returns what each gave.
fn run(terms: Terms, inputs: &[(u64, Input)]) -> (Ending, Vec<Vec<Action>>) {
    let mut ending = Ending::new(secs(100), terms);
    let outputs = inputs.iter().map(|&(at, input)| ending.on(secs(100 + at), input)).collect();
    (ending, outputs)
}

#[test]
fn time_limit_asks_then_kills_then_gives_up() {
    let (ending, out) = run(
        terms(Some(60), None),
        &[
            (59, Input::Tick),
            (60, Input::Tick),
            (89, Input::Tick),
            (90, Input::Tick),
            (90, Input::Exited { empty: false }),
            (149, Input::Tick),
            (150, Input::Tick),
        ],
    );
    let asked = vec![Action::Announce(EndCause::TimeLimit), CONT, TERM];
    let given_up = vec![Action::Unkillable, Action::Done];
    assert_eq!(out, [vec![], asked, vec![], vec![Action::Kill], vec![], vec![], given_up]);
    assert_eq!(ending.cause(), Some(EndCause::TimeLimit));
    assert!(ending.unkillable() && ending.is_done());
    assert_eq!(ending.deadline(), None);
}

#[test]
fn a_normal_exit_kills_what_is_left_and_ends_when_it_is_gone() {
    let (ending, out) = run(
        terms(None, None),
        &[(1, Input::Empty), (5, Input::Exited { empty: false }), (6, Input::Empty)],
    );
    assert_eq!(out, [vec![], vec![Action::Kill], vec![Action::Done]]);
    assert_eq!((ending.cause(), ending.unkillable()), (None, false));
    let (_, out) = run(terms(None, None), &[(5, Input::Exited { empty: true })]);
    assert_eq!(out, [vec![Action::Done]]);
}

#[test]
fn a_wait_of_zero_kills_at_once() {
    let kill = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 0 };
    let (_, out) = run(terms(None, None), &[(1, kill), (1, kill)]);
    assert_eq!(out, [vec![Action::Announce(EndCause::Cancelled), Action::Kill], vec![]]);
}

#[test]
fn a_second_request_only_shortens_the_wait_and_the_first_cause_stays() {
    let ask = |cause, kill_wait_secs| Input::Terminate { cause, kill_wait_secs };
    let (ending, out) = run(
        terms(None, None),
        &[
            (0, ask(EndCause::Requeue, 30)),
            (1, ask(EndCause::Cancelled, 100)),
            (2, ask(EndCause::Cancelled, 5)),
            (7, Input::Tick),
        ],
    );
    assert_eq!(out[1..], [vec![], vec![], vec![Action::Kill]]);
    assert_eq!(ending.cause(), Some(EndCause::Requeue));
}

#[test]
fn children_keep_their_wait_when_the_shell_ends_on_sigterm() {
    let cancel = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 30 };
    let (ending, out) = run(
        terms(None, None),
        &[(0, cancel), (1, Input::Exited { empty: false }), (9, Input::Empty)],
    );
    assert_eq!(out[1..], [vec![], vec![Action::Done]]);
    assert!(ending.is_done());
}

#[test]
fn the_warning_goes_to_whom_it_was_asked_for_and_once() {
    for (text, target) in [("B:USR1@20", Target::Shell), ("USR1@20", Target::Steps)] {
        let (ending, out) = run(
            terms(Some(60), Some(text)),
            &[(39, Input::Tick), (40, Input::Tick), (41, Input::Tick)],
        );
        let usr1 = Signal::new(10).expect("in range");
        assert_eq!(out, [vec![], vec![Action::Signal(usr1, target)], vec![]]);
        assert_eq!(ending.deadline(), Some(secs(160)));
    }
}

#[test]
fn a_new_limit_counts_if_its_serial_is_newer() {
    let set = |secs, serial| Input::SetLimit { limit_secs: secs, serial };
    let (ending, _) = run(terms(Some(60), None), &[(1, set(Some(600), 1))]);
    assert_eq!(ending.deadline(), Some(secs(160)));
    let (ending, _) = run(terms(Some(60), None), &[(1, set(None, 2))]);
    assert_eq!(ending.deadline(), None);
    let (_, out) = run(terms(Some(60), None), &[(30, set(Some(10), 2))]);
    assert_eq!(out, [vec![Action::Announce(EndCause::TimeLimit), CONT, TERM]]);
}

#[test]
fn more_time_brings_a_second_warning() {
    let set = Input::SetLimit { limit_secs: Some(600), serial: 2 };
    let (ending, out) = run(terms(Some(60), Some("B:USR1@20")), &[(45, Input::Tick), (50, set)]);
    assert_eq!(out[0].len(), 1);
    assert!(out[1].is_empty());
    assert_eq!(ending.deadline(), Some(secs(680)));
}

#[test]
fn suspension_stops_the_clock() {
    let (ending, out) = run(
        terms(Some(60), None),
        &[(10, Input::Suspend), (500, Input::Tick), (510, Input::Resume), (559, Input::Tick)],
    );
    assert_eq!(out, [vec![Action::Freeze], vec![], vec![Action::Thaw], vec![]]);
    assert_eq!(ending.elapsed(secs(660)), secs(60));
    assert_eq!(ending.deadline(), Some(secs(660)));
}

#[test]
fn a_suspended_attempt_goes_on_before_it_is_asked_to_end() {
    let cancel = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 30 };
    let (_, out) = run(terms(None, None), &[(1, Input::Suspend), (2, cancel)]);
    assert_eq!(out[1], [Action::Announce(EndCause::Cancelled), Action::Thaw, CONT, TERM]);
}

fn leased(limit_secs: Option<u64>, lease_secs: u64) -> Terms {
    Terms { lease_until: Some(secs(100 + lease_secs)), ..terms(limit_secs, None) }
}

fn lease(until: u64) -> Input {
    Input::Lease { until: secs(100 + until) }
}

#[test]
fn a_lease_that_is_not_renewed_ends_the_attempt() {
    let (ending, out) =
        run(leased(None, 20), &[(20, lease(5)), (49, Input::Tick), (50, Input::Tick)]);
    let asked = vec![Action::Announce(EndCause::NodeFail), CONT, TERM];
    assert_eq!(out, [asked, vec![], vec![Action::Kill]]);
    assert!(ending.fenced());
    assert_eq!(ending.cause(), Some(EndCause::NodeFail));
}

#[test]
fn a_renewed_lease_is_looked_at_when_it_is_over() {
    let (ending, out) = run(leased(None, 20), &[(20, lease(37)), (36, Input::Tick)]);
    assert_eq!(out, [vec![], vec![]]);
    assert_eq!((ending.deadline(), ending.fenced()), (Some(secs(137)), false));
}

#[test]
fn the_wait_counts_from_the_end_of_the_lease_however_late_that_is_noticed() {
    let (_, out) = run(leased(None, 20), &[(45, lease(20)), (50, Input::Tick)]);
    assert_eq!(out[1], [Action::Kill]);
    // As after a sleep of the machine.
    let (_, out) = run(leased(None, 20), &[(500, lease(20))]);
    assert_eq!(out[0], [Action::Announce(EndCause::NodeFail), Action::Kill]);
}

#[test]
fn a_lease_that_is_over_comes_back_by_no_renewal_and_no_longer_wait() {
    let cancel = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 3_000 };
    let (_, out) = run(
        leased(None, 20),
        &[(20, lease(20)), (21, lease(999)), (22, cancel), (50, Input::Tick)],
    );
    assert_eq!(out[1..], [vec![], vec![], vec![Action::Kill]]);
    let (ending, out) = run(leased(None, 20), &[(10, cancel), (20, lease(20)), (50, Input::Tick)]);
    assert_eq!(out[1..], [vec![], vec![Action::Kill]]);
    assert_eq!((ending.cause(), ending.fenced()), (Some(EndCause::Cancelled), true));
}

#[test]
fn a_lease_goes_on_while_the_attempt_stands_still() {
    let (ending, out) = run(leased(None, 20), &[(1, Input::Suspend), (20, lease(20))]);
    assert_eq!(out[1], [Action::Announce(EndCause::NodeFail), Action::Thaw, CONT, TERM]);
    assert_eq!(ending.deadline(), Some(secs(150)));
}

#[test]
fn times_at_the_end_of_the_range_do_not_overflow() {
    let (ending, _) = run(terms(Some(u64::MAX), Some("TERM@65535")), &[(1, Input::Tick)]);
    assert!(ending.deadline().is_some());
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Tick),
        (0_u32..50).prop_map(|kill_wait_secs| Input::Terminate {
            cause: EndCause::Cancelled,
            kill_wait_secs
        }),
        (prop::option::of(0_u64..200), 0_u32..5)
            .prop_map(|(limit_secs, serial)| Input::SetLimit { limit_secs, serial }),
        Just(Input::Suspend),
        Just(Input::Resume),
        any::<bool>().prop_map(|empty| Input::Exited { empty }),
        Just(Input::Empty),
    ]
}

proptest! {
    #[test]
    fn whoever_is_asked_to_end_is_over_in_time(
        inputs in prop::collection::vec((0_u64..20, any_input()), 0..40),
    ) {
        let mut now = secs(100);
        let mut ending = Ending::new(now, terms(Some(90), Some("USR1@10")));
        let mut asked_at = None;
        let mut over = 0;
        for (pause, input) in inputs {
            now = now.saturating_add(secs(pause));
            let actions = ending.on(now, input);
            if actions.iter().any(|action| matches!(action, Action::Announce(_))) {
                prop_assert!(asked_at.is_none(), "announced twice");
                asked_at = Some(now);
            }
            over += actions.iter().filter(|action| **action == Action::Done).count();
            prop_assert!(ending.deadline().is_none_or(|at| at > now), "a deadline was missed");
            // 50: longest wait; 20: a tick may come as late as the next input.
            if let Some(at) = asked_at
                && now >= at.saturating_add(secs(50 + 20 + UNKILLABLE_SECS))
            {
                prop_assert!(ending.is_done());
            }
        }
        prop_assert!(over <= 1);
        prop_assert_eq!(over == 1, ending.is_done());
    }

    #[test]
    fn nothing_outlives_its_lease_and_the_wait(
        inputs in prop::collection::vec((0_u64..20, any_input()), 0..40),
        renewals in prop::collection::vec(0_u64..60, 1..6),
    ) {
        let mut now = secs(100);
        let mut ending = Ending::new(now, leased(Some(90), 20));
        let mut last = secs(120);
        let mut renewals = renewals.into_iter();
        let mut killed_at = None;
        for (pause, input) in inputs {
            // As the shepherd does: it is there at each deadline, and looks at the lease first.
            let next = now.saturating_add(secs(pause));
            while let Some(due) = ending.deadline().filter(|due| *due <= next) {
                now = now.max(due);
                let mut actions = Vec::new();
                if ending.lease_until().is_some_and(|until| until <= now) {
                    let more = renewals.next().unwrap_or(0);
                    last = last.max(secs(100 + more));
                    actions = ending.on(now, Input::Lease { until: secs(100 + more) });
                }
                actions.extend(ending.on(now, Input::Tick));
                if actions.contains(&Action::Kill) {
                    killed_at.get_or_insert(now);
                }
            }
            now = next;
            if ending.on(now, input).contains(&Action::Kill) {
                killed_at.get_or_insert(now);
            }
            let by = last.saturating_add(secs(30));
            prop_assert!(now < by || ending.is_done() || killed_at.is_some_and(|at| at <= by));
        }
    }
}
