//! How do QOS come, change and go?

use super::super::Cluster;
use super::change::{Effects, note};
use super::edit::{check_qos, clean_name, clean_text, edit_flags, edit_list, limit_qos};
use crate::accounts::{AccountDone, ListEdit, QosSettings, Subject};
use crate::command::RecordKey;
use crate::model::{NORMAL_QOS, ONE_MILLIONTHS, Qos, UsageOwner};
use crate::policy::limits::Owner;
use crate::refusal::Refusal;

/// The highest factor of a QOS: a million times.
const MAX_FACTOR: u64 = ONE_MILLIONTHS * ONE_MILLIONTHS;

impl Cluster {
    pub(super) fn add_qos(
        &mut self,
        effects: &mut Effects,
        name: &str,
        settings: &QosSettings,
    ) -> Result<(), Refusal> {
        let name = clean_name("QOS", name)?;
        if self.accounts.qos(&name).is_some() {
            return Ok(());
        }
        let mut qos = Qos::new(&name, self.accounts.next_qos);
        qos.description = name.clone();
        self.apply_qos(&mut qos, settings)?;
        self.store_qos(qos);
        note(effects, AccountDone::Added, Subject::Qos(name));
        Ok(())
    }

    pub(super) fn modify_qos(
        &mut self,
        effects: &mut Effects,
        name: &str,
        settings: &QosSettings,
    ) -> Result<(), Refusal> {
        let mut qos = self.qos_record(name)?;
        self.apply_qos(&mut qos, settings)?;
        let name = qos.name.clone();
        self.store_qos(qos);
        note(effects, AccountDone::Modified, Subject::Qos(name));
        Ok(())
    }

    pub(super) fn delete_qos(&mut self, effects: &mut Effects, name: &str) -> Result<(), Refusal> {
        let name = self.qos_record(name)?.name;
        if *name == *NORMAL_QOS {
            return Err(Refusal::InvalidChange("QOS normal can't be deleted".into()));
        }
        let jobs = self.index.limits.queued(&Owner::qos(&name));
        if jobs > 0 {
            let text = format!("QOS {name} has {jobs} job(s) that wait or run; cancel them first");
            return Err(Refusal::JobsActive(text.into()));
        }
        self.take_out_of_lists(&name)?;
        self.settle_qos(&name);
        self.accounts.remove_qos(&name);
        self.changed.push(RecordKey::Qos(name.clone()));
        let owner = UsageOwner::Qos(name.clone());
        if self.accounts.usage.remove(&owner).is_some() {
            self.changed.push(RecordKey::Usage(owner));
        }
        note(effects, AccountDone::Deleted, Subject::Qos(name));
        Ok(())
    }

    /// Takes a QOS that goes out of the lists that name it.
    fn take_out_of_lists(&mut self, name: &str) -> Result<(), Refusal> {
        let without = |names: &[Box<str>]| -> Box<[Box<str>]> {
            names.iter().filter(|other| ***other != *name).cloned().collect()
        };
        let named = |names: &[Box<str>]| names.iter().any(|other| **other == *name);
        let assocs: Vec<_> = self.accounts.all_assocs().cloned().collect();
        for assoc in assocs {
            if assoc.default_qos.as_deref() == Some(name) {
                let who = assoc.user.as_ref().unwrap_or(&assoc.account);
                let text = format!("QOS {name} is the default of {who}; give it another first");
                return Err(Refusal::DefaultQos(text.into()));
            }
            if assoc.qos.as_deref().is_some_and(named) {
                let mut assoc = (*assoc).clone();
                // An empty list would allow all that is allowed above.
                let left = assoc.qos.as_deref().map(without);
                if left.as_ref().is_some_and(|left| left.is_empty()) {
                    let who = assoc.user.as_ref().unwrap_or(&assoc.account);
                    let text =
                        format!("QOS {name} is the only one of {who}; give it another first");
                    return Err(Refusal::DefaultQos(text.into()));
                }
                assoc.qos = left;
                self.store_assoc(assoc);
            }
        }
        let others: Vec<_> =
            self.accounts.all_qos().filter(|qos| named(&qos.preempt)).cloned().collect();
        for other in others {
            let mut other = (*other).clone();
            other.preempt = without(&other.preempt);
            self.store_qos(other);
        }
        Ok(())
    }

    fn apply_qos(&self, qos: &mut Qos, settings: &QosSettings) -> Result<(), Refusal> {
        if let Some(text) = &settings.description {
            qos.description = clean_text("a description", text)?;
        }
        if let Some(edit) = &settings.flags {
            edit_flags(qos, edit);
        }
        if let Some(edit) = &settings.preempt {
            let names = edit.names.iter().map(|name| {
                let name: Box<str> = name.to_lowercase().into();
                // A QOS may preempt itself before it is stored.
                let known = name == qos.name || self.accounts.qos(&name).is_some();
                let unknown = || Refusal::UnknownRecord(format!("there is no QOS {name}").into());
                known.then(|| name.clone()).ok_or_else(unknown)
            });
            let names = names.collect::<Result<_, _>>()?;
            qos.preempt = edit_list(&qos.preempt, &ListEdit { mode: edit.mode, names })?;
        }
        qos.priority = settings.priority.unwrap_or(qos.priority);
        qos.grace_secs = settings.grace_secs.unwrap_or(qos.grace_secs);
        qos.preempt_mode = settings.preempt_mode.unwrap_or(qos.preempt_mode);
        qos.preempt_exempt_secs = settings.preempt_exempt_secs.unwrap_or(qos.preempt_exempt_secs);
        qos.usage_factor =
            factor("UsageFactor", settings.usage_factor)?.unwrap_or(qos.usage_factor);
        if let Some(threshold) = settings.usage_threshold {
            qos.usage_threshold = factor("UsageThreshold", threshold)?;
        }
        if let Some(limit_factor) = settings.limit_factor {
            qos.limit_factor = factor("LimitFactor", limit_factor)?;
        }
        for edit in &settings.limits {
            limit_qos(qos, edit)?;
        }
        check_qos(qos)
    }

    /// Stores a QOS if it changed.
    pub(super) fn store_qos(&mut self, qos: Qos) {
        if self.accounts.qos(&qos.name).is_none_or(|old| **old != qos) {
            let name = qos.name.clone();
            if self.accounts.qos(&name).is_some_and(|old| old.flags != qos.flags) {
                // It may begin or cease to decay.
                self.settle_qos(&name);
            }
            self.changed.push(RecordKey::Qos(name));
            self.accounts.put_qos(qos);
        }
    }
}

fn factor(name: &str, millionths: Option<u64>) -> Result<Option<u64>, Refusal> {
    match millionths {
        Some(value) if value > MAX_FACTOR => {
            let most = MAX_FACTOR / ONE_MILLIONTHS;
            let text = format!("{name} is too high; at most {most} is taken");
            Err(Refusal::InvalidChange(text.into()))
        }
        value => Ok(value),
    }
}
