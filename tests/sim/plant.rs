//! How does a planted bug get past a core that checks everything again?
//!
//! By taking the rule away for the moment of a plan and of its starts, and putting it back in the same
//! commit: what becomes durable is the rule, and starts that nobody held against it.

use penstock_core::command::{NodeChoice, ReservationChange, ReservationRequest};
use penstock_core::{Cluster, Command};
use penstock_vocab::{Timestamp, TresKind};

use crate::common::accounts::set_qos;
use crate::common::admin;
use crate::shared::{CAPPED, CAPPED_CPUS};
use crate::world::{Plant, World};

/// More CPUs than there are.
const NO_LIMIT: i64 = 1_000_000;
/// Later than any job of a run ends, seconds.
const LATER_SECS: u64 = 1_000_000;

/// A rule that is taken away, and put back.
#[derive(Debug, Default)]
pub(crate) struct Lifted {
    away: Vec<Command>,
    back: Vec<Command>,
}

impl World {
    /// What the planted bug does not look at, as the cluster has it.
    pub(crate) fn lifted(&self, cluster: &Cluster) -> Lifted {
        match self.plant {
            Plant::UncheckedLimit => lifted_limit(cluster),
            Plant::UncheckedReservation => lifted_reservations(cluster, self.wall()),
            _ => Lifted::default(),
        }
    }
}

impl Lifted {
    /// The cluster as the bug sees it.
    pub(crate) fn seen(&self, cluster: &Cluster, now: Timestamp) -> Cluster {
        let mut seen = cluster.clone();
        for command in &self.away {
            // One that is refused changes nothing.
            drop(seen.execute(now, command.clone()));
        }
        seen
    }

    /// The command, carried out while the rule is not there.
    pub(crate) fn around(self, command: Command) -> impl Iterator<Item = Command> {
        self.away.into_iter().chain([command]).chain(self.back)
    }
}

fn lifted_limit(cluster: &Cluster) -> Lifted {
    let qos = cluster.accounts().qos(CAPPED);
    let most = qos.and_then(|qos| qos.group.tres.get(&TresKind::Cpu).copied());
    let Some(most) = most.and_then(|most| i64::try_from(most).ok()) else {
        return Lifted::default();
    };
    let set = |most| vec![Command::Accounts(admin(), vec![set_qos(CAPPED, [(CAPPED_CPUS, most)])])];
    Lifted { away: set(NO_LIMIT), back: set(most) }
}

/// Those that have not begun are put off, and come back to the same nodes.
fn lifted_reservations(cluster: &Cluster, now: Timestamp) -> Lifted {
    let later = cluster.reservations().filter(|one| one.start > now);
    let moves = later.map(|one| {
        let by = |secs| {
            let request = ReservationRequest {
                start: Some(one.start.plus_secs(secs)),
                end: Some(one.end.plus_secs(secs)),
                nodes: Some(NodeChoice::Named(one.nodes.to_vec())),
                ..ReservationRequest::default()
            };
            let change = ReservationChange::Update(one.name.clone(), Box::new(request));
            Command::Reservation(admin(), change)
        };
        (by(LATER_SECS), by(0))
    });
    let (away, back) = moves.unzip();
    Lifted { away, back }
}
