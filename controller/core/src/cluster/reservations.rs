//! How is an advance reservation made, changed and deleted?
//!
//! Nodes asked for by count are chosen when it is made. Times that come again are civil time, of
//! which nothing is known here: whoever does reckons them ahead ([`Reservation::upcoming`]).

use std::collections::BTreeSet;

use penstock_vocab::{NodeName, Timestamp, TresKind, UserId};

use super::Cluster;
use super::reserved::lies_over;
use crate::command::{
    Caller, MAX_UPCOMING, NodeChoice, Reply, ReservationChange, ReservationRequest,
};
use crate::model::{Constraint, RECURRING, ROOT_ACCOUNT, Reservation, ReservationFlag};
use crate::refusal::{Refusal, ReservationFault};

/// Most reservations: each start and each look of the clock goes through them.
const MAX_RESERVATIONS: usize = 1_000;
/// How far in the past a start may lie: "now" was said by somebody a moment ago, seconds.
const NOW_SECS: u64 = 60;
/// Length of a reservation that states none, seconds: Slurm's year.
const ENDLESS_SECS: u64 = 365 * 24 * 3_600;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;

pub(super) fn refuse(fault: ReservationFault, detail: impl Into<Box<str>>) -> Refusal {
    Refusal::Reservation { fault, detail: detail.into() }
}

impl Cluster {
    pub(super) fn change_reservation(
        &mut self,
        caller: &Caller,
        change: ReservationChange,
    ) -> Result<Reply, Refusal> {
        if !caller.admin {
            let text = "only admins may make, change and delete reservations";
            return Err(Refusal::AccessDenied(text.into()));
        }
        match change {
            ReservationChange::Create(request) => self.create_reservation(caller, &request),
            ReservationChange::Update(name, request) => self.update_reservation(&name, &request),
            ReservationChange::Delete(name) => self.delete_reservation(&name),
            ReservationChange::Extend(name, upcoming) => self.extend_reservation(&name, upcoming),
        }
    }

    fn create_reservation(
        &mut self,
        caller: &Caller,
        request: &ReservationRequest,
    ) -> Result<Reply, Refusal> {
        if self.reservations.len() >= MAX_RESERVATIONS {
            let detail = format!("there are {MAX_RESERVATIONS} reservations, the most that can be");
            return Err(refuse(ReservationFault::Invalid, detail));
        }
        let name = self.new_name(request)?;
        let Some(start) = request.start else {
            return Err(refuse(ReservationFault::Time, "a reservation needs a StartTime"));
        };
        let mut new = blank(name.clone(), start, caller.uid);
        apply(&mut new, request)?;
        new.end = end_of(request, start).unwrap_or_else(|| start.plus_secs(ENDLESS_SECS));
        self.check_facts(&new)?;
        self.check_times(&new)?;
        if new.start < self.now.minus_secs(NOW_SECS) {
            return Err(refuse(ReservationFault::Time, "its start lies in the past"));
        }
        self.check_set_aside(&new)?;
        self.choose_nodes(&mut new, request.nodes.as_ref())?;
        self.put_reservation(new);
        Ok(Reply::Reserved(name))
    }

    /// The name asked for, else one made of the first user or account, as Slurm has it.
    fn new_name(&self, request: &ReservationRequest) -> Result<Box<str>, Refusal> {
        let name = &request.name;
        if name.is_empty() {
            let user = request.users.iter().flatten().map(|(name, _)| name);
            let first = user.chain(request.accounts.iter().flatten()).next();
            let first = first.map_or("resv", |name| name);
            let names = (1..=MAX_RESERVATIONS + 1).map(|n| format!("{first}_{n}"));
            let mut free = names.filter(|name| !self.reservations.contains_key(name.as_str()));
            return Ok(free.next().unwrap_or_default().into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+@".contains(c);
        if name.len() > MAX_NAME || !name.chars().all(plain) {
            let detail = format!(
                "{name:?} can't be a name of a reservation: letters, digits and _ - . + @, at most \
                 {MAX_NAME}"
            );
            return Err(refuse(ReservationFault::Invalid, detail));
        }
        if self.reservations.contains_key(name) {
            let detail = format!("there is a reservation {name} already");
            return Err(refuse(ReservationFault::Duplicate, detail));
        }
        Ok(name.clone())
    }

    fn update_reservation(
        &mut self,
        name: &str,
        request: &ReservationRequest,
    ) -> Result<Reply, Refusal> {
        let old = self.reservations.get(name).cloned().ok_or_else(|| unknown(name))?;
        if *request == (ReservationRequest { name: request.name.clone(), ..Default::default() }) {
            return Err(Refusal::NoChange);
        }
        let mut new = (*old).clone();
        if let Some(start) = request.start {
            // What has no end of its own keeps its length.
            let length = old.end.since(old.start);
            (new.start, new.end) = (start, start.plus(length));
        }
        apply(&mut new, request)?;
        new.end = end_of(request, new.start).unwrap_or(new.end);
        self.check_facts(&new)?;
        self.check_times(&new)?;
        if new.start != old.start && new.start < self.now.minus_secs(NOW_SECS) {
            return Err(refuse(ReservationFault::Time, "its start lies in the past"));
        }
        if request.licenses.is_some() || new.start != old.start || new.end != old.end {
            self.check_set_aside(&new)?;
        }
        let moved = new.start < old.start || new.end > old.end || request.upcoming.is_some();
        let others = request.partition.is_some() || request.features.is_some();
        let choice = request.nodes.clone().or_else(|| {
            // At other times its nodes may be somebody else's; of another kind they must be others.
            let same = NodeChoice::Named(old.nodes.to_vec());
            match old.node_count {
                Some(count) if moved || others => Some(NodeChoice::Count(count)),
                _ if moved && !old.nodes.is_empty() => Some(same),
                _ => None,
            }
        });
        if choice.is_some() {
            self.choose_nodes(&mut new, choice.as_ref())?;
        }
        self.put_reservation(new);
        Ok(Reply::Done)
    }

    fn delete_reservation(&mut self, name: &str) -> Result<Reply, Refusal> {
        if !self.reservations.contains_key(name) {
            return Err(unknown(name));
        }
        if let Some(job) = self.jobs_running_in(name).next() {
            let detail = format!("job {} runs in reservation {name}", job.id);
            return Err(refuse(ReservationFault::InUse, detail));
        }
        self.remove_reservation(name);
        Ok(Reply::Done)
    }

    fn extend_reservation(
        &mut self,
        name: &str,
        upcoming: Vec<(Timestamp, Timestamp)>,
    ) -> Result<Reply, Refusal> {
        let old = self.reservations.get(name).cloned().ok_or_else(|| unknown(name))?;
        let mut new = (*old).clone();
        let last = new.windows().last().map_or(new.end, |(_, end)| end);
        let mut times = new.upcoming.into_vec();
        times.extend(upcoming.into_iter().filter(|(start, _)| *start >= last));
        times.truncate(MAX_UPCOMING);
        new.upcoming = times.into_boxed_slice();
        self.check_facts(&new)?;
        if new != *old {
            self.put_reservation(new);
        }
        Ok(Reply::Done)
    }

    /// Recurring reservations of which fewer than `least` times are known ahead.
    pub fn reservations_to_extend(&self, least: usize) -> impl Iterator<Item = &Reservation> {
        let few = move |one: &&Reservation| one.recurs() && one.upcoming.len() < least;
        self.reservations.values().map(|one| &**one).filter(few)
    }

    /// What a reservation says must make sense by itself.
    fn check_facts(&self, new: &Reservation) -> Result<(), Refusal> {
        let invalid = |detail: &str| Err(refuse(ReservationFault::Invalid, detail));
        if new.uids.is_empty() && new.accounts.is_empty() {
            let detail = "a reservation needs Users= or Accounts= who may use it";
            return Err(refuse(ReservationFault::Nobody, detail));
        }
        if let Some(account) = self.unknown_account(&new.accounts) {
            return invalid(&format!("there is no account {account:?}"));
        }
        if let Some(name) = new.partition.as_ref().filter(|name| self.partition(name).is_none()) {
            return Err(Refusal::InvalidPartition(name.as_str().into()));
        }
        if RECURRING.iter().filter(|flag| new.has(**flag)).count() > 1 {
            return invalid("of DAILY, WEEKLY, WEEKDAY and WEEKEND it can have one only");
        }
        if !new.recurs() && !new.upcoming.is_empty() {
            return invalid("times after the first are for DAILY, WEEKLY, WEEKDAY and WEEKEND");
        }
        if new.has(ReservationFlag::PartNodes) && new.partition.is_none() {
            return invalid("PART_NODES needs PartitionName=");
        }
        let mut windows = new.windows();
        let Some(mut last) = windows.next() else { return Ok(()) };
        for next in windows {
            if next.0 < last.1 || next.1 <= next.0 {
                return invalid("it comes again before it has ended; make it shorter");
            }
            last = next;
        }
        Ok(())
    }

    fn unknown_account<'a>(&self, names: &'a [Box<str>]) -> Option<&'a str> {
        // Without any account but the root's nobody has entered any: names are taken as they come.
        let entered = self.accounts.all_accounts().any(|account| *account.name != *ROOT_ACCOUNT);
        let unknown = names.iter().find(|name| self.accounts.account(name).is_none());
        unknown.filter(|_| entered).map(|name| &**name)
    }

    fn check_times(&self, new: &Reservation) -> Result<(), Refusal> {
        if new.end <= new.start {
            return Err(refuse(ReservationFault::Time, "it ends before it begins"));
        }
        if new.end <= self.now {
            return Err(refuse(ReservationFault::Time, "its end lies in the past"));
        }
        Ok(())
    }

    /// Licences must exist, and not be set aside for others at the same time.
    fn check_set_aside(&self, new: &Reservation) -> Result<(), Refusal> {
        for (kind, count) in &new.licenses {
            let TresKind::License(name) = kind else { continue };
            let total = self.licenses_total(name);
            if total < *count {
                let detail = format!("licence {name}: {count} asked for, the cluster has {total}");
                return Err(Refusal::InvalidLicense(detail.into()));
            }
            let others = self
                .reservations
                .values()
                .filter(|other| other.name != new.name && meet(new, other));
            let kept: u64 = others
                .filter_map(|other| other.licenses.get(kind))
                .fold(0, |sum, count| sum.saturating_add(*count));
            if total.saturating_sub(kept) < *count {
                let detail =
                    format!("licence {name}: {kept} of {total} are in other reservations then");
                return Err(refuse(ReservationFault::Overlap, detail));
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> Refusal {
    let detail = format!("there is no reservation {name:?}");
    refuse(ReservationFault::Invalid, detail)
}

/// Whether two reservations are open at the same time once.
pub(super) fn meet(one: &Reservation, other: &Reservation) -> bool {
    one.windows().any(|(start, end)| other.overlaps(start, end))
}

/// Whether two reservations may not share nodes.
pub(super) fn clash(one: &Reservation, other: &Reservation) -> bool {
    one.name != other.name && !lies_over(one) && meet(one, other)
}

fn end_of(request: &ReservationRequest, start: Timestamp) -> Option<Timestamp> {
    request.end.or_else(|| Some(start.plus_secs(request.duration_secs?)))
}

fn blank(name: Box<str>, start: Timestamp, created_by: UserId) -> Reservation {
    Reservation {
        name,
        start,
        end: start,
        upcoming: Box::default(),
        nodes: Box::default(),
        node_count: None,
        partition: None,
        features: Constraint::default(),
        users: Box::default(),
        uids: Box::default(),
        accounts: Box::default(),
        deny: false,
        licenses: crate::model::TresLimits::new(),
        flags: BTreeSet::new(),
        purge_after: None,
        idle_since: None,
        created_by,
        comment: "".into(),
    }
}

/// Takes over what a request says, but for the nodes and the end.
fn apply(new: &mut Reservation, request: &ReservationRequest) -> Result<(), Refusal> {
    if let Some(upcoming) = &request.upcoming {
        if upcoming.len() > MAX_UPCOMING {
            return Err(Refusal::TooManyItems { got: upcoming.len(), limit: MAX_UPCOMING });
        }
        new.upcoming = upcoming.clone().into_boxed_slice();
    }
    if let Some(partition) = &request.partition {
        new.partition = Some(partition.clone());
    }
    if let Some(features) = &request.features {
        new.features = features.clone();
    }
    if let Some(users) = &request.users {
        new.users = users.iter().map(|(name, _)| name.clone()).collect();
        new.uids = users.iter().map(|(_, uid)| *uid).collect();
    }
    if let Some(accounts) = &request.accounts {
        new.accounts = accounts.clone().into_boxed_slice();
    }
    if let Some(licenses) = &request.licenses {
        new.licenses.clear();
        for (name, count) in licenses {
            let sum = new.licenses.entry(TresKind::License(name.clone())).or_insert(0);
            *sum = sum.saturating_add(*count);
        }
    }
    new.deny = request.deny.unwrap_or(new.deny);
    if let Some(flags) = &request.flags {
        // What was stored before it was refused may stay.
        if flags.contains(&ReservationFlag::AnyNodes) && !new.has(ReservationFlag::AnyNodes) {
            let detail = "the flag ANY_NODES is not built; leave it out";
            return Err(refuse(ReservationFault::Invalid, detail));
        }
        new.flags.clone_from(flags);
    }
    new.purge_after = request.purge_after.or(new.purge_after);
    if let Some(comment) = &request.comment {
        new.comment.clone_from(comment);
    }
    Ok(())
}

/// Names of nodes, each once, in the order given.
pub(super) fn each_once(names: &[NodeName]) -> Box<[NodeName]> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| seen.insert(*name)).cloned().collect()
}
