//! What does the clock on the wall bring?
//!
//! The core knows no time zone. What depends on one is done here once a minute: usage is reset when
//! a period of the calendar begins, and recurring reservations learn of their later times.

use std::sync::{Mutex, PoisonError};

use jiff::tz::TimeZone;
use penstock_core::command::{Caller, ReservationChange};
use penstock_core::model::{Reservation, ResetPeriod};
use penstock_core::policy::reset_due;
use penstock_core::{Cluster, Command};
use penstock_vocab::{GroupId, Timestamp, UserId};
use tracing::{info, warn};

use crate::recurrence;
use crate::rpc::Shared;

/// A recurring reservation of which fewer later times are known learns of more: half of what it is
/// told when it is made.
const FEW_TIMES: usize = 16;

/// What is remembered from minute to minute.
#[derive(Debug)]
pub(crate) struct Calendar {
    in_force: Mutex<InForce>,
}

impl Calendar {
    /// A calendar that begins now.
    pub(crate) fn new(shared: &Shared) -> Self {
        let period = shared.file().scheduling.fairshare.reset;
        Self { in_force: Mutex::new(InForce { period, since: shared.started, at_start: true }) }
    }

    /// Does what is due.
    pub(crate) async fn run(&self, shared: &Shared) {
        let zone = TimeZone::system();
        self.reset_usage(shared, &zone).await;
        extend_reservations(shared, &zone).await;
    }

    async fn reset_usage(&self, shared: &Shared, zone: &TimeZone) {
        let now = shared.clock.now();
        let period = shared.file().scheduling.fairshare.reset;
        let in_force = {
            let mut kept = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = kept.with(period, now);
            *kept
        };
        let last = in_force.last_reset(shared.snapshot().cluster.usage_reset_at());
        if begun_between(last, now, period, zone) {
            match shared.writer.execute(Command::ResetUsage).await {
                Ok(_) => info!(?period, "usage was reset, as [fairshare] reset says"),
                Err(error) => warn!(%error, "usage can't be reset; it is tried again"),
            }
        }
    }
}

/// The period at whose beginnings usage is reset, and since when that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InForce {
    period: ResetPeriod,
    since: Timestamp,
    /// It was in force when the daemon started: for all that is known, also before.
    at_start: bool,
}

impl InForce {
    fn with(self, period: ResetPeriod, now: Timestamp) -> Self {
        if period == self.period { self } else { Self { period, since: now, at_start: false } }
    }

    /// From when a beginning of a period counts. A period that was put in force just now takes
    /// nothing away before it next begins; one that began while the controller was down is made up
    /// for.
    fn last_reset(self, recorded: Timestamp) -> Timestamp {
        match (recorded, self.at_start) {
            (Timestamp::EPOCH, _) => self.since,
            (recorded, true) => recorded,
            (recorded, false) => recorded.max(self.since),
        }
    }
}

/// Whether a period began between two instants. Both are told by the clock on the wall, so that a
/// change of clocks between them makes no period begin twice.
fn begun_between(last: Timestamp, now: Timestamp, period: ResetPeriod, zone: &TimeZone) -> bool {
    let on_the_wall = |at: Timestamp| {
        let offset = i64::from(recurrence::utc_offset_secs(at, zone));
        Timestamp(at.0.saturating_add(offset * 1_000))
    };
    reset_due(on_the_wall(last), on_the_wall(now), period, 0)
}

async fn extend_reservations(shared: &Shared, zone: &TimeZone) {
    let changes = extensions(&shared.snapshot().cluster, zone);
    for change in changes {
        let name = change.0.clone();
        let caller = Caller { uid: UserId(0), gid: GroupId(0), admin: true, request: None };
        let change = ReservationChange::Extend(change.0, change.1);
        // It may have been deleted by now.
        if let Err(error) = shared.writer.execute(Command::Reservation(caller, change)).await {
            warn!(reservation = %name, %error, "a reservation did not learn when it comes again");
        }
    }
}

type Times = Vec<(Timestamp, Timestamp)>;

fn extensions(cluster: &Cluster, zone: &TimeZone) -> Vec<(Box<str>, Times)> {
    let few = cluster.reservations_to_extend(FEW_TIMES);
    few.map(|one| (one.name.clone(), further_times(one, zone)))
        .filter(|(_, times)| !times.is_empty())
        .collect()
}

fn further_times(one: &Reservation, zone: &TimeZone) -> Times {
    let known: Vec<_> = one.windows().collect();
    recurrence::further(&known, &one.flags, zone)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_core::command::{NodeChoice, ReservationRequest};
    use penstock_core::model::{Config, NodeConfig, ReservationFlag};
    use penstock_vocab::{Mib, NodeName};

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        let civil: jiff::civil::DateTime = text.parse().unwrap();
        Timestamp(berlin().to_timestamp(civil).unwrap().as_millisecond())
    }

    #[test]
    fn a_period_begins_at_midnight_on_the_wall_and_once() {
        // Last reset, now, whether a month began between them.
        let table = [
            ("2026-09-30T23:59:00", "2026-10-01T00:00:00", true),
            ("2026-10-01T00:00:30", "2026-10-31T23:59:59", false),
            // Clocks go back on the 25th: reckoned with today's offset the first began an hour later.
            ("2026-10-01T00:00:30", "2026-10-25T12:00:00", false),
            ("2026-10-01T00:00:30", "2026-11-01T00:00:00", true),
            // They go forward on the 29th of March.
            ("2026-03-01T00:00:30", "2026-03-31T23:59:59", false),
            ("2026-03-01T00:00:30", "2026-04-01T00:00:00", true),
        ];
        for (last, now, begun) in table {
            let found = begun_between(at(last), at(now), ResetPeriod::Monthly, &berlin());
            assert_eq!(found, begun, "{last} to {now}");
        }
        let (last, now) = (Timestamp::EPOCH, at("2026-10-25T12:00:00"));
        assert!(!begun_between(last, now, ResetPeriod::None, &berlin()));
    }

    #[test]
    fn a_new_period_takes_nothing_away_at_once() {
        let (start, now) = (Timestamp(1_000), Timestamp(5_000));
        let first = InForce { period: ResetPeriod::None, since: start, at_start: true };
        assert_eq!(first.with(ResetPeriod::None, now), first);
        // Never reset: from the start. Reset before the daemon started: from then.
        assert_eq!(first.last_reset(Timestamp::EPOCH), start);
        assert_eq!(first.last_reset(Timestamp(10)), Timestamp(10));
        let daily = first.with(ResetPeriod::Daily, now);
        assert_eq!(daily.last_reset(Timestamp::EPOCH), now);
        assert_eq!(daily.last_reset(Timestamp(10)), now);
        assert_eq!(daily.last_reset(Timestamp(9_000)), Timestamp(9_000));
        assert_eq!(daily.with(ResetPeriod::Daily, Timestamp(9_999)), daily);
    }

    fn admin() -> Caller {
        Caller { uid: UserId(0), gid: GroupId(0), admin: true, request: None }
    }

    #[test]
    fn a_reservation_goes_on_for_ever() {
        let node = NodeConfig {
            name: NodeName::new("n1").unwrap(),
            cpus: Some(2),
            memory: Some(Mib(1_000)),
            gres: Vec::new(),
            features: Vec::new(),
            weight: 1,
        };
        let config = Config { nodes: vec![node], ..Config::default() };
        let mut now = at("2026-03-01T12:00:00");
        let mut cluster = Cluster::new(Arc::new(config), now);
        let (start, end) = (at("2026-03-02T02:30:00"), at("2026-03-02T03:30:00"));
        let flags = [ReservationFlag::Daily].into();
        let request = ReservationRequest {
            name: "nightly".into(),
            start: Some(start),
            end: Some(end),
            upcoming: Some(recurrence::upcoming(start, end, &flags, &berlin())),
            nodes: Some(NodeChoice::All),
            users: Some(vec![("root".into(), UserId(0))]),
            flags: Some(flags),
            ..ReservationRequest::default()
        };
        let create = ReservationChange::Create(Box::new(request));
        cluster.execute(now, Command::Reservation(admin(), create)).unwrap();
        for _ in 0..400 {
            now = now.plus_secs(86_400);
            for (name, times) in extensions(&cluster, &berlin()) {
                let extend = ReservationChange::Extend(name, times);
                cluster.execute(now, Command::Reservation(admin(), extend)).unwrap();
            }
            assert!(extensions(&cluster, &berlin()).is_empty(), "{now}");
            cluster.execute(now, Command::Tick).unwrap();
        }
        let one = cluster.reservation("nightly").unwrap();
        // 400 days after noon of the first of March of 2026, every night at the same hour.
        assert_eq!(one.start, at("2027-04-06T02:30:00"));
        assert!(one.windows().all(|(start, end)| end.since(start) == one.end.since(one.start)));
    }
}
