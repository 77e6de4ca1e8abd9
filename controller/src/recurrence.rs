//! When does a recurring reservation come again?
//!
//! Recurring times are civil times of the controller's zone: an hour that a change of clocks skips
//! begins at the next valid instant, one that it doubles is taken once.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use penstock_core::model::ReservationFlag;
use penstock_vocab::Timestamp;

/// How many times are told ahead.
const AHEAD: usize = 32;

/// The times after `(start, end)`, the nearest first; none where no flag asks for any.
#[must_use]
pub fn upcoming(
    start: Timestamp,
    end: Timestamp,
    flags: &BTreeSet<ReservationFlag>,
    zone: &TimeZone,
) -> Vec<(Timestamp, Timestamp)> {
    let mut times = Vec::new();
    let Some(mut civil) = civil(start, zone) else { return times };
    let length = end.since(start);
    let step = if flags.contains(&ReservationFlag::Weekly) { 7 } else { 1 };
    let daily = [
        ReservationFlag::Daily,
        ReservationFlag::Weekday,
        ReservationFlag::Weekend,
        ReservationFlag::Weekly,
    ];
    let has = |flag: &ReservationFlag| flags.contains(flag);
    // No day is both, and looking for one would not end before the calendar does.
    let never = has(&ReservationFlag::Weekday) && has(&ReservationFlag::Weekend);
    if never || !daily.iter().any(has) {
        return times;
    }
    while times.len() < AHEAD {
        let Ok(next) = civil.checked_add(step.days()) else { break };
        civil = next;
        let weekend = matches!(civil.weekday(), Weekday::Saturday | Weekday::Sunday);
        let skipped = flags.contains(&ReservationFlag::Weekday) && weekend
            || flags.contains(&ReservationFlag::Weekend) && !weekend;
        if skipped {
            continue;
        }
        let Ok(at) = zone.to_timestamp(civil) else { break };
        let from = Timestamp(at.as_millisecond());
        times.push((from, from.plus(length)));
    }
    times
}

/// The times after those of `known`, which are in order and begin with the present one.
///
/// A change of clocks moves a time to later in the day; so the others follow from the earliest hour.
#[must_use]
pub fn further(
    known: &[(Timestamp, Timestamp)],
    flags: &BTreeSet<ReservationFlag>,
    zone: &TimeZone,
) -> Vec<(Timestamp, Timestamp)> {
    let hour = |(start, _): &&(Timestamp, Timestamp)| civil(*start, zone).map(DateTime::time);
    let Some((start, end)) = known.iter().min_by_key(hour).copied() else { return Vec::new() };
    let last = known.iter().map(|(_, end)| *end).max().unwrap_or(end);
    let mut times = upcoming(start, end, flags, zone);
    times.retain(|(from, _)| *from >= last);
    times
}

fn civil(at: Timestamp, zone: &TimeZone) -> Option<DateTime> {
    let instant = jiff::Timestamp::from_millisecond(at.0).ok()?;
    Some(instant.to_zoned_datetime(zone.clone()).datetime())
}

/// Seconds that the zone's clocks are ahead of UTC at an instant.
#[must_use]
pub fn utc_offset_secs(at: Timestamp, zone: &TimeZone) -> i32 {
    let instant = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    zone.to_offset(instant).seconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &TimeZone) -> Timestamp {
        let civil: DateTime = text.parse().unwrap();
        Timestamp(zone.to_timestamp(civil).unwrap().as_millisecond())
    }

    #[test]
    fn further_times_follow_the_known_ones_at_their_hour() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let daily = [ReservationFlag::Daily].into();
        let first = (at("2026-03-27T02:30:00", &zone), at("2026-03-27T03:30:00", &zone));
        let later = upcoming(first.0, first.1, &daily, &zone);
        let mut all = vec![first];
        all.extend(&later);
        // All but the first n are known still; what comes is what would have come.
        for gone in 0..all.len() - 1 {
            for known in 2..all.len() - gone {
                let (known, rest) = all[gone..].split_at(known);
                let found = further(known, &daily, &zone);
                let least = rest.len().min(found.len());
                assert_eq!(found[..least], rest[..least], "{gone} {}", known.len());
                assert!(found.len() + known.len() >= AHEAD, "{gone} {}", known.len());
            }
        }
        assert_eq!(further(&[first], &daily, &zone), later);
        assert_eq!(further(&[], &daily, &zone), []);
    }

    #[test]
    fn times_come_again_by_the_clock_on_the_wall() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let (start, end) = (at("2026-03-27T02:30:00", &zone), at("2026-03-27T03:30:00", &zone));
        let times = |flag| upcoming(start, end, &[flag].into(), &zone);
        let daily = times(ReservationFlag::Daily);
        assert_eq!(daily.len(), AHEAD);
        assert_eq!(daily[0].0, at("2026-03-28T02:30:00", &zone));
        // That hour does not exist on the 29th: it begins an hour later by UTC's reckoning.
        assert_eq!(daily[1].0, at("2026-03-29T03:30:00", &zone));
        assert_eq!(daily[2].0, at("2026-03-30T02:30:00", &zone));
        assert_eq!(times(ReservationFlag::Weekday)[0].0, at("2026-03-30T02:30:00", &zone));
        assert_eq!(times(ReservationFlag::Weekend)[0].0, at("2026-03-28T02:30:00", &zone));
        assert_eq!(times(ReservationFlag::Weekly)[0].0, at("2026-04-03T02:30:00", &zone));
        assert_eq!(times(ReservationFlag::Maint), []);
        let both = [ReservationFlag::Weekday, ReservationFlag::Weekend].into();
        assert_eq!(upcoming(start, end, &both, &zone), []);
        assert!(daily.iter().all(|(from, to)| to.since(*from) == end.since(start)));
    }
}
