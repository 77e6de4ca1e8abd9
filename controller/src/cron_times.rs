//! When does a job of a crontab come, in its owner's time zone?
//!
//! Times are civil. An hour that a change of clocks skips is made up for at the next valid instant; one that
//! it doubles counts once, but for jobs that come in every hour, which lose none.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use penstock_core::Cluster;
use penstock_core::command::Command;
use penstock_core::model::CronJob;
use penstock_vocab::{CronSpec, JobId, Timestamp};
use tracing::warn;

use crate::rpc::Shared;

/// How many times are told ahead.
const AHEAD: usize = 32;
/// A job of which fewer are known learns of more.
const FEW: usize = 16;
/// Minutes that a change of clocks moves at most, so that so many times may change their order.
const MOVED: usize = 180;
/// Days that are looked through: the 29th of February may be eight years away.
const DAYS: usize = 366 * 9;

/// Why a time zone can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("time zone {0:?} is not known to the controller; set TZ to a name such as Europe/Berlin")]
pub(crate) struct UnknownZone(String);

/// The zone of that name; the controller's own for none.
///
/// # Errors
/// If there is none of that name.
pub(crate) fn zone_of(name: &str) -> Result<TimeZone, UnknownZone> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|_| UnknownZone(name.to_owned()))
}

/// The next times after an instant, the nearest first.
pub(crate) fn next_times(spec: &CronSpec, zone: &TimeZone, after: Timestamp) -> Vec<Timestamp> {
    let Ok(instant) = jiff::Timestamp::from_millisecond(after.0) else { return Vec::new() };
    let now = instant.to_zoned_datetime(zone.clone()).datetime();
    let every_hour = (0..24).all(|hour| spec.in_hour(hour));
    let wanted = if every_hour { AHEAD + MOVED } else { AHEAD };
    let mut times = BTreeSet::new();
    let mut date = Some(now.date());
    for _ in 0..DAYS {
        let Some(day) = date.filter(|_| times.len() < wanted) else { break };
        date = day.checked_add(1.day()).ok();
        for civil in on_day(spec, day) {
            let found = zone.to_ambiguous_timestamp(civil);
            let both = every_hour && found.is_ambiguous();
            let later = both.then(|| found.later().ok()).flatten();
            let instants = found.compatible().ok().into_iter().chain(later);
            times.extend(instants.map(|at| at.as_millisecond()).filter(|at| *at > after.0));
        }
    }
    times.into_iter().take(AHEAD).map(Timestamp).collect()
}

/// The times of one day.
fn on_day(spec: &CronSpec, day: Date) -> Vec<DateTime> {
    let number = |value: i8| u32::try_from(value).unwrap_or(0);
    let weekday = number(day.weekday().to_sunday_zero_offset());
    if !spec.in_month(number(day.month())) || !spec.on_day(number(day.day()), weekday) {
        return Vec::new();
    }
    let hours = (0..24i8).filter(|hour| spec.in_hour(number(*hour)));
    let minutes = || (0..60i8).filter(|minute| spec.at_minute(number(*minute)));
    hours.flat_map(|hour| minutes().map(move |minute| day.at(hour, minute, 0, 0))).collect()
}

/// Tells jobs of crontabs of their later times, where they know few.
pub(crate) async fn extend(shared: &Shared) {
    let due = extensions(&shared.snapshot().cluster, shared.clock.now());
    for (job, times) in due {
        // Its crontab may be another by now.
        if let Err(error) = shared.writer.execute(Command::ExtendCron(job, times)).await {
            warn!(%job, %error, "a job of a crontab did not learn when it comes again");
        }
    }
}

fn extensions(cluster: &Cluster, now: Timestamp) -> Vec<(JobId, Vec<Timestamp>)> {
    let further = |cron: &CronJob| {
        // A zone that is known no more is replaced by the controller's.
        let zone = zone_of(&cron.zone).unwrap_or_else(|_| TimeZone::system());
        let after = cron.upcoming.last().map_or(now, |last| now.max(*last));
        next_times(&cron.spec, &zone, after)
    };
    let few = cluster.crons_to_extend(FEW);
    few.filter_map(|job| Some((job.id, further(job.cron.as_deref()?))))
        .filter(|(_, times)| !times.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        let instant: jiff::Timestamp = text.parse().unwrap();
        Timestamp(instant.as_millisecond())
    }

    fn first(spec: &str, after: &str, count: usize) -> Vec<String> {
        let spec = CronSpec::parse(spec).unwrap();
        let times = next_times(&spec, &berlin(), at(after));
        let shown = |at: &Timestamp| {
            let instant = jiff::Timestamp::from_millisecond(at.0).unwrap();
            instant.to_zoned_datetime(berlin()).strftime("%F %R %Z").to_string()
        };
        times.iter().take(count).map(shown).collect()
    }

    #[test]
    fn times_follow_the_clock_on_the_wall() {
        // Fields, after which instant (UTC), the next times.
        let table: &[(&str, &str, &[&str])] = &[
            (
                "0 2 * * *",
                "2026-11-24T12:00:00Z",
                &["2026-11-25 02:00 CET", "2026-11-26 02:00 CET"],
            ),
            (
                "*/20 * * * *",
                "2026-11-24T11:20:00Z",
                &["2026-11-24 12:40 CET", "2026-11-24 13:00 CET"],
            ),
            (
                "30 8 1 jan *",
                "2026-11-24T12:00:00Z",
                &["2027-01-01 08:30 CET", "2028-01-01 08:30 CET"],
            ),
            (
                "0 0 29 2 *",
                "2026-11-24T12:00:00Z",
                &["2028-02-29 00:00 CET", "2032-02-29 00:00 CET"],
            ),
            (
                "0 12 13 * fri",
                "2026-11-24T12:00:00Z",
                &["2026-11-27 12:00 CET", "2026-12-04 12:00 CET"],
            ),
            // The hour from two is skipped on the 29th of March.
            (
                "30 2 * * *",
                "2026-03-28T12:00:00Z",
                &["2026-03-29 03:30 CEST", "2026-03-30 02:30 CEST"],
            ),
            (
                "0 * * * *",
                "2026-03-29T00:00:00Z",
                &["2026-03-29 03:00 CEST", "2026-03-29 04:00 CEST", "2026-03-29 05:00 CEST"],
            ),
            // It is there twice on the 25th of October.
            (
                "30 2 * * *",
                "2026-10-24T12:00:00Z",
                &["2026-10-25 02:30 CEST", "2026-10-26 02:30 CET"],
            ),
            (
                "30 * * * *",
                "2026-10-24T23:45:00Z",
                &["2026-10-25 02:30 CEST", "2026-10-25 02:30 CET", "2026-10-25 03:30 CET"],
            ),
        ];
        for (spec, after, expect) in table {
            assert_eq!(first(spec, after, expect.len()), *expect, "{spec} after {after}");
        }
    }

    #[test]
    fn times_are_in_order_and_as_many_as_are_told() {
        for spec in ["* * * * *", "59 23 31 12 *", "*/7 */5 * * sat"] {
            let spec = CronSpec::parse(spec).unwrap();
            let times = next_times(&spec, &berlin(), at("2026-10-24T23:45:30Z"));
            assert!(times.is_sorted_by(|a, b| a < b), "{spec}");
            assert!(times.len() == AHEAD || times.len() >= 8, "{spec}: {}", times.len());
        }
    }

    #[test]
    fn a_zone_that_is_none_is_refused() {
        assert!(zone_of("").is_ok());
        assert!(zone_of("Mars/Olympus").unwrap_err().to_string().contains("Mars/Olympus"));
    }
}
