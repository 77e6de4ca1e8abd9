//! Which changes would build this tree anew?

use super::Accounts;
use super::edit::{assoc_limits, qos_limits};
use crate::accounts::{
    AccountChange, AssocSettings, EditMode, FlagEdit, ListEdit, Place, QosSettings,
};
use crate::model::{AssocId, Association, NORMAL_QOS, Qos, Shares};

impl Accounts {
    /// The changes that make this tree, its users and its QOS out of an empty one, each of which may
    /// follow those before it. What exists by itself is modified; usage is left out. They may be
    /// more than one command takes.
    #[must_use]
    pub fn dump(&self) -> Vec<AccountChange> {
        let mut changes = Vec::new();
        // First all QOS, then what names them.
        for qos in self.all_qos().filter(|qos| *qos.name != *NORMAL_QOS) {
            changes.push(AccountChange::AddQos(qos.name.clone(), Box::default()));
        }
        for qos in self.all_qos() {
            let settings = qos_settings(qos);
            changes.push(AccountChange::ModifyQos(qos.name.clone(), Box::new(settings)));
        }
        for user in self.all_users() {
            changes.push(AccountChange::AddUser {
                name: user.name.clone(),
                uid: user.uid,
                default_account: "".into(),
                admin_level: user.admin_level,
            });
        }
        // From the root down; children by number, so that a dump of the same tree is the same.
        let mut open = vec![AssocId::ROOT];
        while let Some(id) = open.pop() {
            let Some(assoc) = self.assoc(id) else { continue };
            changes.push(self.assoc_change(assoc));
            let mut below: Vec<_> = self.children(id).map(|child| child.id).collect();
            below.reverse();
            open.extend(below);
        }
        for account in self.all_accounts().filter(|account| !account.coordinators.is_empty()) {
            let users = account.coordinators.to_vec();
            changes.push(AccountChange::AddCoordinators(account.name.clone(), users));
        }
        for user in self.all_users().filter(|user| !user.default_account.is_empty()) {
            changes.push(AccountChange::ModifyUser {
                name: user.name.clone(),
                uid: None,
                default_account: Some(user.default_account.clone()),
                admin_level: None,
            });
        }
        changes
    }

    fn assoc_change(&self, assoc: &Association) -> AccountChange {
        let settings = assoc_settings(assoc);
        if let Some(user) = &assoc.user {
            let place = Place {
                account: assoc.account.clone(),
                user: user.clone(),
                partition: assoc.partition.clone(),
            };
            return AccountChange::AddAssoc(place, settings);
        }
        let account = self.account(&assoc.account);
        let text = |text: Option<&str>| text.unwrap_or_default().into();
        let description = text(account.map(|account| &*account.description));
        let organization = text(account.map(|account| &*account.organization));
        match assoc.parent.and_then(|parent| self.assoc(parent)) {
            None => AccountChange::ModifyAccount {
                name: assoc.account.clone(),
                parent: None,
                description: Some(description),
                organization: Some(organization),
                settings,
            },
            Some(parent) => AccountChange::AddAccount {
                name: assoc.account.clone(),
                parent: parent.account.clone(),
                description,
                organization,
                settings,
            },
        }
    }
}

fn assoc_settings(assoc: &Association) -> AssocSettings {
    let set = |names: &[Box<str>]| ListEdit { mode: EditMode::Set, names: names.to_vec() };
    AssocSettings {
        shares: Some(assoc.shares).filter(|shares| *shares != Shares::default()),
        priority: Some(assoc.priority).filter(|priority| *priority != 0),
        limits: assoc_limits(assoc),
        qos: assoc.qos.as_deref().map(set),
        default_qos: assoc.default_qos.clone(),
    }
}

fn qos_settings(qos: &Qos) -> QosSettings {
    let list = ListEdit { mode: EditMode::Set, names: qos.preempt.to_vec() };
    let flags = FlagEdit { mode: EditMode::Set, flags: qos.flags.iter().copied().collect() };
    QosSettings {
        description: Some(qos.description.clone()),
        priority: Some(qos.priority),
        flags: Some(flags),
        grace_secs: Some(qos.grace_secs),
        preempt: Some(list),
        preempt_mode: Some(qos.preempt_mode),
        preempt_exempt_secs: Some(qos.preempt_exempt_secs),
        usage_factor: Some(qos.usage_factor),
        usage_threshold: Some(qos.usage_threshold),
        limit_factor: Some(qos.limit_factor),
        limits: qos_limits(qos),
    }
}
