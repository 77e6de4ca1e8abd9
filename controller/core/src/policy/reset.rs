//! Has the day come at which all usage is set to zero?
//!
//! The core knows no time zone: whoever asks says how far local time is ahead of UTC.

use penstock_vocab::Timestamp;

use crate::model::ResetPeriod;

const DAY_MS: i64 = 86_400_000;

/// Whether usage that was last reset at `last` is to be reset at `now`: whether a period began in
/// between, by a clock `utc_offset_secs` ahead of UTC. Where it never was reset, `last` is when the
/// cluster began to run with this period, so that turning it on takes nothing away before the next
/// boundary.
#[must_use]
pub fn reset_due(
    last: Timestamp,
    now: Timestamp,
    period: ResetPeriod,
    utc_offset_secs: i32,
) -> bool {
    let offset = i64::from(utc_offset_secs) * 1_000;
    let day = now.0.saturating_add(offset).div_euclid(DAY_MS);
    let (year, month, day_of_month) = civil(day);
    let first_of_month = day - i64::from(day_of_month - 1);
    let begin = match period {
        ResetPeriod::None => return false,
        ResetPeriod::Daily => day,
        // 1970-01-01 was a Thursday.
        ResetPeriod::Weekly => day - (day + 4).rem_euclid(7),
        ResetPeriod::Monthly => first_of_month,
        ResetPeriod::Quarterly => day_number(year, (month - 1) / 3 * 3 + 1),
        ResetPeriod::Yearly => day_number(year, 1),
    };
    last < Timestamp(begin.saturating_mul(DAY_MS).saturating_sub(offset))
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn civil(day: i64) -> (i64, u8, u8) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let small = |n: i64| u8::try_from(n).unwrap_or(1);
    (year_of_era + era * 400 + i64::from(month <= 2), small(month), small(day))
}

/// Days from 1970-01-01 to the first of a month (the same source, `days_from_civil`).
fn day_number(year: i64, month: u8) -> i64 {
    let shifted = year - i64::from(month <= 2);
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let months = (i64::from(month) + 9) % 12;
    let of_year = (153 * months + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2024-02-29T12:00:00Z, a Thursday.
    const LEAP_NOON: i64 = 1_709_208_000;

    #[test]
    fn a_period_begins_at_its_boundary() {
        let noon = LEAP_NOON;
        let day = 86_400;
        let midnight = noon - 43_200;
        // Period, boundary before or at noon.
        let table = [
            (ResetPeriod::Daily, midnight),
            (ResetPeriod::Weekly, midnight - 4 * day),
            (ResetPeriod::Monthly, midnight - 28 * day),
            (ResetPeriod::Quarterly, midnight - 59 * day),
            (ResetPeriod::Yearly, midnight - 59 * day),
        ];
        for (period, boundary) in table {
            let due = |last, now| {
                reset_due(Timestamp::from_secs(last), Timestamp::from_secs(now), period, 0)
            };
            assert!(due(boundary - 1, noon), "{period:?}");
            assert!(due(boundary - 1, boundary), "{period:?}");
            assert!(!due(boundary, noon), "{period:?}");
            assert!(!due(boundary - 2, boundary - 1), "{period:?}");
        }
        assert!(!reset_due(Timestamp(0), Timestamp::from_secs(noon), ResetPeriod::None, 0));
    }

    #[test]
    fn midnight_is_local() {
        let (before, after) = (LEAP_NOON - 43_200 - 3_601, LEAP_NOON - 43_200 - 3_600);
        let due = |last, now| {
            let (last, now) = (Timestamp::from_secs(last), Timestamp::from_secs(now));
            reset_due(last, now, ResetPeriod::Daily, 3_600)
        };
        assert!(due(before, after));
        assert!(!due(after, after + 80_000));
    }

    proptest! {
        #[test]
        fn months_and_days_agree(day in -10_000_000..10_000_000i64) {
            let (year, month, of_month) = civil(day);
            prop_assert_eq!(day_number(year, month) + i64::from(of_month) - 1, day);
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&of_month));
        }

        #[test]
        fn any_time_has_an_answer(last in any::<i64>(), now in any::<i64>(), offset in any::<i32>()) {
            for period in [ResetPeriod::Daily, ResetPeriod::Weekly, ResetPeriod::Yearly] {
                let _any = reset_due(Timestamp(last), Timestamp(now), period, offset);
            }
        }
    }
}
