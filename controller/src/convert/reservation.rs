//! How is a reservation stored and sent?

use std::collections::BTreeSet;

use penstock_core::model::{Constraint, Reservation, ReservationFlag};
use penstock_proto::v1;
use penstock_vocab::{NodeName, PartitionName, Timestamp, UserId};

use super::accounts::{boxed, texts};
use super::codes;
use super::error::ConvertError;
use super::limits::{tres_from_wire, tres_to_wire};
use super::spec::{walltime, walltime_secs};

/// A reservation.
#[must_use]
pub fn reservation_to_wire(reservation: &Reservation) -> v1::Reservation {
    v1::Reservation {
        name: reservation.name.to_string(),
        start_ms: reservation.start.0,
        end_ms: reservation.end.0,
        nodes: reservation.nodes.iter().map(ToString::to_string).collect(),
        node_count: reservation.node_count,
        partition: reservation.partition.as_ref().map(ToString::to_string).unwrap_or_default(),
        features: reservation.features.to_string(),
        users: texts(&reservation.users),
        uids: reservation.uids.iter().map(|uid| uid.0).collect(),
        accounts: texts(&reservation.accounts),
        deny: reservation.deny,
        licenses: tres_to_wire(&reservation.licenses),
        flags: flags_to_wire(&reservation.flags),
        purge_after_secs: reservation.purge_after.map(walltime_secs),
        idle_since_ms: codes::moment(reservation.idle_since),
        created_by_uid: reservation.created_by.0,
        comment: reservation.comment.to_string(),
        upcoming_ms: reservation.upcoming.iter().flat_map(|(from, to)| [from.0, to.0]).collect(),
    }
}

/// Inverse of [`reservation_to_wire`].
///
/// # Errors
/// If a name, a flag or a feature expression can't be one.
pub fn reservation_from_wire(reservation: v1::Reservation) -> Result<Reservation, ConvertError> {
    let node = |name: &String| {
        NodeName::new(name).map_err(|error| ConvertError::invalid("a node's name", error))
    };
    let partition = match reservation.partition.as_str() {
        "" => None,
        name => Some(
            PartitionName::new(name)
                .map_err(|error| ConvertError::invalid("the reservation's partition", error))?,
        ),
    };
    Ok(Reservation {
        nodes: reservation.nodes.iter().map(node).collect::<Result<_, _>>()?,
        partition,
        features: Constraint::parse(&reservation.features)
            .map_err(|error| ConvertError::invalid("the reservation's features", error))?,
        licenses: tres_from_wire(&reservation.licenses)?,
        flags: flags_from_wire(&reservation.flags)?,
        name: reservation.name.into(),
        start: Timestamp(reservation.start_ms),
        end: Timestamp(reservation.end_ms),
        node_count: reservation.node_count,
        users: boxed(reservation.users),
        uids: reservation.uids.into_iter().map(UserId).collect(),
        accounts: boxed(reservation.accounts),
        deny: reservation.deny,
        purge_after: reservation.purge_after_secs.map(walltime),
        idle_since: codes::moment_from(reservation.idle_since_ms),
        created_by: UserId(reservation.created_by_uid),
        comment: reservation.comment.into(),
        upcoming: reservation
            .upcoming_ms
            .chunks_exact(2)
            .map(|pair| (Timestamp(pair[0]), Timestamp(pair[1])))
            .collect(),
    })
}

fn flags_to_wire(flags: &BTreeSet<ReservationFlag>) -> Vec<String> {
    let all = ReservationFlag::ALL.iter().filter(|(flag, _)| flags.contains(flag));
    all.map(|(_, name)| (*name).to_owned()).collect()
}

/// Flags by Slurm's names, in any case.
///
/// # Errors
/// If one is unknown.
pub fn flags_from_wire(names: &[String]) -> Result<BTreeSet<ReservationFlag>, ConvertError> {
    let flag = |text: &String| {
        let found = ReservationFlag::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        let (flag, _) =
            found.ok_or_else(|| ConvertError::invalid("a flag of the reservation", text))?;
        Ok(*flag)
    };
    names.iter().map(flag).collect()
}
