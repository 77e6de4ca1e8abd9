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

use super::bounds::{
    MAX_LICENSES, MAX_NAME_BYTES, MAX_TEXT_BYTES, check_count, check_text, malformed,
};
use super::reservation::flags_from_wire;
use super::spec::walltime;
use crate::recurrence;

/// Most users, and most accounts, that one reservation may name.
const MAX_NAMES: usize = 1_000;

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
    check_text("the comment", change.comment.as_deref().unwrap_or_default(), MAX_TEXT_BYTES)?;
    check_text("the features", change.features.as_deref().unwrap_or_default(), MAX_TEXT_BYTES)?;
    check_count("licences", change.licenses.len(), MAX_LICENSES)?;
    let flags = flags(&change, old)?;
    let start = change.start_ms.map(Timestamp);
    let end = change.end_ms.map(Timestamp);
    let was_shut = old.is_some_and(|old| old.deny);
    let old_users = old.map(|old| &*old.users).unwrap_or_default();
    let old_accounts = old.map(|old| &*old.accounts).unwrap_or_default();
    let deny = one_side(
        was_shut,
        [(change.users.as_ref(), old_users), (change.accounts.as_ref(), old_accounts)],
    )?;
    let users = change.users.map(|change| names(&change, old_users)).transpose()?;
    let accounts = change.accounts.map(|change| names(&change, old_accounts)).transpose()?;
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

/// Whether users and accounts are shut out after changes of both lists: a reservation lets in or shuts
/// out all whom it names. `None`: nothing says anything new about it.
fn one_side(
    was_shut: bool,
    lists: [(Option<&v1::NameListChange>, &[Box<str>]); 2],
) -> Result<Option<bool>, Refusal> {
    let (mut given, mut kept) = (BTreeSet::new(), false);
    for (change, old) in lists {
        let (set, add) = change.map_or((&[][..], &[][..]), |change| (&change.set, &change.add));
        // A name that is added without a minus joins the list, whatever that is.
        given.extend(set.iter().map(|name| name.starts_with('-')));
        given.extend(add.iter().map(|name| name.starts_with('-')).filter(|minus| *minus));
        kept |= set.is_empty() && !names_after(change, old).is_empty() && !old.is_empty();
    }
    given.extend(kept.then_some(was_shut).filter(|_| !given.is_empty()));
    match given.len() {
        0 => Ok(None),
        1 => Ok(given.first().copied()),
        _ => Err(wrong(
            "the users and accounts of a reservation are either all let in or all shut out (by a \
             minus before each name)",
        )),
    }
}

/// The names of a list after a change, within bounds.
fn names(change: &v1::NameListChange, old: &[Box<str>]) -> Result<Vec<Box<str>>, Refusal> {
    let names = names_after(Some(change), old);
    check_count("names", names.len(), MAX_NAMES)?;
    names.iter().try_for_each(|name| check_text("a name", name, MAX_NAME_BYTES))?;
    Ok(names)
}

fn names_after(change: Option<&v1::NameListChange>, old: &[Box<str>]) -> Vec<Box<str>> {
    let Some(change) = change else { return old.to_vec() };
    let plain = |name: &String| -> Box<str> { name.trim_start_matches('-').into() };
    let mut names: Vec<Box<str>> =
        if change.set.is_empty() { old.to_vec() } else { change.set.iter().map(plain).collect() };
    names.extend(change.add.iter().map(plain));
    names.retain(|name| !change.remove.iter().any(|gone| plain(gone) == *name));
    names
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A list as scontrol has it: `+a` adds, `~a` removes, all else sets.
    fn list(text: &str) -> v1::NameListChange {
        let mut change = v1::NameListChange::default();
        for name in text.split_whitespace() {
            match name.split_at(1) {
                ("+", name) => change.add.push(name.to_owned()),
                ("~", name) => change.remove.push(name.to_owned()),
                _ => change.set.push(name.to_owned()),
            }
        }
        change
    }

    #[test]
    fn a_reservation_lets_in_or_shuts_out_and_never_both() {
        // Old users, whether they are shut out, change of users, change of accounts, what is said of
        // being shut out; an exclusion must never let anybody in.
        let table = [
            ("", false, "a b", "", Ok(Some(false))),
            ("", false, "-a -b", "", Ok(Some(true))),
            ("", false, "a -b", "", Err(())),
            ("", false, "-a", "-p", Ok(Some(true))),
            ("", false, "a", "-p", Err(())),
            ("a", true, "", "p", Err(())),
            ("a", true, "", "-p", Ok(Some(true))),
            ("a", true, "b", "", Ok(Some(false))),
            ("a", true, "~a", "p", Ok(Some(false))),
            ("a", false, "+-b", "", Err(())),
            ("a", true, "+-b", "", Ok(Some(true))),
            ("a", true, "+b", "", Ok(None)),
            ("a", true, "", "", Ok(None)),
        ];
        for (old, shut, users, accounts, expected) in table {
            let old: Vec<Box<str>> = old.split_whitespace().map(Into::into).collect();
            let (users, accounts) = (list(users), list(accounts));
            let found = one_side(shut, [(Some(&users), &old), (Some(&accounts), &[])]);
            assert_eq!(found.map_err(drop), expected, "{old:?} {shut} {users:?} {accounts:?}");
        }
    }
}
