//! How do accounts and the users in them come, change, move and go?

use super::super::Cluster;
use super::change::{Effects, new_account, note};
use super::edit::{clean_name, clean_text, edit_list, limit_assoc};
use crate::accounts::{AccountDone, AssocSettings, EditMode, ListEdit, Place, Subject};
use crate::command::RecordKey;
use crate::model::{AssocId, Association, ROOT_ACCOUNT};
use crate::policy::limits::Owner;
use crate::refusal::Refusal;

impl Cluster {
    pub(super) fn add_account(
        &mut self,
        effects: &mut Effects,
        name: &str,
        parent: &str,
        (description, organization): (&str, &str),
        settings: &AssocSettings,
    ) -> Result<(), Refusal> {
        let name = clean_name("account", name)?;
        if self.accounts.account(&name).is_some() {
            return Ok(());
        }
        let parent = if parent.is_empty() { ROOT_ACCOUNT } else { parent };
        let (above, place) = self.account_record(parent)?;
        let mut account = new_account(&name, &above.name);
        if !description.is_empty() {
            account.description = clean_text("a description", description)?;
        }
        if !organization.is_empty() {
            account.organization = clean_text("an organization", organization)?;
        }
        let mut assoc = Association::new(self.next_assoc(), &name, None, Some(place.id));
        self.apply_settings(&mut assoc, settings)?;
        self.store_account(account);
        self.store_assoc(assoc);
        note(effects, AccountDone::Added, Subject::Account(name));
        Ok(())
    }

    pub(super) fn modify_account(
        &mut self,
        effects: &mut Effects,
        name: &str,
        parent: Option<&str>,
        (description, organization): (Option<&str>, Option<&str>),
        settings: &AssocSettings,
    ) -> Result<(), Refusal> {
        let (mut account, mut assoc) = self.account_record(name)?;
        let fallback = new_account(&account.name, self.account_above(&assoc));
        if let Some(text) = description {
            account.description = clean_text("a description", text)?;
        }
        if let Some(text) = organization {
            account.organization = clean_text("an organization", text)?;
        }
        if account.description.is_empty() {
            account.description = fallback.description;
        }
        if account.organization.is_empty() {
            account.organization = fallback.organization;
        }
        if let Some(parent) = parent {
            self.move_account(&mut assoc, parent)?;
        }
        self.apply_settings(&mut assoc, settings)?;
        // Somebody cares for it now.
        assoc.implicit = false;
        let name = account.name.clone();
        self.store_account(account);
        self.store_assoc(assoc);
        note(effects, AccountDone::Modified, Subject::Account(name));
        Ok(())
    }

    fn account_above(&self, assoc: &Association) -> &str {
        let above = assoc.parent.and_then(|parent| self.accounts.assoc(parent));
        above.map_or(ROOT_ACCOUNT, |above| &above.account)
    }

    /// Puts an account, with everything below it, under another; what is counted moves along.
    fn move_account(&mut self, assoc: &mut Association, parent: &str) -> Result<(), Refusal> {
        if assoc.id == AssocId::ROOT {
            return Err(Refusal::InvalidChange("account root has nothing above it".into()));
        }
        let (_, above) = self.account_record(parent)?;
        if self.accounts.chain(above.id).any(|step| step.id == assoc.id) {
            let (name, parent) = (&assoc.account, &above.account);
            let text = if name == parent {
                format!("account {name} can't be its own parent")
            } else {
                format!("account {parent} stands below account {name} and can't be its parent")
            };
            return Err(Refusal::InvalidChange(text.into()));
        }
        let old = self.ids_above(assoc.parent);
        let new = self.ids_above(Some(above.id));
        self.index.limits.shift(assoc.id, &old, &new);
        assoc.parent = Some(above.id);
        self.store_assoc(assoc.clone());
        Ok(())
    }

    fn ids_above(&self, from: Option<AssocId>) -> Vec<AssocId> {
        let chain = from.into_iter().flat_map(|id| self.accounts.chain(id));
        chain.map(|assoc| assoc.id).collect()
    }

    pub(super) fn delete_account(
        &mut self,
        effects: &mut Effects,
        name: &str,
    ) -> Result<(), Refusal> {
        let (account, assoc) = self.account_record(name)?;
        if assoc.id == AssocId::ROOT {
            return Err(Refusal::InvalidChange("account root can't be deleted".into()));
        }
        self.refuse_active(&assoc, &format!("account {}", account.name))?;
        let below = self.subtree(assoc.id);
        // From the leaves up, so that what was charged ends in the account above.
        for assoc in below.iter().rev() {
            self.drop_assoc(assoc);
            let subject = if assoc.user.is_some() {
                Subject::Assoc(place_of(assoc))
            } else {
                self.accounts.accounts.remove(&assoc.account);
                self.changed.push(RecordKey::Account(assoc.account.clone()));
                Subject::Account(assoc.account.clone())
            };
            note(effects, AccountDone::Deleted, subject);
        }
        for user in below.iter().filter_map(|assoc| assoc.user.as_deref()) {
            self.forget_default(user);
        }
        Ok(())
    }

    /// An association and all below it, those above first.
    fn subtree(&self, id: AssocId) -> Vec<Association> {
        let mut found = Vec::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if let Some(assoc) = self.accounts.assoc(id) {
                found.push((**assoc).clone());
                open.extend(self.accounts.children(id).map(|child| child.id));
            }
        }
        found
    }

    /// A user who is in no account any more has no default. One who is in another must be given that
    /// as default first; it is seen at the end of the command.
    fn forget_default(&mut self, user: &str) {
        let Some(user) = self.accounts.user(user) else { return };
        if user.default_account.is_empty() || self.accounts.is_in(&user.name, &user.default_account)
        {
            return;
        }
        let mut user = (**user).clone();
        if self.accounts.assocs_of(&user.name).next().is_none() {
            user.default_account = "".into();
            self.store_user(user);
        } else {
            // Looked at with those that changed.
            self.changed.push(RecordKey::User(user.name));
        }
    }

    pub(super) fn add_assoc(
        &mut self,
        effects: &mut Effects,
        place: &Place,
        settings: &AssocSettings,
    ) -> Result<(), Refusal> {
        let mut user = self.user_record(&place.user)?;
        let (account, above) = self.account_record(&place.account)?;
        if let Some(partition) = &place.partition
            && self.partition(partition).is_none()
        {
            return Err(Refusal::InvalidPartition(partition.as_str().into()));
        }
        let known =
            self.accounts.assoc_at(&account.name, Some(&user.name), place.partition.as_ref());
        if known.is_some() {
            return Ok(());
        }
        let id = self.next_assoc();
        let mut assoc = Association::new(id, &account.name, Some(&user.name), Some(above.id));
        assoc.partition.clone_from(&place.partition);
        self.apply_settings(&mut assoc, settings)?;
        let subject = Subject::Assoc(place_of(&assoc));
        self.store_assoc(assoc);
        if user.default_account.is_empty() {
            user.default_account = account.name;
            self.store_user(user);
        }
        note(effects, AccountDone::Added, subject);
        Ok(())
    }

    pub(super) fn modify_assoc(
        &mut self,
        effects: &mut Effects,
        place: &Place,
        settings: &AssocSettings,
    ) -> Result<(), Refusal> {
        let (place, mut assoc) = self.assoc_record(place)?;
        self.apply_settings(&mut assoc, settings)?;
        assoc.implicit = false;
        self.store_assoc(assoc);
        note(effects, AccountDone::Modified, Subject::Assoc(place));
        Ok(())
    }

    pub(super) fn delete_assoc(
        &mut self,
        effects: &mut Effects,
        place: &Place,
    ) -> Result<(), Refusal> {
        let (place, assoc) = self.assoc_record(place)?;
        self.refuse_active(&assoc, &format!("user {} in account {}", place.user, place.account))?;
        self.drop_assoc(&assoc);
        self.forget_default(&place.user);
        note(effects, AccountDone::Deleted, Subject::Assoc(place));
        Ok(())
    }

    pub(super) fn assoc_record(&self, place: &Place) -> Result<(Place, Association), Refusal> {
        let account = place.account.to_lowercase();
        let user = place.user.to_lowercase();
        let id = self.accounts.assoc_at(&account, Some(&user), place.partition.as_ref());
        match id.and_then(|id| self.accounts.assoc(id)) {
            Some(assoc) => Ok((place_of(assoc), (**assoc).clone())),
            None => {
                let of = place.partition.as_ref();
                let part = of.map(|name| format!(" for partition {name}")).unwrap_or_default();
                let text = format!("user {user} is not in account {account}{part}");
                Err(Refusal::UnknownRecord(text.into()))
            }
        }
    }

    /// Refuses to delete what jobs that wait or run are charged to.
    pub(super) fn refuse_active(&self, assoc: &Association, what: &str) -> Result<(), Refusal> {
        match self.index.limits.queued(&Owner::Assoc(assoc.id)) {
            0 => Ok(()),
            jobs => {
                let text = format!("{what} has {jobs} job(s) that wait or run; cancel them first");
                Err(Refusal::JobsActive(text.into()))
            }
        }
    }

    /// Takes an association out. What was charged to it stays charged to the account above.
    pub(super) fn drop_assoc(&mut self, assoc: &Association) {
        if let Some(parent) = assoc.parent {
            self.leave_usage(assoc.id, parent);
        }
        self.accounts.remove_assoc(assoc.id);
        self.changed.push(RecordKey::Assoc(assoc.id));
    }

    /// The number of a new association. Numbers are not used twice.
    pub(super) fn next_assoc(&mut self) -> AssocId {
        let id = AssocId(self.accounts.next_assoc);
        self.accounts.next_assoc = self.accounts.next_assoc.saturating_add(1);
        id
    }

    /// Applies settings to an association, which need not be stored yet.
    fn apply_settings(
        &self,
        assoc: &mut Association,
        settings: &AssocSettings,
    ) -> Result<(), Refusal> {
        assoc.shares = settings.shares.unwrap_or(assoc.shares);
        assoc.priority = settings.priority.unwrap_or(assoc.priority);
        for edit in &settings.limits {
            limit_assoc(assoc, edit)?;
        }
        if let Some(edit) = &settings.qos {
            assoc.qos = self.edit_allowed(assoc, edit)?;
        }
        if let Some(name) = &settings.default_qos {
            let default = if name.is_empty() { None } else { Some(self.qos_record(name)?.name) };
            assoc.default_qos = default;
        }
        let changed = settings.qos.is_some() || settings.default_qos.is_some();
        let above = assoc.parent.and_then(|parent| self.accounts.qos_allowed(parent));
        let allowed = assoc.qos.as_deref().or(above);
        match (&assoc.default_qos, allowed) {
            (Some(default), Some(allowed)) if changed && !allowed.contains(default) => {
                let text = format!(
                    "QOS {default} can't be the default: of {} only {} may be used",
                    assoc.account,
                    allowed.join(", ")
                );
                Err(Refusal::InvalidQos(text.into()))
            }
            _ => Ok(()),
        }
    }

    /// What a change makes of the QOS that may be used; `None`: those that may be used above.
    fn edit_allowed(
        &self,
        assoc: &Association,
        edit: &ListEdit,
    ) -> Result<Option<Box<[Box<str>]>>, Refusal> {
        let names = edit.names.iter().map(|name| self.qos_record(name).map(|qos| qos.name));
        let edit = ListEdit { mode: edit.mode, names: names.collect::<Result<_, _>>()? };
        if edit.mode == EditMode::Set && edit.names.is_empty() {
            return Ok(None);
        }
        let above = assoc.parent.and_then(|parent| self.accounts.qos_allowed(parent));
        let now: Vec<Box<str>> = match assoc.qos.as_deref().or(above) {
            Some(names) => names.to_vec(),
            // All may be used already.
            None if edit.mode == EditMode::Add => return Ok(None),
            None => self.accounts.all_qos().map(|qos| qos.name.clone()).collect(),
        };
        let names = edit_list(&now, &edit)?;
        if names.is_empty() {
            let text = format!("no QOS would be left for {}; delete it instead", assoc.account);
            return Err(Refusal::InvalidChange(text.into()));
        }
        Ok(Some(names))
    }
}

pub(super) fn place_of(assoc: &Association) -> Place {
    Place {
        account: assoc.account.clone(),
        user: assoc.user.clone().unwrap_or_default(),
        partition: assoc.partition.clone(),
    }
}
