//! Which licences are in use, and which are left?
//!
//! A licence is taken by a run from its start to its proven end, also while it stands still: nobody
//! knows whether the program gives it back.

use std::collections::BTreeMap;

use penstock_vocab::{Timestamp, TresKind};

use super::Cluster;
use crate::model::{Reservation, Shape};
use crate::refusal::Refusal;

impl Cluster {
    /// How many of a licence runs have taken.
    #[must_use]
    pub fn licenses_in_use(&self, name: &str) -> u64 {
        self.index.licenses.get(name).copied().unwrap_or(0)
    }

    /// How many of a licence the cluster has; 0: it knows none of that name.
    #[must_use]
    pub fn licenses_total(&self, name: &str) -> u64 {
        self.config.scheduling.licenses.get(name).copied().unwrap_or(0)
    }

    /// How many of a licence a run from `from` to `until` may take beside what runs have now, inside
    /// the reservation `own` or outside of all.
    #[must_use]
    pub fn licenses_left(
        &self,
        name: &str,
        from: Timestamp,
        until: Timestamp,
        own: Option<&Reservation>,
    ) -> u64 {
        let kind = TresKind::License(name.into());
        let kept = self.reservations.values().filter(|other| {
            own.is_none_or(|own| own.name != other.name) && other.overlaps(from, until)
        });
        let kept = kept.filter_map(|other| {
            let kept = other.licenses.get(&kind)?;
            // What its own jobs have taken of it is counted already.
            Some(kept.saturating_sub(self.licenses_taken_in(&other.name, name)))
        });
        let kept: u64 = kept.fold(0, u64::saturating_add);
        let left = self.licenses_total(name).saturating_sub(self.licenses_in_use(name));
        match own.and_then(|own| own.licenses.get(&kind).map(|most| (own, *most))) {
            // Those that were set aside for it are the ones that it gets.
            Some((own, most)) => {
                let most = most.saturating_sub(self.licenses_taken_in(&own.name, name));
                left.min(most)
            }
            None => left.saturating_sub(kept),
        }
    }

    /// How many of a licence the runs in a reservation have taken.
    fn licenses_taken_in(&self, reservation: &str, name: &str) -> u64 {
        self.jobs_running_in(reservation)
            .flat_map(|job| job.spec.shape.licenses.iter())
            .filter(|(taken, _)| **taken == *name)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Refuses licences that the cluster does not have, or not as many.
    pub(super) fn check_licenses(&self, shape: &Shape) -> Result<(), Refusal> {
        for (name, count) in totals(shape) {
            let total = self.licenses_total(name);
            if total < count || count == 0 {
                let known: Vec<&str> =
                    self.config.scheduling.licenses.keys().map(|name| &**name).collect();
                return Err(Refusal::InvalidLicense(
                    if count == 0 {
                        format!("licence {name}: none is asked for; give a count of at least 1")
                    } else if total > 0 {
                        format!("licence {name}: {count} asked for, the cluster has {total}")
                    } else if known.is_empty() {
                        format!("there is no licence {name}; the cluster has none")
                    } else {
                        format!("there is no licence {name}; there are {}", known.join(", "))
                    }
                    .into(),
                ));
            }
        }
        Ok(())
    }

    /// Whether a run from now to `until` finds its licences.
    pub(super) fn licenses_suffice(
        &self,
        shape: &Shape,
        until: Timestamp,
        own: Option<&Reservation>,
    ) -> bool {
        totals(shape)
            .into_iter()
            .all(|(name, count)| count <= self.licenses_left(name, self.now, until, own))
    }
}

/// Licences of a job, each name once.
fn totals(shape: &Shape) -> BTreeMap<&str, u64> {
    let mut totals = BTreeMap::new();
    for (name, count) in &shape.licenses {
        let sum: &mut u64 = totals.entry(&**name).or_insert(0);
        *sum = sum.saturating_add(*count);
    }
    totals
}
