//! Does everything hold together when everything goes wrong?
//!
//! The very cluster, ledger, scheduler and supervisor of the daemons, in a world of one seed: a
//! network that loses, delays, repeats and reorders, agents and a controller that are killed at any
//! point, machines that reboot, a store that fails and tears, a clock that jumps, clients that ask
//! again until they are answered. A failing run prints `PENSTOCK_SEED=n`;
//! `PENSTOCK_SEED=n cargo test --test sim` repeats it exactly (`PENSTOCK_TRACE=1` shows each event),
//! `PENSTOCK_SEEDS=n` runs more of them.

mod agent;
mod chaos;
mod check;
mod client;
#[expect(dead_code, unused_imports, reason = "the core's own tests use the rest")]
#[path = "../../controller/core/tests/common/mod.rs"]
mod common;
mod controller;
mod convert;
mod cuts;
mod event;
mod lease;
mod plant;
mod rng;
mod rules;
mod shared;
mod steps;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Plant, Scenario, Stats, World};

/// Seeds of a run where nothing else is asked.
const SEEDS: u64 = 1_000;
/// The same where nodes hold leases.
const LEASE_SEEDS: u64 = 500;
/// The same where the cluster is shared.
const SHARED_SEEDS: u64 = 250;
/// The same where jobs have steps.
const STEP_SEEDS: u64 = 400;
/// The same where GPUs are cut.
const CUT_SEEDS: u64 = 100;
/// Seeds within which a planted bug must be found.
const SEEDS_TO_FIND: u64 = 1_000;

/// Writes a line for whoever looks for a failure.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stderr().lock();
    writeln!(out, "{line}").expect("stderr is open");
}

/// One run; a panic in it is a failure like any other.
fn run(seed: u64, plant: Plant, scenario: Scenario) -> Result<Stats, String> {
    let whole = || World::new(seed, plant, scenario).run();
    catch_unwind(AssertUnwindSafe(whole)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "it panicked".to_owned()))
    })
}

/// Runs seeds on every core; the first failure found, and the sum of what happened.
fn run_many(
    seeds: std::ops::Range<u64>,
    plant: Plant,
    scenario: Scenario,
) -> (Option<(u64, String)>, Stats) {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((None, Stats::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end
                        || found.lock().expect("no run panics with the lock held").0.is_some()
                    {
                        return;
                    }
                    let result = run(seed, plant, scenario);
                    let mut found = found.lock().expect("no run panics with the lock held");
                    match result {
                        Ok(stats) => found.1.add(&stats),
                        Err(why) => {
                            found.0.get_or_insert((seed, why));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().expect("no run panics with the lock held")
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_is_lost_or_done_twice_whatever_goes_wrong() {
    holds(Scenario::Plain, SEEDS);
}

#[test]
fn a_job_whose_node_was_cut_off_runs_elsewhere_and_never_in_both_places() {
    holds(Scenario::Leases, LEASE_SEEDS);
}

#[test]
fn shares_limits_and_reservations_hold_whatever_goes_wrong() {
    holds(Scenario::Shared, SHARED_SEEDS);
}

#[test]
fn steps_hold_what_they_use_and_end_whatever_goes_wrong() {
    holds(Scenario::Steps, STEP_SEEDS);
}

#[test]
fn slices_are_one_jobs_and_cut_by_intent_whatever_goes_wrong() {
    holds(Scenario::Cuts, CUT_SEEDS);
}

fn holds(scenario: Scenario, most: u64) {
    let seeds = match number("PENSTOCK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PENSTOCK_SEEDS").unwrap_or(most),
    };
    let count = seeds.end - seeds.start;
    let (failure, stats) = run_many(seeds, Plant::Nothing, scenario);
    if let Some((seed, why)) = failure {
        panic!("{scenario:?}, PENSTOCK_SEED={seed}\n{why}");
    }
    say(&format!("{scenario:?}, {count} seeds: {stats:?}"));
    if count >= 100 {
        assert!(stats.is_eventful(scenario), "the runs were idle: {stats:?}");
    }
}

#[test]
fn a_seed_repeats_its_run() {
    let all =
        [Scenario::Plain, Scenario::Leases, Scenario::Shared, Scenario::Steps, Scenario::Cuts];
    for scenario in all {
        for seed in 0..5 {
            let again = run(seed, Plant::Nothing, scenario);
            assert_eq!(run(seed, Plant::Nothing, scenario), again);
        }
    }
}

/// The checkers can fail: each planted bug is found, by the checker that is there for it.
fn is_found(plant: Plant, scenario: Scenario, by: &[&str]) {
    let (failure, _) = run_many(0..SEEDS_TO_FIND, plant, scenario);
    let (seed, why) = failure.expect("a planted bug must be found");
    say(&format!("{plant:?} is found by seed {seed}"));
    assert!(by.iter().any(|word| why.contains(word)), "seed {seed} found something else: {why}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    is_found(
        Plant::EarlyAnswer,
        Scenario::Plain,
        &["is lost", "made two jobs", "was told", "was answered"],
    );
}

#[test]
fn a_launch_without_the_attempt_check_is_found() {
    is_found(Plant::UncheckedLaunch, Scenario::Plain, &["was started twice", "runs twice at once"]);
}

#[test]
fn a_requeue_of_a_silent_node_is_found() {
    is_found(Plant::SilentRequeue, Scenario::Plain, &["runs twice at once"]);
}

#[test]
fn a_lease_counted_from_the_answers_receipt_is_found() {
    is_found(Plant::LeaseFromReceipt, Scenario::Leases, &["runs twice at once"]);
}

#[test]
fn a_late_launch_without_the_lease_check_is_found() {
    is_found(Plant::UncheckedLease, Scenario::Leases, &["runs twice at once"]);
}

#[test]
fn a_start_beyond_a_limit_is_found() {
    is_found(Plant::UncheckedLimit, Scenario::Shared, &["are in use"]);
}

#[test]
fn a_start_on_nodes_kept_for_others_is_found() {
    is_found(Plant::UncheckedReservation, Scenario::Shared, &["keeps from"]);
}

#[test]
fn usage_that_is_not_charged_is_found() {
    is_found(Plant::ForgottenUsage, Scenario::Shared, &["CPU-ms were charged"]);
}

#[test]
fn a_part_that_counts_as_ended_while_it_runs_is_found() {
    is_found(Plant::EndedTooSoon, Scenario::Steps, &["holds nothing"]);
}

#[test]
fn a_cut_for_another_generation_is_found() {
    is_found(Plant::UncheckedCut, Scenario::Cuts, &["is destroyed while", "slice that is gone"]);
}
