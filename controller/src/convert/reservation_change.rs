//! What does a message ask to change about reservations, in the core's terms?

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use penstock_core::Cluster;
use penstock_core::command::{NodeChoice, ReservationChange, ReservationRequest};
use penstock_core::model::{Constraint, Reservation, ReservationFlag};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::reservation_change::Verb;
use penstock_vocab::{NodeName, PartitionName, Timestamp, UserId, expand_unique};

use super::bounds::malformed;
use super::reservation::flags_from_wire;
use super::spec::walltime;
use crate::recurrence;

/// What reading a change of a reservation needs to know.
pub struct ReservationContext<'a> {
    /// The cluster, for what an update leaves as it is.
    pub cluster: &'a Cluster,
    /// The number of a login name.
    pub uid: &'a dyn Fn(&str) -> Option<u32>,
    /// In which recurring reservations come again.
    pub zone: &'a TimeZone,
}

/// Reads a change of reservations.
///
/// # Errors
/// If a name, a flag or a time can't be one.
pub fn reservation_change(
    change: v1::ReservationChange,
    known: &ReservationContext<'_>,
) -> Result<ReservationChange, Refusal> {
    let name: Box<str> = change.name.as_str().into();
    Ok(match change.verb() {
        Verb::Unspecified => return Err(wrong("no verb was given")),
        Verb::Delete => ReservationChange::Delete(name),
        Verb::Create => ReservationChange::Create(Box::new(request(change, None, known)?)),
        Verb::Update => {
            let old = known.cluster.reservation(&name).map(|old| &**old);
            ReservationChange::Update(name, Box::new(request(change, old, known)?))
        }
    })
}

fn wrong(detail: impl ToString) -> Refusal {
    malformed(Malformed::Other, detail.to_string())
}

fn request(
    change: v1::ReservationChange,
    old: Option<&Reservation>,
    known: &ReservationContext<'_>,
) -> Result<ReservationRequest, Refusal> {
    if change.core_count.is_some() {
        return Err(wrong("reservations of cores are not built; reserve nodes (NodeCnt=)"));
    }
    let nodes = match (change.nodes.as_deref(), change.node_count) {
        (Some(list), _) if list.eq_ignore_ascii_case("ALL") => Some(NodeChoice::All),
        (Some(list), _) => Some(NodeChoice::Named(node_names(list)?)),
        (None, Some(count)) => Some(NodeChoice::Count(count)),
        (None, None) => None,
    };
    let flags = flags(&change, old)?;
    let start = change.start_ms.map(Timestamp);
    let end = change.end_ms.map(Timestamp);
    let (users, deny_users) = names(change.users, old.map(|old| &*old.users))?;
    let (accounts, deny_accounts) = names(change.accounts, old.map(|old| &*old.accounts))?;
    let deny = deny_users.or(deny_accounts);
    let users = match users {
        None => None,
        Some(names) => Some(with_uids(names, known)?),
    };
    let partition = match change.partition.as_deref() {
        None | Some("") => None,
        Some(name) => {
            Some(PartitionName::new(name).map_err(|_| Refusal::InvalidPartition(name.into()))?)
        }
    };
    let features = change.features.as_deref().map(Constraint::parse).transpose();
    let licenses = change.licenses.into_iter().map(|one| (one.name.into(), one.count)).collect();
    let mut request = ReservationRequest {
        name: change.name.into(),
        start,
        end,
        duration_secs: change.duration_secs,
        upcoming: None,
        nodes,
        partition,
        features: features.map_err(|error| malformed(Malformed::Constraint, error.to_string()))?,
        users,
        accounts,
        deny,
        licenses: change.licenses_given.then_some(licenses),
        flags,
        purge_after: change.purge_after_secs.map(walltime),
        comment: change.comment.map(Into::into),
    };
    request.upcoming = upcoming(&request, old, known.zone);
    Ok(request)
}

/// The times at which a recurring one comes again, where what they follow from changes.
fn upcoming(
    request: &ReservationRequest,
    old: Option<&Reservation>,
    zone: &TimeZone,
) -> Option<Vec<(Timestamp, Timestamp)>> {
    let moved = request.start.is_some()
        || request.end.is_some()
        || request.duration_secs.is_some()
        || request.flags.is_some();
    if !moved {
        return None;
    }
    let start = request.start.or_else(|| old.map(|old| old.start))?;
    let end = match (request.end, request.duration_secs, old) {
        (Some(end), _, _) => end,
        (None, Some(secs), _) => start.plus_secs(secs),
        (None, None, Some(old)) => start.plus(old.end.since(old.start)),
        (None, None, None) => return None,
    };
    let none = BTreeSet::new();
    let flags = request.flags.as_ref().or_else(|| old.map(|old| &old.flags)).unwrap_or(&none);
    Some(recurrence::upcoming(start, end, flags, zone))
}

fn flags(
    change: &v1::ReservationChange,
    old: Option<&Reservation>,
) -> Result<Option<BTreeSet<ReservationFlag>>, Refusal> {
    if change.set_flags.is_empty() && change.clear_flags.is_empty() {
        return Ok(None);
    }
    let mut flags = old.map(|old| old.flags.clone()).unwrap_or_default();
    flags.extend(flags_from_wire(&change.set_flags).map_err(wrong)?);
    for flag in flags_from_wire(&change.clear_flags).map_err(wrong)? {
        flags.remove(&flag);
    }
    Ok(Some(flags))
}

/// The names of a list after a change, and whether they are those that are shut out; nothing where
/// nothing changes.
#[expect(clippy::type_complexity, reason = "two answers to one question, used once")]
fn names(
    change: Option<v1::NameListChange>,
    old: Option<&[Box<str>]>,
) -> Result<(Option<Vec<Box<str>>>, Option<bool>), Refusal> {
    let Some(change) = change else { return Ok((None, None)) };
    let shut = |name: &&String| name.starts_with('-');
    let out = change.set.iter().filter(shut).count();
    if out > 0 && out < change.set.len() {
        return Err(wrong("a list of names either lets in or shuts out, not both"));
    }
    let plain = |name: &String| -> Box<str> { name.trim_start_matches('-').into() };
    let mut names: Vec<Box<str>> = if change.set.is_empty() {
        old.unwrap_or_default().to_vec()
    } else {
        change.set.iter().map(plain).collect()
    };
    names.extend(change.add.iter().map(plain));
    names.retain(|name| !change.remove.iter().any(|gone| plain(gone) == *name));
    let deny = (!change.set.is_empty()).then_some(out > 0);
    Ok((Some(names), deny))
}

fn with_uids(
    names: Vec<Box<str>>,
    known: &ReservationContext<'_>,
) -> Result<Vec<(Box<str>, UserId)>, Refusal> {
    let with = |name: Box<str>| match (known.uid)(&name) {
        Some(uid) => Ok((name, UserId(uid))),
        None => Err(wrong(format!("there is no user {name:?} on the controller's host"))),
    };
    names.into_iter().map(with).collect()
}

fn node_names(list: &str) -> Result<Vec<NodeName>, Refusal> {
    let invalid = |text: &str| Refusal::InvalidNode(text.into());
    let names = expand_unique(list).map_err(|_| invalid(list))?;
    names.iter().map(|name| NodeName::new(name).map_err(|_| invalid(name))).collect()
}
