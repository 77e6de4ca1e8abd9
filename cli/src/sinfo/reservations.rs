//! `sinfo -T`: which nodes are set aside, and when?

use penstock_proto::v1;
use penstock_vocab::{compress, elapsed_long};

use crate::listing::Clock;

/// Narrowest column of names.
const NAME_WIDTH: usize = 9;

/// A line for each reservation.
pub(super) fn table(reply: &v1::ListReservationsReply, header: bool, clock: &Clock) -> String {
    let names = reply.reservations.iter().map(|reservation| reservation.name.chars().count());
    let width = names.max().unwrap_or(0).max(NAME_WIDTH);
    let mut out = String::new();
    let mut line = |[name, state, start, end, duration, nodes]: [&str; 6]| {
        out.push_str(&format!(
            "{name:<width$}  {state:>8}  {start:>19}  {end:>19}  {duration:>11}  {nodes}\n"
        ));
    };
    if header {
        line(["RESV_NAME", "STATE", "START_TIME", "END_TIME", "DURATION", "NODELIST"]);
    }
    for reservation in &reply.reservations {
        let (start, end) = (reservation.start_ms, reservation.end_ms);
        let time = |ms: i64| {
            let mut text = String::new();
            clock.push(&mut text, ms);
            text
        };
        let active = start <= reply.now_ms && reply.now_ms < end;
        let secs = u64::try_from(end.saturating_sub(start) / 1_000).unwrap_or(0);
        line([
            &reservation.name,
            if active { "ACTIVE" } else { "INACTIVE" },
            &time(start),
            &time(end),
            &elapsed_long(secs),
            &compress(reservation.nodes.iter().map(String::as_str)),
        ]);
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::listing::testing::SUBMIT;

    use super::*;

    #[test]
    fn reservations_are_listed_with_their_times() {
        let reservation = |name: &str, from: i64| v1::Reservation {
            name: name.into(),
            start_ms: SUBMIT + from,
            end_ms: SUBMIT + from + 3_600_000,
            nodes: vec!["n1".into(), "n2".into()],
            ..v1::Reservation::default()
        };
        let reply = v1::ListReservationsReply {
            reservations: vec![reservation("r1", 0), reservation("maintenance", 60_000)],
            now_ms: SUBMIT,
            ..v1::ListReservationsReply::default()
        };
        let clock = Clock::new(TimeZone::UTC, None, SUBMIT);
        let lines = [
            "RESV_NAME       STATE           START_TIME             END_TIME     DURATION  NODELIST\n",
            "r1             ACTIVE  2026-11-24T08:05:47  2026-11-24T09:05:47     01:00:00  n[1-2]\n",
            "maintenance  INACTIVE  2026-11-24T08:06:47  2026-11-24T09:06:47     01:00:00  n[1-2]\n",
        ];
        assert_eq!(table(&reply, true, &clock), lines.concat());
        assert_eq!(table(&reply, false, &clock), lines[1..].concat());
    }
}
