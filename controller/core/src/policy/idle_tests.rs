use proptest::prelude::*;

use super::*;

fn rule(window_secs: u32) -> IdleRule {
    IdleRule { window_secs, action: IdleAction::Cancel, dry_run: false, ..IdleRule::default() }
}

fn seen(utilization: Option<u32>, processes: Option<u32>) -> Measured {
    Measured { utilization, processes, ..Measured::default() }
}

#[test]
fn what_is_not_known_is_not_idle() {
    let rule = rule(60);
    let cases = [
        (seen(Some(0), Some(1)), Sight::Idle),
        (seen(Some(0), None), Sight::Idle),
        (seen(Some(1), Some(1)), Sight::Busy),
        // A slice without a number: idle only where nobody is on it.
        (seen(None, Some(0)), Sight::Idle),
        (seen(None, Some(1)), Sight::Unknown),
        (seen(None, None), Sight::Unknown),
        // A loaded model waits for work.
        (Measured { memory: Some((60, 100)), ..seen(Some(0), Some(1)) }, Sight::Busy),
        (Measured { memory: Some((5, 100)), ..seen(Some(0), Some(1)) }, Sight::Idle),
    ];
    for (seen, expect) in cases {
        assert_eq!(sight(&rule, seen), expect, "{seen:?}");
    }
    let watts = IdleRule { busy_watts: 150, ..rule };
    let draws = Measured { power_mw: Some(150_000), ..seen(Some(0), Some(1)) };
    assert_eq!(sight(&watts, draws), Sight::Busy);
}

/// What a GPU comes to after these sights of ten seconds each.
fn after(rule: &IdleRule, sights: impl IntoIterator<Item = Sight>) -> bool {
    let mut streak = Streak::default();
    for sight in sights {
        streak.take(sight, 10_000, u64::from(rule.window_secs) * 1_000);
    }
    streak.is_idle(rule)
}

#[test]
fn a_window_is_idle_only_as_a_whole_and_as_far_as_it_was_seen() {
    use Sight::{Busy, Idle, Unknown};
    let rule = rule(7_200);
    let of = |sight, count: usize| std::iter::repeat_n(sight, count);
    assert!(after(&rule, of(Idle, 720)), "two hours of nothing");
    assert!(!after(&rule, of(Idle, 719)), "not yet two hours");
    assert!(!after(&rule, of(Idle, 719).chain(of(Busy, 1))), "a burst at the end");
    assert!(!after(&rule, of(Busy, 5).chain(of(Idle, 300))), "an early burst");
    assert!(
        after(&rule, of(Busy, 5).chain(of(Idle, 720))),
        "an early burst does not save it for ever"
    );
    assert!(!after(&rule, of(Unknown, 2_000)), "no number at all");
    let thirds = |_| [Idle, Idle, Unknown];
    assert!(!after(&rule, (0..500).flat_map(thirds)), "a third was not seen");
    let few = |_| of(Idle, 29).chain(of(Unknown, 1));
    assert!(after(&rule, (0..30).flat_map(few)), "a thirtieth was not seen");
    // The last window counts, however long the streak was before.
    assert!(!after(&rule, of(Idle, 5_000).chain(of(Unknown, 200)).chain(of(Idle, 100))));
}

fn note(warned: u32, since: i64) -> IdleNote {
    IdleNote {
        rule: "r".into(),
        warned,
        since: Timestamp::from_secs(since),
        act_at: Timestamp::from_secs(since + 3_600),
        action: IdleAction::Cancel,
        dry_run: false,
        evidence: "".into(),
        lost_ms: 0,
        acted: None,
        freed_ms: 0,
    }
}

fn sight_of(gpus: &[Option<bool>]) -> RunSight {
    let gpu = |idle: &Option<bool>| GpuSight {
        idle: *idle,
        empty: false,
        idle_ms: 7_200_000,
        lost_ms: 1,
    };
    RunSight { held: u32::try_from(gpus.len()).unwrap(), gpus: gpus.iter().map(gpu).collect() }
}

#[test]
fn notices_come_before_the_deed_and_work_takes_them_back() {
    let rule = rule(7_200);
    let idle = sight_of(&[Some(true), Some(true)]);
    let at = Timestamp::from_secs;
    assert_eq!(decide(&rule, None, &idle, at(0)), Some(IdleStep::Warn(1)));
    for (warned, secs, expect) in [
        (1, 1_799, None),
        (1, 1_800, Some(IdleStep::Warn(2))),
        // However late: the second notice is not left out.
        (1, 9_999, Some(IdleStep::Warn(2))),
        (2, 3_599, None),
        (2, 3_600, Some(IdleStep::Act)),
    ] {
        assert_eq!(
            decide(&rule, Some(&note(warned, 0)), &idle, at(secs)),
            expect,
            "{warned} {secs}"
        );
    }
    let note = note(2, 0);
    let half = sight_of(&[Some(true), Some(false)]);
    assert_eq!(decide(&rule, Some(&note), &half, at(9_999)), Some(IdleStep::Clear));
    let unknown = sight_of(&[Some(true), None]);
    assert_eq!(decide(&rule, Some(&note), &unknown, at(9_999)), None, "unknown is not idle");
    let share = IdleRule { gpus_percent: 50, ..rule.clone() };
    assert_eq!(decide(&share, Some(&note), &half, at(9_999)), Some(IdleStep::Act));
    let told = IdleRule { action: IdleAction::Notify, ..rule };
    assert_eq!(decide(&told, Some(&note), &idle, at(9_999)), None);
}

#[test]
fn a_controller_that_has_seen_little_says_nothing() {
    let rule = rule(60);
    let mut streak = Streak::default();
    assert_eq!(streak.verdict(&rule), None);
    streak.take(Sight::Idle, 30_000, 60_000);
    assert_eq!(streak.verdict(&rule), None, "it may have been idle for long before");
    streak.take(Sight::Busy, 10_000, 60_000);
    assert_eq!(streak.verdict(&rule), Some(false));
    streak.take(Sight::Idle, 60_000, 60_000);
    assert_eq!(streak.verdict(&rule), Some(true));
    streak.take(Sight::Unknown, 30_000, 60_000);
    assert_eq!(streak.verdict(&rule), None);
}

#[test]
fn evidence_says_what_was_seen() {
    let mut sight = sight_of(&[Some(true), Some(true)]);
    sight.gpus[1].empty = true;
    sight.gpus[1].idle_ms = 7_500_000;
    assert_eq!(sight.evidence(), "2 of 2 GPUs idle for 2h00m, 1 of them without any process");
    assert_eq!([length(45_000), length(720_000)], ["45s", "12m"]);
}

fn any_sight() -> impl Strategy<Value = Sight> {
    prop_oneof![
        6 => Just(Sight::Idle),
        1 => Just(Sight::Busy),
        2 => Just(Sight::Unknown),
    ]
}

proptest! {
    /// Against the obvious way: all that was seen is kept, and the last window is looked at.
    #[test]
    fn a_streak_says_what_the_samples_say(
        sights in prop::collection::vec((any_sight(), 1u64..40), 0..120),
        window in 1u32..200,
        coverage in 1u32..=100,
    ) {
        let rule = IdleRule { window_secs: window, coverage_percent: coverage, ..IdleRule::default() };
        let window = u64::from(window) * 1_000;
        let mut streak = Streak::default();
        let mut all: Vec<Sight> = Vec::new();
        for (sight, secs) in sights {
            streak.take(sight, secs * 1_000, window);
            all.extend(std::iter::repeat_n(sight, usize::try_from(secs).unwrap()));
        }
        let wanted = usize::try_from(window / 1_000).unwrap();
        let after_busy = all.iter().rposition(|sight| *sight == Sight::Busy).map_or(0, |at| at + 1);
        // It begins with what was seen, and not with what was not.
        let first = all[after_busy..].iter().position(|sight| *sight == Sight::Idle);
        let tail = first.map_or(&[][..], |first| &all[after_busy + first..]);
        let last = &tail[tail.len().saturating_sub(wanted)..];
        let seen = last.iter().filter(|sight| **sight == Sight::Idle).count();
        let obvious = tail.len() >= wanted
            && seen * 100 >= wanted * usize::try_from(coverage).unwrap();
        // What is forgotten can only make it seem less idle.
        prop_assert!(!streak.is_idle(&rule) || obvious);
        // And nothing is forgotten that was seen within the window.
        prop_assert!(streak.is_idle(&rule) || !obvious || last[0] != Sight::Idle);
    }

    /// Nothing is done without all notices, nor before its time, nor with GPUs that work or that
    /// nobody sees.
    #[test]
    fn nothing_is_done_unannounced(
        steps in prop::collection::vec((0i64..4_000, prop::option::weighted(0.9, any::<bool>())), 1..60),
        warnings in 1u32..5,
        grace in 0u32..7_200,
    ) {
        let rule = IdleRule { warnings, grace_secs: grace, ..rule(60) };
        let mut held: Option<IdleNote> = None;
        let mut now = Timestamp::from_secs(1);
        for (secs, idle) in steps {
            now = now.plus_secs(secs.unsigned_abs());
            let step = decide(&rule, held.as_ref(), &sight_of(&[idle]), now);
            if let Some(step) = step {
                prop_assert!(follows(&rule, held.as_ref(), step, now));
            }
            match step {
                None => {}
                Some(IdleStep::Clear) => {
                    prop_assert_eq!(idle, Some(false));
                    held = None;
                }
                Some(IdleStep::Warn(number)) => {
                    prop_assert_eq!(idle, Some(true));
                    prop_assert_eq!(number, held.as_ref().map_or(0, |note| note.warned) + 1);
                    let since = held.as_ref().map_or(now, |note| note.since);
                    let act_at = since.plus_secs(u64::from(grace));
                    held = Some(IdleNote { since, act_at, ..note(number, 0) });
                }
                Some(IdleStep::Act) => {
                    prop_assert_eq!(idle, Some(true));
                    let note = held.as_mut().unwrap();
                    prop_assert_eq!(note.warned, warnings);
                    prop_assert!(now >= note.since.plus_secs(u64::from(grace)));
                    note.acted = Some(now);
                }
            }
        }
    }
}
